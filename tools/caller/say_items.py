"""What a caller does, item by item.

::

    FILE.wav      say a recording: any rate, any number of channels
    FILE.ulaw     the same, headerless 8 kHz mu-law
    say:TEXT      say a text, spoken by the bundled synthesiser
    @SECONDS      stay silent until that many seconds after the answer
    +SECONDS      stay silent for that long
    dtmf:123#     press these keys
    wait:RMS,S    stay silent until a sound above RMS is heard, then S more
    quiet:RMS,S   stay silent until nothing above RMS was heard for S seconds
    bye           hang up
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from model.audio.frames import RATE_HZ
from model.audio.g711 import ulaw_decode
from model.audio.pcm import Wave, pcm16_from_wave
from model.audio.resample import StreamResampler
from model.audio.wav import AudioLimits, read_pcm16
from model.errors import InvalidAudio, SpeechError
from model.tts.espeak_library import EspeakLibrary
from model.tts.voice import Voice

KEYS: Final = "0123456789*#ABCD"
_ULAW_SUFFIXES: Final = frozenset({".ulaw", ".ul", ".mulaw", ".pcm"})


class BadItem(ValueError):
    """Not an item, or its recording cannot be read; one line that says why."""


@dataclass(frozen=True, slots=True)
class Say:
    name: str
    pcm16: bytes


@dataclass(frozen=True, slots=True)
class SilentUntil:
    at_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    for_s: float


@dataclass(frozen=True, slots=True)
class Press:
    keys: str


@dataclass(frozen=True, slots=True)
class WaitForSound:
    above_rms: float
    then_s: float


@dataclass(frozen=True, slots=True)
class WaitForQuiet:
    below_rms: float
    for_s: float


@dataclass(frozen=True, slots=True)
class HangUp:
    pass


Item: TypeAlias = (
    Say | SilentUntil | Pause | Press | WaitForSound | WaitForQuiet | HangUp
)


def parse_item(text: str) -> Item:
    """One item of the list above.

    Raises:
        BadItem: not an item, or its recording cannot be read.
    """
    try:
        return _parsed(text)
    except ValueError as exc:
        raise BadItem(f"{text!r}: {exc}") from exc
    except SpeechError as exc:
        raise BadItem(f"{text!r}: {exc}") from exc


def _parsed(text: str) -> Item:
    if text == "bye":
        return HangUp()
    if text.startswith("@"):
        return SilentUntil(float(text[1:]))
    if text.startswith("+"):
        return Pause(float(text[1:]))
    kind, _, argument = text.partition(":")
    match kind:
        case "dtmf":
            return Press(_keys(argument))
        case "wait":
            return WaitForSound(*_two_numbers(argument))
        case "quiet":
            return WaitForQuiet(*_two_numbers(argument))
        case "say":
            return Say(argument, spoken(argument))
        case _:
            return recording(Path(text))


def _keys(argument: str) -> str:
    keys = argument.upper()
    if not keys or any(key not in KEYS for key in keys):
        raise ValueError("not telephone keys")
    return keys


def _two_numbers(argument: str) -> tuple[float, float]:
    level, comma, seconds = argument.partition(",")
    if not comma:
        raise ValueError("RMS,SECONDS is wanted")
    return float(level), float(seconds)


def recording(path: Path) -> Say:
    """A sound file as 8 kHz pcm16.

    Raises:
        BadItem, InvalidAudio: it cannot be read.
    """
    try:
        if path.suffix.lower() in _ULAW_SUFFIXES:
            return Say(path.name, ulaw_decode(path.read_bytes()))
        limits = AudioLimits(max_s=600.0)
        return Say(path.name, read_pcm16(path, rate_hz=RATE_HZ, limits=limits))
    except OSError as exc:
        raise BadItem(f"{path}: {exc.strerror}") from exc


def spoken(text: str, voice: Voice | None = None) -> bytes:
    """A text spoken by espeak-ng, as 8 kHz pcm16; another voice than the bot's.

    Raises:
        SpeechError: the synthesiser cannot be loaded or refused the text.
    """
    if not text.strip():
        raise InvalidAudio("a text is wanted")
    rate_hz = RATE_HZ
    waves: list[Wave] = []

    def take(wave: Wave, at_hz: int) -> bool:
        nonlocal rate_hz
        rate_hz = at_hz
        waves.append(wave)
        return True

    EspeakLibrary().speak(text, voice or Voice(name="en-us+f3"), take)
    resampler = StreamResampler(rate_hz, RATE_HZ)
    parts = [pcm16_from_wave(resampler.feed(wave)) for wave in waves]
    parts.append(pcm16_from_wave(resampler.flush()))
    return b"".join(parts)
