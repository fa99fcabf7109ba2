"""The engine's thread and event loop: many calls, cancellation, limits, faults."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from model.engine.engine import Engine, EngineOptions
from model.engine.request import GenerationRequest, Priority
from model.errors import (
    ContextTooLong,
    DeviceLost,
    EngineOverloaded,
    GenerationFailed,
    InvalidAudio,
    InvalidRequest,
    SpeechUnavailable,
)
from model.ultravox.checkpoint import LoadOptions, load_checkpoint
from model.ultravox.clip import AudioClip
from model.ultravox.config import TurnEndBounds
from tests.model.engine.prompts import TODAY, spoken_prompt, wave
from tests.model.ultravox.parity_data import V0_4

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.engine.stream import TokenStream
    from model.ultravox.checkpoint import Checkpoint
    from model.ultravox.inputs import Prompt

_OPTIONS = EngineOptions(max_slots=4, max_context_tokens=512, num_threads=1)


def _prompt(engine: Engine, seed: int, num_samples: int = 8_000) -> Prompt:
    dialogue = engine.new_dialogue("Be brief.", today=TODAY)
    dialogue.append_user_audio(wave(seed, num_samples))
    return dialogue.prompt()


async def _read(stream: TokenStream) -> str:
    async with stream:
        async for _ in stream:
            pass
    return stream.text


async def _until_idle(engine: Engine) -> None:
    async with asyncio.timeout(10):
        while engine.load().num_active or engine.load().num_waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_calls_at_once_get_what_they_get_alone(checkpoint: Checkpoint) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        requests = [
            GenerationRequest(_prompt(engine, seed), max_new_tokens=10)
            for seed in range(10)
        ]
        alone = [await _read(engine.submit(request)) for request in requests]
        streams = [engine.submit(request) for request in requests]
        together = await asyncio.gather(*map(_read, streams))
    assert together == alone
    assert len(set(alone)) == len(alone)


async def test_a_stream_tells_usage_timings_and_the_end_of_the_turn(
    checkpoint: Checkpoint,
) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        prompt = _prompt(engine, 1)
        request = GenerationRequest(prompt, max_new_tokens=5)
        async with engine.submit(request) as stream:
            chunks = [chunk async for chunk in stream]
    assert chunks[0].end_of_turn_probability is not None
    assert 0.0 <= chunks[0].end_of_turn_probability <= 1.0
    assert chunks[-1].finish_reason == "length"
    assert stream.usage is not None
    assert stream.usage.prompt_tokens == len(prompt)
    assert stream.usage.audio_tokens == 4
    assert stream.usage.completion_tokens == len(stream.token_ids) == 5
    timings = stream.timings
    assert timings is not None
    assert 0 < timings.first_token_ms <= timings.total_ms
    parts = timings.queue_ms + timings.encode_ms + timings.prefill_ms
    assert parts == pytest.approx(timings.first_token_ms)


async def test_instructions_that_were_warmed_are_not_read_again(
    checkpoint: Checkpoint,
) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        await engine.warm(engine.new_dialogue("Be brief.", today=TODAY).prompt())
        prompt = _prompt(engine, 1)
        stream = engine.submit(GenerationRequest(prompt, max_new_tokens=1))
        await _read(stream)
    assert stream.usage is not None
    # The dialogue's start up to the header that differs: assistant's, user's.
    assert stream.usage.cached_tokens > 20


async def test_a_session_builds_on_its_own_turns(checkpoint: Checkpoint) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        dialogue, session = engine.new_dialogue("Be brief."), engine.open_session()
        dialogue.append_user_audio(wave(1))
        first = engine.submit(
            GenerationRequest(dialogue.prompt(), session=session, max_new_tokens=6)
        )
        await _read(first)
        read_before = len(dialogue.prompt()) + 5
        dialogue.append_assistant_tokens(first.token_ids)
        dialogue.append_user_audio(wave(2))
        second = engine.submit(
            GenerationRequest(dialogue.prompt(), session=session, max_new_tokens=6)
        )
        await _read(second)
        assert engine.load().num_sessions == 1
        session.close()
        assert engine.load().num_sessions == 0
    assert second.usage is not None
    assert second.usage.cached_tokens == read_before


async def test_leaving_a_stream_frees_its_slot(checkpoint: Checkpoint) -> None:
    options = EngineOptions(max_slots=1, max_context_tokens=512, num_threads=1)
    async with Engine(checkpoint, options) as engine:
        long = GenerationRequest(
            _prompt(engine, 1), max_new_tokens=400, min_new_tokens=400
        )
        async with engine.submit(long) as stream:
            await anext(stream)
            next_one = engine.submit(
                GenerationRequest(_prompt(engine, 2), max_new_tokens=3)
            )
        await _read(next_one)
        assert len(next_one.token_ids) == 3
        await _until_idle(engine)
    assert len(stream.token_ids) < 400


async def test_a_forgotten_stream_frees_its_slot(checkpoint: Checkpoint) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        engine.submit(
            GenerationRequest(
                _prompt(engine, 1), max_new_tokens=400, min_new_tokens=400
            )
        )
        gc.collect()
        await _until_idle(engine)


async def test_a_full_engine_refuses_but_lets_calls_past_transcripts(
    checkpoint: Checkpoint,
) -> None:
    options = EngineOptions(
        max_slots=1, max_waiting=2, max_context_tokens=512, num_threads=1
    )

    def request(priority: Priority) -> GenerationRequest:
        prompt = _prompt(engine, 1)
        return GenerationRequest(
            prompt, priority=priority, max_new_tokens=300, min_new_tokens=300
        )

    async with Engine(checkpoint, options) as engine:
        running = engine.submit(request(Priority.PHONE))
        await anext(running)
        transcripts = [engine.submit(request(Priority.TRANSCRIPT)) for _ in range(2)]
        assert engine.load().is_full
        with pytest.raises(EngineOverloaded, match="2 requests are waiting"):
            engine.submit(request(Priority.TRANSCRIPT))
        phone = engine.submit(request(Priority.PHONE))
        with pytest.raises(EngineOverloaded):
            await anext(transcripts[1])
        await running.aclose()
        assert (await anext(phone)).text is not None
        for stream in (*transcripts, phone):
            await stream.aclose()
        await _until_idle(engine)


async def test_what_does_not_fit_the_context_names_the_limit(
    checkpoint: Checkpoint,
) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        prompt = _prompt(engine, 1)
        with pytest.raises(ContextTooLong, match="512") as caught:
            engine.submit(GenerationRequest(prompt, max_new_tokens=500))
    assert caught.value.limit_tokens == 512
    assert caught.value.num_tokens == len(prompt) + 500


async def test_prompts_it_cannot_use_are_refused(checkpoint: Checkpoint) -> None:
    options = EngineOptions(max_context_tokens=512, max_clip_s=2.0)
    async with Engine(checkpoint, options) as engine:
        with pytest.raises(InvalidAudio, match=r"at most 2 s"):
            engine.submit(GenerationRequest(_prompt(engine, 1, 40_000)))
        foreign = engine.new_dialogue(None)
        foreign.append_assistant_tokens([5000])
        with pytest.raises(InvalidRequest, match="another model"):
            engine.submit(GenerationRequest(foreign.prompt(), max_new_tokens=1))


async def test_a_failed_request_leaves_the_engine_running(
    checkpoint: Checkpoint,
) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        broken = _prompt(engine, 1)
        broken.audio[0].clip.set_vectors(torch.zeros(3, 3))
        with pytest.raises(GenerationFailed):
            await _read(engine.submit(GenerationRequest(broken, max_new_tokens=3)))
        stream = engine.submit(GenerationRequest(_prompt(engine, 2), max_new_tokens=3))
        await _read(stream)
        assert len(stream.token_ids) == 3
        await _until_idle(engine)


async def test_readers_of_a_stopped_engine_are_told(checkpoint: Checkpoint) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        stream = engine.submit(
            GenerationRequest(
                _prompt(engine, 1), max_new_tokens=400, min_new_tokens=400
            )
        )
        await anext(stream)
        prompt = _prompt(engine, 2)
    with pytest.raises(SpeechUnavailable, match="stopped"):
        await _read(stream)
    with pytest.raises(SpeechUnavailable, match="not running"):
        engine.submit(GenerationRequest(prompt))


class _Breaks(AudioClip):
    """A clip at which the device fails, for so many times."""

    def __init__(self, error: Exception, times: int) -> None:
        super().__init__(wave(9, 8_000))
        self.error, self.times = error, times

    @property
    def wave(self) -> NDArray[np.float32]:
        self.times -= 1
        if self.times >= 0:
            raise self.error
        return super().wave


def _breaking(engine: Engine, error: Exception, times: int) -> GenerationRequest:
    dialogue = engine.new_dialogue("Be brief.", today=TODAY)
    dialogue.append_user_clip(_Breaks(error, times))
    return GenerationRequest(dialogue.prompt(), max_new_tokens=6, min_new_tokens=6)


async def test_out_of_memory_costs_nobody_his_reply_when_there_is_room_after_it(
    checkpoint: Checkpoint,
) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        alone = [
            await _read(
                engine.submit(GenerationRequest(_prompt(engine, n), max_new_tokens=6))
            )
            for n in range(3)
        ]
        full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        streams = [engine.submit(_breaking(engine, full, times=1))]
        streams += [
            engine.submit(GenerationRequest(_prompt(engine, n), max_new_tokens=6))
            for n in range(3)
        ]
        _, *others = await asyncio.gather(*(_read(stream) for stream in streams))
        assert others == alone
        assert len(streams[0].token_ids) == 6
        # Twice is once too often, for that request only.
        failing = engine.submit(_breaking(engine, full, times=2))
        other = engine.submit(GenerationRequest(_prompt(engine, 1), max_new_tokens=6))
        with pytest.raises(GenerationFailed, match="OutOfMemoryError"):
            await _read(failing)
        assert await _read(other) == alone[1]


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
    ],
)
async def test_a_lost_device_ends_the_engine_and_everybody_is_told(
    checkpoint: Checkpoint, error: Exception
) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        speaking = engine.submit(
            GenerationRequest(
                _prompt(engine, 1), max_new_tokens=400, min_new_tokens=400
            )
        )
        await anext(speaking)
        failing = engine.submit(_breaking(engine, error, times=1))
        for stream in (speaking, failing):
            with pytest.raises(DeviceLost):
                await _read(stream)
        assert not engine.is_running
        with pytest.raises(DeviceLost):
            engine.submit(GenerationRequest(_prompt(engine, 2)))


async def test_the_time_callers_take_is_measured(checkpoint: Checkpoint) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        rest = GenerationRequest(
            _prompt(engine, 1), max_new_tokens=6, priority=Priority.REST
        )
        await _read(engine.submit(rest))
        assert engine.load().busy_share == 0
        call = GenerationRequest(_prompt(engine, 2), max_new_tokens=6)
        await _read(engine.submit(call))
        load = engine.load()
    assert 0 < load.busy_share < 1
    assert load.step_ms > 0


async def test_a_fault_of_the_engines_own_leaves_nobody_waiting(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        waiting = engine.submit(
            GenerationRequest(
                _prompt(engine, 1), max_new_tokens=400, min_new_tokens=400
            )
        )
        await anext(waiting)
        impossible = _prompt(engine, 2)
        vars(impossible)["keys"] = np.zeros((3, 3), np.int64)
        stream = engine.submit(GenerationRequest(impossible, max_new_tokens=1))
        with pytest.raises(SpeechUnavailable):
            await _read(stream)
        with pytest.raises(SpeechUnavailable):
            await _read(waiting)
        assert not engine.is_running
        with pytest.raises(SpeechUnavailable, match="not running"):
            engine.submit(GenerationRequest(_prompt(engine, 3)))
    assert "engine_died" in caplog.messages


async def test_memory_follows_the_audio_that_dialogues_hold(
    checkpoint: Checkpoint,
) -> None:
    async with Engine(checkpoint, _OPTIONS) as engine:
        dialogue = engine.new_dialogue("Be brief.")
        dialogue.append_user_audio(wave(1, 16_000))
        await engine.warm(dialogue.prompt())
        memory = engine.memory()
        assert memory["weights_bytes"] == 4 * checkpoint.num_parameters
        assert memory["kv_bytes"] == 4 * 4 * 512 * 2 * 2 * 2 * 16
        assert memory["audio_bytes"] == 7 * 64 * 4
        del dialogue
        await _until_idle(engine)
        gc.collect()
        assert engine.memory()["audio_bytes"] == 0


def test_an_operator_may_say_what_the_end_of_turn_is_worth(
    checkpoint: Checkpoint,
) -> None:
    assert Engine(checkpoint, _OPTIONS).description.turn_end is None
    bounds = TurnEndBounds(0.1)
    options = dataclasses.replace(_OPTIONS, turn_end=bounds)
    assert Engine(checkpoint, options).description.turn_end == bounds


async def test_the_description_says_what_runs(checkpoint: Checkpoint) -> None:
    description = Engine(checkpoint, _OPTIONS).description
    assert description.engine == "local"
    assert description.weights_kind == "published"
    assert (description.device, description.dtype) == ("cpu", "float32")
    assert description.context_tokens == 512


@pytest.mark.parametrize(
    "options", [{"max_slots": 0}, {"max_waiting": 0}, {"max_step_tokens": 16}]
)
def test_options_that_could_not_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        EngineOptions(**options)


def test_a_prompt_of_another_engine_is_only_bytes() -> None:
    # The plain format of tests and scripted replies has the same audio places.
    prompt = spoken_prompt(seed=1)
    assert (
        np.flatnonzero(prompt.keys < 0) == prompt.audio[0].start + np.arange(7)
    ).all()


async def test_half_precision_agrees_where_the_choice_is_clear() -> None:
    replies = []
    for dtype in ("float32", "bfloat16"):
        options = LoadOptions(device="cpu", dtype=dtype)
        half = load_checkpoint(str(V0_4), options)
        async with Engine(half, _OPTIONS) as engine:
            request = GenerationRequest(_prompt(engine, 3, 16_000), max_new_tokens=4)
            stream = engine.submit(request)
            await _read(stream)
        assert stream.end_of_turn_probability is not None
        replies.append(stream.token_ids)
    assert replies[0][0] == replies[1][0]
