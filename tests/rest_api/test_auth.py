"""Who may use the HTTP port."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from rest_api.app import AppOptions
from rest_api.auth import (
    ApiKeyGate,
    ApiKeysInvalid,
    KeyRing,
    LiveKeys,
    add_key,
    digest,
    load_or_make_key,
    revoke_key,
)
from tests.rest_api.serving import serving

KEY = "k" * 32
KEYS = KeyRing.parse(f"crm:{KEY}, other:{'o' * 20}")


def test_keys_are_named_and_told_apart() -> None:
    assert KEYS.name_of(KEY) == "crm"
    assert KEYS.name_of("o" * 20) == "other"
    assert KEYS.name_of(KEY + "x") is None
    assert KEYS.name_of("") is None


@pytest.mark.parametrize(
    "setting",
    [
        "justakey1234567890",
        ":keykeykeykeykeykey",
        "a:",
        "a:short",
        "a:blanks in the key.",
        "a:ünïcode-in-the-key",
    ],
)
def test_malformed_keys_are_refused_without_being_shown(setting: str) -> None:
    with pytest.raises(ApiKeysInvalid) as caught:
        KeyRing.parse(setting)
    secret = setting.partition(":")[2]
    assert not secret or secret not in str(caught.value)


def test_one_name_has_one_key() -> None:
    with pytest.raises(ApiKeysInvalid, match="twice"):
        KeyRing.parse(f"a:{KEY},a:{KEY}")


def test_a_key_is_made_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    ring, key = load_or_make_key(tmp_path / "data")
    assert key is not None
    assert ring.name_of(key) == "default"
    (kept,) = (tmp_path / "data").iterdir()
    assert key not in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    again, none = load_or_make_key(tmp_path / "data")
    assert none is None
    assert again.name_of(key) == "default"


def test_a_broken_hash_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "api_key.sha256").write_text("not hex")
    ring, key = load_or_make_key(tmp_path)
    assert key is not None
    assert ring.name_of(key) == "default"


async def answer_of(
    client: str | None,
    headers: dict[str, str] | None = None,
    path: str = "/chat/text",
    keys: KeyRing | None = KEYS,
    origins: tuple[str, ...] = (),
) -> int:
    """The status the gate lets a request come to."""
    status = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "client": (client, 1234) if client else None,
        "headers": [
            (name.lower().encode(), value.encode())
            for name, value in (headers or {}).items()
        ],
    }
    await ApiKeyGate(app, keys, origins)(scope, receive, send)
    return status


@pytest.mark.parametrize(
    "client", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"]
)
async def test_loopback_needs_no_key(client: str) -> None:
    assert await answer_of(client) == 200


@pytest.mark.parametrize("client", ["10.0.0.5", "2001:db8::1", "::ffff:10.0.0.5", None])
async def test_other_addresses_need_a_key(client: str | None) -> None:
    assert await answer_of(client) == 401
    assert await answer_of(client, {"Authorization": "Bearer " + "x" * 32}) == 401
    assert await answer_of(client, {"Authorization": f"Basic {KEY}"}) == 401
    assert await answer_of(client, {"Authorization": f"Bearer {KEY}"}) == 200
    assert await answer_of(client, {"Authorization": f"bearer {KEY}"}) == 200
    assert await answer_of(client, {"X-API-Key": KEY}) == 200
    assert await answer_of(client, {"Sec-WebSocket-Protocol": f"a, key.{KEY}"}) == 200


@pytest.mark.parametrize(
    "path",
    ["/health", "/health/live", "/health/ready", "/docs", "/docs/docs.js"],
)
async def test_health_and_documentation_are_open(path: str) -> None:
    assert await answer_of("10.0.0.5", path=path) == 200


@pytest.mark.parametrize("path", ["/memory", "/metrics", "/internal/heartbeat"])
async def test_the_rest_of_operations_is_not(path: str) -> None:
    assert await answer_of("10.0.0.5", path=path) == 401


async def test_what_a_proxy_passes_on_is_not_local() -> None:
    assert await answer_of("127.0.0.1", {"X-Forwarded-For": "10.0.0.5"}) == 401
    assert await answer_of("127.0.0.1", {"Forwarded": "for=10.0.0.5"}) == 401


async def test_a_web_page_of_another_origin_is_not_local() -> None:
    evil = {"Origin": "https://evil.example"}
    assert await answer_of("127.0.0.1", evil) == 401
    assert await answer_of("127.0.0.1", {"Origin": "null"}) == 401
    assert await answer_of("127.0.0.1", {"Origin": "http://localhost:8000"}) == 200
    allowed = ("https://evil.example",)
    assert await answer_of("127.0.0.1", evil, origins=allowed) == 200


async def test_with_auth_off_everybody_comes_in() -> None:
    assert await answer_of("10.0.0.5", keys=None) == 200


FOREIGN = {"X-Forwarded-For": "203.0.113.9"}  # what a request from outside looks like


async def test_a_refusal_has_the_common_shape() -> None:
    async with (
        serving(app=AppOptions(keys=KEYS)) as url,
        httpx.AsyncClient(base_url=url, headers=FOREIGN) as client,
    ):
        refused = await client.post("/chat/text", json={})
        health = await client.get("/health")
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert refused.json()["error"]["code"] == "unauthorized"
    assert health.status_code == 200


def base64url(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


async def test_a_websocket_needs_a_key_as_well() -> None:
    async with serving(app=AppOptions(keys=KEYS)) as url:
        live = url.replace("http", "ws") + "/chat/live"
        with pytest.raises(InvalidStatus) as caught:
            await connect(live, additional_headers=FOREIGN)
        assert caught.value.response.status_code == 401
        bearer = {**FOREIGN, "Authorization": f"Bearer {KEY}"}
        async with connect(live, additional_headers=bearer):
            pass
        for name in (f"key.{KEY}", "key64." + base64url(KEY)):
            async with connect(
                live,
                additional_headers=FOREIGN,
                subprotocols=[Subprotocol("chat-live"), Subprotocol(name)],
            ) as browser:
                assert browser.subprotocol == "chat-live"  # and not the key
        for name in ("key64." + base64url("wrong"), "key64.***", "key.", "key64."):
            with pytest.raises(InvalidStatus) as caught:
                await connect(
                    live,
                    additional_headers=FOREIGN,
                    subprotocols=[Subprotocol("chat-live"), Subprotocol(name)],
                )
            assert caught.value.response.status_code == 401


async def test_cors_is_closed_by_default() -> None:
    ask = {"Origin": "https://crm.example", "Access-Control-Request-Method": "POST"}
    async with serving() as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.options("/chat/text", headers=ask)
    assert "access-control-allow-origin" not in answer.headers


async def test_cors_is_open_for_the_origins_named() -> None:
    options = AppOptions(keys=KEYS, cors_origins=("https://crm.example",))
    ask = {
        **FOREIGN,
        "Origin": "https://crm.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    async with serving(app=options) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.options("/chat/text", headers=ask)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://crm.example"


def test_a_key_may_be_given_as_its_hash() -> None:
    ring = KeyRing.parse(f"crm:sha256:{digest(KEY).hex()}")
    assert ring.name_of(KEY) == "crm"
    with pytest.raises(ApiKeysInvalid, match="64 hexadecimal"):
        KeyRing.parse("crm:sha256:abc")


def test_keys_are_added_and_revoked_by_name(tmp_path: Path) -> None:
    _, first = load_or_make_key(tmp_path)
    assert first is not None
    ring, crm = add_key(tmp_path, "crm")
    assert (ring.name_of(first), ring.name_of(crm)) == ("default", "crm")
    with pytest.raises(ApiKeysInvalid, match="already"):
        add_key(tmp_path, "crm")
    with pytest.raises(ApiKeysInvalid, match="letters"):
        add_key(tmp_path, "a b")
    revoke_key(tmp_path, "default")
    ring, new = load_or_make_key(tmp_path)
    assert new is None
    assert (ring.name_of(first), ring.name_of(crm)) == (None, "crm")
    revoke_key(tmp_path, "crm")
    ring, new = load_or_make_key(tmp_path)
    assert new is None  # none is left, and none is made: it stays closed
    assert not ring.digests
    with pytest.raises(ApiKeysInvalid, match="no key"):
        revoke_key(tmp_path, "crm")


def test_the_first_starts_file_of_one_hash_is_understood(tmp_path: Path) -> None:
    (tmp_path / "api_key.sha256").write_text(digest(KEY).hex() + "\n")
    ring, new = load_or_make_key(tmp_path)
    assert (ring.name_of(KEY), new) == ("default", None)


async def test_a_revoked_key_is_out_at_once() -> None:
    keys = LiveKeys(KEYS)
    async with (
        serving(app=AppOptions(keys=keys)) as url,
        httpx.AsyncClient(base_url=url, headers={**FOREIGN, "X-API-Key": KEY}) as one,
    ):
        before = await one.get("/memory")
        keys.ring = KeyRing.parse(f"other:{'o' * 20}")
        after = await one.get("/memory")
    assert (before.status_code, after.status_code) == (200, 401)


async def test_wrong_keys_without_end_are_429_and_a_right_one_still_works() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    gate = ApiKeyGate(app, KEYS)
    statuses = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        if "status" in message:
            statuses.append(message["status"])

    for key in [b"wrong"] * 25 + [KEY.encode()]:
        scope: Scope = {
            "type": "http",
            "method": "GET",
            "path": "/memory",
            "client": ("10.0.0.9", 1),
            "headers": [(b"x-api-key", key)],
        }
        await gate(scope, receive, send)
    assert statuses[:20] == [401] * 20
    assert statuses[-2:] == [429, 200]


async def test_answers_tell_browsers_to_do_nothing_with_them() -> None:
    async with serving() as url, httpx.AsyncClient(base_url=url) as client:
        health = await client.get("/health")
        docs = await client.get("/docs")
    assert health.headers["X-Content-Type-Options"] == "nosniff"
    assert health.headers["X-Frame-Options"] == "DENY"
    assert health.headers["Cache-Control"] == "no-store"
    assert health.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "script-src 'self'" in docs.headers["Content-Security-Policy"]
