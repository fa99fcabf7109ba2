"""The media port: only what was announced gets in, once, and nothing else stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agi_handlers.audio_leg.audiosocket_protocol import (
    audio_message,
    call_id_message,
)
from agi_handlers.audio_leg.media_port import (
    MediaPort,
    MediaPortOptions,
    first_message,
    open_media_port,
)
from agi_handlers.errors import ListenFailed

CALL_ID = UUID("40325ec2-5efd-4bd3-805f-53576e581d13")
TOKEN = "0123456789abcdef0123456789abcdef"


class Received(asyncio.Protocol):
    """Keeps what comes, and its transport."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.data = b""
        self.lost = asyncio.Event()
        self.came = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.came.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    async def wait_for(self, data: bytes) -> None:
        async with asyncio.timeout(5):
            while self.data != data:
                self.came.clear()
                await self.came.wait()


class Peer:
    """A connection to the media port."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: MediaPort, data: bytes = b"") -> Peer:
        peer = cls(*await asyncio.open_connection("127.0.0.1", port.port))
        await peer.send(data)
        return peer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        with suppress(ConnectionError):
            await self._writer.drain()

    async def is_cut_off(self) -> None:
        """Until the port has closed this connection, without a byte."""
        async with asyncio.timeout(5):
            with suppress(ConnectionError):
                assert await self._reader.read() == b""
        await self.aclose()

    async def read(self) -> bytes:
        async with asyncio.timeout(5):
            return await self._reader.read()

    async def aclose(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the port has no event to wait for
            await asyncio.sleep(0)


# --- what a connection says first ---


@pytest.mark.parametrize(
    ("received", "found"),
    [
        (b"\x01", None),
        (b"\x01\x00\x10", None),
        (call_id_message(CALL_ID)[:-1], None),
        (b"\x01\x00\x11", "junk"),
        (b"\x01\x01", "junk"),
        (b"\x10\x01\x40", "junk"),
        (b"\x00", "junk"),
        (b"FI", None),
        (b"FILES ", None),
        (b"FILES " + b"a" * 30, None),
        (b"FILES " + b"a" * 100, "junk"),
        (b"FILES " + b"a" * 100 + b"\n", "junk"),
        (b"FILES abc\n", ("FILES abc", b"")),
        (b"AGI abc\nagi_network: yes\n", ("AGI abc", b"agi_network: yes\n")),
        (b"EAR abc\n\x00\xff", ("EAR abc", b"\x00\xff")),
        (b"EAR a/c\n", "junk"),
        (b"EAR \n", "junk"),
        (b"EAR\n", "junk"),
        (b"GET / HTTP/1.1\r\n", "junk"),
        (b"G", "junk"),
        (b"\x16\x03\x01", "junk"),
        (b"\n", "junk"),
    ],
)
def test_the_first_message_tells_what_a_connection_is(
    received: bytes, found: tuple[str, bytes] | Literal["junk"] | None
) -> None:
    assert first_message(received) == found


@given(data=st.binary(max_size=200))
def test_no_first_bytes_raise_or_wait_for_ever(data: bytes) -> None:
    assert first_message(data + b"\n" + bytes(100)) is not None


# --- the port itself ---


async def test_an_announced_call_is_let_in_with_every_byte_it_sent(
    media_port: MediaPort,
) -> None:
    with media_port.announce_audiosocket(CALL_ID, Received) as announcement:
        stream = call_id_message(CALL_ID) + audio_message(b"\1\2")
        peer = await Peer.connect(media_port)
        for byte in stream[:-1]:
            await peer.send(bytes((byte,)))
            await asyncio.sleep(0)
        await peer.send(stream[-1:])
        protocol = await announcement.arrived()
        await protocol.wait_for(stream)
        assert protocol.transport is not None
        protocol.transport.write(b"answer")
        protocol.transport.close()
        assert await peer.read() == b"answer"
        await peer.aclose()
        await protocol.lost.wait()
    assert media_port.num_accepted == 1
    assert not media_port.num_refused


async def test_a_line_is_taken_off_before_the_protocol_sees_the_stream(
    media_port: MediaPort,
) -> None:
    with media_port.announce_line("FILES", Received) as (line, announcement):
        assert line.startswith("FILES ")
        peer = await Peer.connect(media_port, line.encode() + b"\nok\n")
        protocol = await announcement.arrived()
        await protocol.wait_for(b"ok\n")
        await peer.aclose()
        await protocol.lost.wait()


async def test_tokens_are_fresh(media_port: MediaPort) -> None:
    with (
        media_port.announce_line("EAR", Received) as (one, _),
        media_port.announce_line("EAR", Received) as (two, _),
    ):
        assert one != two
        assert len(one) == len("EAR ") + 32


async def test_a_second_connection_for_the_same_call_does_not_disturb_the_first(
    media_port: MediaPort,
) -> None:
    with media_port.announce_audiosocket(CALL_ID, Received) as announcement:
        first = await Peer.connect(media_port, call_id_message(CALL_ID))
        protocol = await announcement.arrived()
        second = await Peer.connect(media_port, call_id_message(CALL_ID))
        await second.is_cut_off()
        await first.send(audio_message(b"\1\2"))
        await protocol.wait_for(call_id_message(CALL_ID) + audio_message(b"\1\2"))
        assert not protocol.lost.is_set()
        await first.aclose()
        await protocol.lost.wait()
    assert media_port.num_refused == {"taken": 1}


@pytest.mark.parametrize(
    "data", [call_id_message(UUID(int=7)), f"EAR {TOKEN}\n".encode()]
)
async def test_what_nobody_announced_is_cut_off(
    media_port: MediaPort, data: bytes
) -> None:
    with media_port.announce_audiosocket(CALL_ID, Received) as announcement:
        peer = await Peer.connect(media_port, data)
        await peer.is_cut_off()
        assert not announcement.is_taken
    assert media_port.num_refused == {"unannounced": 1}


async def test_a_call_that_comes_after_its_time_is_cut_off(
    media_port: MediaPort,
) -> None:
    with media_port.announce_audiosocket(CALL_ID, Received):
        pass
    peer = await Peer.connect(media_port, call_id_message(CALL_ID))
    await peer.is_cut_off()
    assert media_port.num_refused == {"unannounced": 1}


async def test_a_token_is_good_for_its_own_word_only(media_port: MediaPort) -> None:
    with media_port.announce_line("EAR", Received) as (line, announcement):
        peer = await Peer.connect(
            media_port, line.replace("EAR", "AGI").encode() + b"\n"
        )
        await peer.is_cut_off()
        assert not announcement.is_taken


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02", bytes(400), b"\xff" * 9]
)
async def test_junk_is_cut_off_and_counted(media_port: MediaPort, data: bytes) -> None:
    peer = await Peer.connect(media_port, data)
    await peer.is_cut_off()
    assert media_port.num_refused == {"junk": 1}


@pytest.mark.parametrize("data", [b"", b"\x01\x00", b"FILES 12", b"F"])
async def test_half_a_first_message_times_out(
    media_port: MediaPort, data: bytes
) -> None:
    peer = await Peer.connect(media_port, data)
    await peer.is_cut_off()
    assert media_port.num_refused == {"silent": 1}


async def test_a_byte_now_and_then_does_not_prolong_the_time(
    media_port: MediaPort,
) -> None:
    peer = await Peer.connect(media_port)

    async def drip() -> None:
        for byte in call_id_message(CALL_ID)[:-1] * 100:
            await peer.send(bytes((byte,)))
            await asyncio.sleep(0.05)

    with media_port.announce_audiosocket(CALL_ID, Received):
        dripping = asyncio.create_task(drip())
        await peer.is_cut_off()
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
    assert media_port.num_refused == {"silent": 1}


async def test_an_end_within_the_first_message_is_counted(
    media_port: MediaPort,
) -> None:
    peer = await Peer.connect(media_port, b"\x01\x00\x10")
    await peer.aclose()
    await until(lambda: media_port.num_refused == {"cut_short": 1})


async def test_addresses_outside_the_list_are_cut_off() -> None:
    options = MediaPortOptions(
        host="127.0.0.1", port=0, allowed_peers=("10.0.0.0/8", "192.0.2.7")
    )
    async with open_media_port(options) as port:
        with port.announce_audiosocket(CALL_ID, Received):
            peer = await Peer.connect(port, call_id_message(CALL_ID))
            await peer.is_cut_off()
        assert port.num_refused == {"not_allowed": 1}
        assert port.allows("10.200.3.4")
        assert port.allows("192.0.2.7")
        assert port.allows("::ffff:192.0.2.7")
        assert not port.allows("192.0.2.8")
        assert not port.allows("")


async def test_too_many_unknown_connections_are_cut_off() -> None:
    options = MediaPortOptions(host="127.0.0.1", port=0, max_arrivals=2)
    async with open_media_port(options) as port:
        waiting = [await Peer.connect(port) for _ in range(2)]
        third = await Peer.connect(port)
        await third.is_cut_off()
        assert port.num_refused == {"too_many": 1}
        for peer in waiting:
            await peer.aclose()
        await until(lambda: port.num_refused["cut_short"] == 2)


async def test_closing_the_port_cuts_off_who_is_still_arriving() -> None:
    async with open_media_port(MediaPortOptions(host="127.0.0.1", port=0)) as port:
        peer = await Peer.connect(port, b"\x01")
        await until(lambda: bool(port._arrivals))
    await peer.is_cut_off()


async def test_a_port_in_use_is_a_clear_error(media_port: MediaPort) -> None:
    options = MediaPortOptions(host="127.0.0.1", port=media_port.port)
    with pytest.raises(ListenFailed, match=f"127.0.0.1:{media_port.port}"):
        async with open_media_port(options):
            pass


async def test_waiting_for_a_connection_that_never_comes_can_be_given_up(
    media_port: MediaPort,
) -> None:
    with media_port.announce_audiosocket(CALL_ID, Received) as announcement:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await announcement.arrived()
        assert not announcement.is_taken
