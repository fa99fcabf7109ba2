"""REST chat: a conversation in, the bot's reply out, as text.

The three paths differ in what they ask for; the work is the same.  A client that goes
away cancels its reply.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, Request

from model.audio.pcm import Wave, wave_from_pcm16
from model.audio.resample import resample
from model.audio.wav import AudioLimits, read_audio
from model.completion import ChatMessage, Sampling, complete, with_audio
from model.errors import InvalidAudio
from model.service import LocalSpeechService
from rest_api.errors import RequestRefused
from rest_api.schemas import (
    AudioChat,
    ChatAnswer,
    ChatData,
    ChatTurn,
    Conversation,
    ErrorAnswer,
    TextChat,
    TimingsAnswer,
    UsageAnswer,
)
from rest_api.service_state import ServiceState

MODEL_RATE_HZ: Final = 16_000
REPLY_TIMEOUT_S: Final = 120.0
"""A long reply on a CPU; after it the client is told, and the engine freed."""
_LIMITS: Final = AudioLimits()
_MIN_PCM16_S: Final = 0.02
"""Less than one frame is no speech, and the encoder has no use for it."""

_T = TypeVar("_T")


def errors_documented() -> dict[int | str, dict[str, Any]]:
    """What a route that replies may answer instead, for the documentation."""
    meanings = {
        400: "the body is not JSON",
        401: "an API key is needed",
        413: "the body is too large",
        422: "a field, the audio or the conversation's length is wrong",
        500: "the reply failed",
        503: "starting, stopping, or no room now: try again later",
        504: "the reply took too long",
    }
    return {
        status: {"model": ErrorAnswer, "description": meaning}
        for status, meaning in meanings.items()
    }


router = APIRouter(tags=["chat"], responses=errors_documented())


def state_of(request: Request) -> ServiceState:
    """The service behind this request."""
    state: ServiceState = request.app.state.service
    return state


State = Annotated[ServiceState, Depends(state_of)]


@router.post("/chat/text")
async def chat_text(body: TextChat, request: Request, state: State) -> ChatAnswer:
    """Reply to a conversation in text."""
    return await _answer(request, state, body, body.turns, None)


@router.post("/chat/audio")
async def chat_audio(body: AudioChat, request: Request, state: State) -> ChatAnswer:
    """Reply to what is said in the audio."""
    state.require()  # before any work on the audio
    wave = await asyncio.to_thread(decode_audio, body.audio_base64, body.sampling_rate)
    return await _answer(request, state, body, body.turns, wave)


@router.post("/chat/conversation")
async def chat_conversation(
    body: Conversation, request: Request, state: State
) -> ChatAnswer:
    """Reply to a conversation, in text or with audio as its last user turn."""
    if body.audio_base64 is not None:
        state.require()
        wave = await asyncio.to_thread(
            decode_audio, body.audio_base64, body.sampling_rate
        )
        return await _answer(request, state, body, body.turns, wave)
    if not body.turns or body.turns[-1].role != "user":
        raise RequestRefused(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "the last turn must be the user's, or come as audio_base64",
            code="invalid_request",
            field="turns",
        )
    return await _answer(request, state, body, body.turns, None)


def decode_audio(audio_base64: str, sampling_rate: int) -> Wave:
    """Audio of a request at 16 kHz: a file if it is one, else bare pcm16.

    Raises:
        InvalidAudio: not base64, not audio, empty, too short or too long.
    """
    _, comma, data = audio_base64.partition(",")
    if not (comma and audio_base64.startswith("data:")):
        data = audio_base64
    try:
        encoded = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidAudio("audio_base64 is not base64") from exc
    if not encoded:
        raise InvalidAudio("the audio is empty")
    if is_audio_file(encoded):
        wave = read_audio(encoded, rate_hz=MODEL_RATE_HZ, limits=_LIMITS)
    else:
        wave = _bare_samples(encoded, sampling_rate)
    if len(wave) < _MIN_PCM16_S * MODEL_RATE_HZ:
        raise InvalidAudio(f"the audio is shorter than {_MIN_PCM16_S:g} s")
    return wave


def is_audio_file(encoded: bytes) -> bool:
    """Whether the bytes begin as a file that says its own format does."""
    head = encoded[:12]
    return (
        (head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE")
        or head[:4] in (b"fLaC", b"OggS", b".snd", b"caff")
        or (head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"))
        or head[:3] == b"ID3"
        or _is_mp3_frame(encoded)
    )


def _is_mp3_frame(encoded: bytes) -> bool:
    """MPEG audio layer III without a tag: the sync word, and no reserved value.

    Bare samples may begin with those bits too (-1 and one of few neighbours), so the
    next frame has to be where the first one says.
    """
    first_bytes = _mp3_frame_bytes(encoded[:4])
    return bool(first_bytes) and bool(
        _mp3_frame_bytes(encoded[first_bytes : first_bytes + 4])
    )


# MPEG audio layer III: kbit/s by index, for version 1 and for versions 2 and 2.5.
_MP3_KBITS_V1: Final = (
    0,
    32,
    40,
    48,
    56,
    64,
    80,
    96,
    112,
    128,
    160,
    192,
    224,
    256,
    320,
)
_MP3_KBITS_V2: Final = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MP3_RATES_HZ: Final = (44_100, 48_000, 32_000)  # halved for 2, quartered for 2.5


def _mp3_frame_bytes(header: bytes) -> int:
    """Length of the layer III frame with this header; 0 if it isn't one."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version = header[1] >> 3 & 3  # 3: version 1, 2: version 2, 0: version 2.5
    kbits_index, rate_index = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or kbits_index in (0, 15) or rate_index == 3:
        return 0
    is_v1 = version == 3
    kbits = (_MP3_KBITS_V1 if is_v1 else _MP3_KBITS_V2)[kbits_index]
    rate_hz = _MP3_RATES_HZ[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    padding = header[2] >> 1 & 1
    return (144 if is_v1 else 72) * kbits * 1000 // rate_hz + padding


def _bare_samples(pcm16: bytes, sampling_rate: int) -> Wave:
    if len(pcm16) % 2:
        raise InvalidAudio(
            "neither an audio file nor 16-bit samples: an odd number of bytes"
        )
    if len(pcm16) > _LIMITS.max_s * sampling_rate * 2:
        raise InvalidAudio(f"the audio is longer than {_LIMITS.max_s:g} s")
    return resample(wave_from_pcm16(pcm16), sampling_rate, MODEL_RATE_HZ)


async def _answer(
    request: Request,
    state: ServiceState,
    wanted: TextChat | AudioChat | Conversation,
    turns: list[ChatTurn],
    wave: Wave | None,
) -> ChatAnswer:
    service = state.require()
    reply = _reply(service, wanted, turns, wave, request.state.request_id)
    return ChatAnswer(data=await until_disconnected(request, reply, REPLY_TIMEOUT_S))


async def _reply(
    service: LocalSpeechService,
    wanted: TextChat | AudioChat | Conversation,
    turns: list[ChatTurn],
    wave: Wave | None,
    request_id: str,
) -> ChatData:
    messages = [ChatMessage(turn.role, (turn.content,)) for turn in turns]
    if wave is not None:
        messages = with_audio(messages, wave)
    sampling = Sampling(wanted.max_new_tokens, wanted.temperature)
    stream = complete(service.engine, messages, sampling, request_id)
    async with stream:
        text = "".join([chunk.text async for chunk in stream])
    assert stream.usage
    assert stream.timings
    assert stream.finish_reason
    usage, timings = stream.usage, stream.timings
    return ChatData(
        response=text.strip(),
        model=service.engine.description.model_name,
        finish_reason=stream.finish_reason,
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
            total_ms=round(timings.total_ms, 1),
        ),
    )


async def until_disconnected(
    request: Request, work: Coroutine[Any, Any, _T], timeout_s: float
) -> _T:
    """Do the work unless the client goes away or time runs out; then cancel it.

    Raises:
        RequestRefused: too late, or nobody there to answer.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait(
            {working, leaving},
            timeout=timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if working.done():
            return await working
        if leaving.done():
            # 499 as nginx has it would be seen by nobody but the log
            raise RequestRefused(HTTPStatus.BAD_REQUEST, "the client went away")
        raise RequestRefused(
            HTTPStatus.GATEWAY_TIMEOUT, f"no reply within {timeout_s:g} s"
        )
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.wait({working, leaving})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
