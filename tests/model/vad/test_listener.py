from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.audio.frames import FRAME_SAMPLES, SAMPLE_BYTES, samples_from_ms
from model.audio.pcm import pcm16_from_wave
from model.vad.events import (
    SpeechEnded,
    SpeechEvent,
    SpeechStarted,
    SpeechSuspectedEnd,
    SpeechTooLong,
)
from model.vad.listener import CallerEar, feed_together
from model.vad.options import EndpointingOptions
from tests.fakes.ear import LoudnessDetector, loudness_ear


def call_audio(*parts_ms: int, seed: int = 1) -> bytes:
    """Silence, speech, silence, … of these lengths; every sample is distinct noise."""
    rng = np.random.default_rng(seed)
    parts = [
        (0.2 if index % 2 else 0.001) * rng.standard_normal(samples_from_ms(part_ms))
        for index, part_ms in enumerate(parts_ms)
    ]
    return pcm16_from_wave(np.concatenate(parts).astype(np.float32))


def utterances(events: list[SpeechEvent]) -> list[SpeechEnded | SpeechTooLong]:
    return [e for e in events if isinstance(e, SpeechEnded | SpeechTooLong)]


TWO_TURNS = call_audio(700, 900, 1500, 400, 300, 600, 1200)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=6).filter(any))
def test_events_and_bytes_are_the_same_however_the_audio_is_cut(
    sizes: list[int],
) -> None:
    whole_ear = loudness_ear()
    whole = whole_ear.feed(TWO_TURNS) + whole_ear.force_end()
    ear = loudness_ear()
    events: list[SpeechEvent] = []
    start = 0
    while start < len(TWO_TURNS):
        for size in sizes:  # in bytes: odd sizes cut a sample in two
            events += ear.feed(TWO_TURNS[start : start + size])
            start += size
    assert events + ear.force_end() == whole
    assert len(utterances(whole)) == 2


def test_events_and_bytes_are_the_same_sample_by_sample() -> None:
    whole_ear = loudness_ear()
    whole = whole_ear.feed(TWO_TURNS)
    ear = loudness_ear()
    events = [
        event
        for start in range(0, len(TWO_TURNS), SAMPLE_BYTES)
        for event in ear.feed(TWO_TURNS[start : start + SAMPLE_BYTES])
    ]
    assert events == whole


def test_a_wait_ends_with_the_callers_frame_and_not_with_the_next_window() -> None:
    ends = set()
    for hangover_ms in range(400, 600, 10):
        ear = loudness_ear(hangover_ms)
        [ended] = utterances(ear.feed(call_audio(700, 900, 1500)))
        silence = ended.decided_samples - ended.ended_samples
        assert 0 <= silence - samples_from_ms(hangover_ms) < FRAME_SAMPLES
        ends.add(ended.decided_samples % 256)
    assert len(ends) > 2


def test_an_utterance_is_the_callers_audio_byte_for_byte() -> None:
    ear = loudness_ear()
    events = [
        event
        for start in range(0, len(TWO_TURNS), 320)
        for event in ear.feed(TWO_TURNS[start : start + 320])
    ]
    assert len(utterances(events)) == 2
    for event in events:
        if isinstance(event, SpeechSuspectedEnd | SpeechEnded):
            begin = SAMPLE_BYTES * event.kept_from_samples
            end = SAMPLE_BYTES * event.kept_to_samples
            assert event.pcm16 == TWO_TURNS[begin:end]
            assert event.pcm16


def test_a_reply_prepared_on_suspicion_was_given_the_final_audio() -> None:
    ear = loudness_ear()
    events = ear.feed(TWO_TURNS)
    for before, after in pairwise(events):
        if isinstance(after, SpeechEnded):
            assert isinstance(before, SpeechSuspectedEnd)
            assert after.pcm16 == before.pcm16


def test_no_sample_is_lost_while_an_endless_talker_is_cut() -> None:
    audio = call_audio(0, 9000, 2000)
    options = EndpointingOptions(max_utterance_ms=2000)
    ear = CallerEar(LoudnessDetector(), options)
    heard = utterances(ear.feed(audio))
    assert len(heard) == 5
    assert audio.startswith(b"".join(utterance.pcm16 for utterance in heard))
    assert heard[-1].kept_to_samples >= samples_from_ms(9000)


def test_samples_in_are_samples_heard() -> None:
    ear = loudness_ear()
    for size in (1, 1, 319, 320, 7):
        ear.feed(bytes(size))
    assert ear.samples_heard == (1 + 1 + 319 + 320 + 7) // 2


def test_memory_does_not_grow_with_the_length_of_a_call() -> None:
    ear = loudness_ear()
    for _ in range(60):
        ear.feed(bytes(16_000))
    assert len(ear._kept) < 3 * 16_000
    assert ear.samples_heard == 60 * 8000


def test_the_end_of_a_recording_ends_the_utterance_with_its_last_sample() -> None:
    audio = call_audio(500, 777)
    ear = loudness_ear()
    events = ear.feed(audio)
    [ended] = ear.force_end()
    assert isinstance(ended, SpeechEnded)
    assert ended.forced
    assert ended.pcm16 == audio[SAMPLE_BYTES * ended.kept_from_samples :]
    assert [type(event) for event in events] == [SpeechStarted]
    assert ear.force_end() == []


def test_an_ear_goes_on_after_a_forced_end() -> None:
    ear = loudness_ear()
    ear.feed(call_audio(500, 700))
    ear.force_end()
    audio = call_audio(600, 700, 900, seed=2)
    [ended] = utterances(ear.feed(audio))
    offset = samples_from_ms(1200)
    begin = SAMPLE_BYTES * (ended.kept_from_samples - offset)
    end = SAMPLE_BYTES * (ended.kept_to_samples - offset)
    assert ended.pcm16 == audio[begin:end]


def test_a_hint_and_the_bots_talking_reach_the_endpointing() -> None:
    ear = loudness_ear(1000)
    ear.bot_is_talking = True
    assert ear.bot_is_talking
    assert ear.feed(call_audio(500, 60, 300)) == []
    ear.bot_is_talking = False
    ear.feed(call_audio(500, 700, 270))
    ear.hint_turn_over(1.0)
    assert utterances(ear.feed(bytes(1600)))


def test_ears_fed_together_hear_what_each_would_hear_alone() -> None:
    calls = [
        call_audio(100 * n, 500 + 100 * n, 900, 400, 700, seed=n) for n in range(7)
    ]
    alone = [loudness_ear().feed(audio) for audio in calls]
    ears = [loudness_ear() for _ in calls]
    together: list[list[SpeechEvent]] = [[] for _ in calls]
    for start in range(0, max(map(len, calls)), 320):
        chunks = [audio[start : start + 320] for audio in calls]
        for call, events in enumerate(feed_together(ears, chunks)):
            together[call] += events
    assert together == alone
    assert all(utterances(events) for events in alone)


def test_no_ears_hear_nothing() -> None:
    assert feed_together([], []) == []


def test_ears_and_chunks_must_pair_up() -> None:
    with pytest.raises(ValueError, match="zip"):
        feed_together([loudness_ear()], [])


def test_an_ear_says_whether_it_is_in_an_utterance() -> None:
    ear = loudness_ear()
    states = []
    for part in (call_audio(500), call_audio(0, 500), bytes(16_000)):
        ear.feed(part)
        states.append(ear.is_speech)
    assert states == [False, True, False]
