"""A phone half's side of its supervision: beats, and what the supervisor asks of it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Protocol

from agi_handlers.audio_leg.media_port import MediaPort
from agi_handlers.supervision.control_channel import (
    MAX_STRAY_BYTES,
    Beat,
    ControlChannel,
    Drain,
    Message,
    Ready,
    Reload,
    Restarts,
    Retire,
    Siblings,
    Stray,
)
from telemetry import RESTARTS, fields

logger = logging.getLogger(__name__)

_BEAT_S = 0.25


class Phones(Protocol):
    """What the supervisor may ask for."""

    def drain(self, within_s: float) -> None: ...
    def retire(self) -> None: ...
    def reload(self) -> None: ...


class Supervised:
    """The channel to the supervisor; `start` within the loop, then `beat` as a task."""

    def __init__(self, end: socket.socket, media_port: MediaPort) -> None:
        self._channel = ControlChannel(end, self._take, self._on_orphaned)
        self._media_port = media_port
        self._phones: Phones | None = None
        self._restarts: dict[tuple[str, str], int] = {}

    def start(self) -> None:
        self._channel.start()

    def ready(self, phones: Phones) -> None:
        """Calls are taken from now on."""
        self._phones = phones
        self._channel.send(Ready())

    async def beat(self) -> None:
        """Show that the loop turns, until cancelled."""
        while True:
            self._channel.send(Beat())
            await asyncio.sleep(_BEAT_S)

    def close(self) -> None:
        self._channel.close()

    def _take(self, message: Message, connection: socket.socket | None) -> None:
        phones = self._phones
        if isinstance(message, Siblings):
            # connections that are nobody's here may be theirs
            self._media_port.pass_on = self._pass_on if message.num else None
            self._media_port.num_siblings = message.num
        elif isinstance(message, Restarts):
            self._note_restarts(message)
        elif isinstance(message, Stray) and connection is not None:
            task = asyncio.ensure_future(
                self._media_port.take_over(
                    connection, message.received_bytes, message.num_asked
                )
            )
            task.add_done_callback(_log_failure)
        elif phones is None:
            return
        elif isinstance(message, Drain):
            phones.drain(message.within_s)
        elif isinstance(message, Retire):
            phones.retire()
        elif isinstance(message, Reload):
            phones.reload()

    def _note_restarts(self, message: Restarts) -> None:
        """The supervisor's count outlives us: to Prometheus it never goes back."""
        which = (message.half, message.reason)
        more = message.num - self._restarts.get(which, 0)
        RESTARTS.labels(half=message.half, reason=message.reason).inc(max(0, more))
        self._restarts[which] = message.num

    def _pass_on(
        self, connection: socket.socket, received: bytes, num_asked: int
    ) -> bool:
        if len(received) > MAX_STRAY_BYTES:
            return False
        return self._channel.send(Stray.of(num_asked, received), connection)

    def _on_orphaned(self) -> None:
        """The supervisor is dead: so are we, at once, for the ports to be free.

        Callers go to people as every socket closes; the next start closes the records.
        """
        logger.critical("supervisor_gone", extra=fields(pid=os.getpid()))
        logging.shutdown()
        os._exit(1)


def _log_failure(task: asyncio.Future[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.warning("stray_lost", extra=fields(error=str(task.exception())))
