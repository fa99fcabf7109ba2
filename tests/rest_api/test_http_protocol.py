"""Connections that are slow, endless or too many, as whoever opens them sees it."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import httpx
import pytest

from rest_api.app import AppOptions
from rest_api.auth import KeyRing
from rest_api.http_protocol import ConnectionLimits
from tests.rest_api.serving import serving

QUICK = ConnectionLimits(
    head_timeout_s=0.3, rest_timeout_s=0.3, max_body_bytes=1 << 20, per_address=3
)

Ends: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connection(
    url: str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What still came before the server ended it; fails if it doesn't."""
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET /health HT", id="half a line"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: x\r\n", id="no end of the head"),
        pytest.param(
            b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health", id="after an answer"
        ),
    ],
)
async def test_a_head_that_does_not_come_is_not_waited_for(begun: bytes) -> None:
    async with serving(connections=QUICK) as url, connection(url) as (reader, writer):
        writer.write(begun)
        await ended(reader)


async def test_a_head_drop_by_drop_is_not_waited_for() -> None:
    async with serving(connections=QUICK) as url, connection(url) as (reader, writer):
        ending = asyncio.create_task(ended(reader))
        writer.write(b"GET /health HTTP/1.1\r\n")
        while not ending.done():
            writer.write(b"X-A: b\r\n")
            await asyncio.sleep(0.02)
        assert await ending == b""


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"GET /", b"a" * 65_536),
        (b"GET / HTTP/1.1\r\nX: ", b"a" * 65_536),
        (b"GET / HTTP/1.1\r\n", b"X: a\r\n" * 10_000),
        (
            b"POST /chat/text HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n",
            b"X: a\r\n" * 10_000,
        ),
        (
            b"POST /chat/text HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ",
            b"a" * 65_536,
        ),
    ],
    ids=["address", "a header", "headers", "trailers", "a trailer"],
)
async def test_what_has_no_end_is_cut_off(head: bytes, more: bytes) -> None:
    limits = ConnectionLimits(max_body_bytes=1 << 20)
    async with serving(connections=limits) as url, connection(url) as (reader, writer):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ending = asyncio.create_task(ended(reader))
        writer.write(head)
        sent = 0
        while not ending.done() and sent < 64 << 20:
            writer.write(more)
            sent += len(more)
            try:
                await writer.drain()
            except ConnectionError:
                break
            await asyncio.sleep(0)
        await ending
        assert sent < 32 << 20
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown_kb < 48 << 10


async def test_the_rest_of_a_body_that_was_refused_is_not_waited_for() -> None:
    keys = AppOptions(keys=KeyRing.parse("crm:" + "k" * 32))
    async with (
        serving(connections=QUICK, app=keys, seen_from="10.0.0.9") as url,
        connection(url) as (reader, writer),
    ):
        writer.write(
            b"POST /chat/text HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
        )
        assert (await ended(reader)).startswith(b"HTTP/1.1 401")


async def test_a_slow_body_is_not_a_slow_head() -> None:
    """It has a limit of its own, which is longer."""
    body = b'{"turns": [{"role": "user", "content": "Hello"}]}'
    async with serving(connections=QUICK) as url, connection(url) as (reader, writer):
        writer.write(
            b"POST /chat/text HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        await asyncio.sleep(0.6)
        writer.write(body)
        assert (await ended(reader)).startswith(b"HTTP/1.1 200")


async def test_this_host_has_as_many_connections_as_it_wants() -> None:
    async with (
        serving(connections=ConnectionLimits(per_address=3)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        answers = await asyncio.gather(*(client.get("/health") for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}


async def test_one_address_has_so_many_connections_and_gets_them_back() -> None:
    limits = ConnectionLimits(per_address=3, spares_this_host=False)
    async with (
        serving(connections=limits) as url,
        connection(url) as first,
        connection(url) as second,
        connection(url) as third,
    ):
        async with connection(url) as (reader, _):
            assert await ended(reader) == b""
        for _, writer in (first, second):
            writer.transport.abort()
        await asyncio.sleep(0.2)
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/health")).status_code == 200
        third[1].transport.abort()
