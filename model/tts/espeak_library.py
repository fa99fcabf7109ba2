"""espeak-ng by ctypes: text -> waves at the library's own rate.

The library has one global state; use it in one thread of a process of its own.
Source: espeak-ng's speak_lib.h, version 1.52.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_short, c_ubyte, c_uint, c_void_p
from pathlib import Path
from typing import Any, Final

import espeakng_loader

from model.audio.pcm import wave_from_pcm16
from model.errors import SynthesisFailed
from model.tts.errors import SynthesizerUnavailable, VoiceUnknown
from model.tts.voice import Voice
from model.tts.worker_loop import EmitWave

_AUDIO_OUTPUT_SYNCHRONOUS: Final = 2
_CHUNK_MS: Final = 60
_POS_CHARACTER: Final = 1
_CHARS_UTF8: Final = 1
"""Neither espeakSSML (0x10) nor espeakPHONEMES (0x100): text is only ever text."""
_RATE: Final = 1
_PITCH: Final = 3
_EE_OK: Final = 0
_CALLBACK = ctypes.CFUNCTYPE(c_int, POINTER(c_short), c_int, c_void_p)
# A pangram's worth of sounds in about four seconds, in any language's letters.
_CALIBRATION_TEXT: Final = (
    "one two three four five six seven eight nine ten, a e i o u."
)


class _EspeakVoice(ctypes.Structure):
    _fields_ = (
        ("name", c_char_p),
        ("languages", c_void_p),
        ("identifier", c_char_p),
        ("gender", c_ubyte),
        ("age", c_ubyte),
        ("variant", c_ubyte),
        ("xx1", c_ubyte),
        ("score", c_int),
        ("spare", c_void_p),
    )


class EspeakLibrary:
    """The loaded library; one in a process.

    Raises:
        SynthesizerUnavailable: the library or its data cannot be loaded.
    """

    def __init__(self) -> None:
        self._library = _load()
        data_path = str(espeakng_loader.get_data_path())
        rate_hz = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, _CHUNK_MS, data_path.encode(), 0
        )
        if rate_hz <= 0:
            raise SynthesizerUnavailable(f"espeak-ng finds no data in {data_path}")
        self._rate_hz: int = rate_hz
        self._identifiers = self._list_voices()
        self._variants = {
            path.name for path in Path(data_path, "voices", "!v").iterdir()
        }
        self._emit: EmitWave | None = None
        self._trouble: BaseException | None = None
        self._callback = _CALLBACK(self._on_samples)  # kept: the library calls it later
        self._library.espeak_SetSynthCallback(self._callback)
        self._selected: Voice | None = None

    @property
    def version(self) -> str:
        return f"espeak-ng {self._library.espeak_Info(None).decode()}"

    def calibration_text(self) -> str:
        return _CALIBRATION_TEXT

    def warm_voices(self) -> list[Voice]:
        return [Voice()]

    def speak(self, text: str, voice: Voice, emit: EmitWave) -> None:
        """Synthesise; `emit` gets 60 ms at a time and may stop it at once.

        Raises:
            VoiceUnknown: espeak has no such language or variant.
            SynthesisFailed: espeak refused the text.
        """
        self._select(voice)
        # Control characters are espeak's in-band commands (U+0001 and what follows).
        encoded = "".join(c if c >= " " else " " for c in text).encode(errors="replace")
        self._emit, self._trouble = emit, None
        try:
            status = self._library.espeak_Synth(
                encoded, len(encoded) + 1, 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None
            )
        finally:
            self._emit = None
        if self._trouble is not None:
            raise self._trouble
        if status != _EE_OK:
            raise SynthesisFailed(f"espeak-ng refused the text, error {status}")

    def _on_samples(self, samples: Any, num_samples: int, _events: int) -> int:
        """Called by the library in mid-synthesis; 1 stops it."""
        if not samples or num_samples <= 0 or self._emit is None:
            return 0
        pcm16 = ctypes.string_at(samples, num_samples * 2)
        try:
            return 0 if self._emit(wave_from_pcm16(pcm16), self._rate_hz) else 1
        except BaseException as exc:  # noqa: BLE001 - C cannot carry it; speak() raises it
            self._trouble = exc
            return 1

    def _select(self, voice: Voice) -> None:
        if voice == self._selected:
            return
        self._selected = None
        name = self.identify(voice)
        if self._library.espeak_SetVoiceByName(name.encode()) != _EE_OK:
            raise VoiceUnknown(f"espeak-ng cannot load the voice {name}")
        self._library.espeak_SetParameter(_RATE, voice.speed_wpm, 0)
        self._library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        self._selected = voice

    def identify(self, voice: Voice) -> str:
        """ "en-gb+f3" -> "gmw/en+f3", the only name SetVoiceByName takes reliably."""
        language, _, variant = (voice.name or voice.language).partition("+")
        identifier = self._identifiers.get(language.lower())
        if identifier is None:
            raise VoiceUnknown(f"espeak-ng has no language {language!r}")
        if not variant:
            return identifier
        if variant not in self._variants:
            raise VoiceUnknown(f"espeak-ng has no voice variant {variant!r}")
        return f"{identifier}+{variant}"

    def _list_voices(self) -> dict[str, str]:
        """Language tag -> voice identifier, the best voice for each tag."""
        best: dict[str, tuple[int, str]] = {}
        voices = self._library.espeak_ListVoices(None)
        index = 0
        while voices[index]:
            found = voices[index].contents
            identifier = found.identifier.decode()
            for priority, language in _languages(found.languages):
                known = best.get(language)
                if known is None or priority < known[0]:
                    best[language] = (priority, identifier)
            index += 1
        return {language: identifier for language, (_, identifier) in best.items()}


def _languages(address: int) -> list[tuple[int, str]]:
    """espeak's list: a priority byte, a language tag, a zero; again; a zero byte."""
    found: list[tuple[int, str]] = []
    while priority := c_ubyte.from_address(address).value:
        language = ctypes.string_at(address + 1)
        found.append((priority, language.decode().lower()))
        address += len(language) + 2
    return found


def _load() -> ctypes.CDLL:
    path = espeakng_loader.get_library_path()
    try:
        library = ctypes.CDLL(path)
    except OSError as exc:
        raise SynthesizerUnavailable(f"cannot load {path}: {exc}") from exc
    library.espeak_Initialize.argtypes = (c_int, c_int, c_char_p, c_int)
    library.espeak_SetSynthCallback.argtypes = (_CALLBACK,)
    library.espeak_SetVoiceByName.argtypes = (c_char_p,)
    library.espeak_SetParameter.argtypes = (c_int, c_int, c_int)
    library.espeak_Synth.argtypes = (
        *(c_char_p, ctypes.c_size_t, c_uint, c_int, c_uint, c_uint),
        *(c_void_p, c_void_p),
    )
    library.espeak_Info.argtypes = (c_void_p,)
    library.espeak_Info.restype = c_char_p
    library.espeak_ListVoices.argtypes = (c_void_p,)
    library.espeak_ListVoices.restype = POINTER(POINTER(_EspeakVoice))
    return library
