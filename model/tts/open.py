"""Which synthesiser a service uses: the choice made from its options, and its start."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from model.tts.errors import SynthesizerUnavailable
from model.tts.fallback import FallbackSynthesizer
from model.tts.openai_speech import OpenAiSpeech, OpenAiSpeechOptions
from model.tts.synthesizer import SpeechSynthesizer
from model.tts.voice import Voice
from model.tts.worker_pool import PoolOptions, WorkerPool
from model.tts.worker_process import WorkerOptions

Backend: TypeAlias = Literal["auto", "espeak", "piper", "openai"]
_PIPER_SUFFIX = ".onnx"
# A network takes up to a second a sentence, and says nothing until it is through.
_PIPER_WORKER = WorkerOptions(start_timeout_s=60.0, silence_timeout_s=10.0)


@dataclass(frozen=True, slots=True)
class TtsOptions:
    backend: Backend = "auto"
    """auto: piper when `voice` is a voice file or a folder of them, else espeak."""
    voice: str = ""
    """A voice's name, a piper voice file, or a folder of voice files."""
    language: str = "en-us"
    speed_wpm: int = 165
    num_workers: int = 2
    """Processes.  espeak: two serve 100 calls; piper: one a core to spare."""
    piper_threads: int = 1
    """Of each piper process: on a busy machine one a process wastes least."""
    fallback: Literal["espeak", "none"] = "espeak"
    """Who speaks when the chosen backend, another one, fails in a call."""
    url: str = ""
    api_key: str = field(default="", repr=False)
    model: str = "tts-1"


async def open_synthesizer(options: TtsOptions) -> SpeechSynthesizer:
    """Start the chosen synthesiser; ready when it returns.

    Raises:
        SynthesizerUnavailable: a package, voice file or server is missing.
        VoiceUnknown: the default voice is malformed or does not exist.
    """
    voice = default_voice(options)
    first = await _open(_chosen(options), voice)
    if options.fallback == "none" or chosen_backend(options) == "espeak":
        return first
    try:
        other = await _open(_espeak_pool(1), replace(voice, name=""))
    except BaseException:
        await first.aclose()
        raise
    return FallbackSynthesizer(first, other)


def _chosen(options: TtsOptions) -> WorkerPool | OpenAiSpeech:
    match chosen_backend(options):
        case "espeak":
            return _espeak_pool(options.num_workers)
        case "piper":
            return _piper_pool(options)
        case "openai":
            if not options.url:
                raise SynthesizerUnavailable("no address of a speech server is set")
            server = OpenAiSpeechOptions(
                url=options.url, api_key=options.api_key, model=options.model
            )
            return OpenAiSpeech(server)


def _espeak_pool(num_workers: int) -> WorkerPool:
    options = PoolOptions(num_workers=num_workers)
    return WorkerPool("espeak", ("model.tts.espeak_worker",), options)


async def _open(
    synthesizer: WorkerPool | OpenAiSpeech, voice: Voice
) -> WorkerPool | OpenAiSpeech:
    await synthesizer.open()
    try:
        await synthesizer.check_voice(voice)
    except BaseException:
        await synthesizer.aclose()
        raise
    return synthesizer


def chosen_backend(options: TtsOptions) -> Literal["espeak", "piper", "openai"]:
    """What `auto` means with these options; never changes by what is installed."""
    if options.backend != "auto":
        return options.backend
    return "piper" if _is_piper_path(options.voice) else "espeak"


def default_voice(options: TtsOptions) -> Voice:
    """The voice for whoever names none.

    Raises:
        VoiceUnknown: malformed.
    """
    name = options.voice
    if _is_piper_path(name):
        name = Path(name).stem if name.endswith(_PIPER_SUFFIX) else ""
    return Voice(options.language.lower(), name, options.speed_wpm)


def voice_for(options: TtsOptions, *, language: str = "", name: str = "") -> Voice:
    """The voice a campaign asks for: by name, else the default if it has the language.

    Raises:
        VoiceUnknown: malformed.
    """
    default = default_voice(options)
    language = language.lower() or default.language
    if not name and language.split("-")[0] == default.language.split("-")[0]:
        name = default.name
    return Voice(language, name, options.speed_wpm)


def _piper_pool(options: TtsOptions) -> WorkerPool:
    if importlib.util.find_spec("piper") is None:
        raise SynthesizerUnavailable(
            "piper voices need the package piper-tts: pip install piper-tts"
        )
    files = _voice_files(options.voice)
    return WorkerPool(
        "piper",
        (
            *("model.tts.piper_worker", "--threads", str(options.piper_threads)),
            *map(str, files),
        ),
        PoolOptions(num_workers=options.num_workers, worker=_PIPER_WORKER),
    )


def _voice_files(voice: str) -> list[Path]:
    path = Path(voice).expanduser().absolute()
    if path.is_dir():
        files = sorted(path.glob(f"*{_PIPER_SUFFIX}"))
        if not files:
            raise SynthesizerUnavailable(f"no piper voice (*.onnx) in {path}")
        return files
    if not voice or not path.is_file():
        raise SynthesizerUnavailable(f"there is no piper voice file {voice!r}")
    return [path]


def _is_piper_path(voice: str) -> bool:
    return voice.endswith(_PIPER_SUFFIX) or "/" in voice
