"""The lab's tones are told apart, and from everything else."""

from __future__ import annotations

import numpy as np
import pytest

from model.audio.frames import FRAME_BYTES
from tests.end_to_end.tones import ToneFinder


def _tone(hz: int, num_packets: int) -> bytes:
    samples = 8000 * np.sin(2 * np.pi * hz * np.arange(160 * num_packets) / 8000)
    return samples.astype("<i2").tobytes()


def _found(pcm16: bytes) -> list[int]:
    finder = ToneFinder()
    packets = (pcm16[i : i + FRAME_BYTES] for i in range(0, len(pcm16), FRAME_BYTES))
    return [hz for hz in map(finder.hear, packets) if hz is not None]


@pytest.mark.parametrize("hz", [440, 620, 850])
def test_a_tone_is_told_once(hz: int) -> None:
    assert _found(_tone(hz, 40)) == [hz]


def test_one_tone_after_another_is_told() -> None:
    assert _found(_tone(440, 20) + bytes(FRAME_BYTES * 20) + _tone(850, 20)) == [
        440,
        850,
    ]


def test_noise_is_no_tone() -> None:
    noise = np.random.default_rng(1).normal(0, 4000, 160 * 50)
    assert not _found(noise.astype("<i2").tobytes())


def test_a_short_or_faint_tone_is_none() -> None:
    assert not _found(_tone(440, 5))
    faint = np.frombuffer(_tone(440, 40), dtype="<i2") // 100
    assert not _found(faint.astype("<i2").tobytes())
