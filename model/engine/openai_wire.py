"""Chat completions with audio input, as OpenAI-compatible servers speak them.

Pure: a request becomes a JSON body, the bytes of the streamed answer become what they
mean, an error answer becomes one of ours.  Servers differ in what they leave out:
`content` may be null, `choices` empty, the role event missing, the usage absent.  What
is there must be of the kind the reference names.

Source: OpenAI's API reference, "Create chat completion"; vLLM and llama.cpp serve it.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from model.audio.wav import wav_from_wave
from model.engine.request import FinishReason, GenerationRequest
from model.errors import (
    ContextTooLong,
    EngineOverloaded,
    GenerationFailed,
    InvalidRequest,
    SpeechError,
    SpeechUnavailable,
)
from model.ultravox.clip import AudioClip
from model.ultravox.inputs import Message
from model.ultravox.lengths import RATE_HZ

MIN_CLIP_SAMPLES: Final = RATE_HZ // 10
"""Shorter clips are filled up with silence: one of a single sample ends llama.cpp."""
MAX_LINE_BYTES: Final = 1 << 20
"""Of an event, which holds a few words."""
_DATA: Final = "data:"
_END: Final = "[DONE]"
_MAX_REASON_CHARS: Final = 200
_CONTEXT_WORDS: Final = ("context length", "context size", "maximum context")
_NOT_JSON: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class _Error(msgspec.Struct):
    message: str = ""


class _ErrorAnswer(msgspec.Struct):
    """Servers nest the message or not."""

    error: _Error | str | None = None
    message: str = ""


class _Model(msgspec.Struct):
    id: str
    architecture: Any = None
    """llama.cpp's, an object; others may have other things under this name."""


class _Models(msgspec.Struct):
    data: list[_Model]


@dataclass(frozen=True, slots=True)
class StreamPart:
    """What one event of the stream brings."""

    text: str = ""
    finish_reason: FinishReason | None = None
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    completion_tokens: int | None = None
    is_end: bool = False


class ClipTexts:
    """Clips as base64 WAV files; each is made once and lives as long as its clip."""

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[AudioClip, str] = WeakKeyDictionary()

    def of(self, clip: AudioClip) -> str:
        """The clip's file in base64."""
        if (made := self._made.get(clip)) is None:
            wave = clip.wave
            if len(wave) < MIN_CLIP_SAMPLES:
                wave = np.pad(wave, (0, MIN_CLIP_SAMPLES - len(wave)))
            wav = wav_from_wave(wave, rate_hz=RATE_HZ)
            made = self._made[clip] = base64.b64encode(wav).decode()
        return made


def request_body(request: GenerationRequest, clips: ClipTexts) -> dict[str, Any]:
    """The JSON of a streamed chat completion, but for the model's name."""
    body: dict[str, Any] = {
        "messages": [_message(message, clips) for message in request.prompt.messages],
        "max_tokens": request.max_new_tokens,
        # always said: llama.cpp samples at 0.8 when it isn't
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.stop:
        body["stop"] = list(request.stop)
    if request.seed is not None:
        body["seed"] = request.seed
    return body


def _message(message: Message, clips: ClipTexts) -> dict[str, Any]:
    if not message.clips:
        return {"role": message.role, "content": message.text}
    parts: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, AudioClip):
            audio = {"data": clips.of(part), "format": "wav"}
            parts.append({"type": "input_audio", "input_audio": audio})
        else:
            text = part if isinstance(part, str) else part.text
            parts.append({"type": "text", "text": text})
    return {"role": message.role, "content": parts}


class StreamLines:
    """The bytes of an answer, cut anywhere, to its lines."""

    def __init__(self) -> None:
        self._rest = b""

    def receive_data(self, data: bytes) -> list[str]:
        """The lines that are complete now.

        Raises:
            GenerationFailed: a line without an end.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise GenerationFailed("the model server sent a line without an end")
        return [_line(line) for line in lines]

    def receive_eof(self) -> str:
        """What came after the last line's end."""
        rest, self._rest = self._rest, b""
        return _line(rest)


def _line(data: bytes) -> str:
    return data.decode(errors="replace").rstrip("\r")


def stream_part(line: str) -> StreamPart | None:
    """One line of the event stream; None for what means nothing to us.

    Raises:
        GenerationFailed: the server reports a failure, or sends what is no event.
    """
    if not line.startswith(_DATA):
        return None  # comments, event names, the empty lines between
    data = line[len(_DATA) :].strip()
    if data == _END:
        return StreamPart(is_end=True)
    try:
        event = msgspec.json.decode(data, type=_Event)
    except _NOT_JSON as exc:
        raise GenerationFailed(
            f"the model server sent what is no event: {exc}"
        ) from exc
    if event.error:
        raise _error_in_stream(_reason(data))
    choice = event.choices[0] if event.choices else _Choice()
    usage = event.usage or _Usage()
    details = usage.prompt_tokens_details or _PromptDetails()
    return StreamPart(
        text=(choice.delta and choice.delta.content) or "",
        finish_reason=_finish_reason(choice.finish_reason),
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=details.cached_tokens or 0,
        completion_tokens=usage.completion_tokens,
    )


def _error_in_stream(reason: str) -> SpeechError:
    """A failure after the answer's head said 200: there is only its wording."""
    said = f"the model server: {reason}"
    if any(words in reason.lower() for words in _CONTEXT_WORDS):
        return ContextTooLong(said, num_tokens=0, limit_tokens=0)
    return GenerationFailed(said)


def error_of(status: int, body: str) -> SpeechError:
    """What an answer with an error status means for the request."""
    reason = _reason(body)
    said = f"the model server answered {status}: {reason}"
    if status in (401, 403):
        return SpeechUnavailable(f"{said} (ULTRAVOX_ENGINE_API_KEY)")
    if status == 429:
        return EngineOverloaded(said)
    if status in (404, 502, 503, 504):
        return SpeechUnavailable(said)
    if status in (400, 413, 422):
        if any(words in reason.lower() for words in _CONTEXT_WORDS):
            return ContextTooLong(said, num_tokens=0, limit_tokens=0)
        return InvalidRequest(said)
    return GenerationFailed(said)


def model_named(body: bytes, wanted: str) -> str:
    """The model in an answer of `/v1/models`; the first if none is wanted by name.

    llama.cpp lists what a model takes: one without ears is refused here, not when the
    first caller speaks.

    Raises:
        SpeechUnavailable: it has no such model, the model takes no audio, or the
            answer is something else.
    """
    try:
        listed = msgspec.json.decode(body, type=_Models).data
    except _NOT_JSON as exc:
        raise SpeechUnavailable(f"/v1/models is not a list of models: {exc}") from exc
    models = {model.id: model for model in listed}
    if not models:
        raise SpeechUnavailable("the model server has no model")
    name = wanted or next(iter(models))
    if name not in models:
        raise SpeechUnavailable(f"has {', '.join(models)}"[:_MAX_REASON_CHARS])
    about = models[name].architecture
    takes = about.get("input_modalities") if isinstance(about, dict) else None
    if isinstance(takes, list) and "audio" not in takes:
        raise SpeechUnavailable(f"{name} takes no audio (llama-server: --mmproj)")
    return name


def _finish_reason(reason: str | None) -> FinishReason | None:
    if reason is None:
        return None
    return "length" if reason == "length" else "stop"


def _reason(body: str) -> str:
    """The message of an error answer; of what is none, its beginning."""
    said = ""
    with suppress(*_NOT_JSON):
        answer = msgspec.json.decode(body, type=_ErrorAnswer)
        error = answer.error
        said = (error.message if isinstance(error, _Error) else error) or answer.message
    reason = " ".join((said or body).split())[:_MAX_REASON_CHARS]
    return reason or "no reason given"
