from __future__ import annotations

import numpy as np
import pytest

from benchmarks.telephone_line import (
    BACKGROUNDS,
    Background,
    Recording,
    find_runs,
    make_line,
)
from model.audio.pcm import Wave, level_dbfs, wave_from_pcm16


def clip(*parts_ms: int) -> Wave:
    """Silence, voice, silence, … of these lengths."""
    at = np.arange(8 * sum(parts_ms)) / 8000
    voice = sum(np.sin(2 * np.pi * 150 * k * at) / k for k in range(2, 15))
    loud = np.concatenate(
        [np.full(8 * ms, float(index % 2)) for index, ms in enumerate(parts_ms)]
    )
    return (0.1 * voice * loud).astype(np.float32)


def recording(*parts_ms: int, speaker: str = "anna") -> Recording:
    wave = clip(*parts_ms)
    return Recording(speaker, wave, find_runs(wave))


def test_speech_is_found_between_its_pauses() -> None:
    assert find_runs(clip(200, 500, 300, 400, 100)) == (
        (1600, 5600),
        (8000, 11_200),
    )


def test_a_stop_within_a_word_is_no_pause() -> None:
    assert find_runs(clip(200, 300, 60, 300, 100)) == ((1600, 6880),)


def test_silence_and_nothing_have_no_speech() -> None:
    assert find_runs(np.zeros(8000, dtype=np.float32)) == ()
    assert find_runs(np.zeros(0, dtype=np.float32)) == ()


@pytest.mark.parametrize("background", sorted(set(BACKGROUNDS), key=str), ids=str)
def test_a_line_is_loud_in_its_turns_and_softer_between(
    background: Background,
) -> None:
    caller = [recording(100, 900, 200, 600, 100), recording(50, 700, 50)]
    others = [recording(0, 1500, 100, 800, 50, speaker="ben")]
    line = make_line(np.random.default_rng(5), caller, others, background, 20.0)
    wave = wave_from_pcm16(line.pcm16)
    assert wave.size == 160_000
    assert len(line.turns) >= 3
    previous_end = 0
    for start, end in line.turns:
        assert start - previous_end >= 0.5 * 8000
        if background.kind == "quiet":
            during = level_dbfs(wave[start:end])
            assert during > level_dbfs(wave[end + 800 : end + 6000]) + 15
        previous_end = end


def test_the_same_seed_gives_the_same_line() -> None:
    caller = [recording(100, 900, 200, 600, 100)]
    lines = [
        make_line(np.random.default_rng(3), caller, caller, BACKGROUNDS[5], 10.0)
        for _ in range(2)
    ]
    assert lines[0] == lines[1]


def test_a_caller_who_does_not_hesitate_pauses_as_recorded() -> None:
    caller = [recording(100, 900, 200, 600, 100)]
    rng = np.random.default_rng(3)
    line = make_line(rng, caller, caller, BACKGROUNDS[0], 30.0, hesitates=False)
    assert {end - start for start, end in line.turns} == {1700 * 8}
    line = make_line(np.random.default_rng(3), caller, caller, BACKGROUNDS[0], 30.0)
    assert max(end - start for start, end in line.turns) > 1750 * 8
