"""The limits an operator sets are the limits the wire has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

import config
from model.engine.scripted import ScriptedEngine, ScriptedOptions
from rest_api.app import AppOptions
from rest_api.auth import KeyRing, LiveKeys
from tests.rest_api.serving import serving

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
