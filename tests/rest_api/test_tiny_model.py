"""The whole speech half with a real engine: a tiny checkpoint of random weights."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from model.client import FailoverSession, RemoteSpeechService
from model.engine.engine import Engine, EngineOptions
from model.errors import ContextTooLong
from model.speech import (
    ReplyAudio,
    ReplyDone,
    SessionOptions,
    TurnEnd,
    UserTurn,
    Utterance,
)
from model.turn_model import TurnModel
from model.ultravox.checkpoint import Checkpoint, LoadOptions, load_checkpoint
from rest_api.service_state import RANDOM_WEIGHTS_NOTE
from tests.rest_api.serving import serving, until
from tools.make_tiny_checkpoint import write_tiny_checkpoint

OPTIONS = SessionOptions("c", "You are a helpful assistant.", max_new_tokens=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(path)
    return path


@pytest.fixture
def checkpoint(folder: Path) -> Checkpoint:
    return load_checkpoint(str(folder), LoadOptions(device="cpu", dtype="float32"))


@asynccontextmanager
async def tiny(
    checkpoint: Checkpoint, options: EngineOptions | None = None
) -> AsyncIterator[tuple[str, Engine]]:
    engine = Engine(checkpoint, options or EngineOptions(max_slots=4, num_threads=1))
    async with serving(engine=engine) as url:
        yield url, engine


def noise(seed: int, seconds: float = 1.0) -> Utterance:
    samples = np.random.default_rng(seed).normal(0, 3000, int(8000 * seconds))
    return Utterance(samples.astype("<i2").tobytes(), 8000)


async def hear(session: FailoverSession, turn: int, user: UserTurn) -> ReplyDone:
    async with aclosing(session.reply(turn, user)) as events:
        received = [event async for event in events]
    assert any(isinstance(event, ReplyAudio) for event in received)
    done = received[-1]
    assert isinstance(done, ReplyDone)
    return done


async def test_rest_and_health_tell_what_is_running(checkpoint: Checkpoint) -> None:
    async with (
        tiny(checkpoint) as (url, engine),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        health = (await client.get("/health")).json()
        text = await client.post(
            "/chat/text",
            json={"turns": [{"role": "user", "content": "Hello"}], "temperature": 0},
        )
        audio = await client.post(
            "/chat/audio",
            json={
                "audio_base64": base64.b64encode(noise(1).pcm16).decode(),
                "turns": [],
                "sampling_rate": 8000,
            },
        )
        long = await client.post(
            "/chat/text",
            json={"turns": [{"role": "user", "content": "word " * 10_000}]},
        )
        memory = (await client.get("/memory")).json()
    assert health["model"]["detail"] == RANDOM_WEIGHTS_NOTE
    assert text.json()["data"]["response"]
    assert text.json()["data"]["usage"]["completion_tokens"] > 0
    assert audio.json()["data"]["usage"]["audio_tokens"] == 7
    assert long.status_code == 422
    assert long.json()["error"]["code"] == ContextTooLong.code
    used = memory["model"]
    assert used["weights_bytes"] >= used["step_weights_bytes"] > 0
    assert used["kv_bytes"] >= used["kv_used_bytes"] > 0
    assert used["audio_bytes"] == 0, "the recording's vectors outlived its request"
    assert memory["process"]["peak_rss_bytes"] >= memory["process"]["rss_bytes"]
    assert memory["turn_model"] is health["model"]["turn_model"] is None
    assert engine.load().num_active == 0


async def test_a_turn_model_is_named_and_its_memory_told(
    checkpoint: Checkpoint,
) -> None:
    options = EngineOptions(max_slots=2, max_context_tokens=256, num_threads=1)
    async with (
        Engine(checkpoint, options) as judge,
        serving(turn_model=TurnModel(judge)) as url,
        RemoteSpeechService([url]) as speech,
        speech.open_session(OPTIONS) as session,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        async with aclosing(session.reply(0, noise(1))) as events:
            ends = [event async for event in events if isinstance(event, TurnEnd)]
        health = (await client.get("/health")).json()
        memory = (await client.get("/memory")).json()
    assert len(ends) == 1
    assert 0 < ends[0].probability < 1
    assert health["model"]["turn_model"] == checkpoint.name
    assert memory["turn_model"]["weights_bytes"] == checkpoint.weights_bytes


async def test_neighbours_change_nothing(checkpoint: Checkpoint) -> None:
    """Two dialogues at once say what each says alone: nothing leaks between them."""
    calls = [noise(seed) for seed in range(4)]

    async def dialogue(url: str, first: Utterance, second: Utterance) -> list[str]:
        async with (
            RemoteSpeechService([url]) as speech,
            speech.open_session(OPTIONS) as session,
        ):
            texts = []
            for turn, said in enumerate((first, second)):
                texts.append((await hear(session, turn, said)).text)
                await session.settle(turn)
            return texts

    pairs = [(calls[0], calls[1]), (calls[2], calls[3]), (calls[1], calls[0])]
    async with tiny(checkpoint) as (url, _):
        alone = [await dialogue(url, *pair) for pair in pairs]
        together = await asyncio.gather(*(dialogue(url, *pair) for pair in pairs))
    assert together == alone
    assert len({tuple(texts) for texts in alone}) > 1


async def test_a_second_turn_reads_only_what_is_new(checkpoint: Checkpoint) -> None:
    async with (
        tiny(checkpoint) as (url, _),
        RemoteSpeechService([url]) as speech,
        speech.open_session(OPTIONS) as session,
    ):
        first = await hear(session, 0, noise(1))
        await session.settle(0)
        second = await hear(session, 1, noise(2))
    assert first.usage.audio_tokens == 7
    assert second.usage.audio_tokens == 14
    # all of the first turn and its reply came from the cache
    assert second.usage.cached_tokens >= first.usage.prompt_tokens
    assert first.end_of_turn_probability is not None
    assert 0.0 <= first.end_of_turn_probability <= 1.0


async def test_a_forgotten_turn_leaves_no_trace(checkpoint: Checkpoint) -> None:
    async with tiny(checkpoint) as (url, _), RemoteSpeechService([url]) as speech:
        async with speech.open_session(OPTIONS) as session:
            plain = await hear(session, 0, noise(2))
        async with speech.open_session(OPTIONS) as session:
            await hear(session, 0, noise(1))
            await session.forget(0)
            after = await hear(session, 1, noise(2))
    assert after.text == plain.text
    assert after.usage.prompt_tokens == plain.usage.prompt_tokens


async def test_a_disconnect_in_mid_reply_frees_the_slot(
    checkpoint: Checkpoint,
) -> None:
    options = SessionOptions("c", "Go on.", max_new_tokens=2000)
    async with tiny(checkpoint) as (url, engine), RemoteSpeechService([url]) as speech:
        async with speech.open_session(options) as session:
            await anext(session.reply(0, noise(1)))
        await until(lambda: not engine.load().num_active)
        await until(lambda: not engine.load().num_sessions)


async def test_a_long_call_loses_its_oldest_turns_not_its_place(
    checkpoint: Checkpoint,
) -> None:
    narrow = EngineOptions(max_slots=2, max_context_tokens=300, num_threads=1)
    async with (
        tiny(checkpoint, narrow) as (url, _),
        RemoteSpeechService([url]) as speech,
        speech.open_session(OPTIONS) as session,
    ):
        sizes = []
        for turn in range(12):
            sizes.append((await hear(session, turn, noise(turn))).usage.prompt_tokens)
            await session.settle(turn)
    assert max(sizes) + OPTIONS.max_new_tokens <= 300
    assert any(after < before for before, after in itertools.pairwise(sizes))
