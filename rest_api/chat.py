"""REST chat: a conversation in, the bot's reply out, as text and speech.

The three paths differ in what they ask for; the work is the same.  A client that goes
away cancels its reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar

import pybase64
from fastapi import APIRouter, Depends, Request, Response

from model.audio.frames import SAMPLE_BYTES
from model.audio.g711 import alaw_encode, ulaw_encode
from model.audio.wav import AudioLimits, wav_from_pcm16
from model.completion import ChatMessage, Sampling, with_audio
from model.errors import InvalidAudio, SpeechError
from model.service import LocalSpeechService
from model.ultravox.clip import AudioClip
from rest_api.audio_bodies import AudioDecoding, decode_audio
from rest_api.chat_bodies import (
    audio_body,
    read_audio_request,
    read_json,
    text_body,
)
from rest_api.conversations import Conversations, KeptConversation
from rest_api.errors import RequestRefused, error_body
from rest_api.event_stream import EVENT_SCHEMA, EventStream, event
from rest_api.replies import (
    ReplyMade,
    ReplyPart,
    ReplySpeech,
    ReplyText,
    SpeechWanted,
    make_reply,
)
from rest_api.schemas import (
    AudioAnswer,
    AudioChat,
    AudioFormat,
    ChatAnswer,
    ChatData,
    ChatTurn,
    Conversation,
    ErrorAnswer,
    ReplyWishes,
    TextChat,
    TimingsAnswer,
    UsageAnswer,
)
from rest_api.service_state import ServiceState

_STREAM_GRACE_S: Final = 10.0
"""For the last events of a reply that came just in time."""
_MAX_AUDIO_S: Final = 600.0
"""Of one request, earlier turns included: more than any context holds."""

_T = TypeVar("_T")


def errors_documented() -> dict[int | str, dict[str, Any]]:
    """What a route that replies may answer instead, for the documentation."""
    meanings = {
        400: "the body is not JSON, or not a form",
        401: "an API key is needed",
        404: "there is no such conversation",
        408: "the body took too long",
        409: "a reply in this conversation is under way",
        413: "the body is too large",
        415: "the body is of another type",
        422: "a field, the audio or the conversation's length is wrong",
        429: "too many requests: come back after Retry-After seconds",
        500: "the reply failed",
        503: "starting, stopping, or no room now: try again later",
        504: "the reply took too long",
    }
    return {
        status: {"model": ErrorAnswer, "description": meaning}
        for status, meaning in meanings.items()
    }


router = APIRouter(tags=["chat"], responses=errors_documented())


async def state_of(request: Request) -> ServiceState:
    """The service behind this request; a plain function would cost a thread's turn."""
    state: ServiceState = request.app.state.service
    return state


State = Annotated[ServiceState, Depends(state_of)]

_STREAMED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "model": ChatAnswer,
        "content": {
            "text/event-stream": {
                "schema": EVENT_SCHEMA,
                "example": (
                    'event: text\ndata: {"text": "Hello"}\n\n'
                    'event: done\ndata: {"success": true, "data": {}}\n\n'
                ),
            }
        },
        "description": "The reply: whole, or with stream in events",
    }
}


@router.post(
    "/chat/text",
    response_model=ChatAnswer,
    responses=_STREAMED,
    openapi_extra=text_body(),
)
async def chat_text(request: Request, state: State) -> Response:
    """Reply to a conversation in text."""
    body = await read_json(request, TextChat)
    return await _answer(request, state, body, body.turns)


@router.post(
    "/chat/audio",
    response_model=ChatAnswer,
    responses=_STREAMED,
    openapi_extra=audio_body(AudioChat),
)
async def chat_audio(request: Request, state: State) -> Response:
    """Reply to what is said in the audio."""
    return await _with_audio(request, state, AudioChat)


@router.post(
    "/chat/conversation",
    response_model=ChatAnswer,
    responses=_STREAMED,
    openapi_extra=audio_body(Conversation),
)
async def chat_conversation(request: Request, state: State) -> Response:
    """Reply to a conversation, in text or with audio as its last user turn."""
    return await _with_audio(request, state, Conversation)


@router.get("/conversations/{conversation_id}")
async def get_conversation(conversation_id: str, request: Request) -> dict[str, Any]:
    """A kept conversation in text; audio is told by its length."""
    kept = _kept(request).get(conversation_id, _owner(request))
    turns = [
        {
            "role": message.role,
            "content": "".join(p for p in message.parts if isinstance(p, str)),
            "audio_s": sum(
                p.duration_s for p in message.parts if isinstance(p, AudioClip)
            ),
        }
        for message in kept.messages
    ]
    return {
        "success": True,
        "data": {"conversation_id": conversation_id, "turns": turns},
    }


@router.delete("/conversations/{conversation_id}")
async def delete_conversation(conversation_id: str, request: Request) -> dict[str, Any]:
    """Forget a kept conversation now; unused ones go by themselves."""
    _kept(request).delete(conversation_id, _owner(request))
    return {"success": True, "data": {"conversation_id": conversation_id}}


async def _with_audio(
    request: Request,
    state: ServiceState,
    json_model: type[AudioChat] | type[Conversation],
) -> Response:
    body = await read_audio_request(request, json_model)
    wishes, encoded = body.wishes, body.encoded
    audio_base64 = getattr(wishes, "audio_base64", None)
    if encoded is None and audio_base64 is None:
        if not wishes.turns or wishes.turns[-1].role != "user":
            raise RequestRefused(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "the last turn must be the user's, or come as audio_base64",
                code="invalid_request",
                field="turns",
            )
        return await _answer(request, state, wishes, wishes.turns)
    state.require()  # before any work on the audio

    audio = encoded if encoded is not None else audio_base64
    assert audio is not None
    clip = await _decoding(request).clip(audio, wishes.sampling_rate)
    return await _answer(request, state, wishes, wishes.turns, clip)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One reply to be made, and where the conversation is kept."""

    service: LocalSpeechService
    wishes: ReplyWishes
    past: tuple[ChatMessage, ...]
    new: tuple[ChatMessage, ...]
    speech: SpeechWanted | None
    kept: KeptConversation | None
    request_id: str
    timeout_s: float

    def parts(self) -> AsyncGenerator[ReplyPart]:
        """The reply as it comes about."""
        clips = [p for p in self.new[-1].parts if isinstance(p, AudioClip)]
        wants_transcript = self.wishes.transcript and clips
        return make_reply(
            self.service,
            [*self.past, *self.new],
            Sampling(self.wishes.max_new_tokens, self.wishes.temperature),
            speech=self.speech,
            transcript_of=clips[-1] if wants_transcript else None,
            request_id=self.request_id,
            is_shown_whole=not self.wishes.stream,
        )


async def _answer(
    request: Request,
    state: ServiceState,
    wishes: ReplyWishes,
    turns: Sequence[ChatTurn],
    clip: AudioClip | None = None,
) -> Response:
    service = state.require()
    decoding = _decoding(request)
    messages = (
        await decoding.run(lambda: _messages(turns, decoding.limits))
        if any(turn.audio_base64 is not None for turn in turns)
        else _messages(turns, decoding.limits)
    )
    if clip is not None:
        messages = with_audio(messages, clip)
    speech = None
    if wishes.speak:
        voice = await service.voice(language=wishes.language, name=wishes.voice)
        speech = SpeechWanted(voice, wishes.reply_rate_hz)
    with ExitStack() as holding:
        kept = _conversation(request, wishes.conversation_id)
        if kept is not None:
            holding.enter_context(_kept(request).in_use(kept))
            _kept(request).check_room(kept, messages)
        past = tuple(kept.messages) if kept else ()
        request_id, timeout_s = request.state.request_id, reply_timeout_s(request)
        new = tuple(messages)
        asked = _Asked(service, wishes, past, new, speech, kept, request_id, timeout_s)
        if wishes.stream:
            # What goes wrong before the first part still gets its own status.
            parts = asked.parts()
            try:
                first = await until_disconnected(request, _next(parts), timeout_s)
            except BaseException:
                await parts.aclose()
                raise
            events = _events(asked, first, parts, _kept(request), holding.pop_all())
            return EventStream(events, timeout_s + _STREAM_GRACE_S)
        data = await until_disconnected(
            request, _whole(asked, _kept(request)), timeout_s
        )
    answer = ChatAnswer(data=data).model_dump_json(exclude_none=True)
    return Response(answer, media_type="application/json")


async def _next(parts: AsyncGenerator[ReplyPart]) -> ReplyPart:
    return await anext(parts)


def _messages(turns: Sequence[ChatTurn], limits: AudioLimits) -> list[ChatMessage]:
    """Raises InvalidAudio, RequestRefused: of a turn that carries audio."""
    messages: list[ChatMessage] = []
    seconds = 0.0
    for number, turn in enumerate(turns):
        message = ChatMessage(turn.role, (turn.content,) if turn.content else ())
        if turn.audio_base64 is None:
            messages.append(ChatMessage(turn.role, (turn.content,)))
            continue
        field = f"turns[{number}].audio_base64"
        try:
            clip = decode_audio(turn.audio_base64, turn.sampling_rate, limits)
        except InvalidAudio as exc:
            raise RequestRefused(
                HTTPStatus.UNPROCESSABLE_ENTITY, str(exc), code=exc.code, field=field
            ) from exc
        seconds += clip.duration_s
        if seconds > _MAX_AUDIO_S:
            raise RequestRefused(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"the turns have over {_MAX_AUDIO_S:g} s of audio",
                code=InvalidAudio.code,
                field=field,
            )
        messages += with_audio([message], clip)
    return messages


def _conversation(
    request: Request, conversation_id: str | None
) -> KeptConversation | None:
    if conversation_id is None:
        return None
    if conversation_id == "new":
        return _kept(request).begin(_owner(request))
    return _kept(request).get(conversation_id, _owner(request))


async def _whole(asked: _Asked, conversations: Conversations) -> ChatData:
    speech = bytearray()
    async with aclosing(asked.parts()) as parts:
        async for part in parts:
            match part:
                case ReplySpeech(pcm16):
                    speech += pcm16
                case ReplyMade():
                    data = _data(asked, part, conversations)
    if asked.speech is not None:
        data.audio = _audio(asked, bytes(speech))
    return data


async def _events(
    asked: _Asked,
    first: ReplyPart,
    parts: AsyncGenerator[ReplyPart],
    conversations: Conversations,
    holding: ExitStack,
) -> AsyncGenerator[str]:
    """Closing them, as when the client leaves, cancels the reply."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + asked.timeout_s
    with holding:
        async with aclosing(parts):
            part: ReplyPart | None = first
            while part is not None:
                yield _event(asked, part, conversations)
                try:
                    async with asyncio.timeout_at(deadline):
                        part = await anext(parts, None)
                except SpeechError as exc:
                    yield event("error", error_body(exc.code, str(exc)))
                    return
                except TimeoutError:
                    message = f"no reply within {asked.timeout_s:g} s"
                    yield event("error", error_body("timeout", message))
                    return


def _event(asked: _Asked, part: ReplyPart, conversations: Conversations) -> str:
    match part:
        case ReplyText(text):
            return event("text", {"text": text})
        case ReplySpeech(pcm16):
            return event("audio", _audio(asked, pcm16).model_dump())
        case ReplyMade():
            data = _data(asked, part, conversations)
            answer = ChatAnswer(data=data).model_dump(exclude_none=True)
            return event("done", answer)


def _data(asked: _Asked, made: ReplyMade, conversations: Conversations) -> ChatData:
    """The answer; the conversation is kept with it."""
    if asked.kept is not None:
        reply = ChatMessage("assistant", (made.text,))
        conversations.add(asked.kept, [*asked.new, reply])
    usage, timings = made.usage, made.timings
    return ChatData(
        response=made.text,
        model=asked.service.engine.description.model_name,
        finish_reason=made.finish_reason,
        usage=UsageAnswer(
            prompt_tokens=usage.prompt_tokens,
            audio_tokens=usage.audio_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
        ),
        timings=TimingsAnswer(
            queue_ms=round(timings.queue_ms, 1),
            encode_ms=round(timings.encode_ms, 1),
            first_token_ms=round(timings.first_token_ms, 1),
            first_audio_ms=(
                None if made.first_audio_ms is None else round(made.first_audio_ms, 1)
            ),
            total_ms=round(timings.total_ms, 1),
        ),
        transcript=made.transcript,
        conversation_id=asked.kept.conversation_id if asked.kept else None,
    )


def _audio(asked: _Asked, pcm16: bytes) -> AudioAnswer:
    rate_hz = asked.wishes.reply_rate_hz
    kind = asked.wishes.audio_format
    return AudioAnswer(
        format=kind,
        rate_hz=rate_hz,
        duration_s=round(len(pcm16) / SAMPLE_BYTES / rate_hz, 3),
        audio_base64=pybase64.b64encode_as_string(_encoded(pcm16, kind, rate_hz)),
    )


def _encoded(pcm16: bytes, kind: AudioFormat, rate_hz: int) -> bytes:
    match kind:
        case "wav":
            return wav_from_pcm16(pcm16, rate_hz=rate_hz)
        case "pcm16":
            return pcm16
        case "mulaw":
            return ulaw_encode(pcm16)
        case "alaw":
            return alaw_encode(pcm16)


def _decoding(request: Request) -> AudioDecoding:
    decoding: AudioDecoding = request.app.state.decoding
    return decoding


def reply_timeout_s(request: Request) -> float:
    """How long a reply may take; then the client is told, and the engine freed."""
    timeout_s: float = request.app.state.reply_timeout_s
    return timeout_s


def _kept(request: Request) -> Conversations:
    conversations: Conversations = request.app.state.conversations
    return conversations


def _owner(request: Request) -> str:
    """The name of the key that was shown; conversations of one are not another's."""
    return getattr(request.state, "key_name", "")


async def until_disconnected(
    request: Request, work: Coroutine[Any, Any, _T], timeout_s: float
) -> _T:
    """Do the work unless the client goes away or time runs out; then cancel it.

    Raises:
        RequestRefused: too late, or nobody there to answer.
    """
    leaving = asyncio.create_task(_disconnected(request))
    try:
        async with asyncio.timeout(timeout_s) as patience:
            leaving.add_done_callback(lambda _: _end_now(patience))
            return await work
    except TimeoutError as exc:
        if not patience.expired():
            raise
        if leaving.done():
            # 499 as nginx has it would be seen by nobody but the log
            message = "the client went away"
            raise RequestRefused(HTTPStatus.BAD_REQUEST, message) from exc
        message = f"no reply within {timeout_s:g} s"
        raise RequestRefused(HTTPStatus.GATEWAY_TIMEOUT, message) from exc
    finally:
        leaving.cancel()
        await asyncio.wait({leaving})


def _end_now(patience: asyncio.Timeout) -> None:
    # too late for one that is over, whatever ended it
    with suppress(RuntimeError):
        patience.reschedule(asyncio.get_running_loop().time())


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
