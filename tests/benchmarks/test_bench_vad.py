from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bench_vad import main, read_recordings
from model.audio.frames import RATE_HZ
from model.audio.wav import write_wav
from tests.fakes.espeak_speech import spoken_call


def test_it_runs_without_recordings_and_prints_json_last() -> None:
    # Espeak has one global state: not in this process.
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.bench_vad",
            "--lines",
            "2",
            "--seconds",
            "15",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    report = json.loads(run.stdout.splitlines()[-1])
    assert report["num_turns"] > 3
    assert set(report["results"]) == {
        *("webrtc, 600 ms", "silero, 600 ms", "silero, 200 ms"),
        *("ours, 600 ms", "ours"),
    }
    for found in report["results"].values():
        assert 0 <= found["missed_pct"] <= 100
        assert found["cpu_ms_per_s"] > 0


def test_a_folder_of_recordings_is_read_by_speaker(tmp_path: Path) -> None:
    for name in ("anna/one.wav", "anna/beep.wav", "ben/deep/two.wav", "three.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, spoken_call()[: 2 * 4 * RATE_HZ], rate_hz=RATE_HZ)
    (tmp_path / "anna" / "notes.txt").write_text("nothing to hear")
    (tmp_path / "anna" / "broken.wav").write_bytes(b"RIFF")
    found = read_recordings(tmp_path, "beep")
    assert sorted(recording.speaker for recording in found) == ["", "anna", "ben"]


def test_a_folder_without_speech_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--speech", str(tmp_path)]) == 2
    assert "no usable speech" in capsys.readouterr().err
