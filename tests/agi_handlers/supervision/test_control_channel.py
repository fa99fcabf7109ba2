"""Messages between supervisor and phone half, over a real pair of sockets."""

from __future__ import annotations

import asyncio
import socket

import pytest

from agi_handlers.supervision.control_channel import (
    MAX_STRAY_BYTES,
    Beat,
    ControlChannel,
    Drain,
    Message,
    MessageUnreadable,
    Ready,
    Reload,
    Retire,
    Siblings,
    Stray,
    from_packet,
    socket_pair,
    to_packet,
)

Got = list[tuple[Message, bytes | None]]


@pytest.mark.parametrize(
    "message",
    [
        *(Beat(), Ready(), Drain(2.5), Retire(), Reload(), Siblings(2)),
        Stray.of(1, bytes(range(256))),
    ],
)
def test_every_message_survives_the_wire(message: Message) -> None:
    assert from_packet(to_packet(message)) == message


@pytest.mark.parametrize(
    "packet", [b"", b"\xff", b"[]", b'["sing",{}]', b'["drain",{"x":1}]', b'{"a":1}']
)
def test_what_is_no_message_is_a_clear_error(packet: bytes) -> None:
    with pytest.raises(MessageUnreadable):
        from_packet(packet)


async def received(got: Got) -> tuple[Message, bytes | None]:
    for _ in range(500):
        if got:
            break
        await asyncio.sleep(0.01)
    return got[0]


async def channels() -> tuple[ControlChannel, ControlChannel, Got, asyncio.Event]:
    """The sending and the receiving end, what was received, and whether it closed."""
    got: Got = []
    closed = asyncio.Event()

    def take(message: Message, connection: socket.socket | None) -> None:
        if connection is None:
            got.append((message, None))
            return
        with connection:
            got.append((message, connection.recv(100)))

    ours, theirs = socket_pair()
    sender = ControlChannel(ours, lambda *_: None, lambda: None)
    receiver = ControlChannel(theirs, take, closed.set)
    sender.start()
    receiver.start()
    return sender, receiver, got, closed


async def test_a_connection_travels_with_what_came_on_it() -> None:
    sender, receiver, got, closed = await channels()
    near, far = socket.socketpair()
    with near, far:
        first = b"x" * MAX_STRAY_BYTES
        assert sender.send(Stray.of(1, first), far)
        near.sendall(b"and more")
        stray, more = await received(got)
    assert isinstance(stray, Stray)
    assert stray.received_bytes == first
    assert more == b"and more"
    sender.close()
    await asyncio.wait_for(closed.wait(), 5)
    receiver.close()


async def test_junk_is_skipped_and_a_stuck_reader_holds_up_nobody() -> None:
    ours, theirs = socket_pair()
    with ours, theirs:
        ours.setblocking(False)
        sender = ControlChannel(ours, lambda *_: None, lambda: None)
        results = [sender.send(Beat()) for _ in range(5000)]
        assert results[0]
        assert not results[-1]
    sender, receiver, got, _ = await channels()
    sender._end.send(b"nonsense")
    sender.send(Ready())
    assert await received(got) == (Ready(), None)
    sender.close()
    receiver.close()
