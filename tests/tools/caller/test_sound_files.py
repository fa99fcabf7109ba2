"""Sound files by name, as Asterisk finds, plays and records them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.audio.g711 import ulaw_encode
from model.audio.wav import wav_from_pcm16
from tools.caller.sound_files import NoSuchSound, SoundFolders, recorded

PCM16 = (np.tile([4000, -4000], 400)).astype("<i2").tobytes()


def test_a_relative_name_is_looked_for_in_every_folder(tmp_path: Path) -> None:
    (tmp_path / "b" / "bot").mkdir(parents=True)
    (tmp_path / "b" / "bot" / "hello.wav").write_bytes(
        wav_from_pcm16(PCM16, rate_hz=8000)
    )
    folders = SoundFolders([tmp_path / "a", tmp_path / "b"])
    assert folders.read("bot/hello") == PCM16


def test_an_absolute_name_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.sln").write_bytes(PCM16 + b"\0")
    assert SoundFolders([]).read(str(tmp_path / "x")) == PCM16


def test_mu_law(tmp_path: Path) -> None:
    (tmp_path / "x.ulaw").write_bytes(ulaw_encode(PCM16))
    assert len(SoundFolders([]).read(str(tmp_path / "x"))) == len(PCM16)


def test_sixteen_kilohertz_has_its_own_suffix(tmp_path: Path) -> None:
    (tmp_path / "x.wav16").write_bytes(wav_from_pcm16(PCM16, rate_hz=16_000))
    (tmp_path / "y.sln16").write_bytes(PCM16)
    folders = SoundFolders([tmp_path])
    assert len(folders.read("x")) == len(folders.read("y")) == len(PCM16) // 2


@pytest.mark.parametrize("name", ["x.wav", "y", "nosuch", "/no/such/file"])
def test_what_asterisk_cannot_play_cannot_be_played(tmp_path: Path, name: str) -> None:
    """A name with its suffix; 16 kHz under .wav; nothing at all."""
    (tmp_path / "x.wav").write_bytes(wav_from_pcm16(PCM16, rate_hz=8000))
    (tmp_path / "y.wav").write_bytes(wav_from_pcm16(PCM16, rate_hz=16_000))
    with pytest.raises(NoSuchSound):
        SoundFolders([tmp_path]).read(name)


def test_a_file_that_is_no_wav_cannot_be_played(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"RIFF?")
    with pytest.raises(NoSuchSound):
        SoundFolders([tmp_path]).read("x")


def test_silence_and_beep_are_always_there() -> None:
    folders = SoundFolders([])
    assert folders.read("silence/2") == bytes(32_000)
    assert any(folders.read("beep"))


@pytest.mark.parametrize(
    ("file_format", "num_bytes", "num_samples"),
    [("ulaw", 800, 800), ("sln", 1600, 800), ("wav", 1644, 800), ("sln16", 3200, 1600)],
)
def test_recording(file_format: str, num_bytes: int, num_samples: int) -> None:
    encoded = recorded(PCM16, file_format)
    assert encoded is not None
    assert (len(encoded[0]), encoded[1]) == (num_bytes, num_samples)


def test_an_empty_recording() -> None:
    assert recorded(b"", "sln16") == (b"", 0)


def test_a_format_asterisk_does_not_know() -> None:
    assert recorded(PCM16, "mp7") is None
