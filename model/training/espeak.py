"""espeak-ng through ctypes: a wave, and the time of every word and phoneme.

One process holds one engine: espeak-ng keeps its state in globals.
Source: espeak-ng `src/include/espeak-ng/speak_lib.h` (events, initialisation bits).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import espeakng_loader
import numpy as np

from model.training.aligned import AlignedSpeech, Span, spread_words

_SYNCHRONOUS = 2
_PHONEME_EVENTS = 1
_CHARS_UTF8 = 1
_EVENT_WORD, _EVENT_PHONEME = 1, 7
_RATE, _PITCH, _RANGE = 1, 3, 4

ACCENTS = (
    "en-us",
    "en-us",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-029",
    "en-gb-x-gbcwmd",
    "en-us-nyc",
    "gmw/en",
)
HELD_OUT_VARIANTS = frozenset(
    {"f4", "andrea", "lee", "klatt3", "quincy", "henrique", "denis", "steph3"}
)
# Effects rather than voices: whispering, robots, croaks.
_UNUSABLE = ("whisper", "robosoft", "demonic", "croak", "unirobot", "storm", "fast")


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id_string", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_short),
    ctypes.c_int,
    ctypes.POINTER(_Event),
)


@dataclass(frozen=True, slots=True)
class EspeakVoice:
    """An accent, a speaker variant and the way of speaking (espeak's units)."""

    accent: str
    variant: str
    rate: int = 160
    pitch: int = 50
    pitch_range: int = 50


def variants(*, held_out: bool) -> tuple[str, ...]:
    """Speaker variants of the bundled data, those for training or the others."""
    folder = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    names = sorted(p.name for p in folder.iterdir())
    usable = [n for n in names if not n.lower().startswith(_UNUSABLE)]
    return tuple(n for n in usable if (n.lower() in HELD_OUT_VARIANTS) == held_out)


class Espeak:
    """The process's synthesizer. `speak` is not thread-safe."""

    _speaks: ClassVar[Espeak | None] = None

    def __init__(self) -> None:
        self._lib = ctypes.CDLL(espeakng_loader.get_library_path())
        data = str(Path(espeakng_loader.get_data_path()).parent).encode()
        self.rate_hz: int = self._lib.espeak_Initialize(
            _SYNCHRONOUS, 0, data, _PHONEME_EVENTS
        )
        if self.rate_hz <= 0:
            raise RuntimeError("espeak-ng did not start: its data were not found")
        self._pcm: list[bytes] = []
        self._events: list[tuple[int, int, int, str]] = []
        self._callback = _Callback(self._collect)
        self._named: tuple[str, str] | None = None

    def _collect(self, pcm, num_samples, events):  # type: ignore[no-untyped-def]
        if pcm and num_samples > 0:
            self._pcm.append(ctypes.string_at(pcm, num_samples * 2))
        n = 0
        while events[n].type != 0:
            e = events[n]
            name = e.id_string.decode("utf-8", "replace") if e.type == 7 else ""
            self._events.append((e.type, e.text_position, e.audio_position_ms, name))
            n += 1
        return 0

    def speak(self, text: str, voice: EspeakVoice) -> AlignedSpeech:
        """Say `text` (words and single spaces).

        Raises:
            ValueError: espeak-ng has no such voice.
        """
        if Espeak._speaks is not self:
            # The library has one voice and one callback a process, whoever began last.
            self._lib.espeak_SetSynthCallback(self._callback)
            Espeak._speaks, self._named = self, None
        name = (voice.accent, voice.variant)
        if name != self._named:
            spoken = f"{voice.accent}+{voice.variant}".encode()
            if self._lib.espeak_SetVoiceByName(spoken) != 0:
                raise ValueError(f"espeak-ng has no voice {spoken.decode()}")
            self._named = name
        for parameter, value in (
            (_RATE, voice.rate),
            (_PITCH, voice.pitch),
            (_RANGE, voice.pitch_range),
        ):
            self._lib.espeak_SetParameter(parameter, value, 0)
        self._pcm.clear()
        self._events.clear()
        raw = text.encode()
        self._lib.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, _CHARS_UTF8, None, None)
        self._lib.espeak_Synchronize()
        wave = np.frombuffer(b"".join(self._pcm), "<i2").astype(np.float32)
        wave /= np.float32(32768)
        return AlignedSpeech(wave, self.rate_hz, *self._alignment(text, len(wave)))

    def _alignment(
        self, text: str, num_samples: int
    ) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
        end_s = num_samples / self.rate_hz
        phones: list[Span] = []
        starts = [(n, ms / 1000) for t, _, ms, n in self._events if t == _EVENT_PHONEME]
        for i, (name, start) in enumerate(starts):
            stop = starts[i + 1][1] if i + 1 < len(starts) else end_s
            phones.append(Span(name, start, min(stop, end_s)))
        voiced = [p for p in phones if p.label not in _PAUSES]
        speech_end_s = voiced[-1].end_s if voiced else end_s
        word_starts: dict[int, float] = {}
        for kind, position, ms, _ in self._events:
            if kind == _EVENT_WORD:
                index = len(text[: position - 1].split())
                word_starts.setdefault(index, ms / 1000)
        words = spread_words(text.split(), word_starts, speech_end_s)
        return tuple(phones), words


_PAUSES = frozenset({"_:", "_", "_!", "_|", "_::", "", "||", "|"})
