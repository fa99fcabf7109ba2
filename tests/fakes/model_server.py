"""An OpenAI-compatible model server that misbehaves as each dialogue asks it to.

The instructions of a dialogue name the fault, so one server, and one service before
it, serves a whole set of them at once.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from tests.fakes.connections import ConnectionServer

Writer = asyncio.StreamWriter
Fault = Callable[[Writer], Awaitable[None]]

HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
)
_DONE: Final = b"data: [DONE]\n\n"
_SENTENCE: Final = "Of course, I can help you with that today. "


class FaultyModel(ConnectionServer):
    """Listens while it is entered; counts requests and broken connections by fault."""

    def __init__(self) -> None:
        super().__init__()
        self.num_requests: Counter[str] = Counter()
        self.num_abandoned: Counter[str] = Counter()
        """Connections that the client closed while the reply was being written."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        try:
            body = await _request(reader)
            if body is None:
                writer.write(_answer(200, {"data": [{"id": "faulty"}]}))
            else:
                await self._complete(body, reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _complete(
        self, body: Mapping[str, Any], reader: asyncio.StreamReader, writer: Writer
    ) -> None:
        name = _fault_in(body)
        self.num_requests[name] += 1
        reply = asyncio.ensure_future(FAULTS[name](writer))
        gone = asyncio.ensure_future(reader.read())
        try:
            await asyncio.wait((reply, gone), return_when=asyncio.FIRST_COMPLETED)
            if not reply.done():
                self.num_abandoned[name] += 1
        finally:
            for task in (reply, gone):
                task.cancel()
            await asyncio.gather(reply, gone, return_exceptions=True)


async def _well(writer: Writer) -> None:
    writer.write(HEAD + words(_SENTENCE) + stream_end())


async def _slow(writer: Writer) -> None:
    """The first word after three seconds."""
    await asyncio.sleep(3)
    await _well(writer)


async def _silent(writer: Writer) -> None:
    """Takes the request and never answers."""
    await asyncio.sleep(3600)


async def _trickle(writer: Writer) -> None:
    """A word every five seconds."""
    writer.write(HEAD)
    for word in _SENTENCE.split():
        writer.write(_event(word + " "))
        await writer.drain()
        await asyncio.sleep(5)
    writer.write(stream_end())


async def _empty(writer: Writer) -> None:
    writer.write(HEAD + stream_end())


async def _endless(writer: Writer) -> None:
    """Whole sentences for as long as somebody reads."""
    writer.write(HEAD)
    while True:
        writer.write(words(_SENTENCE))
        await writer.drain()
        await asyncio.sleep(0.02)


async def _endless_word(writer: Writer) -> None:
    """One word that never ends: no sentence to speak, no stop."""
    writer.write(HEAD)
    while True:
        writer.write(_event("a" * 100))
        await writer.drain()
        await asyncio.sleep(0.02)


async def _out_of_memory(writer: Writer) -> None:
    error = {"message": "CUDA out of memory. Tried to allocate 2.00 GiB", "code": 500}
    writer.write(_answer(500, {"error": error}))


async def _out_of_memory_midway(writer: Writer) -> None:
    writer.write(HEAD + words(_SENTENCE))
    await writer.drain()
    await asyncio.sleep(0.5)
    error = {"error": {"message": "CUDA out of memory", "code": 500}}
    writer.write(b"data: " + json.dumps(error).encode() + b"\n\n")


async def _breaks_off(writer: Writer) -> None:
    """The connection ends after half a sentence."""
    writer.write(HEAD + words("Of course, I can"))


async def _html(writer: Writer) -> None:
    page = b"<html><body>Bad gateway</body></html>"
    head = f"HTTP/1.1 502 Bad Gateway\r\nContent-Length: {len(page)}\r\n\r\n"
    writer.write(head.encode() + page)


async def _nonsense(writer: Writer) -> None:
    writer.write(HEAD + b"data: {]\n\n")


FAULTS: Final[dict[str, Fault]] = {
    "default": _well,
    "slow": _slow,
    "silent": _silent,
    "trickle": _trickle,
    "empty": _empty,
    "endless": _endless,
    "endless_word": _endless_word,
    "out_of_memory": _out_of_memory,
    "out_of_memory_midway": _out_of_memory_midway,
    "breaks_off": _breaks_off,
    "html": _html,
    "nonsense": _nonsense,
}


def instructions(fault: str) -> str:
    """What a campaign tells the model so that it behaves like this."""
    return f"fault={fault}."


def _fault_in(body: Mapping[str, Any]) -> str:
    text = json.dumps(body["messages"][0])
    return next((name for name in FAULTS if instructions(name) in text), "default")


async def _request(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The body of a completion request; None for anything else."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = 0
    for line in head.lower().splitlines():
        if line.startswith("content-length:"):
            length = int(line.split(":")[1])
    body = await reader.readexactly(length)
    if not head.startswith("POST /v1/chat/completions"):
        return None
    found = json.loads(body)
    assert isinstance(found, dict)
    return found


def words(text: str) -> bytes:
    return b"".join(_event(word + " ") for word in text.split())


def _event(text: str | None, finish: str | None = None) -> bytes:
    choice = {"delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def stream_end() -> bytes:
    return _event(None, "stop") + _DONE


def _answer(status: int, answer: Mapping[str, Any]) -> bytes:
    body = json.dumps(answer).encode()
    head = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\n"
    return (
        f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        + body
    )
