"""Chat completions with audio input, as OpenAI-compatible servers speak them.

Pure: a request becomes a JSON body, the lines of the streamed answer become what they
mean, an error answer becomes one of ours.  Servers differ in what they leave out:
`content` may be null, `choices` empty, the role event missing, the usage absent.

Source: OpenAI's API reference, "Create chat completion"; vLLM and llama.cpp serve it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

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
_DATA: Final = "data:"
_END: Final = "[DONE]"
_MAX_REASON_CHARS: Final = 200
_CONTEXT_WORDS: Final = ("context length", "context size", "maximum context")


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
        event = json.loads(data)
    except ValueError as exc:
        raise GenerationFailed(
            "the model server sent an event that isn't JSON"
        ) from exc
    if not isinstance(event, dict):
        raise GenerationFailed("the model server sent an event that isn't an object")
    if event.get("error"):
        raise _error_in_stream(_reason(event))
    choice = _first(event.get("choices"))
    usage = event.get("usage") or {}
    details = usage.get("prompt_tokens_details") or {}
    return StreamPart(
        text=(choice.get("delta") or {}).get("content") or "",
        finish_reason=_finish_reason(choice.get("finish_reason")),
        prompt_tokens=usage.get("prompt_tokens"),
        cached_tokens=details.get("cached_tokens") or 0,
        completion_tokens=usage.get("completion_tokens"),
    )


def _error_in_stream(reason: str) -> SpeechError:
    """A failure after the answer's head said 200: there is only its wording."""
    said = f"the model server: {reason}"
    if any(words in reason.lower() for words in _CONTEXT_WORDS):
        return ContextTooLong(said, num_tokens=0, limit_tokens=0)
    return GenerationFailed(said)


def error_of(status: int, body: str) -> SpeechError:
    """What an answer with an error status means for the request."""
    try:
        reason = _reason(json.loads(body))
    except ValueError:
        reason = " ".join(body.split())[:_MAX_REASON_CHARS] or "no reason given"
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


def model_named(answer: Any, wanted: str) -> str:
    """The model in an answer of `/v1/models`; the first if none is wanted by name.

    llama.cpp lists what a model takes: one without ears is refused here, not when the
    first caller speaks.

    Raises:
        SpeechUnavailable: it has no such model, the model takes no audio, or the
            answer is something else.
    """
    try:
        models = {str(entry["id"]): entry for entry in answer["data"]}
    except (KeyError, TypeError) as exc:
        raise SpeechUnavailable("/v1/models is not a list of models") from exc
    if not models:
        raise SpeechUnavailable("the model server has no model")
    name = wanted or next(iter(models))
    if name not in models:
        raise SpeechUnavailable(f"has {', '.join(models)}")
    about = models[name].get("architecture")
    takes = about.get("input_modalities") if isinstance(about, dict) else None
    if isinstance(takes, list) and "audio" not in takes:
        raise SpeechUnavailable(f"{name} takes no audio (llama-server: --mmproj)")
    return name


def _first(choices: Any) -> dict[str, Any]:
    found = choices[0] if isinstance(choices, Sequence) and choices else {}
    return found if isinstance(found, dict) else {}


def _finish_reason(reason: Any) -> FinishReason | None:
    if reason is None:
        return None
    return "length" if reason == "length" else "stop"


def _reason(answer: Any) -> str:
    """The message of an error answer; servers nest it or not."""
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    message = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(message).split())[:_MAX_REASON_CHARS]
