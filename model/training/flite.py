"""flite's five American voices through ctypes, with word and phoneme times.

Needs the Debian package `flite1-dev` or `libflite1` (shared libraries). Only training
uses it.
Source: flite 2.2 `include/flite.h`, `include/cst_item.h`, `src/utils/cst_wave.h`.
"""

from __future__ import annotations

import ctypes

import numpy as np

from model.training.aligned import AlignedSpeech, Span, spread_words

TRAINING_VOICES = ("kal", "kal16", "awb", "slt")
HELD_OUT_VOICES = ("rms",)


class _Wave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate_hz", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class Flite:
    """The process's synthesizer; loads a voice when it is first asked for."""

    def __init__(self) -> None:
        for name in (
            "libflite.so.1",
            "libflite_cmulex.so.1",
            "libflite_usenglish.so.1",
        ):
            library = ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
            if name == "libflite.so.1":
                self._lib = library
        self._voices: dict[str, ctypes.c_void_p] = {}
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        for function, result, arguments in (
            ("flite_init", ctypes.c_int, ()),
            ("flite_synth_text", pointer, (text, pointer)),
            ("utt_wave", ctypes.POINTER(_Wave), (pointer,)),
            ("utt_relation", pointer, (pointer, text)),
            ("relation_head", pointer, (pointer,)),
            ("item_next", pointer, (pointer,)),
            ("item_feat_string", text, (pointer, text)),
            ("item_feat_float", ctypes.c_float, (pointer, text)),
            ("ffeature_float", ctypes.c_float, (pointer, text)),
            ("delete_utterance", None, (pointer,)),
            ("feat_set_float", None, (pointer, text, ctypes.c_float)),
        ):
            entry = getattr(self._lib, function)
            entry.restype, entry.argtypes = result, arguments
        self._lib.flite_init()

    def _voice(self, name: str) -> ctypes.c_void_p:
        if name not in self._voices:
            library = ctypes.CDLL(f"libflite_cmu_us_{name}.so.1")
            register = getattr(library, f"register_cmu_us_{name}")
            register.restype, register.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
            self._voices[name] = register(None)
        return self._voices[name]

    def speak(self, text: str, voice: str) -> AlignedSpeech:
        """Say `text` (words and single spaces)."""
        utterance = self._lib.flite_synth_text(text.encode(), self._voice(voice))
        try:
            made = self._lib.utt_wave(utterance).contents
            pcm = np.ctypeslib.as_array(made.samples, (made.num_samples,))
            wave = pcm.astype(np.float32) / np.float32(32768)
            phones = self._phones(utterance)
            words = self._words(utterance, text)
            return AlignedSpeech(wave, made.sample_rate_hz, phones, words)
        finally:
            self._lib.delete_utterance(utterance)

    def _items(self, utterance: int, relation: bytes) -> list[int]:
        item = self._lib.relation_head(self._lib.utt_relation(utterance, relation))
        items = []
        while item:
            items.append(item)
            item = self._lib.item_next(item)
        return items

    def _phones(self, utterance: int) -> tuple[Span, ...]:
        spans: list[Span] = []
        start = 0.0
        for item in self._items(utterance, b"Segment"):
            end = float(self._lib.item_feat_float(item, b"end"))
            name = self._lib.item_feat_string(item, b"name").decode()
            spans.append(Span(name, start, end))
            start = end
        return tuple(spans)

    def _words(self, utterance: int, text: str) -> tuple[Span, ...]:
        """Flite splits "what's" into two words; join them by their letters."""
        starts: dict[int, float] = {}
        end = 0.0
        words = text.split()
        index, letters = 0, ""
        for item in self._items(utterance, b"Word"):
            name = self._lib.item_feat_string(item, b"name").decode()
            if not letters:
                path = b"R:SylStructure.daughter1.daughter1.R:Segment.p.end"
                starts[index] = float(self._lib.ffeature_float(item, path))
            path = b"R:SylStructure.daughtern.daughtern.R:Segment.end"
            end = float(self._lib.ffeature_float(item, path))
            letters += name.replace("'", "")
            if index < len(words) and letters == words[index].replace("'", ""):
                index, letters = index + 1, ""
        if index != len(words):
            return ()
        return spread_words(words, starts, end)
