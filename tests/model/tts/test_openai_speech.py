"""A speech server behind HTTP, played by a socket that answers as told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TypeAlias

import numpy as np
import pytest

from model.audio.pcm import level_dbfs, pcm16_from_wave, wave_from_pcm16
from model.audio.wav import wav_from_pcm16
from model.errors import SynthesisFailed
from model.tts.errors import SynthesisOverloaded, SynthesizerUnavailable, VoiceUnknown
from model.tts.openai_speech import OpenAiSpeech, OpenAiSpeechOptions
from model.tts.voice import Voice

RATE_HZ = 24_000
Answer: TypeAlias = Callable[[asyncio.StreamWriter], Awaitable[None]]


def tone(duration_s: float, rate_hz: int = RATE_HZ, peak: float = 0.02) -> bytes:
    at = np.arange(round(duration_s * rate_hz)) / rate_hz
    return pcm16_from_wave((peak * np.sin(2 * np.pi * 300 * at)).astype(np.float32))


class SpeechServer:
    """Gives each request the next of its answers."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[dict[str, object]] = []
        self.headers: list[str] = []
        self.num_open = 0

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.num_open += 1
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                lines = head.lower().split("\r\n")
                length = next(x for x in lines if x.startswith("content-length"))
                body = await reader.readexactly(int(length.split(":")[1]))
                self.headers.append(head)
                self.requests.append(json.loads(body))
                await self.answers.pop(0)(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.num_open -= 1
            writer.close()


def answer(body: bytes, status: str = "200 OK", *, step: int = 3001) -> Answer:
    """`body` in odd-sized chunks."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(
            f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        for at in range(0, len(body), step):
            part = body[at : at + step]
            writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    return send


async def break_off(writer: asyncio.StreamWriter) -> None:
    writer.close()


def break_off_after(body: bytes) -> Answer:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    return send


@asynccontextmanager
async def running(
    *answers: Answer, silence_timeout_s: float = 30.0
) -> AsyncIterator[tuple[OpenAiSpeech, SpeechServer]]:
    played = SpeechServer()
    played.answers += answers
    server = await asyncio.start_server(played.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    speech = OpenAiSpeech(
        OpenAiSpeechOptions(
            url=f"http://127.0.0.1:{port}/v1/",
            api_key="secret",
            model="kokoro",
            silence_timeout_s=silence_timeout_s,
        )
    )
    try:
        yield speech, played
    finally:
        await speech.aclose()
        server.close()
        await server.wait_closed()
        async with asyncio.timeout(10):
            while played.num_open:  # noqa: ASYNC110 - until the client's end is seen
                await asyncio.sleep(0.01)


async def speak(speech: OpenAiSpeech, text: str, voice: Voice | None = None) -> bytes:
    chunks = speech.synthesize(text, voice or Voice())
    return b"".join([chunk async for chunk in chunks])


async def test_samples_come_levelled_at_the_rate_asked_for() -> None:
    async with running(answer(tone(1.0))) as (speech, server):
        wave = wave_from_pcm16(await speak(speech, "Hello."))
    assert len(wave) / 8000 == pytest.approx(1.0, abs=0.01)
    assert level_dbfs(wave) == pytest.approx(-20.0, abs=0.3)
    assert server.requests == [
        {
            "model": "kokoro",
            "input": "Hello.",
            "voice": "alloy",
            "response_format": "pcm",
            "speed": 1.0,
        }
    ]
    assert "authorization: bearer secret" in server.headers[0].lower()
    assert server.headers[0].startswith("POST /v1/audio/speech ")


async def test_voice_and_speed_are_passed_on() -> None:
    async with running(answer(tone(0.5))) as (speech, server):
        await speak(speech, "Hi.", Voice(name="af_bella", speed_wpm=330))
    assert server.requests[0]["voice"] == "af_bella"
    assert server.requests[0]["speed"] == 2.0


async def test_a_wav_answer_brings_its_own_rate() -> None:
    wav = wav_from_pcm16(tone(1.0, 16_000), rate_hz=16_000)
    for step in (1, 43, 44, 45, 4096):
        async with running(answer(wav, step=step)) as (speech, _):
            assert len(await speak(speech, "Hello.")) / 16_000 == pytest.approx(
                1.0, abs=0.01
            )


async def test_a_wav_whose_format_is_cut_short_is_refused() -> None:
    wav = b"RIFF\0\0\0\0WAVEfmt data\0\0\0\0" + tone(0.1)
    for step in (1, 4096):
        async with running(answer(wav, step=step)) as (speech, _):
            with pytest.raises(SynthesisFailed, match="no format chunk"):
                await speak(speech, "Hello.")


async def test_a_stereo_wav_is_refused() -> None:
    wav = bytearray(wav_from_pcm16(tone(0.5), rate_hz=RATE_HZ))
    wav[22] = 2
    async with running(answer(bytes(wav))) as (speech, _):
        with pytest.raises(SynthesisFailed, match="2 channels"):
            await speak(speech, "Hello.")


async def test_a_known_voice_is_heard_before_its_text_is_complete() -> None:
    go = asyncio.Event()

    async def slowly(writer: asyncio.StreamWriter) -> None:
        half = tone(1.0)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {2 * len(half)}\r\n\r\n"
        writer.write(head.encode() + half)
        await go.wait()
        writer.write(half)

    async with running(answer(tone(1.0)), slowly) as (speech, _):
        await speech.check_voice(Voice())
        async with aclosing(speech.synthesize("Hello.", Voice())) as chunks:
            first = await anext(chunks)
            go.set()
            rest = b"".join([chunk async for chunk in chunks])
    assert first
    assert len(first + rest) / 16_000 == pytest.approx(2.0, abs=0.01)


async def test_a_connection_that_breaks_before_any_audio_is_tried_again() -> None:
    async with running(break_off, answer(tone(1.0))) as (speech, _):
        assert await speak(speech, "Hello.")
        assert speech.status().num_retries == 1


async def test_a_second_break_fails() -> None:
    async with running(break_off, break_off) as (speech, _):
        with pytest.raises(SynthesisFailed, match="speech server"):
            await speak(speech, "Hello.")
        assert speech.status().num_failures == 1


async def test_a_break_in_mid_speech_fails_and_is_not_repeated_to_the_caller() -> None:
    async with running(answer(tone(1.0)), break_off_after(tone(1.0))) as (
        speech,
        server,
    ):
        await speech.check_voice(Voice())
        with pytest.raises(SynthesisFailed):
            await speak(speech, "Hello.")
        assert len(server.requests) == 2


async def test_a_silent_server_fails_after_the_deadline() -> None:
    async def nothing(_writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)

    async with running(nothing, nothing, silence_timeout_s=0.1) as (speech, server):
        with pytest.raises(SynthesisFailed, match="Timeout"):
            await speak(speech, "Hello.")
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        ("429 Too Many Requests", b"slow down", SynthesisOverloaded),
        ("503 Service Unavailable", b"busy", SynthesisOverloaded),
        ("400 Bad Request", b"no such voice: alloy", VoiceUnknown),
        ("401 Unauthorized", b"wrong key", SynthesisFailed),
        ("500 Internal Server Error", b"<html>oops</html>", SynthesisFailed),
    ],
)
async def test_a_refusal_is_told_by_its_kind(
    status: str, body: bytes, error: type[Exception]
) -> None:
    async with running(answer(body, status)) as (speech, _):
        with pytest.raises(error, match=body.decode()[:5]):
            await speak(speech, "Hello.")


async def test_leaving_early_closes_the_stream() -> None:
    async with running(answer(tone(1.0)), answer(tone(60.0))) as (speech, server):
        await speech.check_voice(Voice())
        async with aclosing(speech.synthesize("Long.", Voice())) as chunks:
            await anext(chunks)
        async with asyncio.timeout(10):
            while server.num_open:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_wrong_address_shows_at_the_start(free_port: Callable[[], int]) -> None:
    speech = OpenAiSpeech(OpenAiSpeechOptions(url=f"http://127.0.0.1:{free_port()}"))
    try:
        with pytest.raises(SynthesizerUnavailable, match=r"127\.0\.0\.1"):
            await speech.open()
    finally:
        await speech.aclose()
