"""The connection to a manager: kept up, found again, and never in a call's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from agi_handlers.ami.messages import AmiEvent, KeyPressed
from agi_handlers.ami.watch import AmiOptions, AmiWatch, parse_addresses

CHANNEL, UNIQUEID = "PJSIP/a-1", "1.1"
KEY = (
    b"Event: DTMFEnd\r\nChannel: PJSIP/a-1\r\nUniqueid: 1.1\r\nDigit: 5\r\n"
    b"Direction: Received\r\n\r\n"
)


@dataclass
class Manager:
    """An Asterisk's manager, played by a socket."""

    answers: bool = True
    lets_in: bool = True
    received: bytes = b""
    num_connections: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.num_connections += 1
        self.writers.append(writer)
        try:
            writer.write(b"Asterisk Call Manager/5.0.2\r\n")
            while data := await reader.read(4096):
                self.received += data
                if self.answers:
                    word = b"Success" if self.lets_in else b"Error"
                    writer.write(b"Response: " + word + b"\r\nMessage: so\r\n\r\n")
        except ConnectionError:
            pass
        finally:
            writer.close()

    def say(self, data: bytes) -> None:
        self.writers[-1].write(data)

    def drop(self) -> None:
        self.writers[-1].transport.abort()


@asynccontextmanager
async def watched(
    manager: Manager, **options: float
) -> AsyncIterator[tuple[AmiWatch, int]]:
    server = await asyncio.start_server(manager.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    fast = {"first_retry_s": 0.02, "longest_retry_s": 0.05, **options}
    watch = AmiWatch(AmiOptions("bot", "s3cret", (("127.0.0.1", port),), **fast))
    running = asyncio.create_task(watch.run())
    try:
        yield watch, port
    finally:
        running.cancel()
        await asyncio.wait([running])
        server.close()
        await server.wait_closed()
        await until(lambda: all(w.is_closing() for w in manager.writers))
        await asyncio.sleep(0.01)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_call_hears_of_its_own_channel_and_of_no_other() -> None:
    manager, mine, others = Manager(), list[AmiEvent](), list[AmiEvent]()
    async with watched(manager) as (watch, _):
        await until(lambda: watch.is_connected)
        with (
            watch.listening(CHANNEL, UNIQUEID, mine.append),
            watch.listening("PJSIP/a-2", UNIQUEID, others.append),
        ):
            manager.say(KEY * 2)
            await until(lambda: len(mine) == 2)
        manager.say(KEY)
        await asyncio.sleep(0.05)
    assert mine == [KeyPressed(CHANNEL, UNIQUEID, "5")] * 2
    assert others == []
    assert manager.received.startswith(b"Action: Login\r\nUsername: bot\r\n")


async def test_a_manager_that_drops_us_is_found_again_and_calls_hear_on() -> None:
    manager, heard = Manager(), list[AmiEvent]()
    async with watched(manager) as (watch, _):
        with watch.listening(CHANNEL, UNIQUEID, heard.append):
            for times in range(1, 4):
                await until(lambda: watch.is_connected)
                manager.say(KEY)
                await until(lambda times=times: len(heard) == times)  # type: ignore[misc]
                manager.drop()
                await until(lambda: not watch.is_connected)
    assert manager.num_connections >= 3


async def test_a_wrong_password_is_told_once_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    manager = Manager(lets_in=False)
    async with watched(manager) as (watch, _):
        await until(lambda: manager.num_connections >= 4)
        assert not watch.is_connected
    told = [r for r in caplog.records if r.message == "ami_away"]
    assert len(told) == 1
    assert "s3cret" not in caplog.text


async def test_one_that_says_nothing_any_more_is_left() -> None:
    manager = Manager()
    async with watched(manager, quiet_timeout_s=0.05) as (watch, _):
        await until(lambda: b"Ping" in manager.received)
        assert watch.is_connected  # it answers
        manager.answers = False
        await until(lambda: manager.num_connections > 1)


async def test_a_call_that_fails_over_an_event_takes_nobody_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(event: AmiEvent) -> None:
        raise RuntimeError("a bug")

    manager, heard = Manager(), list[AmiEvent]()
    async with watched(manager) as (watch, _):
        await until(lambda: watch.is_connected)
        with watch.listening(CHANNEL, UNIQUEID, fail):
            manager.say(KEY)
            await until(lambda: "a bug" in caplog.text)
        with watch.listening(CHANNEL, UNIQUEID, heard.append):
            manager.say(KEY)
            await until(lambda: len(heard) == 1)


async def test_nobody_there_is_no_harm(free_port: Callable[[], int]) -> None:
    options = AmiOptions("bot", "x", (("127.0.0.1", free_port()),), first_retry_s=0.01)
    running = asyncio.create_task(AmiWatch(options).run())
    await asyncio.sleep(0.1)
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


def test_addresses() -> None:
    found = parse_addresses(["dialer", "10.0.0.1:5039"])
    assert found == (("dialer", 5038), ("10.0.0.1", 5039))
    for wrong in ("dialer:", ":5038", "dialer:70000", "dialer:x"):
        with pytest.raises(ValueError, match="is no HOST"):
            parse_addresses([wrong])
