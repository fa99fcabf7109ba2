from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.segment import Segment, main, segment
from model.audio.frames import samples_from_ms
from model.audio.pcm import pcm16_from_wave, wave_from_pcm16
from model.audio.resample import resample
from model.audio.wav import wav_from_wave, write_wav
from model.vad.options import EndpointingOptions
from tests.fakes.ear import LoudnessDetector
from tests.fakes.espeak_speech import spoken_call


def bursts(*parts_ms: int) -> bytes:
    """Silence, sound, silence, … of these lengths."""
    levels = [
        np.full(samples_from_ms(ms), 0.3 * (i % 2)) for i, ms in enumerate(parts_ms)
    ]
    return pcm16_from_wave(np.concatenate(levels).astype(np.float32))


def test_bounds_are_those_of_the_sound_and_decisions_come_after_them() -> None:
    pcm16 = bursts(960, 640, 1920, 320, 960)
    first, second = segment(pcm16, LoudnessDetector(), EndpointingOptions.fixed(400))
    # Windows are 32 ms, a wait that is over ends with a frame; this detector doesn't
    # lag, the options reckon with 32 ms.
    assert first == Segment(0.928, 1.568, 1.024, 1.98)
    assert second == Segment(3.488, 3.808, 3.584, 4.22)


def test_speech_at_the_end_of_the_file_is_ended_by_it() -> None:
    pcm16 = bursts(960, 640)
    [only] = segment(pcm16, LoudnessDetector())
    assert only.end == only.decided_end == 1.6


def test_a_file_of_speech_is_printed_as_a_list_of_utterances(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "call.wav"
    write_wav(path, spoken_call(), rate_hz=8000)
    assert main([str(path)]) == 0
    [line] = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert len(found) == 2
    for one in found:
        assert list(one) == ["start", "end", "decided_start", "decided_end"]
        assert one["start"] < one["decided_start"] < one["end"] < one["decided_end"]
    assert all(a["decided_end"] < b["start"] for a, b in pairwise(found))


def test_another_rate_changes_little(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = resample(wave_from_pcm16(spoken_call()), 8000, 44_100)
    found = []
    for name, wav in (
        ("narrow.wav", wav_from_wave(wave_from_pcm16(spoken_call()), rate_hz=8000)),
        ("wide.wav", wav_from_wave(wide, rate_hz=44_100)),
    ):
        (tmp_path / name).write_bytes(wav)
        assert main([str(tmp_path / name)]) == 0
        found.append(json.loads(capsys.readouterr().out))
    for narrow, wide_ in zip(*found, strict=True):
        assert abs(narrow["start"] - wide_["start"]) < 0.1
        assert abs(narrow["end"] - wide_["end"]) < 0.1


def test_an_empty_line_has_no_utterances(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "silence.wav"
    write_wav(path, bytes(32_000), rate_hz=8000)
    assert main([str(path)]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_shorter_fixed_wait_can_be_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "call.wav"
    write_wav(path, spoken_call(), rate_hz=8000)
    waits = []
    for arguments in ([], ["--fixed-ms", "200"]):
        assert main([str(path), *arguments]) == 0
        last = json.loads(capsys.readouterr().out)[-1]
        waits.append(last["decided_end"] - last["end"])
    assert waits[1] == pytest.approx(0.224)
    assert waits[0] > 0.37


@pytest.mark.parametrize(
    "arguments", [["missing.wav"], ["call.wav", "--fixed-ms", "10"]]
)
def test_what_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    write_wav(tmp_path / "call.wav", bytes(3200), rate_hz=8000)
    assert main([str(tmp_path / arguments[0]), *arguments[1:]]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
