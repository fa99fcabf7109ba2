"""piper voices (VITS networks in ONNX files): text -> waves at the voice's own rate.

piper-tts is an optional package; without it only this module's use fails.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from model.audio.pcm import Wave
from model.errors import SynthesisFailed
from model.onnx import import_onnxruntime
from model.tts.errors import SynthesizerUnavailable, VoiceUnknown
from model.tts.voice import Voice
from model.tts.worker_loop import EmitWave

_DIGEST_BYTES = 4
_NORMAL_WPM = Voice().speed_wpm
"""The speed at which a voice speaks as it was trained."""


class PiperModel(Protocol):
    """One loaded voice; what we use of `piper.PiperVoice`."""

    rate_hz: int
    language: str
    """espeak's name of the language its text is read in: "en-us"."""

    def speak(self, text: str, speed: float) -> Iterator[Wave]:
        """One wave a sentence; `speed` 2.0 is twice as fast."""
        ...


@dataclass(slots=True)
class _Loaded:
    model: PiperModel
    language: str


class PiperVoices:
    """All configured voice files, loaded.

    Raises:
        SynthesizerUnavailable: the package or a file is missing or unusable.
    """

    def __init__(
        self, files: tuple[Path, ...], load: Callable[[Path], PiperModel], version: str
    ) -> None:
        self._version = version
        self._voices = {path.stem: _loaded(load(path)) for path in files}

    @property
    def version(self) -> str:
        return f"piper {self._version}: {', '.join(self._voices)}"

    def warm_voices(self) -> list[Voice]:
        return [Voice(one.language, name) for name, one in self._voices.items()]

    def identify(self, voice: Voice) -> str:
        """The file a voice means: by name, else the first of its language.

        Raises:
            VoiceUnknown: no file speaks so.
        """
        if voice.name:
            if voice.name in self._voices:
                return voice.name
            known = ", ".join(self._voices)
            raise VoiceUnknown(f"no piper voice {voice.name!r}; there are: {known}")
        primary = voice.language.split("-")[0]
        exact = [n for n, one in self._voices.items() if one.language == voice.language]
        near = [
            n
            for n, one in self._voices.items()
            if one.language.split("-")[0] == primary
        ]
        if not near:
            raise VoiceUnknown(f"no piper voice speaks {voice.language!r}")
        return (exact or near)[0]

    def calibration_text(self) -> str:
        return "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."

    def speak(self, text: str, voice: Voice, emit: EmitWave) -> None:
        """See worker_loop.Engine."""
        model = self._voices[self.identify(voice)].model
        # piper reads what stands in double square brackets as phonemes.
        plain = text.replace("[", " ").replace("]", " ")
        for wave in model.speak(plain, voice.speed_wpm / _NORMAL_WPM):
            if not emit(wave, model.rate_hz):
                return


def _loaded(model: PiperModel) -> _Loaded:
    return _Loaded(model, model.language.lower().replace("_", "-"))


class OnnxModel:
    """A voice file run by piper-tts."""

    def __init__(self, path: Path, num_threads: int) -> None:
        self._voice = _load_voice(path, num_threads)
        self.rate_hz: int = self._voice.config.sample_rate
        self.language: str = self._voice.config.espeak_voice

    def speak(self, text: str, speed: float) -> Iterator[Wave]:
        manner = _piper("piper.config").SynthesisConfig(
            length_scale=self._voice.config.length_scale / speed,
            # Else each sentence is scaled to its own loudest sample.
            normalize_audio=False,
        )
        try:
            for chunk in self._voice.synthesize(text, manner):
                yield np.asarray(chunk.audio_float_array, dtype=np.float32).reshape(-1)
        except Exception as exc:  # onnxruntime's errors have no other base
            raise SynthesisFailed(f"piper cannot speak the text: {exc}") from exc


def open_piper(files: tuple[Path, ...], num_threads: int) -> PiperVoices:
    """Load the voices.

    Raises:
        SynthesizerUnavailable: the package or a file is missing or unusable.
    """
    try:
        version = importlib.metadata.version("piper-tts")
    except importlib.metadata.PackageNotFoundError as exc:
        raise SynthesizerUnavailable(
            "piper voices need the package piper-tts: pip install piper-tts"
        ) from exc
    version = f"{version} {_digest(files)}"
    return PiperVoices(files, lambda path: OnnxModel(path, num_threads), version)


def _digest(files: tuple[Path, ...]) -> str:
    """Tells these voice files from others of the same names.

    Raises:
        SynthesizerUnavailable: one cannot be read.
    """
    whole = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    try:
        for file in files:
            with file.open("rb") as opened:
                whole.update(hashlib.file_digest(opened, "blake2b").digest())
    except OSError as exc:
        raise SynthesizerUnavailable(f"{file} cannot be read: {exc}") from exc
    return whole.hexdigest()


def _piper(module: str) -> Any:
    """A module of an optional package, which has no types where it is missing."""
    return importlib.import_module(module)


def _load_voice(path: Path, num_threads: int) -> Any:
    """A `piper.PiperVoice`; built by hand because `load` takes every core."""
    settings = Path(f"{path}.json")
    for file in (path, settings):
        if not file.is_file():
            raise SynthesizerUnavailable(f"piper voice: there is no file {file}")
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    try:
        config = _piper("piper.config").PiperConfig.from_dict(
            json.loads(settings.read_text())
        )
        session = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as exc:  # onnxruntime's errors have no other base
        raise SynthesizerUnavailable(
            f"piper voice {path} cannot be used: {exc}"
        ) from exc
    return _piper("piper").PiperVoice(session=session, config=config)
