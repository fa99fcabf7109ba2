"""The caller's ear, packet by packet, without a call."""

from __future__ import annotations

import numpy as np
import pytest

from model.audio.g711 import ulaw_encode
from tests.end_to_end.heard_sound import Ear, rms

QUIET = b"\xff" * 160


def _tone(hz: int, num_slots: int) -> list[bytes]:
    samples = 8000 * np.sin(2 * np.pi * hz * np.arange(160 * num_slots) / 8000)
    ulaw = ulaw_encode(samples.astype("<i2").tobytes())
    return [ulaw[i : i + 160] for i in range(0, len(ulaw), 160)]


def _hear(slots: list[bytes]) -> Ear:
    ear = Ear()
    for number, ulaw in enumerate(slots):
        ear.on_packet(0.02 * number, ulaw)
    return ear


def test_loudness_of_silence_and_nothing_is_nought() -> None:
    assert rms(QUIET) == rms(b"") == 0.0


def test_a_sound_begins_with_its_first_loud_packet_and_ends_with_its_last() -> None:
    ear = _hear([QUIET] * 5 + _tone(300, 10) + [QUIET] * 30)
    assert [(round(s.start_s, 2), round(s.end_s, 2)) for s in ear.sounds] == [
        (0.1, 0.3)
    ]
    assert [event.name for event in ear.events() if event.name != "tone"] == [
        "heard_start",
        "heard_end",
    ]


def test_a_short_pause_does_not_end_a_sound() -> None:
    ear = _hear(_tone(300, 5) + [QUIET] * 10 + _tone(300, 5) + [QUIET] * 30)
    assert len(ear.sounds) == 1


def test_no_packets_at_all_are_quiet() -> None:
    ear = _hear(_tone(300, 5))
    ear.on_time(1.0)
    assert ear.sounds
    assert not ear.is_hearing


@pytest.mark.parametrize("hz", [440, 620, 850])
def test_tones_are_told_apart(hz: int) -> None:
    ear = _hear(_tone(hz, 20))
    assert [event.hz for event in ear.events() if event.name == "tone"] == [hz]


def test_noise_is_no_tone() -> None:
    noise = np.random.default_rng(1).normal(0, 4000, 160 * 50).astype("<i2")
    ulaw = ulaw_encode(noise.tobytes())
    ear = _hear([ulaw[i : i + 160] for i in range(0, len(ulaw), 160)])
    assert not [event for event in ear.events() if event.name == "tone"]


def test_a_gap_in_the_sequence_is_a_loss_and_a_new_stream_is_none() -> None:
    ear = Ear()
    for sequence in (65534, 65535, 0, 3, 30000):
        ear.on_sequence(sequence)
    assert ear.num_lost == 2


def test_the_recording_keeps_gaps_and_not_jitter() -> None:
    ear = Ear()
    for at_s in (0.0, 0.021, 0.039, 1.0):
        ear.on_packet(at_s, QUIET)
    assert len(ear.pcm16()) == 2 * (8000 + 160)
