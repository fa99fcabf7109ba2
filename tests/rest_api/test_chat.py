"""REST chat: the README's requests, every documented error, and clients that leave."""

from __future__ import annotations

import asyncio
import base64
import io
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from model.audio.containers import is_audio_file
from model.engine.scripted import ScriptedEngine, ScriptedOptions
from model.errors import InvalidAudio
from rest_api.app import AppOptions
from rest_api.audio_bodies import decode_audio
from rest_api.service_state import ServiceState
from tests.rest_api.serving import serving, starting_app, until

USER = {"role": "user", "content": "Hello!"}
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Talks to a service that echoes."""
    async with serving(replies=()) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


def speech(seconds: float = 1.0, rate_hz: int = 16_000) -> np.ndarray[Any, Any]:
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * 300 * time_s)).astype(np.float32)


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pcm16(seconds: float = 1.0, rate_hz: int = 16_000) -> bytes:
    return (speech(seconds, rate_hz) * 32_767).astype("<i2").tobytes()


def file_of(format: str, subtype: str | None = None, rate_hz: int = 16_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, speech(1.0, rate_hz), rate_hz, format=format, subtype=subtype)
    return file.getvalue()


async def test_text_is_answered_as_the_readme_says(client: httpx.AsyncClient) -> None:
    body = {"turns": [SYSTEM, USER], "max_new_tokens": 100, "temperature": 0.7}
    answer = await client.post("/chat/text", json=body)
    assert answer.status_code == 200
    result = answer.json()
    assert result["success"] is True
    data = result["data"]
    assert data["response"] == "You said: Hello!"
    assert data["model"] == "scripted replies"
    assert data["finish_reason"] == "stop"
    assert data["usage"]["completion_tokens"] == 3
    assert data["usage"]["total_tokens"] == data["usage"]["prompt_tokens"] + 3
    assert set(data["timings"]) == {
        "queue_ms",
        "encode_ms",
        "first_token_ms",
        "total_ms",
    }


async def test_audio_becomes_the_last_user_turn(client: httpx.AsyncClient) -> None:
    body = {
        "audio_base64": base64_of(pcm16(2.0)),
        "turns": [SYSTEM],
        "sampling_rate": 16000,
    }
    answer = await client.post("/chat/audio", json=body)
    heard = "I heard you speak for 2.0 seconds."
    assert answer.json()["data"]["response"] == heard


async def test_audio_joins_the_text_of_a_last_user_turn(
    client: httpx.AsyncClient,
) -> None:
    body = {"audio_base64": base64_of(pcm16()), "turns": [SYSTEM, USER]}
    answer = await client.post("/chat/audio", json=body)
    assert answer.json()["data"]["response"] == "You said: Hello!"
    assert answer.json()["data"]["usage"]["audio_tokens"] == 7


async def test_audio_needs_no_turns(client: httpx.AsyncClient) -> None:
    answer = await client.post("/chat/audio", json={"audio_base64": base64_of(pcm16())})
    assert answer.json()["data"]["response"] == "I heard you speak for 1.0 seconds."


@pytest.mark.parametrize("body", [{}, {"audio_base64": None}])
async def test_conversation_takes_text(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    answer = await client.post("/chat/conversation", json={"turns": [USER], **body})
    assert answer.json()["data"]["response"] == "You said: Hello!"


async def test_conversation_takes_audio(client: httpx.AsyncClient) -> None:
    body = {"turns": [SYSTEM], "audio_base64": base64_of(pcm16())}
    answer = await client.post("/chat/conversation", json=body)
    assert answer.json()["data"]["response"] == "I heard you speak for 1.0 seconds."


async def test_numbers_may_come_as_strings(client: httpx.AsyncClient) -> None:
    body = {"turns": [USER], "max_new_tokens": "2", "temperature": "0"}
    answer = await client.post("/chat/text", json=body)
    assert answer.json()["data"]["finish_reason"] == "length"


OK_AUDIO = base64_of(pcm16(0.1))


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "field"),
    [
        ("text", {}, 422, "invalid_request", "turns"),
        ("text", {"turns": []}, 422, "invalid_request", "turns"),
        ("text", {"turns": "hello"}, 422, "invalid_request", "turns"),
        ("text", {"turns": [SYSTEM]}, 422, "invalid_request", "turns"),
        ("text", {"turns": [{}]}, 422, "invalid_request", "turns[0].role"),
        (
            "text",
            {"turns": [{"role": "robot", "content": "x"}]},
            422,
            "invalid_request",
            "turns[0].role",
        ),
        (
            "text",
            {"turns": [{"role": "user", "content": None}]},
            422,
            "invalid_request",
            "turns[0].content",
        ),
        ("text", {"turns": [USER] * 201}, 422, "invalid_request", "turns"),
        (
            "text",
            {"turns": [USER], "max_new_tokens": 0},
            422,
            "invalid_request",
            "max_new_tokens",
        ),
        (
            "text",
            {"turns": [USER], "max_new_tokens": "many"},
            422,
            "invalid_request",
            "max_new_tokens",
        ),
        (
            "text",
            {"turns": [USER], "temperature": 1.5},
            422,
            "invalid_request",
            "temperature",
        ),
        ("text", [1], 422, "invalid_request", ""),
        ("conversation", {}, 422, "invalid_request", "turns"),
        ("conversation", {"turns": [SYSTEM]}, 422, "invalid_request", "turns"),
        ("audio", {"turns": [USER]}, 422, "invalid_request", "audio_base64"),
        ("audio", {"audio_base64": "!!"}, 422, "invalid_audio", "audio_base64"),
        ("audio", {"audio_base64": ""}, 422, "invalid_audio", "audio_base64"),
        ("audio", {"audio_base64": "AAAA"}, 422, "invalid_audio", "audio_base64"),
        (
            "audio",
            {"audio_base64": base64_of(b"RIFF\0\0\0\0WAVEjunk")},
            422,
            "invalid_audio",
            "audio_base64",
        ),
        (
            "audio",
            {"audio_base64": base64_of(bytes(2 * 16_000 * 121))},
            422,
            "invalid_audio",
            "audio_base64",
        ),
        (
            "audio",
            {"audio_base64": OK_AUDIO, "sampling_rate": 0},
            422,
            "invalid_request",
            "sampling_rate",
        ),
    ],
)
async def test_a_wrong_field_is_named(
    client: httpx.AsyncClient,
    path: str,
    body: Any,
    status: int,
    code: str,
    field: str,
) -> None:
    answer = await client.post(f"/chat/{path}", json=body)
    assert answer.status_code == status
    result = answer.json()
    assert result["success"] is False
    assert result["error"]["code"] == code
    assert result["error"].get("field", "") == field
    assert result["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "code"),
    [
        ("POST", "/chat/text", b"{", 400, "invalid_json"),
        ("POST", "/chat/text", b"", 400, "invalid_json"),
        ("POST", "/chat/text", b"[" * 100_000, 400, "invalid_json"),
        ("GET", "/chat/text", b"", 405, "method_not_allowed"),
        ("POST", "/health", b"", 405, "method_not_allowed"),
        ("GET", "/nowhere", b"", 404, "not_found"),
        ("GET", "/chat/text/", b"", 404, "not_found"),
        ("GET", "/chat/live", b"", 404, "not_found"),
        ("POST", "/chat/text", b"\xff\xfe", 400, "invalid_json"),
    ],
)
async def test_errors_outside_the_fields_have_the_same_shape(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    content: bytes,
    status: int,
    code: str,
) -> None:
    answer = await client.request(
        method, path, content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status
    assert answer.json()["success"] is False
    assert answer.json()["error"]["code"] == code


async def test_while_starting_a_request_is_told_to_come_back() -> None:
    state = ServiceState()
    state.phase = "loading the model"
    async with starting_app(state) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post("/chat/text", json={"turns": [USER]})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.json()["error"] == {
        "code": "unavailable",
        "message": "starting: loading the model",
    }


async def test_a_model_that_failed_to_load_says_why() -> None:
    state = ServiceState()
    state.fail("no such folder")
    async with starting_app(state) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post("/chat/audio", json={"audio_base64": OK_AUDIO})
    assert answer.status_code == 503
    assert "no such folder" in answer.json()["error"]["message"]


async def test_a_full_engine_is_503_overloaded() -> None:
    script = ScriptedOptions(max_slots=0)
    async with serving(script=script) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post("/chat/text", json={"turns": [USER]})
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "engine_overloaded"


class CrashingEngine(ScriptedEngine):
    """Fails as nobody foresaw."""

    def submit(self, request: Any) -> Any:
        raise ZeroDivisionError("secret detail")


async def test_a_crash_is_500_without_a_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        serving(engine=CrashingEngine()) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        answer = await client.post(
            "/chat/text", json={"turns": [USER]}, headers={"X-Request-Id": "abc-1"}
        )
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert "abc-1" in answer.json()["error"]["message"]
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "request_crashed" in [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_large_is_refused(declared: bool) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(1000)

    content = bytes(100_000) if declared else endless()
    async with (
        serving(app=AppOptions(max_body_bytes=10_000)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        answer = await client.post("/chat/text", content=content)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async with serving(app=AppOptions(body_timeout_s=0.1)) as url:
        port = int(url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = "POST /chat/text HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
        writer.write(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
        async with asyncio.timeout(10):
            answer = await reader.readuntil(b"}}")
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"timeout"' in answer


async def test_a_client_that_leaves_in_its_body_is_no_crash(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records]

    async with serving() as url:
        port = int(url.rsplit(":", 1)[1])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        head = "POST /chat/text HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
        writer.write(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await until(lambda: "request" in lines())
    assert "request_crashed" not in lines()


async def test_every_answer_has_a_request_id(client: httpx.AsyncClient) -> None:
    named = await client.get("/health", headers={"X-Request-Id": "mine"})
    assert named.headers["X-Request-Id"] == "mine"
    forged = await client.get("/health", headers={"X-Request-Id": "a b\tc"})
    assert len(forged.headers["X-Request-Id"]) == 32


async def test_a_client_that_leaves_cancels_its_reply() -> None:
    engine = ScriptedEngine(ScriptedOptions(("Never said.",), first_token_ms=60_000))
    async with serving(engine=engine) as url, httpx.AsyncClient() as client:
        request = asyncio.create_task(
            client.post(f"{url}/chat/text", json={"turns": [USER]})
        )
        await until(lambda: engine.load().num_active)
        request.cancel()
        await until(lambda: not engine.load().num_active)


async def test_the_documentation_lists_the_chat_routes(
    client: httpx.AsyncClient,
) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"/chat/text", "/chat/audio", "/chat/conversation", "/health"} <= set(paths)
    assert (await client.get("/docs")).status_code == 200


@pytest.mark.parametrize(
    "data",
    [
        file_of("WAV", "PCM_16"),
        file_of("WAV", "FLOAT", 44_100),
        file_of("WAV", "ULAW", 8000),
        file_of("WAV", "ALAW", 8000),
        file_of("FLAC"),
        file_of("OGG", "VORBIS"),
        file_of("MP3"),
        file_of("AIFF"),
        pcm16(1.0, 8000),
    ],
    ids=["wav", "float", "ulaw", "alaw", "flac", "ogg", "mp3", "aiff", "bare"],
)
def test_audio_is_recognised_by_its_content(data: bytes) -> None:
    # a file says its own rate: sampling_rate counts for bare samples only
    wave = decode_audio(base64_of(data), 8000).wave
    # MP3 adds silence around it
    assert 16_000 <= len(wave) <= 17_700 + 1152 * 2
    assert 0.25 < float(np.abs(wave).max()) < 0.4


def test_a_data_url_and_line_breaks_are_base64_too() -> None:
    text = base64_of(pcm16())
    broken = "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    clip = decode_audio("data:audio/L16;base64," + broken, 16_000)
    assert clip.num_samples == 16_000


def test_samples_that_look_like_a_sync_word_are_samples() -> None:
    assert not is_audio_file(b"\xff\xfb\x90\x00" + bytes(1000))
    assert not is_audio_file(b"\xff\xfb\x90\x00")
    assert is_audio_file(file_of("MP3"))


@pytest.mark.parametrize("data", [b"\0", b"\0" * 3, b"\0" * 100])
def test_too_little_audio_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidAudio):
        decode_audio(base64_of(data), 16_000)


async def test_pipelined_junk_does_not_stop_the_server() -> None:
    async with serving() as url, httpx.AsyncClient(base_url=url) as client:
        port = int(url.rsplit(":", 1)[1])
        for junk in (b"\0\xff\n\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 100_000):
            with socket.create_connection(("127.0.0.1", port)) as line:
                line.sendall(junk)
        assert (await client.get("/health")).status_code == 200
