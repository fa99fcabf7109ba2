"""Speech in, frames out: nothing lost, and an exact account of what was heard."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agi_handlers.audio_leg.leg import PlaybackFinished
from agi_handlers.audio_leg.playback_queue import PlaybackQueue
from model.audio.frames import FRAME_BYTES

FRAME = bytes(range(160)) * 2


def queue_of(*chunks: bytes) -> PlaybackQueue:
    queue = PlaybackQueue(20_000)
    for chunk in chunks:
        queue.add(chunk)
    return queue


def drain(queue: PlaybackQueue) -> list[bytes]:
    frames = []
    while (frame := queue.take()) is not None:
        frames.append(frame)
    return frames


@given(chunks=st.lists(st.binary(max_size=700), max_size=12))
def test_no_sample_is_lost_whatever_the_chunks(chunks: list[bytes]) -> None:
    speech = b"".join(chunks)
    whole = speech[: len(speech) // 2 * 2]
    queue = queue_of(*chunks)
    queue.end_of_speech()
    frames = drain(queue)
    assert all(len(frame) == FRAME_BYTES for frame in frames)
    played = b"".join(frames)
    assert played[: len(whole)] == whole
    assert played[len(whole) :].strip(b"\0") == b""
    assert len(played) - len(whole) < FRAME_BYTES
    assert queue.finished() == PlaybackFinished(len(whole) // 16)


@given(chunks=st.lists(st.binary(max_size=700), max_size=12))
def test_any_chunking_gives_the_same_frames(chunks: list[bytes]) -> None:
    one_by_one, at_once = queue_of(*chunks), queue_of(b"".join(chunks))
    one_by_one.end_of_speech()
    at_once.end_of_speech()
    assert drain(one_by_one) == drain(at_once)


def test_heard_counts_what_was_taken_since_the_speech_began() -> None:
    queue = queue_of(FRAME * 3)
    assert queue.heard_ms == 0
    queue.take()
    queue.take()
    assert queue.heard_ms == 40
    assert queue.stop() == 40
    assert queue.heard_ms == 0
    assert queue.take() is None


def test_padding_is_not_heard() -> None:
    queue = queue_of(FRAME + bytes(160))
    queue.end_of_speech()
    drain(queue)
    assert queue.heard_ms == 30


def test_finished_is_told_once_after_the_last_frame_was_taken() -> None:
    queue = queue_of(FRAME)
    queue.end_of_speech()
    assert queue.finished() is None
    queue.take()
    assert queue.finished() == PlaybackFinished(20)
    assert queue.finished() is None
    assert queue.heard_ms == 0


def test_two_speeches_in_the_queue_finish_one_after_the_other() -> None:
    queue = queue_of(FRAME)
    queue.end_of_speech()
    queue.add(FRAME * 2)
    queue.end_of_speech()
    finished = []
    for _ in range(4):
        if (done := queue.finished()) is not None:
            finished.append(done)
        queue.take()
    assert finished == [PlaybackFinished(20), PlaybackFinished(40)]


def test_an_end_after_everything_was_played_finishes_at_once() -> None:
    queue = queue_of(FRAME)
    queue.take()
    queue.end_of_speech()
    assert queue.finished() == PlaybackFinished(20)


def test_an_end_without_any_speech_finishes_with_nothing_heard() -> None:
    queue = queue_of()
    queue.end_of_speech()
    queue.end_of_speech()
    assert queue.finished() == PlaybackFinished(0)
    assert queue.finished() is None


def test_a_stop_also_drops_the_ends_that_were_marked() -> None:
    queue = queue_of(FRAME * 2)
    queue.end_of_speech()
    queue.take()
    queue.stop()
    assert queue.finished() is None
    queue.add(FRAME)
    queue.end_of_speech()
    assert queue.finished() is None
    queue.take()
    assert queue.finished() == PlaybackFinished(20)


def test_a_short_rest_goes_out_when_nothing_follows_in_time() -> None:
    queue = queue_of(b"\1" * 100)
    assert queue.take() == (b"\1" * 100).ljust(FRAME_BYTES, b"\0")
    assert queue.take() is None


def test_half_a_sample_waits_for_its_other_half() -> None:
    queue = queue_of(b"\1")
    assert queue.take() is None
    queue.add(b"\2")
    assert queue.take() == b"\1\2".ljust(FRAME_BYTES, b"\0")


def test_skipped_frames_are_not_heard() -> None:
    queue = queue_of(FRAME * 2)
    assert queue.skip()
    assert queue.take() is not None
    assert queue.heard_ms == 20
    assert not queue.skip()


def test_full_is_told_by_time_queued() -> None:
    queue = PlaybackQueue(100)
    fullness = []
    for _ in range(5):
        queue.add(FRAME)
        fullness.append(queue.is_full)
    assert fullness == [False, False, False, False, True]
    assert queue.queued_ms == 100
    queue.take()
    assert not queue.is_full
