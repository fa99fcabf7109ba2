"""Ears fed together hear what each would hear alone."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from agi_handlers.audio_leg.batched_ears import BATCH_S, BatchedEars, Heard
from model.audio.pcm import pcm16_from_wave
from model.vad.detector import SpeechDetector, load_detector
from model.vad.events import SpeechEvent, SpeechStarted
from model.vad.listener import CallerEar
from tests.fakes.ear import FailingDetector

FRAME_BYTES = 320


def talk(seed: int) -> bytes:
    """A second of quiet, one of loud noise in syllables, two of quiet."""
    at_s = np.arange(8000 * 4) / 8000
    is_loud = (at_s > 1 + seed * 0.1) & (at_s < 2 + seed * 0.1)
    noise = np.random.default_rng(seed).standard_normal(len(at_s))
    wave = np.where(is_loud, noise * 0.3 * np.abs(np.sin(at_s * 15)), noise * 1e-4)
    return pcm16_from_wave(np.clip(wave, -1, 1).astype(np.float32))


@pytest.fixture(scope="module")
def detector() -> SpeechDetector:
    return load_detector("webrtc")


async def hear_all(
    ears: BatchedEars, ear: CallerEar, pcm16: bytes
) -> list[SpeechEvent]:
    events = []
    for at in range(0, len(pcm16), FRAME_BYTES):
        events += await hear(ears, ear, pcm16[at : at + FRAME_BYTES])
    return events


async def hear(ears: BatchedEars, ear: CallerEar, pcm16: bytes) -> list[SpeechEvent]:
    told: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()
    heard: Heard | None = ears.hear(ear, pcm16, told.set_result)
    if heard is None:
        heard = await told
    if isinstance(heard, Exception):
        raise heard
    return heard


async def test_calls_heard_together_give_the_events_each_gives_alone(
    detector: SpeechDetector,
) -> None:
    calls = [talk(seed) for seed in range(4)]
    alone = [CallerEar(detector).feed(pcm16) for pcm16 in calls]
    ears = BatchedEars()
    async with asyncio.timeout(60):
        together = await asyncio.gather(
            *(hear_all(ears, CallerEar(detector), pcm16) for pcm16 in calls)
        )
    assert together == alone
    assert all(isinstance(events[0], SpeechStarted) for events in alone)
    # four calls in step share their runs; the very first frame waits for nobody
    assert ears.num_runs == len(calls[0]) // FRAME_BYTES + 1


async def test_a_frame_that_comes_alone_is_heard_at_once(
    detector: SpeechDetector,
) -> None:
    ears, ear = BatchedEars(), CallerEar(detector)
    told: list[Heard] = []
    for _ in range(3):
        assert ears.hear(ear, bytes(FRAME_BYTES), told.append) == []
        await asyncio.sleep(4 * BATCH_S)
    assert not told


async def test_a_call_that_ends_while_it_waits_does_not_disturb_the_others(
    detector: SpeechDetector,
) -> None:
    ears, leaving = BatchedEars(), CallerEar(detector)
    told: list[Heard] = []
    assert await hear(ears, CallerEar(detector), bytes(FRAME_BYTES)) == []
    assert ears.hear(leaving, bytes(FRAME_BYTES), told.append) is None
    staying = asyncio.create_task(hear(ears, CallerEar(detector), bytes(FRAME_BYTES)))
    await asyncio.sleep(0)
    ears.forget(leaving)
    async with asyncio.timeout(5):
        assert await staying == []
    assert not told


async def test_a_call_may_ask_for_what_it_waits_for(detector: SpeechDetector) -> None:
    pcm16 = talk(0)
    alone = CallerEar(detector).feed(pcm16)
    ears, ear = BatchedEars(), CallerEar(detector)
    told: list[Heard] = []
    assert await hear(ears, CallerEar(detector), bytes(FRAME_BYTES)) == []
    assert ears.hear(ear, pcm16[:20_001], told.append) is None
    assert ears.hear(ear, pcm16[20_001:], told.append) is None  # waits already
    assert ears.finish(ear) == alone
    assert ears.finish(ear) is None
    await asyncio.sleep(2 * BATCH_S)
    assert not told


async def test_a_detector_that_fails_is_told_to_every_call() -> None:
    ears, detector = BatchedEars(), FailingDetector()
    outcomes = await asyncio.gather(
        *(hear(ears, CallerEar(detector), bytes(2 * FRAME_BYTES)) for _ in range(3)),
        return_exceptions=True,
    )
    assert [str(outcome) for outcome in outcomes] == ["the network is broken"] * 3
