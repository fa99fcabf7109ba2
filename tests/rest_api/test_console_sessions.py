"""Logging in at the console: a cookie that only our own pages can use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from rest_api.app import AppOptions
from rest_api.auth import KeyRing, LiveKeys
from rest_api.console.sessions import (
    COOKIE,
    IDLE_S,
    MAX_SESSIONS,
    TOKEN_HEADER,
    Sessions,
)
from tests.rest_api.serving import serving

KEY = "k" * 32
SESSION = "/console/session"
ELSEWHERE = {"X-Forwarded-For": "203.0.113.9"}


@asynccontextmanager
async def http(keys: LiveKeys | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A browser on another host, as far as the port can tell."""
    keys = keys or LiveKeys(KeyRing.parse(f"ada:{KEY}"))
    async with (
        serving(app=AppOptions(keys=keys)) as url,
        httpx.AsyncClient(base_url=url, headers=ELSEWHERE) as client,
    ):
        yield client


async def log_in(client: httpx.AsyncClient) -> str:
    """The token that a page must show."""
    answer = await client.post(SESSION, headers={"X-API-Key": KEY})
    assert answer.status_code == 200
    return str(answer.json()["data"]["token"])


async def test_the_key_is_shown_once_and_the_cookie_is_enough_to_see() -> None:
    async with http() as client:
        assert (await client.get("/memory")).status_code == 401
        await log_in(client)
        assert (await client.get("/memory")).status_code == 200
        who = (await client.get(SESSION)).json()["data"]
    assert (who["name"], who["may_see"], who["may_act"]) == ("ada", True, True)


async def test_the_cookie_is_for_no_script_and_for_no_other_site() -> None:
    async with http() as client:
        plain = await client.post(SESSION, headers={"X-API-Key": KEY})
        tls = await client.post(
            SESSION, headers={"X-API-Key": KEY, "X-Forwarded-Proto": "https"}
        )
    cookie = SimpleCookie(plain.headers["set-cookie"])[COOKIE]
    assert (cookie["httponly"], cookie["secure"]) == (True, "")
    assert cookie["samesite"].lower() == "strict"
    assert "domain=" not in plain.headers["set-cookie"].lower()
    assert SimpleCookie(tls.headers["set-cookie"])[COOKIE]["secure"] is True


async def test_nothing_is_changed_by_the_cookie_alone() -> None:
    async with http() as client:
        token = await log_in(client)
        drain = "/live/phones/nobody/drain"
        assert (await client.post(drain)).status_code == 401
        wrong = {TOKEN_HEADER: "x" * len(token)}
        assert (await client.post(drain, headers=wrong)).status_code == 401
        right = {TOKEN_HEADER: token}
        assert (await client.post(drain, headers=right)).status_code == 409
        foreign = {**right, "Origin": "https://evil.example"}
        assert (await client.post(drain, headers=foreign)).status_code == 401


async def test_another_sites_page_cannot_see_or_listen_with_the_cookie() -> None:
    async with http() as client:
        await log_in(client)
        foreign = {"Origin": "https://evil.example"}
        assert (await client.get("/memory", headers=foreign)).status_code == 401
        cookie = f"{COOKIE}={client.cookies[COOKIE]}"
        address = str(client.base_url).replace("http", "ws") + "/live/calls/c/listen"
        came_by_cookie = {"Cookie": cookie, **ELSEWHERE}
        for origin in ({}, foreign):
            with pytest.raises(InvalidStatus) as refused:
                await connect(address, additional_headers={**came_by_cookie, **origin})
            assert refused.value.response.status_code == 401
        own = {**came_by_cookie, "Origin": str(client.base_url).rstrip("/")}
        async with connect(address, additional_headers=own) as line:
            await line.wait_closed()
        assert line.close_code == 4404  # no such call


async def test_logging_out_ends_it_for_whoever_has_the_cookie() -> None:
    async with http() as client:
        token = await log_in(client)
        stolen = {"Cookie": f"{COOKIE}={client.cookies[COOKIE]}"}
        assert (await client.get("/memory", headers=stolen)).status_code == 200
        await client.delete(SESSION, headers={TOKEN_HEADER: token})
        client.cookies.clear()
        assert (await client.get("/memory", headers=stolen)).status_code == 401


async def test_a_revoked_key_ends_its_sessions() -> None:
    keys = LiveKeys(KeyRing.parse(f"ada:{KEY}"))
    async with http(keys) as client:
        await log_in(client)
        keys.ring = KeyRing.parse(f"ada:{'n' * 32}")
        assert (await client.get("/memory")).status_code == 401


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "w" * 32}])
async def test_without_a_right_key_there_is_no_session(headers: dict[str, str]) -> None:
    async with http() as client:
        answer = await client.post(SESSION, headers=headers)
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert (await client.get(SESSION)).json()["data"]["may_see"] is False


async def test_on_this_host_one_may_look_without_a_key_but_not_act() -> None:
    async with (
        serving(app=AppOptions(keys=KeyRing.parse(f"ada:{KEY}"))) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        who = (await client.get(SESSION)).json()["data"]
    assert (who["name"], who["may_see"], who["may_act"]) == ("", True, False)


def test_unused_sessions_end_and_their_number_is_bounded() -> None:
    now_s = 0.0
    sessions = Sessions(clock=lambda: now_s)
    keys = {"ada": b"digest"}
    cookie, _ = sessions.begin("ada", b"digest")
    now_s += IDLE_S - 1
    assert sessions.find(cookie, keys) is not None
    now_s += IDLE_S - 1  # counted from its last use
    assert sessions.find(cookie, keys) is not None
    now_s += IDLE_S + 1
    assert sessions.find(cookie, keys) is None
    first, _ = sessions.begin("ada", b"digest")
    for _ in range(MAX_SESSIONS):
        now_s += 1
        sessions.begin("ada", b"digest")
    assert sessions.find(first, keys) is None
