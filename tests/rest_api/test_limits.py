"""Limits for each client: rates, replies at once, and who counts as one client."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from model.engine.scripted import ScriptedEngine, ScriptedOptions
from rest_api.app import AppOptions
from rest_api.auth import KeyRing
from rest_api.limits import (
    ClientLimits,
    LimitOptions,
    Places,
    Rates,
    address_of,
    clients_of,
)
from tests.rest_api.serving import serving, until
from tests.rest_api.test_chat import USER

KEY, OTHER = "k" * 32, "o" * 32
KEYS = KeyRing.parse(f"crm:{KEY},other:{OTHER}")


def test_a_burst_is_let_in_and_then_the_rate_counts() -> None:
    rates = Rates(60, 3)
    assert [rates.take("a") for _ in range(3)] == [0.0, 0.0, 0.0]
    assert rates.take("a") == pytest.approx(1.0, abs=0.3)
    assert rates.take("b") == 0.0


def test_room_comes_back_with_time() -> None:
    rates = Rates(60_000, 1)  # one a millisecond
    assert rates.take("a") == 0.0
    waited_s = 0.0
    while (wait_s := rates.take("a")) > 0.0:
        waited_s += wait_s
        time.sleep(wait_s)
    assert waited_s < 0.5


def test_clients_without_number_take_no_memory_without_end() -> None:
    rates = Rates(1, 1, max_clients=10)
    for number in range(1000):
        rates.take(f"address {number}")
    assert rates.take("address 990") > 0.0  # one of the last ten
    assert rates.take("address 989") == 0.0  # forgotten


def test_places_are_given_back_whatever_happens() -> None:
    places = Places(each=1, in_all=2)

    def crash() -> None:
        with places.held(["a", "b"]):
            assert not places.has_room(["a", "c"])
            assert places.has_room(["c"])
            assert not places.is_full
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        crash()
    assert places.has_room(["a", "b"])
    assert places.num_taken == 0


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
        ("10.0.0.5", "10.0.0.5"),
        ("::ffff:10.0.0.5", "10.0.0.5"),
        ("2001:db8::1:2", "2001:db8::/64"),
        (None, ""),
    ],
)
def test_an_address_is_one_client(host: str | None, address: str) -> None:
    assert address_of({"type": "http", "client": (host, 1)}) == address


def test_a_client_is_key_and_address() -> None:
    scope = {"type": "http", "client": ("10.0.0.5", 1), "state": {"key_name": "crm"}}
    assert clients_of(scope) == ["key crm", "address 10.0.0.5"]


async def status_of(limits: ClientLimits, path: str, client: str) -> int:
    status = 0

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "client": (client, 1),
        "headers": [],
    }
    await limits(scope, receive, send)
    return status


async def test_one_address_too_quick_is_429_and_others_are_not() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    limits = ClientLimits(app, LimitOptions(requests_per_min=1, burst=2))
    asked = [await status_of(limits, "/memory", "10.0.0.1") for _ in range(3)]
    assert asked == [200, 200, 429]
    assert await status_of(limits, "/memory", "10.0.0.2") == 200
    assert await status_of(limits, "/health", "10.0.0.1") == 200
    for _ in range(5):
        assert await status_of(limits, "/memory", "127.0.0.1") == 200


async def test_a_key_too_quick_is_told_when_to_come_back() -> None:
    options = AppOptions(keys=KEYS, limits=LimitOptions(requests_per_min=30, burst=1))
    async with serving(app=options) as url, httpx.AsyncClient(base_url=url) as client:
        body = {"turns": [USER]}
        head = {"X-API-Key": KEY}
        first = await client.post("/chat/text", json=body, headers=head)
        second = await client.post("/chat/text", json=body, headers=head)
        other = await client.post("/chat/text", json=body, headers={"X-API-Key": OTHER})
    assert [first.status_code, second.status_code, other.status_code] == [200, 429, 200]
    assert second.headers["Retry-After"] == "2"
    assert second.json()["error"]["code"] == "too_many_requests"


async def test_replies_at_once_are_limited_for_one_and_for_all() -> None:
    engine = ScriptedEngine(ScriptedOptions(("Slow.",), first_token_ms=60_000))
    limits = LimitOptions(replies_at_once=1, all_replies_at_once=2)
    options = AppOptions(keys=KEYS, limits=limits)

    async def ask(client: httpx.AsyncClient, key: str) -> httpx.Response:
        head: dict[str, Any] = {"X-API-Key": key} if key else {}
        return await client.post("/chat/text", json={"turns": [USER]}, headers=head)

    async with (
        serving(engine=engine, app=options) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        slow = [asyncio.create_task(ask(client, KEY))]
        await until(lambda: engine.load().num_active == 1)
        assert (await ask(client, KEY)).status_code == 429
        slow.append(asyncio.create_task(ask(client, OTHER)))
        await until(lambda: engine.load().num_active == 2)
        full = await ask(client, "")
        assert (await client.get("/health")).status_code == 200
        for task in slow:
            task.cancel()
        await until(lambda: not engine.load().num_active)
    assert full.status_code == 503
    assert full.json()["error"]["code"] == "overloaded"
    assert full.headers["Retry-After"] == "1"
