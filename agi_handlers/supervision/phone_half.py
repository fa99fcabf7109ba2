"""One phone half as its supervisor sees it: a child process and what it reports.

starting ─ready─▶ serving ─newer one ready─▶ retiring ─last call over─▶ gone
    └───────────────┴─ stands still, or dies ──┴──────────────────────▶ gone
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto

from agi_handlers.supervision.control_channel import (
    Beat,
    ControlChannel,
    Message,
    Ready,
    Retire,
    Stray,
    socket_pair,
)
from agi_handlers.supervision.freeze_watch import FreezeWatch, activity_of
from telemetry import fields

logger = logging.getLogger(__name__)

TICK_S = 0.25


class Stage(Enum):
    STARTING = auto()
    SERVING = auto()
    RETIRING = auto()


OnStray = Callable[["PhoneHalf", Stray, socket.socket], None]


class PhoneHalf:
    """A child process from its start to its end."""

    def __init__(
        self,
        freeze_s: float,
        on_ready: Callable[[PhoneHalf], None],
        on_stray: OnStray,
    ) -> None:
        self._on_ready = on_ready
        self._on_stray = on_stray
        self._watch = FreezeWatch(freeze_s, TICK_S)
        self._process: asyncio.subprocess.Process | None = None
        self._channel: ControlChannel | None = None
        self._was_frozen = False
        self.stage = Stage.STARTING
        self.started_s = time.monotonic()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(
        self, command: tuple[str, ...], listeners: tuple[socket.socket, ...]
    ) -> None:
        """Start `command`, told by --phone-half which descriptors are its own.

        Raises:
            OSError: it cannot be started.
        """
        ours, theirs = socket_pair()
        try:
            descriptors = [one.fileno() for one in (*listeners, theirs)]
            self._process = await asyncio.create_subprocess_exec(
                *command,
                f"--phone-half={','.join(map(str, descriptors))}",
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=descriptors,
                # Ctrl-C at our terminal is for us: we let calls end first
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._channel = ControlChannel(ours, self._take, lambda: None)
        self._channel.start()
        logger.info("phone_half_started", extra=fields(pid=self.pid))

    async def ended(self) -> int:
        """Watch over it until it has ended; its exit status, negative: by a signal."""
        assert self._process is not None
        watching = asyncio.create_task(self._keep_watch())
        try:
            status = await self._process.wait()
        except BaseException:
            self.kill()
            await self._process.wait()
            raise
        finally:
            watching.cancel()
            if self._channel is not None:
                self._channel.close()
        logger.log(
            logging.INFO if status == 0 else logging.ERROR,
            "phone_half_ended",
            extra=fields(pid=self.pid, how=self._how(status), stage=self.stage.name),
        )
        return status

    @property
    def was_frozen(self) -> bool:
        """It stood still, and was killed for it."""
        return self._was_frozen

    def send(self, message: Message, connection: socket.socket | None = None) -> bool:
        return self._channel is not None and self._channel.send(message, connection)

    def retire(self) -> None:
        """Another one takes the new calls from now on."""
        if self.stage is Stage.SERVING:
            self.stage = Stage.RETIRING
            self.send(Retire())

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)

    async def _keep_watch(self) -> None:
        """Kill it when it stands still: its callers' sockets close, people answer."""
        assert self.pid is not None
        while True:
            await asyncio.sleep(TICK_S)
            if self.stage is Stage.STARTING:
                continue
            self._watch.tick(time.monotonic(), activity_of(self.pid))
            if self._watch.is_frozen and not self._was_frozen:
                self._was_frozen = True
                logger.critical(
                    "phone_half_frozen",
                    extra=fields(pid=self.pid, stood_s=round(self._watch.stood_s, 1)),
                )
                self.kill()

    def _take(self, message: Message, connection: socket.socket | None) -> None:
        match message:
            case Beat():
                self._watch.beat()
            case Ready():
                self._watch.beat()
                self.stage = Stage.SERVING
                logger.info("phone_half_ready", extra=fields(pid=self.pid))
                self._on_ready(self)
            case Stray() if connection is not None:
                self._on_stray(self, message, connection)
            case _:
                logger.error(
                    "control_message_unexpected", extra=fields(word=message.word)
                )

    def _how(self, status: int) -> str:
        if self._was_frozen:
            return "killed: it stood still"
        if status < 0:
            return f"killed by {signal.Signals(-status).name}"
        return f"exit status {status}"
