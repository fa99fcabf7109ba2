"""Where a recording has voice in it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tools.caller.sound import rms, voiced_span


def tone(num_samples: int, level: int = 5000) -> bytes:
    return (np.tile([level, -level], num_samples // 2)).astype("<i2").tobytes()


def silence(num_samples: int) -> bytes:
    return bytes(2 * num_samples)


def test_loudness() -> None:
    assert rms(tone(160)) == 5000
    assert rms(b"") == 0
    assert rms(silence(160)) == 0


def test_the_voiced_part_is_found_to_a_block() -> None:
    pcm16 = silence(400) + tone(800) + silence(4000)
    assert voiced_span(pcm16, 200) == (400, 1200)


def test_silence_has_none() -> None:
    assert voiced_span(silence(1000), 200) is None
    assert voiced_span(b"", 200) is None


@given(st.integers(1, 500), st.integers(0, 500))
def test_the_span_lies_within_the_recording(num_before: int, num_voiced: int) -> None:
    pcm16 = silence(num_before) + tone(2 * num_voiced)
    span = voiced_span(pcm16, 200)
    if span is not None:
        assert 0 <= span[0] < span[1] <= len(pcm16) // 2
