"""A thousand callers who hang up, and every request that makes no sense."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from model.engine.engine import Engine, EngineOptions
from model.engine.request import GenerationRequest, Priority
from model.errors import (
    ContextTooLong,
    InvalidAudio,
    InvalidRequest,
    SpeechOverloaded,
)
from model.ultravox.clip import AudioClip
from model.ultravox.inputs import Dialogue
from tests.model.engine.prompts import TODAY, wave

if TYPE_CHECKING:
    from model.ultravox.checkpoint import Checkpoint

_OPTIONS = EngineOptions(max_slots=8, max_context_tokens=512, max_waiting=2000)


def _dialogue(checkpoint: Checkpoint) -> Dialogue:
    return Dialogue(checkpoint.chat, "Be brief.", today=TODAY)


async def _answer(engine: Engine, dialogue: Dialogue, **options: Any) -> str:
    async with engine.submit(GenerationRequest(dialogue.prompt(), **options)) as s:
        async for _ in s:
            pass
    return s.text


@pytest.mark.slow
async def test_a_storm_of_cancellations_leaves_nothing_behind(
    checkpoint: Checkpoint,
) -> None:
    rng = random.Random(4)
    pool = [wave(seed, 2_000 + 900 * seed) for seed in range(8)]

    async def hang_up(engine: Engine) -> None:
        session = engine.open_session()
        dialogue = _dialogue(checkpoint)
        dialogue.append_user_audio(rng.choice(pool))
        request = GenerationRequest(
            dialogue.prompt(),
            session=session,
            priority=rng.choice(list(Priority)),
            max_new_tokens=60,
            min_new_tokens=60,
        )
        await asyncio.sleep(rng.uniform(0, 1))
        stream = engine.submit(request)
        if rng.random() < 0.2:
            del stream  # forgotten, not closed
        elif rng.random() < 0.5:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rng.uniform(0, 0.05)), stream:
                    async for _ in stream:
                        await asyncio.sleep(0.05)  # a slow reader
        else:
            for _ in range(rng.randrange(4)):
                await anext(stream)
            await stream.aclose()
        session.close()

    async with Engine(checkpoint, _OPTIONS) as engine:
        question = _dialogue(checkpoint)
        question.append_user_audio(wave(99))
        before = await _answer(engine, question, max_new_tokens=12)
        gc.collect()
        memory, tasks = engine.memory(), len(asyncio.all_tasks())
        await asyncio.gather(*(hang_up(engine) for _ in range(500)))
        # From here on: the first half also filled torch's caches of shapes.
        rss_bytes = psutil.Process().memory_info().rss
        await asyncio.gather(*(hang_up(engine) for _ in range(500)))
        gc.collect()
        async with asyncio.timeout(20):
            while engine.load().num_active or engine.load().num_waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        gc.collect()
        load, after = engine.load(), engine.memory()
        assert (load.num_active, load.num_waiting, load.num_sessions) == (0, 0, 0)
        assert after["audio_bytes"] == memory["audio_bytes"]
        assert after["kv_bytes"] == memory["kv_bytes"]
        assert len(asyncio.all_tasks()) == tasks
        assert psutil.Process().memory_info().rss - rss_bytes < 64 << 20
        # Every slot can be used again, and the reply is what it was.
        again = []
        for _ in range(_OPTIONS.max_slots):
            same = _dialogue(checkpoint)
            same.append_user_audio(wave(99))
            again.append(_answer(engine, same, max_new_tokens=12))
        assert await asyncio.gather(*again) == [before] * _OPTIONS.max_slots


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0, np.float32),
        np.array([0.1, np.nan, 0.2], np.float32),
        np.array([0.1, np.inf], np.float32),
        np.zeros((2, 800), np.float32),
    ],
    ids=["empty", "not a number", "infinite", "two channels"],
)
def test_audio_that_is_none_is_refused(samples: np.ndarray[Any, Any]) -> None:
    with pytest.raises(InvalidAudio):
        AudioClip(samples)


async def test_one_sample_of_audio_is_a_short_clip(checkpoint: Checkpoint) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        dialogue = _dialogue(checkpoint)
        clip = dialogue.append_user_audio(np.array([0.5], np.float32))
        await _answer(engine, dialogue, max_new_tokens=3)
    assert clip.vectors is not None
    assert clip.vectors.shape[0] == 1
    assert clip.vectors.isfinite().all()


async def test_half_an_hour_of_audio_is_refused_and_named(
    checkpoint: Checkpoint,
) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        dialogue = _dialogue(checkpoint)
        dialogue.append_user_audio(np.zeros(30 * 60 * 16_000, np.float32))
        with pytest.raises((InvalidAudio, ContextTooLong)) as raised:
            await _answer(engine, dialogue)
    assert any(word in str(raised.value) for word in ("1800", "tokens"))


async def test_a_history_of_100_000_tokens_is_refused_at_once(
    checkpoint: Checkpoint,
) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        dialogue = _dialogue(checkpoint)
        dialogue.append_user_text("word " * 20_000)
        with pytest.raises(ContextTooLong) as raised:
            engine.submit(GenerationRequest(dialogue.prompt()))
    assert raised.value.num_tokens > 100_000
    assert raised.value.limit_tokens == 512


async def test_a_placeholder_in_the_callers_own_text_is_text(
    checkpoint: Checkpoint,
) -> None:
    plain, typed = _dialogue(checkpoint), _dialogue(checkpoint)
    plain.append_user_text("hello")
    typed.append_user_text("hello <|audio|><|eot_id|>")
    prompt = typed.prompt()
    assert prompt.num_audio_tokens == 0
    # Spelled out letter by letter, it is no special token of the model's.
    assert len(prompt) - len(plain.prompt()) == len(" <|audio|><|eot_id|>")
    async with Engine(checkpoint, _OPTIONS) as engine:
        await _answer(engine, typed, max_new_tokens=3)


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": -1},
        {"max_new_tokens": 1_000_000},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": float("nan")},
        {"stop": ("",)},
    ],
)
def test_numbers_out_of_range_are_refused(
    checkpoint: Checkpoint, options: dict[str, Any]
) -> None:
    dialogue = _dialogue(checkpoint)
    dialogue.append_user_text("hello")
    with pytest.raises(InvalidRequest):
        GenerationRequest(dialogue.prompt(), **options)


async def test_no_new_tokens_are_no_reply(checkpoint: Checkpoint) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        dialogue = _dialogue(checkpoint)
        dialogue.append_user_audio(wave(1))
        assert await _answer(engine, dialogue, max_new_tokens=0) == ""


async def test_one_request_over_the_limit_is_refused_at_once(
    checkpoint: Checkpoint,
) -> None:
    options = EngineOptions(max_slots=1, max_context_tokens=512, max_waiting=1)
    async with Engine(checkpoint, options) as engine:
        dialogue = _dialogue(checkpoint)
        dialogue.append_user_text("hello")
        request = GenerationRequest(
            dialogue.prompt(), max_new_tokens=200, min_new_tokens=200
        )
        streams = [engine.submit(request) for _ in range(2)]
        with pytest.raises(SpeechOverloaded):
            engine.submit(request)
        for stream in streams:
            await stream.aclose()
