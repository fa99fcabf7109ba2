"""Caller left, bot right, at the same sample when they were at the same time."""

from __future__ import annotations

import numpy as np
import pytest

from agi_handlers.records.stereo_timeline import StereoTimeline

FRAME_MS = 20


def _pcm16(value: int, ms: int) -> bytes:
    return np.full(8 * ms, value, dtype="<i2").tobytes()


def _sides(timeline: StereoTimeline) -> tuple[list[int], list[int]]:
    """One value a millisecond of each side."""
    both = np.frombuffer(timeline.take(), dtype="<i2").reshape(-1, 2)[::8]
    return both[:, 0].tolist(), both[:, 1].tolist()


def test_bot_stands_beside_what_the_caller_said_meanwhile() -> None:
    timeline = StereoTimeline(is_full_duplex=True)
    timeline.caller(_pcm16(1, FRAME_MS), 0)
    timeline.queue(_pcm16(7, 60))
    timeline.end_of_speech()
    for heard_ms in (20, 40, 60):
        timeline.caller(_pcm16(2, FRAME_MS), heard_ms)
    timeline.finished()
    timeline.caller(_pcm16(3, FRAME_MS), 0)
    caller, bot = _sides(timeline)
    assert caller == [1] * 20 + [2] * 60 + [3] * 20
    assert bot == [0] * 20 + [7] * 60 + [0] * 20


def test_interrupted_speech_ends_where_it_was_cut_and_the_next_begins_anew() -> None:
    timeline = StereoTimeline(is_full_duplex=True)
    timeline.queue(_pcm16(7, 1000))
    timeline.caller(_pcm16(1, FRAME_MS), 20)
    timeline.caller(_pcm16(1, FRAME_MS), 40)
    timeline.stopped(40)
    timeline.caller(_pcm16(1, FRAME_MS), 0)
    timeline.queue(_pcm16(9, 1000))
    timeline.caller(_pcm16(1, FRAME_MS), 20)
    _, bot = _sides(timeline)
    assert bot == [7] * 40 + [0] * 20 + [9] * 20


def test_speech_queued_behind_a_finished_one_keeps_its_place() -> None:
    timeline = StereoTimeline(is_full_duplex=True)
    timeline.queue(_pcm16(7, 20))
    timeline.end_of_speech()
    timeline.queue(_pcm16(9, 20))
    timeline.finished()
    timeline.caller(_pcm16(1, FRAME_MS), 0)
    timeline.caller(_pcm16(1, FRAME_MS), 20)
    _, bot = _sides(timeline)
    assert bot == [7] * 20 + [9] * 20


def test_caller_whose_audio_stopped_does_not_hold_the_bot_back() -> None:
    timeline = StereoTimeline(is_full_duplex=True)
    timeline.queue(_pcm16(7, 1000))
    timeline.end_of_speech()
    timeline.finished()
    timeline.ended()
    caller, bot = _sides(timeline)
    assert bot == [7] * 1000
    assert caller == [0] * 1000


def test_half_duplex_lies_one_after_the_other() -> None:
    timeline = StereoTimeline(is_full_duplex=False)
    timeline.queue(_pcm16(7, 100))
    timeline.end_of_speech()
    timeline.finished()
    timeline.caller(_pcm16(1, 500), 0)
    timeline.queue(_pcm16(8, 50))
    timeline.stopped(30)
    caller, bot = _sides(timeline)
    assert caller == [0] * 100 + [1] * 500 + [0] * 30
    assert bot == [7] * 100 + [0] * 500 + [8] * 30


@pytest.mark.parametrize("chunk_ms", [1, 20, 300])
def test_no_sample_of_either_side_is_lost(chunk_ms: int) -> None:
    timeline = StereoTimeline(is_full_duplex=True)
    timeline.queue(_pcm16(7, 600))
    timeline.end_of_speech()
    for at_ms in range(0, 900, chunk_ms):
        timeline.caller(_pcm16(1, chunk_ms), min(600, at_ms + chunk_ms))
    timeline.finished()
    timeline.ended()
    caller, bot = _sides(timeline)
    assert caller.count(1) == 900
    assert bot.count(7) == 600
    assert len(caller) == 900
