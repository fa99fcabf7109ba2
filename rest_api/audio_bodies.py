"""Audio of a request -> a clip for the model: a file of any known kind, or bare pcm16.

What isn't a file by its first bytes is taken for bare 16-bit samples.
"""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import pybase64

from model.audio.containers import is_audio_file
from model.audio.pcm import wave_from_pcm16
from model.audio.resample import resample
from model.audio.wav import AudioLimits, read_audio
from model.errors import InvalidAudio
from model.ultravox.clip import AudioClip

MODEL_RATE_HZ: Final = 16_000
DEFAULT_LIMITS: Final = AudioLimits()
_MIN_CLIP_S: Final = 0.02
"""Less than one frame is no speech, and the encoder has no use for it."""
_NUM_DECODERS: Final = 2
"""Threads that decode for REST, so that calls never wait for one."""
_AT_ONCE_BYTES: Final = 1_300_000
"""Of bare samples, 30 s in base64: they take half a millisecond, less than a thread's
turn may take when the machine is busy."""

_T = TypeVar("_T")


class AudioDecoding:
    """Decoding off the event loop, a little at a time."""

    def __init__(self, limits: AudioLimits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._threads = ThreadPoolExecutor(_NUM_DECODERS, thread_name_prefix="decode")

    def close(self) -> None:
        """End the threads; nobody waits for what they are at."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def clip(self, audio: bytes | str, sampling_rate: int) -> AudioClip:
        """Of an encoded file or bare samples; a string is either in base64.

        Raises:
            InvalidAudio: as `decode_audio`.
        """
        if len(audio) > _AT_ONCE_BYTES:
            return await self.run(
                lambda: (
                    decode_audio(audio, sampling_rate, self.limits)
                    if isinstance(audio, str)
                    else read_encoded(audio, sampling_rate, self.limits)
                )
            )
        encoded = from_base64(audio) if isinstance(audio, str) else audio
        if sampling_rate == MODEL_RATE_HZ and not is_audio_file(encoded):
            return read_encoded(encoded, sampling_rate, self.limits)
        return await self.run(lambda: read_encoded(encoded, sampling_rate, self.limits))

    async def run(self, work: Callable[[], _T]) -> _T:
        """What `work` returns or raises."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, work)


def decode_audio(
    audio_base64: str, sampling_rate: int, limits: AudioLimits = DEFAULT_LIMITS
) -> AudioClip:
    """Audio in base64, or a data URL: as `read_encoded`.

    Raises:
        InvalidAudio: not base64, not audio, empty, too short or too long.
    """
    return read_encoded(from_base64(audio_base64), sampling_rate, limits)


def from_base64(audio_base64: str) -> bytes:
    """Strict, but for white space: tried without looking for any, for it is rare.

    Raises:
        InvalidAudio: not base64, nor a data URL.
    """
    data = audio_base64
    if data.startswith("data:"):
        _, comma, behind = data.partition(",")
        data = behind if comma else data
    try:
        try:
            return pybase64.b64decode(data, validate=True)
        except binascii.Error:
            return pybase64.b64decode("".join(data.split()), validate=True)
    except ValueError as exc:  # binascii.Error is one
        raise InvalidAudio("audio_base64 is not base64") from exc


def read_encoded(
    encoded: bytes, sampling_rate: int, limits: AudioLimits = DEFAULT_LIMITS
) -> AudioClip:
    """A file's bytes, or bare pcm16 at `sampling_rate`; the clip is at 16 kHz.

    Raises:
        InvalidAudio: not audio, empty, too short or too long.
    """
    if not encoded:
        raise InvalidAudio("the audio is empty")
    if is_audio_file(encoded):
        clip = AudioClip(read_audio(encoded, rate_hz=MODEL_RATE_HZ, limits=limits))
    else:
        clip = _bare_samples(encoded, sampling_rate, limits)
    if clip.duration_s < _MIN_CLIP_S:
        raise InvalidAudio(f"the audio is shorter than {_MIN_CLIP_S:g} s")
    return clip


def _bare_samples(pcm16: bytes, sampling_rate: int, limits: AudioLimits) -> AudioClip:
    if len(pcm16) % 2:
        raise InvalidAudio(
            "neither an audio file nor 16-bit samples: an odd number of bytes"
        )
    if len(pcm16) > limits.max_s * sampling_rate * 2:
        raise InvalidAudio(f"the audio is longer than {limits.max_s:g} s")
    if sampling_rate == MODEL_RATE_HZ:
        return AudioClip.of_pcm16(pcm16)
    return AudioClip(resample(wave_from_pcm16(pcm16), sampling_rate, MODEL_RATE_HZ))
