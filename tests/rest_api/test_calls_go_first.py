"""REST never slows a telephone call: floods of it beside live dialogues.

Who went first is counted in replies, not in seconds.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from model.client import FailoverSession, RemoteSpeechService
from model.engine.engine import Engine, EngineOptions
from model.engine.scripted import ScriptedEngine, ScriptedOptions
from model.speech import ReplyAudio, ReplyDone, SessionOptions, TypedTurn
from model.ultravox.checkpoint import LoadOptions, load_checkpoint
from rest_api.app import AppOptions
from rest_api.limits import LimitOptions
from tests.fakes.tone_synthesizer import ToneSynthesizer
from tests.rest_api.serving import serving, until
from tests.rest_api.test_chat import USER, base64_of, pcm16
from tools.make_tiny_checkpoint import write_tiny_checkpoint

OPTIONS = SessionOptions("call", "You are a helpful assistant.", max_new_tokens=12)
SLOTS = 2
CLIENTS = 14


class Flood:
    """REST clients that ask again as soon as they are answered."""

    def __init__(self, url: str, path: str, body: object, clients: int) -> None:
        self.statuses: list[int] = []
        self._url, self._path = url, path
        self._content = json.dumps(body).encode()
        self._num_clients = clients

    async def _ask(self, client: httpx.AsyncClient) -> None:
        head = {"Content-Type": "application/json"}
        while True:
            answer = await client.post(self._path, content=self._content, headers=head)
            self.statuses.append(answer.status_code)
            if answer.status_code != 200:
                await asyncio.sleep(0.05)  # as Retry-After asks, only sooner

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=self._num_clients)
        async with httpx.AsyncClient(
            base_url=self._url, timeout=100, limits=limits
        ) as client:
            asking = [
                asyncio.create_task(self._ask(client)) for _ in range(self._num_clients)
            ]
            try:
                yield
            finally:
                for task in asking:
                    task.cancel()
                await asyncio.wait(asking)


async def turn(
    session: FailoverSession, number: int, statuses: list[int]
) -> tuple[ReplyDone, int]:
    """One turn to its end, and how many statuses there were when it began."""
    async with aclosing(session.reply(number, TypedTurn("Hello?"))) as events:
        received = [await anext(events)]
        at_first = len(statuses)
        received += [event async for event in events]
    assert any(isinstance(event, ReplyAudio) for event in received)
    done = received[-1]
    assert isinstance(done, ReplyDone)
    await session.settle(number)
    return done, at_first


@pytest.mark.slow
async def test_a_callers_turn_does_not_wait_behind_rest_in_the_engine(
    tmp_path: Path,
) -> None:
    write_tiny_checkpoint(tmp_path)
    checkpoint = load_checkpoint(
        str(tmp_path), LoadOptions(device="cpu", dtype="float32")
    )
    engine = Engine(checkpoint, EngineOptions(max_slots=SLOTS, num_threads=1))
    body = {"turns": [USER], "max_new_tokens": 150, "temperature": 0}
    async with serving(engine=engine) as url, RemoteSpeechService([url]) as speech:
        flood = Flood(url, "/chat/text", body, CLIENTS)
        async with flood.running(), speech.open_session(OPTIONS) as session:
            for number in range(5):
                # every slot taken, and a dozen in line before the caller speaks
                await until(lambda: engine.load().num_waiting >= CLIENTS - SLOTS - 2)
                flood.statuses.clear()
                done, served = await turn(session, number, flood.statuses)
                assert done.usage.completion_tokens
                # in turn, all of the line would have been served first
                assert served <= SLOTS + 1
        assert set(flood.statuses) <= {200}


async def test_rest_that_is_refused_leaves_calls_their_place() -> None:
    engine = ScriptedEngine(ScriptedOptions(("One moment.",), token_interval_ms=50))
    options = AppOptions(limits=LimitOptions(all_replies_at_once=4))
    async with (
        serving(engine=engine, app=options) as url,
        RemoteSpeechService([url]) as speech,
    ):
        flood = Flood(url, "/chat/text", {"turns": [USER]}, 20)
        async with flood.running(), speech.open_session(OPTIONS) as session:
            await until(lambda: 503 in flood.statuses)
            for number in range(5):
                done, _ = await turn(session, number, flood.statuses)
                assert done.text == "One moment."
                assert engine.load().num_active <= 4


async def test_long_audio_and_speech_for_rest_do_not_stop_a_dialogue() -> None:
    body = {"audio_base64": base64_of(pcm16(60.0)), "turns": [USER], "speak": True}
    voice = ToneSynthesizer()
    async with (
        serving(replies=("A sentence. Another one.",), synthesizer=voice) as url,
        RemoteSpeechService([url]) as speech,
    ):
        flood = Flood(url, "/chat/audio", body, 12)
        async with flood.running(), speech.open_session(OPTIONS) as session:
            await until(lambda: 200 in flood.statuses)
            for number in range(5):
                assert set(flood.statuses) <= {200}
                flood.statuses.clear()
                _, served = await turn(session, number, flood.statuses)
                # a dozen wait for their turn to speak; the call is not behind them
                assert served < 12
