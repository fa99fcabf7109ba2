"""Each failure of the documented table, brought about once; and audio of any kind."""

from __future__ import annotations

import asyncio
import io
import json
import re
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from model.engine.scripted import ScriptedEngine, ScriptedOptions
from model.errors import GenerationFailed, InvalidAudio
from rest_api.app import AppOptions
from rest_api.audio_bodies import read_encoded
from rest_api.auth import KeyRing
from rest_api.conversations import KeepingOptions
from rest_api.limits import LimitOptions
from rest_api.service_state import ServiceState
from tests.rest_api.serving import serving, starting_app, until
from tests.rest_api.test_chat import USER, base64_of, file_of

pytestmark = pytest.mark.slow

Http: TypeAlias = httpx.AsyncClient
Case: TypeAlias = Callable[[], Coroutine[Any, Any, httpx.Response]]

TEXT = {"turns": [USER]}
FOREIGN = {"X-Forwarded-For": "203.0.113.9"}
KEY = "k" * 32


@asynccontextmanager
async def http(**options: Any) -> AsyncIterator[Http]:
    options.setdefault("replies", ())
    if "engine" in options:
        del options["replies"]
    async with serving(**options) as url, Http(base_url=url, timeout=30) as client:
        yield client


def post(body: Any, path: str = "/chat/text", **options: Any) -> Case:
    async def ask() -> httpx.Response:
        async with http(**options) as client:
            return await client.post(path, json=body)

    return ask


def raw(content: bytes, kind: str, **options: Any) -> Case:
    async def ask() -> httpx.Response:
        async with http(**options) as client:
            head = {"Content-Type": kind}
            return await client.post("/chat/audio", content=content, headers=head)

    return ask


async def nowhere() -> httpx.Response:
    async with http() as client:
        return await client.get("/nowhere")


async def wrong_method() -> httpx.Response:
    async with http() as client:
        return await client.delete("/chat/text")


async def stranger() -> httpx.Response:
    async with http(app=AppOptions(keys=KeyRing.parse(f"crm:{KEY}"))) as client:
        return await client.post("/chat/text", json=TEXT, headers=FOREIGN)


async def slow_body() -> httpx.Response:
    async def drip() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(2)

    async with http(app=AppOptions(body_timeout_s=0.1)) as client:
        return await client.post("/chat/text", content=drip())


async def busy() -> httpx.Response:
    engine = ScriptedEngine(ScriptedOptions(("Slow.",) * 2))
    async with http(engine=engine) as client:
        begun = await client.post("/chat/text", json={**TEXT, "conversation_id": "new"})
        body = {**TEXT, "conversation_id": begun.json()["data"]["conversation_id"]}
        engine._options = ScriptedOptions(("Slow.",), first_token_ms=60_000)
        slow = asyncio.create_task(client.post("/chat/text", json=body))
        await until(lambda: engine.load().num_active)
        answer = await client.post("/chat/text", json=body)
        slow.cancel()
        await until(lambda: not engine.load().num_active)
        return answer


async def full() -> httpx.Response:
    async with http(app=AppOptions(keeping=KeepingOptions(max_turns=2))) as client:
        body = {**TEXT, "conversation_id": "new"}
        body["turns"] = [USER, {"role": "assistant", "content": "Yes?"}, USER]
        return await client.post("/chat/text", json=body)


async def too_often() -> httpx.Response:
    keys = KeyRing.parse(f"crm:{KEY}")
    limits = LimitOptions(requests_per_min=1, burst=1)
    async with http(app=AppOptions(keys=keys, limits=limits)) as client:
        for _ in range(2):
            answer = await client.post(
                "/chat/text", json=TEXT, headers={"X-API-Key": KEY}
            )
        return answer


async def starting() -> httpx.Response:
    async with starting_app(ServiceState()) as url, Http(base_url=url) as client:
        return await client.post("/chat/text", json=TEXT)


class FailingEngine(ScriptedEngine):
    """The model gives out."""

    def submit(self, request: Any) -> Any:
        raise GenerationFailed("out of luck")


class CrashingEngine(ScriptedEngine):
    """Fails as nobody foresaw."""

    def submit(self, request: Any) -> Any:
        raise ZeroDivisionError


UNSPEAKABLE = {"turns": [{"role": "user", "content": "unspeakable"}], "speak": True}

SMALL = AppOptions(max_body_bytes=100)
CASES: list[tuple[int, str, Case]] = [
    (400, "invalid_json", raw(b"{", "application/json")),
    (400, "invalid_form", raw(b"x", "multipart/form-data")),
    (401, "unauthorized", stranger),
    (404, "not_found", nowhere),
    (
        404,
        "conversation_not_found",
        post({**TEXT, "conversation_id": "c_" + "x" * 22}),
    ),
    (405, "method_not_allowed", wrong_method),
    (408, "timeout", slow_body),
    (409, "conversation_busy", busy),
    (
        413,
        "too_large",
        raw(bytes(200), "audio/wav", app=AppOptions(max_body_bytes=100)),
    ),
    (415, "unsupported_media_type", raw(b"<x/>", "text/xml")),
    (422, "invalid_request", post({})),
    (422, "invalid_audio", post({"audio_base64": "!"}, "/chat/audio")),
    (422, "voice_unknown", post({**TEXT, "speak": True, "voice": "nobody"})),
    (422, "conversation_full", full),
    (429, "too_many_requests", too_often),
    (500, "generation_failed", post(TEXT, engine=FailingEngine())),
    (500, "synthesis_failed", post(UNSPEAKABLE)),
    (500, "internal", post(TEXT, engine=CrashingEngine())),
    (503, "unavailable", starting),
    (503, "engine_overloaded", post(TEXT, script=ScriptedOptions(max_slots=0))),
    (
        503,
        "overloaded",
        post(TEXT, app=AppOptions(limits=LimitOptions(all_replies_at_once=0))),
    ),
]
# Tested elsewhere: a real context, a full synthesiser, and two minutes of waiting.
ELSEWHERE = {"context_too_long", "synthesis_overloaded", "device_lost"}


@pytest.mark.parametrize(
    ("status", "code", "case"), CASES, ids=[f"{s}-{c}" for s, c, _ in CASES]
)
async def test_each_failure_is_as_documented(
    status: int, code: str, case: Case
) -> None:
    answer = await case()
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["success"] is False
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    assert "Traceback" not in answer.text
    assert answer.headers["X-Request-Id"]
    if status in (429, 503):
        assert int(answer.headers["Retry-After"]) >= 1


def test_no_documented_failure_is_left_out() -> None:
    readme = (Path(__file__).resolve().parents[2] / "rest_api/README.md").read_text()
    rows = re.findall(r"^\| (\d{3}) \| (.*?) \|", readme, re.MULTILINE)
    documented = {
        (int(status), code)
        for status, codes in rows
        for code in re.findall(r"`(\w+)`", codes)
        if code not in ELSEWHERE and status != "504"
    }
    assert documented == {(status, code) for status, code, _ in CASES}


# --- audio of any kind ---


def wav_with(rate_hz: int = 16_000, channels: int = 1, samples: int = 800) -> bytes:
    """A header that says so, and as many silent samples."""
    size = samples * channels * 2
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, channels, rate_hz),
        *(rate_hz * channels * 2, channels * 2, 16, b"data", size),
    )
    return head + bytes(size)


def nan_wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(
        file, np.full(1600, np.nan, np.float32), 16_000, format="WAV", subtype="FLOAT"
    )
    return file.getvalue()


def bomb() -> bytes:
    """An hour of silence in a FLAC of some kilobytes."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(3600 * 8000, np.int16), 8000, format="FLAC")
    return file.getvalue()


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda: wav_with(rate_hz=0), id="0 Hz"),
        pytest.param(lambda: wav_with(channels=10), id="10 channels"),
        pytest.param(nan_wav, id="not numbers"),
        pytest.param(bomb, id="a small file of an hour"),
        pytest.param(lambda: wav_with(samples=0), id="empty"),
        pytest.param(lambda: file_of("FLAC")[:60], id="cut off"),
        pytest.param(lambda: b"", id="no bytes"),
        pytest.param(lambda: bytes(2 * 16_000 * 720), id="twelve minutes, bare"),
    ],
)
async def test_audio_that_is_none_is_refused(made: Callable[[], bytes]) -> None:
    async with http() as client:
        answers = [
            await client.post("/chat/audio", json={"audio_base64": base64_of(made())}),
            await client.post(
                "/chat/audio", content=made(), headers={"Content-Type": "audio/wav"}
            ),
        ]
    for answer in answers:
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == "invalid_audio"


_TAG = b"ID3\4\0\0\0\0\0\0"
"""An empty one: libsndfile skips it and guesses again what the file is."""


@pytest.mark.parametrize(
    ("made", "says"),
    [
        *[
            (_TAG + file_of(name), "none of WAV, FLAC, OGG, MP3 and AIFF")
            for name in ("IRCAM", "MAT4", "NIST", "PAF")
        ],
        *[(file_of(name), "none of WAV") for name in ("CAF", "AU", "W64", "MAT5")],
        (file_of("WAV", "IMA_ADPCM"), "format tag 0x0011 and 4 bits"),
        (_TAG + file_of("WAV", "MS_ADPCM"), "format tag 0x0002 and 4 bits"),
        (file_of("AIFF", "IMA_ADPCM"), "codec b'ima4'"),
        (wav_with()[:32] + b"\7\0" + wav_with()[34:], "in blocks of 7 bytes"),
    ],
)
async def test_files_with_parsers_of_their_own_reach_none(
    made: bytes, says: str
) -> None:
    async with http() as client:
        answer = await client.post(
            "/chat/audio", content=made, headers={"Content-Type": "audio/wav"}
        )
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid_audio"
    assert says in answer.json()["error"]["message"]


@settings(max_examples=300, deadline=None)
@given(
    start=st.sampled_from(
        [b"", wav_with()[:44], file_of("FLAC")[:200], file_of("OGG", "VORBIS")[:200]]
    ),
    rest=st.binary(max_size=400),
    rate_hz=st.integers(4000, 192_000),
)
def test_any_bytes_are_audio_or_refused(
    start: bytes, rest: bytes, rate_hz: int
) -> None:
    try:
        wave = read_encoded(start + rest, rate_hz).wave
    except InvalidAudio:
        return
    assert np.isfinite(wave).all()
    assert len(wave) >= 320


@pytest.mark.parametrize(
    "body",
    [
        {"turns": [USER] * 10_000},
        {"turns": [{"role": "alien", "content": "x"}]},
        {"turns": [USER], "max_new_tokens": 10**400},
        {"turns": [{"role": "user", "content": "x" * 100_001}]},
        {"turns": [USER], "conversation_id": "../../etc/passwd"},
    ],
)
async def test_absurd_requests_are_the_clients_fault(body: Any) -> None:
    async with http() as client:
        answer = await client.post("/chat/text", content=json.dumps(body))
    assert answer.status_code in (400, 422)
    assert answer.json()["success"] is False


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"turns": ' * 50_000, b'{"a":' + b"[" * 99_000 + b"]" * 99_000],
    ids=["lists", "objects", "a field nobody asked for"],
)
@pytest.mark.parametrize("path", ["/chat/text", "/chat/audio", "/v1/chat/completions"])
async def test_json_in_json_without_end_is_not_json(path: str, body: bytes) -> None:
    kind = {"Content-Type": "application/json"}
    async with http() as client:
        answer = await client.post(path, content=body, headers=kind)
        assert answer.status_code in (400, 422)
        assert answer.json()["success"] is False
        assert (await client.post("/chat/text", json=TEXT)).status_code == 200


async def test_a_query_of_turns_without_end_is_not_json() -> None:
    async with http() as client:
        answer = await client.post(
            "/chat/audio",
            params={"turns": "[" * 20_000},
            content=bytes(6400),
            headers={"Content-Type": "application/octet-stream"},
        )
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "turns"


async def test_a_body_of_100_mb_is_refused_before_it_has_come() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100 << 20:
            sent += 1 << 20
            yield bytes(1 << 20)

    async with http() as client:
        try:
            answer = await client.post("/chat/audio", content=endless())
        except httpx.TransportError:
            pass  # closed while we still wrote
        else:
            assert answer.status_code in (413, 415)
        assert sent < 100 << 20
        assert (await client.get("/health/live")).status_code == 200


async def test_a_system_turn_in_the_middle_is_taken() -> None:
    system = {"role": "system", "content": "Be brief."}
    async with http() as client:
        answer = await client.post("/chat/text", json={"turns": [USER, system, USER]})
    assert answer.json()["data"]["response"] == "You said: Hello!"


async def test_one_base64_string_of_a_file_is_enough() -> None:
    async with http() as client:
        answer = await client.post(
            "/chat/audio", json={"audio_base64": base64_of(file_of("MP3"))}
        )
    assert answer.status_code == 200
