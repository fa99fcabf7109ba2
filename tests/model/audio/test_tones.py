"""Beeps, fax and network tones on a telephone line, and voices that are none."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.audio.g711 import ulaw_decode, ulaw_encode
from model.audio.pcm import Wave, pcm16_from_wave
from model.audio.tones import Tone, ToneDetector


def sine(hz: float, ms: int, peak: float = 0.1) -> Wave:
    at_s = np.arange(ms * 8) / 8000
    return (peak * np.sin(2 * np.pi * hz * at_s)).astype(np.float32)


def quiet(ms: int) -> Wave:
    return np.zeros(ms * 8, dtype=np.float32)


def line(*parts: Wave, snr_db: float | None = None) -> bytes:
    """Through u-law, with hiss; `snr_db` below a tone of peak 0.1."""
    rng = np.random.default_rng(4)
    wave = np.concatenate(parts)
    hiss = 1e-3 if snr_db is None else 0.1 / np.sqrt(2) * 10 ** (-snr_db / 20)
    noisy = wave + hiss * rng.standard_normal(wave.size)
    return ulaw_decode(ulaw_encode(pcm16_from_wave(noisy.astype(np.float32))))


def heard(pcm16: bytes) -> list[Tone]:
    return ToneDetector().feed(pcm16)


@pytest.mark.parametrize("hz", [440, 480, 853, 1000, 1004, 1100, 1400])
@pytest.mark.parametrize("snr_db", [None, 8.0])
def test_a_beep_is_heard_with_its_place_and_pitch(
    hz: float, snr_db: float | None
) -> None:
    [tone] = heard(line(quiet(500), sine(hz, 300), quiet(600), snr_db=snr_db))
    assert tone.kind == "beep"
    assert tone.hz == pytest.approx(hz, abs=6)
    assert tone.started_samples == pytest.approx(4000, abs=200)
    assert tone.duration_ms == pytest.approx(300, abs=40)


def test_a_fax_that_calls_is_told_from_a_beep_by_its_length() -> None:
    burst = (sine(1110, 500), quiet(3000))
    assert [t.kind for t in heard(line(quiet(200), *burst, *burst))] == ["cng", "cng"]


def test_a_fax_that_answers_is_known_while_its_tone_goes_on() -> None:
    tone = sine(2100, 3000)
    for start_ms in (450, 1350, 2250):  # V.25 turns the phase
        tone[start_ms * 8 : (start_ms + 450) * 8] *= -1
    [answer] = heard(line(quiet(300), tone, snr_db=12.0))
    assert answer.kind == "ced"
    assert answer.ended_samples < 1300 * 8


@pytest.mark.parametrize(
    "steps", [((985.2, 380), (1370.6, 276), (1776.7, 380)),
              ((913.8, 276), (1428.5, 276), (1776.7, 380))],
)  # fmt: skip
def test_network_tones_are_one_signal_and_no_beeps(
    steps: tuple[tuple[float, int], ...],
) -> None:
    gap = quiet(15)
    parts = [part for hz, ms in steps for part in (sine(hz, ms), gap)]
    assert [t.kind for t in heard(line(quiet(300), *parts, quiet(600)))] == ["sit"]


def test_the_first_step_alone_was_a_beep_after_all() -> None:
    assert [t.kind for t in heard(line(quiet(300), sine(985, 380), quiet(600)))] == [
        "beep"
    ]


@pytest.mark.parametrize(
    "sound",
    [
        quiet(2000),
        sine(1000, 60),  # a click
        sine(1000, 4000),  # a dial tone
        sine(2700, 300),  # a smoke alarm
        sine(400, 180),  # "mm"
        sine(1000, 300, 0.003),  # behind the wall
        sine(1000, 300) + sine(1500, 300),  # a key: two tones
        np.concatenate([sine(700 + 12 * k, 20) for k in range(30)]),  # a glide
    ],
)
def test_other_sounds_are_no_tones(sound: Wave) -> None:
    assert heard(line(quiet(300), sound, quiet(600))) == []


def test_noise_alone_is_no_tone() -> None:
    noise = 0.1 * np.random.default_rng(1).standard_normal(8000 * 20)
    assert heard(pcm16_from_wave(noise.astype(np.float32))) == []


MIXED = line(
    *(quiet(250), sine(1004, 400), quiet(700)),
    *(sine(914, 276), sine(1371, 276), sine(1777, 380), quiet(500)),
    *(sine(1100, 500), quiet(300), sine(2100, 1500), quiet(300)),
)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, len(MIXED)), max_size=15))
def test_tones_do_not_depend_on_how_the_audio_was_cut(cuts: list[int]) -> None:
    detector = ToneDetector()
    edges = [0, *sorted(cuts), len(MIXED)]
    tones = [t for a, b in pairwise(edges) for t in detector.feed(MIXED[a:b])]
    assert tones == heard(MIXED)
    assert [t.kind for t in tones] == ["beep", "sit", "cng", "ced"]
