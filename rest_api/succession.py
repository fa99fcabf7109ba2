"""One speech half takes over from another, on the same port and without a gap.

    the new one   loads its model ─▶ opens the port beside the old one ─▶ says "ready"
    the old one   on SIGUSR2: accepts no more, lets its phone halves go to the new one
                  ─▶ ends with the last of its dialogues

Both listen for a moment (SO_REUSEPORT), either answers well.  A dialogue stays where
its caller's history is; should the old one be ended before, it goes on at the new one
as after any lost connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import suppress

import uvicorn

from rest_api.control_desk import ControlDesk
from rest_api.service_state import ServiceState
from telemetry import fields

logger = logging.getLogger(__name__)

_LOOK_S = 0.2


def listen(
    host: str, port: int, backlog: int, *, shares: bool, takes_over: bool
) -> socket.socket:
    """The HTTP port; `shares`: with one that takes over later, or is taken over.

    Raises:
        OSError: taken by somebody else, not ours, or no such address.
    """
    if shares and not takes_over:  # sharing would not notice that it is taken
        _open(host, port, backlog, shares=False).close()
    return _open(host, port, backlog, shares=shares)


def _open(host: str, port: int, backlog: int, *, shares: bool) -> socket.socket:
    is_v6 = ":" in host
    return socket.create_server(
        (host, port),
        family=socket.AF_INET6 if is_v6 else socket.AF_INET,
        backlog=backlog,
        reuse_port=shares,
        dualstack_ipv6=is_v6 and host == "::" and socket.has_dualstack_ipv6(),
    )


async def has_model(state: ServiceState) -> bool:
    """Wait until it is known whether the model can be had."""
    while state.service is None and not state.has_failed:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_S)
    return state.service is not None


async def say_ready(server: uvicorn.Server, descriptor: int) -> None:
    """Tell who started us, through this pipe, that the port is answered."""
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(_LOOK_S)
    with suppress(BrokenPipeError):
        os.write(descriptor, b"ready\n")
    os.close(descriptor)


async def end_when_retired(
    server: uvicorn.Server, desk: ControlDesk, retired: asyncio.Event
) -> None:
    """Once retired: answer nobody new, and end when nobody is left."""
    await retired.wait()
    logger.info("retiring", extra=fields(requests=len(server.server_state.tasks)))
    for listener in server.servers:
        listener.close()
    desk.retire()
    # what is kept open for further requests would bring them to us
    for connection in list(server.server_state.connections):
        if isinstance(connection, server.config.http_protocol_class):
            connection.shutdown()  # after its answer; a dialogue's is of another class
    while server.server_state.tasks:  # noqa: ASYNC110 - uvicorn tells of no end
        await asyncio.sleep(_LOOK_S)
    server.should_exit = True
