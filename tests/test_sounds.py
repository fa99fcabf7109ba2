"""The prompts that are shipped: all there, say their texts, fit for a telephone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from model.audio.pcm import level_dbfs, wave_from_pcm16
from model.audio.prompts import Prompt, load_languages, load_prompts
from sounds.make_prompts import make_prompts

ROOT = Path(__file__).parent.parent
SOUNDS = ROOT / "sounds"
NEEDED = {
    *("greeting", "one_moment", "still_there", "say_again", "goodbye_no_input"),
    *("goodbye", "transferring", "technical_trouble", "time_limit", "all_lines_busy"),
    *("echo_intro", "beep", "silence_1s"),
}


FOLDERS = (SOUNDS, SOUNDS / "es")


@pytest.fixture(scope="module", params=FOLDERS, ids=["en", "es"])
def folder(request: pytest.FixtureRequest) -> Path:
    path = request.param
    assert isinstance(path, Path)
    return path


@pytest.fixture(scope="module")
def prompts(folder: Path) -> Mapping[str, Prompt]:
    return load_prompts(folder)


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sounds.make_prompts", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )


def test_every_prompt_the_service_plays_is_there(prompts: Mapping[str, Prompt]) -> None:
    assert set(prompts) == NEEDED


@pytest.mark.parametrize("name", sorted(NEEDED - {"beep", "silence_1s"}))
def test_speech_is_loud_enough_clean_and_not_long(
    prompts: Mapping[str, Prompt], name: str
) -> None:
    wave = wave_from_pcm16(prompts[name].pcm16)
    assert -25.0 < level_dbfs(wave) < -18.0
    assert np.abs(wave).max() < 0.95
    num_words = len(prompts[name].text.split())
    assert 0.15 < len(wave) / 8000 / num_words < 0.6
    first_loud = np.flatnonzero(np.abs(wave) > 0.01)[0]
    assert first_loud < 800  # heard within 100 ms


def test_beep_and_silence_are_what_they_are_called(
    prompts: Mapping[str, Prompt],
) -> None:
    beep = wave_from_pcm16(prompts["beep"].pcm16)
    spectrum = np.abs(np.fft.rfft(beep))
    assert np.argmax(spectrum) * 8000 / len(beep) == pytest.approx(1000, abs=5)
    assert abs(float(beep[0])) < 0.01
    assert abs(float(beep[-1])) < 0.01
    assert prompts["silence_1s"].pcm16 == bytes(16_000)


async def test_the_recordings_say_what_the_table_says(
    folder: Path, prompts: Mapping[str, Prompt]
) -> None:
    made = await make_prompts(folder)
    assert set(made) == set(prompts)
    for name, prompt in prompts.items():
        assert len(prompt.pcm16) == pytest.approx(len(made[name]), abs=960), name


def test_all_prompts_are_equally_loud() -> None:
    """Across languages too; what a caller hears never jumps."""
    levels = [
        level_dbfs(wave_from_pcm16(prompt.pcm16))
        for folder in FOLDERS
        for name, prompt in load_prompts(folder).items()
        if prompt.text
    ]
    assert max(levels) - min(levels) < 3.0


def test_a_language_has_every_prompt() -> None:
    assert set(load_languages(SOUNDS)) == {"es"}


def test_making_writes_every_file_and_checking_finds_a_stale_one(
    tmp_path: Path,
) -> None:
    shutil.copy(SOUNDS / "prompts.toml", tmp_path)
    assert make("--directory", str(tmp_path)).returncode == 0
    assert set(load_prompts(tmp_path)) == NEEDED
    shutil.copy(tmp_path / "greeting.wav", tmp_path / "still_there.wav")
    check = make("--directory", str(tmp_path), "--check")
    assert check.returncode == 1
    assert "still_there.wav" in check.stderr
    assert "greeting.wav" not in check.stderr


def test_a_missing_table_ends_with_a_message(tmp_path: Path) -> None:
    run = make("--directory", str(tmp_path))
    assert run.returncode == 1
    assert "prompts.toml" in run.stderr
    assert "Traceback" not in run.stderr
