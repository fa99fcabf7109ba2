"""Chat completions for programs written for OpenAI's API; text or audio in, text out.

Audio comes as `input_audio` parts (base64 of a file), or as `audio_url` with a data
URL; addresses of other hosts are not fetched.  Failures have this service's own shape
with OpenAI's `type` and `param` in it.

Source: OpenAI's API reference, "Create chat completion".
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, StringConstraints

from model.audio.wav import AudioLimits
from model.completion import ChatMessage, MessagePart, Sampling, complete
from model.engine.request import Usage
from model.engine.stream import TokenStream
from model.errors import SpeechError
from rest_api.audio_bodies import MODEL_RATE_HZ, AudioDecoding, decode_audio
from rest_api.chat import (
    State,
    errors_documented,
    reply_timeout_s,
    until_disconnected,
)
from rest_api.errors import RequestRefused, openai_error_body, status_of
from rest_api.event_stream import EVENT_SCHEMA, EventStream
from rest_api.schemas import MAX_AUDIO_BASE64_CHARS, MAX_TURN_CHARS, MAX_TURNS

router = APIRouter(
    prefix="/v1", tags=["OpenAI-compatible"], responses=errors_documented()
)

_END: Final = "data: [DONE]\n\n"


class TextPart(BaseModel):
    """Text within a message."""

    type: Literal["text"]
    text: Annotated[str, StringConstraints(max_length=MAX_TURN_CHARS)]


class InputAudio(BaseModel):
    """An audio file."""

    data: Annotated[str, StringConstraints(max_length=MAX_AUDIO_BASE64_CHARS)]
    format: str = "wav"
    """Not needed: the content tells."""


class AudioPart(BaseModel):
    """Audio within a message."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class AudioUrl(BaseModel):
    """A data URL."""

    url: Annotated[
        str,
        StringConstraints(pattern=r"^data:[^,]*;base64,", max_length=50_000_000),
    ]


class AudioUrlPart(BaseModel):
    """Audio within a message, as vLLM's clients send it."""

    type: Literal["audio_url"]
    audio_url: AudioUrl


Part = Annotated[TextPart | AudioPart | AudioUrlPart, Field(discriminator="type")]


class CompletionMessage(BaseModel):
    """One message."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, StringConstraints(max_length=MAX_TURN_CHARS)] | list[Part]


class StreamOptions(BaseModel):
    """What a stream ends with."""

    include_usage: bool = False


class CompletionRequest(BaseModel):
    """What is understood of OpenAI's request; other fields are ignored."""

    messages: Annotated[
        list[CompletionMessage], Field(min_length=1, max_length=MAX_TURNS)
    ]
    model: str = ""
    """Whatever is named, the one model that is loaded answers."""
    max_tokens: int | None = Field(None, ge=1, le=4096)
    max_completion_tokens: int | None = Field(None, ge=1, le=4096)
    temperature: float = Field(0.7, ge=0.0, le=2.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int = Field(1, ge=1, le=1)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()


@router.get("/models")
async def models(state: State) -> dict[str, Any]:
    """The model that is loaded."""
    about = state.require().engine.description
    entry = {"id": about.model_name, "object": "model", "created": 0, "owned_by": ""}
    return {"object": "list", "data": [entry]}


_EXAMPLE: Final = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1767225600,
    "model": "fixie-ai/ultravox-v0_5-llama-3_1-8b",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "How can I help you?"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18},
}


@router.post(
    "/chat/completions",
    response_model=None,
    responses={
        200: {
            "description": "The reply: whole, or with stream in events",
            "content": {
                "application/json": {"schema": {"type": "object"}, "example": _EXAMPLE},
                "text/event-stream": {"schema": EVENT_SCHEMA},
            },
        }
    },
)
async def chat_completions(
    body: CompletionRequest, request: Request, state: State
) -> Response:
    """Reply to a conversation, at once or as a stream of events."""
    engine = state.require().engine
    decoding: AudioDecoding = request.app.state.decoding
    timeout_s = reply_timeout_s(request)
    messages = await decoding.run(lambda: _messages(body.messages, decoding.limits))
    stream = complete(engine, messages, _sampling(body), request.state.request_id)
    answer = _Answer(engine.description.model_name)
    if body.stream:
        # What fails before the first token is still an HTTP status.
        first = await until_disconnected(request, _first(stream), timeout_s)
        with_usage = body.stream_options.include_usage
        events = _events(stream, first, answer, with_usage=with_usage)
        return EventStream(events, timeout_s)
    text = await until_disconnected(request, _whole(stream), timeout_s)
    return JSONResponse(answer.whole(text, stream))


def _messages(
    messages: Sequence[CompletionMessage], limits: AudioLimits
) -> list[ChatMessage]:
    """Raises InvalidAudio."""
    made = []
    for message in messages:
        role = "system" if message.role == "developer" else message.role
        if isinstance(message.content, str):
            parts: tuple[MessagePart, ...] = (message.content,)
        else:
            parts = tuple(_part(part, limits) for part in message.content)
        made.append(ChatMessage(role, parts))
    return made


def _part(
    part: TextPart | AudioPart | AudioUrlPart, limits: AudioLimits
) -> MessagePart:
    match part:
        case TextPart(text=text):
            return text
        case AudioPart(input_audio=audio):
            return decode_audio(audio.data, MODEL_RATE_HZ, limits)
        case AudioUrlPart(audio_url=audio):
            return decode_audio(audio.url, MODEL_RATE_HZ, limits)


def _sampling(body: CompletionRequest) -> Sampling:
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if len(stop) > 4 or any(not text for text in stop):
        raise RequestRefused(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "at most four stop strings, none of them empty",
            code="invalid_request",
            field="stop",
        )
    return Sampling(
        max_new_tokens=body.max_completion_tokens or body.max_tokens or 100,
        temperature=body.temperature,
        top_p=body.top_p,
        stop=stop,
        seed=body.seed,
    )


async def _whole(stream: TokenStream) -> str:
    async with stream:
        await stream.read_on()
        return stream.text


async def _first(stream: TokenStream) -> str:
    """The first piece of text; empty when the reply is."""
    async for chunk in stream:
        if chunk.text:
            return chunk.text
    return ""


async def _events(
    stream: TokenStream, first: str, answer: _Answer, *, with_usage: bool
) -> AsyncGenerator[str]:
    """Server-sent events; closing them, as when the client leaves, cancels."""
    async with stream:
        yield answer.event({"role": "assistant", "content": ""})
        if first:
            yield answer.event({"content": first})
        try:
            async for chunk in stream:
                if chunk.text:
                    yield answer.event({"content": chunk.text})
        except SpeechError as exc:
            body = openai_error_body(status_of(exc), exc.code, str(exc))
            yield f"data: {json.dumps(body)}\n\n"
            return
        yield answer.event({}, stream.finish_reason)
        if with_usage:
            yield answer.usage_event(stream)
        yield _END


class _Answer:
    """The objects an answer is made of."""

    def __init__(self, model: str) -> None:
        self._frame = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, stream: TokenStream) -> dict[str, Any]:
        """The answer to a request that wanted no stream."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": stream.finish_reason,
        }
        usage = _usage(stream.usage)
        return {
            **self._frame,
            "object": "chat.completion",
            "choices": [choice],
            "usage": usage,
        }

    def event(self, delta: dict[str, str], finish_reason: str | None = None) -> str:
        """One event of a stream."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return self._chunk(choices=[choice])

    def usage_event(self, stream: TokenStream) -> str:
        """The event before the end, if it was asked for."""
        return self._chunk(choices=[], usage=_usage(stream.usage))

    def _chunk(self, **values: Any) -> str:
        chunk = {**self._frame, "object": "chat.completion.chunk", **values}
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None  # a server elsewhere did not say
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "audio_tokens": usage.audio_tokens,
        },
    }
