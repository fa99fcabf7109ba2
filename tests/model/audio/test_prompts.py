"""Reading recorded prompts: what is wrong with a file is said, with its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.audio.prompts import Prompt, PromptUnusable, load_prompts, prompt_texts
from model.audio.wav import wav_from_pcm16

TABLE = '[speech]\nhello = "Hello."\n[sound]\nbeep = { tone_hz = 1000 }\n'
SPEECH = b"\x01\x02" * 800


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts.toml").write_text(TABLE)
    for name in ("hello", "beep"):
        (tmp_path / f"{name}.wav").write_bytes(wav_from_pcm16(SPEECH, rate_hz=8000))
    return tmp_path


def test_prompts_come_by_name_with_their_text(folder: Path) -> None:
    prompts = load_prompts(folder)
    assert prompts["hello"] == Prompt("hello", "Hello.", SPEECH)
    assert prompts["beep"].text == ""
    assert set(prompts) == {"hello", "beep"}


def test_files_that_are_not_in_the_table_are_left_alone(folder: Path) -> None:
    (folder / "old take.wav").write_bytes(b"whatever")
    assert set(load_prompts(folder)) == {"hello", "beep"}


STEREO = bytearray(wav_from_pcm16(SPEECH, rate_hz=8000))
STEREO[22] = 2
STEREO[32] = 4


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"", "no WAV"),
        (b"RIFF", "no WAV"),
        (b"not a recording at all", "no WAV"),
        (wav_from_pcm16(SPEECH, rate_hz=8000)[:20], "no WAV"),
        (wav_from_pcm16(SPEECH, rate_hz=44_100), "44100 Hz"),
        (bytes(STEREO), "2 channels"),
        (wav_from_pcm16(b"", rate_hz=8000), "empty"),
        (wav_from_pcm16(bytes(61 * 16_000), rate_hz=8000), "longer"),
    ],
    ids=["empty", "cut", "text", "header", "rate", "stereo", "no samples", "long"],
)
def test_an_unusable_recording_is_named(
    folder: Path, contents: bytes, reason: str
) -> None:
    (folder / "hello.wav").write_bytes(contents)
    with pytest.raises(PromptUnusable, match=rf"hello\.wav.*{reason}"):
        load_prompts(folder)


def test_every_missing_file_is_named_at_once(folder: Path) -> None:
    for name in ("hello", "beep"):
        (folder / f"{name}.wav").unlink()
    with pytest.raises(PromptUnusable) as caught:
        load_prompts(folder)
    assert "hello.wav" in str(caught.value)
    assert "beep.wav" in str(caught.value)
    assert "No such file" in str(caught.value)


@pytest.mark.parametrize(
    "table",
    ["", "speech = 3\n", "[speech]\n'../x' = 'a'\n", "[speech\n", b"\xff\xfe"],
    ids=["empty", "kind", "name", "toml", "encoding"],
)
def test_an_unusable_table_is_named(folder: Path, table: str | bytes) -> None:
    raw = table.encode() if isinstance(table, str) else table
    (folder / "prompts.toml").write_bytes(raw)
    with pytest.raises(PromptUnusable, match=r"prompts\.toml"):
        prompt_texts(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptUnusable, match="nowhere"):
        load_prompts(tmp_path / "nowhere")
