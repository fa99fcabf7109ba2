"""Sound files as Asterisk plays and records them: by name without extension.

Source: ``main/file.c`` and the ``formats/`` modules; what fails here fails there.
"""

from __future__ import annotations

import re
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soxr

from model.audio.frames import RATE_HZ, SAMPLE_BYTES
from model.audio.g711 import alaw_decode, ulaw_decode, ulaw_encode
from model.audio.wav import wav_from_pcm16

_SILENCE_NAME: Final = re.compile(r"silence/(\d+)")
_RAW_SUFFIXES: Final = (".ulaw", ".ul", ".pcm", ".mu", ".alaw", ".al", ".sln", ".raw")
_BEEP_HZ: Final = 440
_BEEP_S: Final = 0.1


class NoSuchSound(Exception):
    """Asterisk would answer -1: no such file, or none that it can decode."""


@dataclass(frozen=True, slots=True)
class SoundFolders:
    """Where names that are not absolute are looked for."""

    folders: Sequence[Path]

    def read(self, name: str) -> bytes:
        """A sound as 8 kHz pcm16.

        Raises:
            NoSuchSound: not there, or not readable as Asterisk would read it.
        """
        for path in self._places(name):
            for suffix in (".wav", ".sln16", ".wav16", *_RAW_SUFFIXES):
                candidate = path.with_name(path.name + suffix)
                if candidate.is_file():
                    return _decoded(candidate, suffix)
        return _built_in(name)

    def _places(self, name: str) -> list[Path]:
        if name.startswith("/"):
            return [Path(name)]
        return [folder / name for folder in self.folders]


def _decoded(path: Path, suffix: str) -> bytes:
    try:
        encoded = path.read_bytes()
    except OSError as exc:
        raise NoSuchSound(f"{path}: {exc.strerror}") from exc
    match suffix:
        case ".wav":
            return _wav_pcm16(path, RATE_HZ)
        case ".wav16":
            return _to_8_khz(_wav_pcm16(path, 2 * RATE_HZ))
        case ".sln16":
            return _to_8_khz(_whole_samples(encoded))
        case ".alaw" | ".al":
            return alaw_decode(encoded)
        case ".sln" | ".raw":
            return _whole_samples(encoded)
        case _:
            return ulaw_decode(encoded)


def _wav_pcm16(path: Path, rate_hz: int) -> bytes:
    try:
        with wave.open(str(path)) as file:
            form = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            if form != (1, SAMPLE_BYTES, rate_hz):
                raise NoSuchSound(f"{path}: {rate_hz} Hz mono 16-bit is wanted")
            return bytes(file.readframes(file.getnframes()))
    except (wave.Error, EOFError) as exc:
        raise NoSuchSound(f"{path}: {exc}") from exc


def _whole_samples(pcm16: bytes) -> bytes:
    return pcm16[: len(pcm16) // SAMPLE_BYTES * SAMPLE_BYTES]


def _to_8_khz(pcm16: bytes) -> bytes:
    samples = np.frombuffer(pcm16, dtype="<i2")
    if samples.size == 0:
        return b""
    return bytes(soxr.resample(samples, 2 * RATE_HZ, RATE_HZ).tobytes())


def _built_in(name: str) -> bytes:
    """Sounds every Asterisk installation brings along."""
    silence = _SILENCE_NAME.fullmatch(name)
    if silence is not None:
        return bytes(int(silence[1]) * RATE_HZ * SAMPLE_BYTES)
    if name == "beep":
        time_s = np.arange(int(_BEEP_S * RATE_HZ)) / RATE_HZ
        tone = 6000 * np.sin(2 * np.pi * _BEEP_HZ * time_s)
        return bytes(tone.astype("<i2").tobytes())
    raise NoSuchSound(name)


def recorded(pcm16: bytes, file_format: str) -> tuple[bytes, int] | None:
    """What RECORD FILE writes: the file's bytes and its samples; None: no such format.

    pcm16 is at 8 kHz.
    """
    num_samples = len(pcm16) // SAMPLE_BYTES
    match file_format:
        case "ulaw" | "ul" | "pcm" | "mu":
            return ulaw_encode(pcm16), num_samples
        case "sln" | "raw":
            return pcm16, num_samples
        case "wav":
            return wav_from_pcm16(pcm16, rate_hz=RATE_HZ), num_samples
        case "sln16":
            if not pcm16:
                return b"", 0
            samples = np.frombuffer(pcm16, dtype="<i2")
            upsampled = soxr.resample(samples, RATE_HZ, 2 * RATE_HZ)
            return upsampled.tobytes(), int(upsampled.size)
        case _:
            return None
