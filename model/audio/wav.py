"""Recordings in and out: WAV, FLAC, OGG, MP3, AIFF -> one mono wave, and WAV files.

What comes from outside is untrusted: it is decoded in blocks under limits, so that a
small file cannot become a large one, and what isn't usable audio is refused with one
clear sentence.
"""

from __future__ import annotations

import io
import wave as wave_file
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soundfile

from model.audio.containers import harmless
from model.audio.frames import SAMPLE_BYTES
from model.audio.pcm import Wave, pcm16_from_wave
from model.audio.resample import StreamResampler
from model.errors import InvalidAudio

_BLOCK_SAMPLES: Final = 1 << 16
# Float files may overshoot full scale by some dB; beyond this the writer stored
# integers as floats and everything would be clipped to noise.
_MAX_PEAK: Final = 16.0


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """What an incoming recording may cost."""

    max_s: float = 120.0
    """A caller's turn is capped at 30 s; two minutes leave room for uploads."""
    max_encoded_bytes: int = 32 << 20
    """Two minutes of stereo 16-bit at 48 kHz are 23 MB."""
    max_channels: int = 8
    min_rate_hz: int = 4000
    max_rate_hz: int = 192_000


def read_audio(
    source: bytes | Path, *, rate_hz: int, limits: AudioLimits | None = None
) -> Wave:
    """A recording (the file's bytes, or its path) as a mono wave at `rate_hz`.

    Channels are averaged, samples beyond full scale clipped.

    Raises:
        InvalidAudio: not a file of those kinds, empty, too long, too large, an absurd
            rate, codec or number of channels, or samples that aren't numbers.
    """
    limits = limits or AudioLimits()
    encoded = harmless(_encoded(source, limits))
    try:
        with soundfile.SoundFile(io.BytesIO(encoded)) as recording:
            _check_header(recording, limits)
            resampler = StreamResampler(recording.samplerate, rate_hz)
            parts = [resampler.feed(block) for block in _blocks(recording, limits)]
            parts.append(resampler.flush())
    except soundfile.SoundFileError as exc:
        raise InvalidAudio(f"not a readable audio file: {_reason(exc)}") from exc
    wave = np.concatenate(parts)
    if wave.size == 0:
        raise InvalidAudio("the audio is empty")
    return np.clip(wave, -1.0, 1.0, out=wave)


def read_pcm16(
    source: bytes | Path, *, rate_hz: int, limits: AudioLimits | None = None
) -> bytes:
    """A recording as pcm16 at `rate_hz`; raises InvalidAudio as `read_audio` does."""
    return pcm16_from_wave(read_audio(source, rate_hz=rate_hz, limits=limits))


def wav_from_pcm16(pcm16: bytes, *, rate_hz: int) -> bytes:
    """A mono 16-bit WAV file's bytes."""
    file = io.BytesIO()
    with wave_file.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(SAMPLE_BYTES)
        writer.setframerate(rate_hz)
        writer.writeframes(pcm16)
    return file.getvalue()


def wav_from_wave(wave: Wave, *, rate_hz: int) -> bytes:
    """A mono 16-bit WAV file's bytes, clipped at full scale."""
    return wav_from_pcm16(pcm16_from_wave(wave), rate_hz=rate_hz)


def write_wav(path: Path, pcm16: bytes, *, rate_hz: int) -> None:
    """Write a mono 16-bit WAV file.

    Raises:
        OSError: the path cannot be written.
    """
    path.write_bytes(wav_from_pcm16(pcm16, rate_hz=rate_hz))


def _encoded(source: bytes | Path, limits: AudioLimits) -> bytes:
    if isinstance(source, Path):
        try:
            with source.open("rb") as file:
                # One byte more than allowed shows that there is more.
                encoded = file.read(limits.max_encoded_bytes + 1)
        except OSError as exc:
            raise InvalidAudio(f"cannot read {source}: {exc.strerror}") from exc
    else:
        encoded = source
    if not encoded:
        raise InvalidAudio("the audio is empty")
    if len(encoded) > limits.max_encoded_bytes:
        raise InvalidAudio(f"the file is over {limits.max_encoded_bytes} bytes")
    return encoded


def _check_header(recording: soundfile.SoundFile, limits: AudioLimits) -> None:
    if not limits.min_rate_hz <= recording.samplerate <= limits.max_rate_hz:
        raise InvalidAudio(
            f"a rate of {recording.samplerate} Hz is outside "
            f"{limits.min_rate_hz} to {limits.max_rate_hz}"
        )
    if recording.channels > limits.max_channels:
        raise InvalidAudio(
            f"{recording.channels} channels are more than {limits.max_channels}"
        )


def _blocks(recording: soundfile.SoundFile, limits: AudioLimits) -> Iterator[Wave]:
    """Mono blocks at the file's rate; believes what is decoded, not the header."""
    left_samples = int(limits.max_s * recording.samplerate)
    while True:
        block: Wave = recording.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)
        if len(block) == 0:
            return
        left_samples -= len(block)
        if left_samples < 0:
            raise InvalidAudio(f"the audio is longer than {limits.max_s:g} s")
        if not np.isfinite(block).all():
            raise InvalidAudio("the audio has samples that are not numbers")
        if float(np.abs(block).max()) > _MAX_PEAK:
            raise InvalidAudio("float samples must lie between -1 and 1")
        yield block.mean(axis=1, dtype=np.float32)


def _reason(exc: soundfile.SoundFileError) -> str:
    """libsndfile's words in one line, without the name of our buffer object."""
    words = exc.error_string if isinstance(exc, soundfile.LibsndfileError) else str(exc)
    return " ".join(words.split())
