"""A model for the end of turns beside the one that answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from model.engine.engine import Engine, EngineOptions
from model.engine.interface import EngineLoad, ReplyEngine
from model.engine.request import GenerationRequest
from model.engine.scripted import ScriptedEngine, ScriptedOptions
from model.engine.stream import TokenStream
from model.errors import EngineOverloaded, SpeechOverloaded
from model.local_session import LocalSession
from model.service import LocalSpeechService
from model.speech import (
    ReplyDone,
    ReplyEvent,
    SessionOptions,
    TurnEnd,
    TypedTurn,
    UserTurn,
    Utterance,
)
from model.tts.speaker import Speaker
from model.turn_model import TurnModel
from model.ultravox.checkpoint import LoadOptions, load_checkpoint
from model.ultravox.clip import AudioClip
from model.ultravox.config import TurnEndBounds
from tests.fakes.tone_synthesizer import ToneSynthesizer
from tests.model.engine.prompts import wave
from tools.make_tiny_checkpoint import write_tiny_checkpoint

OPTIONS: Final = SessionOptions("call-1", "Be brief.")
MAIN: Final = ScriptedOptions(
    ("Hello there.",), end_of_turn_probability=0.5, turn_end=TurnEndBounds(0.9, 0.2)
)


class Judge(ScriptedEngine):
    """Tells a turn's end after a while; remembers what it was to read."""

    def __init__(self, after_ms: int = 0, busy_share: float = 0.0) -> None:
        bounds = TurnEndBounds(0.1)
        super().__init__(
            ScriptedOptions(
                first_token_ms=after_ms, end_of_turn_probability=0.75, turn_end=bounds
            )
        )
        self.read: list[list[tuple[str, str, int]]] = []
        self.busy_share = busy_share
        self.is_full = False

    def submit(self, request: GenerationRequest) -> TokenStream:
        if self.is_full:
            raise EngineOverloaded("no time")
        assert request.max_new_tokens == 0
        self.read.append(
            [(m.role, m.text, len(m.clips)) for m in request.prompt.messages]
        )
        return super().submit(request)

    def load(self) -> EngineLoad:
        return replace(super().load(), busy_share=self.busy_share)


@asynccontextmanager
async def talking(judge: ReplyEngine) -> AsyncIterator[LocalSession]:
    synthesizer = ToneSynthesizer()
    async with judge, ScriptedEngine(MAIN) as main:
        service = LocalSpeechService(
            main, synthesizer, Speaker(synthesizer), turn_model=TurnModel(judge)
        )
        async with service.open_session(OPTIONS) as session:
            yield session


def speech(seed: int = 1) -> Utterance:
    samples = (8000 * wave(seed, 8000)).astype("<i2")
    return Utterance(samples.tobytes(), 8000)


async def hear(session: LocalSession, turn: int, user: UserTurn) -> list[ReplyEvent]:
    async with aclosing(session.reply(turn, user)) as events:
        return [event async for event in events]


async def test_its_probability_and_bounds_stand_for_the_main_models() -> None:
    async with talking(Judge()) as session:
        events = await hear(session, 0, speech())
    ends = [event for event in events if isinstance(event, TurnEnd)]
    assert ends == [TurnEnd(0, 0.75, 0.1, None)]
    done = events[-1]
    assert isinstance(done, ReplyDone)
    assert done.end_of_turn_probability == 0.75


async def test_it_reads_the_bots_last_words_and_the_callers_speech() -> None:
    judge = Judge()
    async with talking(judge) as session:
        async with aclosing(session.say(0, "How old are you?")) as greeting:
            async for _ in greeting:
                pass
        await session.settle(0)
        await hear(session, 1, speech(1))
        await session.settle(1)
        await hear(session, 2, TypedTurn("Hm."))  # nothing to hear, nothing to ask
        await session.settle(2)
        await hear(session, 3, speech(2))
    assert judge.read == [
        [("assistant", "How old are you?", 0), ("user", "", 1)],
        [("assistant", "Hello there.", 0), ("user", "", 1)],
    ]


async def test_without_time_for_it_silence_decides(
    caplog: pytest.LogCaptureFixture,
) -> None:
    judge = Judge()
    judge.is_full = True
    async with talking(judge) as session:
        events = await hear(session, 0, speech())
    assert not any(isinstance(event, TurnEnd) for event in events)
    assert isinstance(events[-1], ReplyDone)
    assert events[-1].end_of_turn_probability is None
    assert "turn_model_failed" in caplog.text


async def test_a_reply_does_not_wait_for_it() -> None:
    judge = Judge(after_ms=60_000)
    async with asyncio.timeout(20), talking(judge) as session:
        events = await hear(session, 0, speech())
        assert isinstance(events[-1], ReplyDone)
        assert judge.load().num_active == 0, "its request was left running"


async def test_its_time_counts_where_calls_are_let_in() -> None:
    judge, synthesizer, now_s = Judge(busy_share=0.9), ToneSynthesizer(), 0.0
    async with judge, ScriptedEngine(MAIN) as main, AsyncExitStack() as calls:
        service = LocalSpeechService(
            main,
            synthesizer,
            Speaker(synthesizer),
            clock=lambda: now_s,
            turn_model=TurnModel(judge),
        )
        for _ in range(3):
            await calls.enter_async_context(service.open_session(OPTIONS))
        now_s = 15.0
        with pytest.raises(SpeechOverloaded):
            await calls.enter_async_context(service.open_session(OPTIONS))


@pytest.mark.slow
async def test_a_real_checkpoint_hears_with_an_encoder_of_its_own(
    tmp_path: Path,
) -> None:
    write_tiny_checkpoint(tmp_path)
    checkpoint = load_checkpoint(
        str(tmp_path), LoadOptions(device="cpu", dtype="float32")
    )
    options = EngineOptions(max_slots=2, max_context_tokens=512, num_threads=1)
    async with Engine(checkpoint, options) as engine:
        judge = TurnModel(engine)
        clip = AudioClip(wave(1))
        clip_of_main = clip.twin()
        end = await judge.turn_end(3, "How old are you?", clip)
        other = await judge.turn_end(4, "What is the time?", AudioClip(wave(1)))
        # What the checkpoint itself makes of the same words, all at once.
        dialogue = engine.new_dialogue()
        dialogue.append_assistant_text("How old are you?")
        dialogue.append_user_clip(AudioClip(wave(1)))
        async with engine.submit(
            GenerationRequest(dialogue.prompt(), max_new_tokens=1)
        ) as stream:
            async for _ in stream:
                pass
    assert end == TurnEnd(3, end.probability)
    assert stream.end_of_turn_probability is not None
    assert np.isclose(end.probability, stream.end_of_turn_probability, rtol=1e-3)
    assert other.probability != end.probability, "the bot's words make no difference"
    assert clip.vectors is not None
    assert clip_of_main.vectors is None
