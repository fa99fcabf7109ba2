"""The limits an operator sets are the limits the wire has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

import config
from model.engine.scripted import ScriptedEngine, ScriptedOptions
from rest_api.app import AppOptions, create_app
from rest_api.auth import KeyRing, LiveKeys
from rest_api.http_protocol import GuardedHttp
from rest_api.service_state import ServiceState
from tests.rest_api.serving import serving, until
from ultravox_api_server import uvicorn_config

KEY = "k" * 32
TEXT = {"turns": [{"role": "user", "content": "Hello"}]}
SECOND = bytes(2 * 16_000)
RAW = {"Content-Type": "application/octet-stream"}
FOREIGN = {"X-Forwarded-For": "203.0.113.9"}


def options(tmp_path: Path, **settings: Any) -> AppOptions:
    environ = {f"ULTRAVOX_{name.upper()}": str(v) for name, v in settings.items()}
    environ["ULTRAVOX_DATA_DIR"] = str(tmp_path)
    return AppOptions.of(config.load(environ), LiveKeys(KeyRing.parse(f"crm:{KEY}")))


@pytest.mark.parametrize(
    ("settings", "request_", "status", "code"),
    [
        ({"http_max_body_mb": 1}, {"content": bytes(1 << 21)}, 413, "too_large"),
        ({"http_max_audio_s": 1}, {"content": SECOND + b"\0\0"}, 422, "invalid_audio"),
        (
            {"conversations_chars": 1000},
            {
                "json": {
                    "turns": [{"role": "user", "content": "x" * 1001}],
                    "conversation_id": "new",
                }
            },
            422,
            "conversation_full",
        ),
        (
            {"conversations_audio_s": 1},
            {"content": SECOND * 2, "params": {"conversation_id": "new"}},
            422,
            "conversation_full",
        ),
    ],
)
async def test_what_is_over_a_limit_is_refused(
    tmp_path: Path,
    settings: dict[str, Any],
    request_: dict[str, Any],
    status: int,
    code: str,
) -> None:
    headers = {} if "json" in request_ else RAW
    for app, expected in (
        (options(tmp_path, **settings), (status, code)),
        (options(tmp_path), (200, "")),  # and it is this limit that refused it
    ):
        async with (
            serving(app=app) as url,
            httpx.AsyncClient(base_url=url, headers=headers) as client,
        ):
            answer = await client.post("/chat/conversation", **request_)
        found = answer.json().get("error", {}).get("code", "")
        assert (answer.status_code, found) == expected


async def test_a_rate_and_its_burst(tmp_path: Path) -> None:
    app = options(tmp_path, http_requests_per_min=1, http_burst=2)
    async with (
        serving(app=app) as url,
        httpx.AsyncClient(base_url=url, headers={"X-API-Key": KEY}) as client,
    ):
        asked = [(await client.get("/memory")).status_code for _ in range(3)]
    assert asked == [200, 200, 429]


async def test_wrong_keys(tmp_path: Path) -> None:
    app = options(tmp_path, http_wrong_keys_per_min=1)
    wrong = {**FOREIGN, "X-API-Key": "not a key"}
    async with (
        serving(app=app) as url,
        httpx.AsyncClient(base_url=url, headers=wrong) as client,
    ):
        asked = [(await client.get("/memory")).status_code for _ in range(22)]
    assert asked == [401] * 20 + [429] * 2


async def test_a_reply_that_takes_too_long(tmp_path: Path) -> None:
    app = options(tmp_path, http_reply_timeout_s=1)
    engine = ScriptedEngine(ScriptedOptions(("Slow.",), first_token_ms=60_000))
    async with (
        serving(engine=engine, app=app) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        answer = await client.post("/chat/text", json=TEXT)
    assert answer.status_code == 504
    assert "1 s" in answer.json()["error"]["message"]


async def test_kept_conversations_are_as_many_as_set(tmp_path: Path) -> None:
    app = options(tmp_path, conversations_max=1)
    async with serving(app=app) as url, httpx.AsyncClient(base_url=url) as client:
        ids = []
        for _ in range(2):
            body = {**TEXT, "conversation_id": "new"}
            answer = await client.post("/chat/text", json=body)
            ids.append(answer.json()["data"]["conversation_id"])
        found = [
            (await client.get(f"/conversations/{name}")).status_code for name in ids
        ]
    assert found == [404, 200]


@asynccontextmanager
async def waiting_for(
    num_replies: int, app: AppOptions
) -> AsyncIterator[httpx.AsyncClient]:
    """A server at which so many wait for a reply that doesn't come."""
    engine = ScriptedEngine(ScriptedOptions(("Never.",), first_token_ms=60_000))
    async with (
        serving(engine=engine, app=app) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        waiting = [
            asyncio.create_task(
                client.post("/chat/text", json=TEXT, headers={"X-API-Key": KEY})
            )
            for _ in range(num_replies)
        ]
        await until(lambda: engine.load().num_active == num_replies)
        yield client
        for request in waiting:
            request.cancel()
        await until(lambda: not engine.load().num_active)


async def test_replies_at_once_of_one_client(tmp_path: Path) -> None:
    app = options(tmp_path, http_replies_per_client=2)
    async with waiting_for(2, app) as client:
        mine = await client.post("/chat/text", json=TEXT, headers={"X-API-Key": KEY})
    assert (mine.status_code, mine.headers["retry-after"]) == (429, "1")
    assert mine.json()["error"]["code"] == "too_many_requests"


async def test_replies_at_once_of_all(tmp_path: Path) -> None:
    app = options(tmp_path, http_replies=3)
    async with waiting_for(3, app) as client:
        anybodys = await client.post("/chat/text", json=TEXT)
    assert anybodys.status_code == 503
    assert anybodys.json()["error"]["code"] == "overloaded"


@pytest.mark.slow
async def test_a_body_that_takes_too_long(tmp_path: Path) -> None:
    app = options(tmp_path, http_body_timeout_s=1)

    head = b"POST /chat/text HTTP/1.1\r\nHost: here\r\nContent-Length: 50\r\n\r\n"
    async with serving(app=app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(head + b'{"turns": ')
        answer = await reader.read()  # and then it closes
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body took over 1 s" in answer


async def test_a_kept_conversation_has_so_many_turns(tmp_path: Path) -> None:
    app = options(tmp_path, conversations_turns=4)
    body = {**TEXT, "conversation_id": "new"}
    async with serving(app=app) as url, httpx.AsyncClient(base_url=url) as client:
        answers = []
        for _ in range(3):  # each a turn and its reply
            answers.append(await client.post("/chat/text", json=body))
            data = answers[0].json()["data"]
            body = {**TEXT, "conversation_id": data["conversation_id"]}
    assert [answer.status_code for answer in answers] == [200, 200, 422]
    assert answers[-1].json()["error"]["code"] == "conversation_full"


@pytest.mark.slow
async def test_a_kept_conversation_goes_when_it_was_idle(tmp_path: Path) -> None:
    app = options(tmp_path, conversations_idle_s=1)
    async with serving(app=app) as url, httpx.AsyncClient(base_url=url) as client:
        body = {**TEXT, "conversation_id": "new"}
        begun = (await client.post("/chat/text", json=body)).json()["data"]
        path = f"/conversations/{begun['conversation_id']}"
        now = await client.get(path)
        await asyncio.sleep(1.1)
        later = await client.get(path)
    assert (now.status_code, later.status_code) == (200, 404)
    assert later.json()["error"]["code"] == "conversation_not_found"


def test_connections_of_one_address(tmp_path: Path) -> None:
    environ = {"ULTRAVOX_HTTP_CONNECTIONS": "7", "ULTRAVOX_DATA_DIR": str(tmp_path)}
    made = uvicorn_config(create_app(ServiceState()), config.load(environ))
    assert isinstance(made.http, type)
    assert issubclass(made.http, GuardedHttp)
    assert made.http.limits.per_address == 7
