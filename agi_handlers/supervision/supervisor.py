"""The parent of the service's processes: keeps the ports open and a phone half behind.

::

    supervisor ─┬─ phone half      takes the calls from the ports we hold
                ├─ (phone half)    only while one takes over from another
                └─ speech half     see `agi_handlers.sidecar`

A phone half that dies or stands still is replaced; meanwhile calls wait a moment, then
are closed at once, and the dialplan takes them to people.  A restart without a gap
starts the new phone half first; the old one keeps its calls to their end.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from agi_handlers.sidecar import Sidecar
from agi_handlers.supervision.control_channel import (
    Drain,
    Reload,
    Restarts,
    Siblings,
    Stray,
)
from agi_handlers.supervision.phone_half import PhoneHalf, Stage
from service_manager import ServiceManager
from telemetry import fields

logger = logging.getLogger(__name__)

WRONG_SETTINGS = 2
"""Exit status of a phone half that another start would not help."""


@dataclass(frozen=True, slots=True)
class SupervisorOptions:
    command: tuple[str, ...]
    """Of a phone half; see `PhoneHalf.start`."""
    freeze_s: float = 3.0
    """A phone half that stands still for so long is killed."""
    drain_s: float = 30.0
    end_grace_s: float = 15.0
    """Beyond the drain: to hand callers over, send what is owed and close files."""
    start_timeout_s: float = 120.0
    """To be ready: a busy machine, a cold disk."""
    backoff_first_s: float = 0.1
    backoff_max_s: float = 10.0
    steady_s: float = 60.0
    """Alive for so long, it counts as started well: the next pause is the first."""
    patience_s: float = 2.0
    """Calls that find no phone half wait so long before they are closed."""


class Supervisor:
    """Runs until told to stop."""

    def __init__(
        self,
        options: SupervisorOptions,
        agi_listener: socket.socket,
        audio_listener: socket.socket,
        sidecar: Sidecar | None = None,
        manager: ServiceManager | None = None,
    ) -> None:
        self._options = options
        self._agi_listener = agi_listener
        self._audio_listener = audio_listener
        self._sidecar = sidecar
        self._manager = manager or ServiceManager({})
        self._halves: list[PhoneHalf] = []  # the oldest first
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._exit_status = 0
        self._was_ready = False
        # all from 0: Prometheus sees no increase in a series that begins with 1
        self._num_restarts = {
            ("phone", "died"): 0,
            ("phone", "frozen"): 0,
            **({("speech", "died"): 0, ("speech", "hung"): 0} if sidecar else {}),
        }
        if sidecar is not None:
            sidecar.on_lost = lambda reason: self._count_restart("speech", reason)

    @property
    def pids(self) -> list[int]:
        """Of the phone halves, the oldest first."""
        return [half.pid for half in self._halves if half.pid is not None]

    # --- what signals ask for ---

    def stop(self) -> None:
        """Drain and end; asked twice, running calls go to people at once."""
        if self._stop.is_set():
            self._tell_all_to_drain(0.0)
        self._stop.set()
        self._changed.set()

    def restart(self) -> None:
        """New halves take over without a gap."""
        if not self._stop.is_set() and self._sidecar is not None:
            self._sidecar.replace()
        self.restart_phone_half()

    def restart_phone_half(self) -> None:
        """A new phone half takes over without a gap."""
        if self._stop.is_set():
            return
        if any(half.stage is Stage.STARTING for half in self._halves):
            logger.warning("restart_already_under_way")
            return
        logger.info("restart", extra=fields(pids=self.pids))
        self._halves.append(self._new_half())
        self._changed.set()

    def reload(self) -> None:
        """Campaigns and keys are read again; calls go on."""
        pid = self._sidecar.pid if self._sidecar is not None else None
        logger.info("reload", extra=fields(speech_half=pid))
        self._manager.reloading()
        for half in self._halves:
            half.send(Reload())
        if self._sidecar is not None:
            self._sidecar.reload()
        self._tell_manager()

    async def run(self) -> int:
        """The service's exit status, after an orderly end."""
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._refuse_while_nobody_answers()),
                tasks.create_task(self._manager.stay_alive()),
            ]
            if self._sidecar is not None:
                background.append(tasks.create_task(self._sidecar.run()))
            try:
                await self._keep_phone_halves()
            finally:
                for task in background:
                    task.cancel()
        logger.info("stopped")
        return self._exit_status

    # --- phone halves ---

    async def _keep_phone_halves(self) -> None:
        """Attend to each, replace the lost, until all have ended on our word."""
        pause_s = self._options.backoff_first_s
        attended: dict[asyncio.Task[int | None], PhoneHalf] = {}
        self._halves.append(self._new_half())
        draining: asyncio.Task[None] | None = None
        try:
            while self._halves or not self._stop.is_set():
                self._changed.clear()
                for half in self._halves:
                    if half not in attended.values():
                        attended[asyncio.create_task(self._attend(half))] = half
                changed = asyncio.create_task(self._changed.wait())
                await asyncio.wait(
                    {changed, *attended}, return_when=asyncio.FIRST_COMPLETED
                )
                changed.cancel()
                for task in [one for one in attended if one.done()]:
                    half = attended.pop(task)
                    self._halves.remove(half)
                    self._note_end(half, task.result())
                    if time.monotonic() - half.started_s >= self._options.steady_s:
                        pause_s = self._options.backoff_first_s
                if self._stop.is_set():
                    draining = draining or asyncio.create_task(self._drain())
                elif all(half.stage is Stage.RETIRING for half in self._halves):
                    await self._pause(pause_s)
                    pause_s = min(2 * pause_s, self._options.backoff_max_s)
                    if not self._stop.is_set():
                        self._halves.append(self._new_half())
                    self._changed.set()
                self._tell_siblings()
        finally:
            tasks = [*attended, *([draining] if draining is not None else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _new_half(self) -> PhoneHalf:
        return PhoneHalf(self._options.freeze_s, self._on_ready, self._on_stray)

    async def _attend(self, half: PhoneHalf) -> int | None:
        """From its start to its end; its exit status, None: it could not be started."""
        try:
            await half.start(
                self._options.command, (self._agi_listener, self._audio_listener)
            )
        except OSError as exc:
            logger.error("phone_half_not_started", extra=fields(error=str(exc)))
            return None
        ending = asyncio.create_task(half.ended())
        try:
            await asyncio.wait({ending}, timeout=self._options.start_timeout_s)
            if half.stage is Stage.STARTING and not ending.done():
                logger.error("phone_half_not_ready", extra=fields(pid=half.pid))
                half.kill()
            return await asyncio.shield(ending)
        finally:
            if not ending.done():
                ending.cancel()
                await asyncio.wait({ending})

    def _note_end(self, half: PhoneHalf, status: int | None) -> None:
        self._tell_manager()
        is_refused = half.stage is Stage.STARTING and bool(self._halves)
        if not self._stop.is_set() and status != 0 and not is_refused:
            self._count_restart("phone", "frozen" if half.was_frozen else "died")
        if self._stop.is_set() or half.stage is not Stage.STARTING:
            return
        if self._halves:
            logger.error("restart_failed", extra=fields(status=status))
        elif status == WRONG_SETTINGS and not self._was_ready:
            self._exit_status = WRONG_SETTINGS
            self._stop.set()

    def _on_ready(self, half: PhoneHalf) -> None:
        self._was_ready = True
        for older in self._halves[: self._halves.index(half)]:
            older.retire()
        self._tell_siblings()
        self._tell_restarts()
        self._tell_manager()

    def _count_restart(self, half: str, reason: str) -> None:
        self._num_restarts[half, reason] += 1
        self._tell_restarts()

    def _tell_restarts(self) -> None:
        for (half, reason), num in self._num_restarts.items():
            for one in self._halves:
                one.send(Restarts(half, reason, num))

    def _on_stray(
        self, sender: PhoneHalf, stray: Stray, connection: socket.socket
    ) -> None:
        """Offer a connection to the next one round; when all were asked, close it."""
        with connection:
            if stray.num_asked < len(self._halves):
                at = (self._halves.index(sender) + 1) % len(self._halves)
                self._halves[at].send(stray, connection)

    def _tell_siblings(self) -> None:
        for half in self._halves:
            half.send(Siblings(len(self._halves) - 1))

    async def _pause(self, pause_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._stop.wait()

    # --- the end ---

    async def _drain(self) -> None:
        """All phone halves end with their last call; past the deadline they must."""
        options = self._options
        self._manager.stopping()
        logger.info("draining", extra=fields(pids=self.pids, seconds=options.drain_s))
        self._tell_all_to_drain(options.drain_s)
        await asyncio.sleep(options.drain_s + options.end_grace_s)
        for half in self._halves:
            logger.error("phone_half_overdue", extra=fields(pid=half.pid))
            half.kill()

    def _tell_all_to_drain(self, within_s: float) -> None:
        for half in self._halves:
            if half.stage is Stage.STARTING:
                half.kill()  # it has no calls yet
            else:
                half.send(Drain(within_s))

    # --- beside them ---

    async def _refuse_while_nobody_answers(self) -> None:
        """With no phone half for a while, calls are closed: people take them."""
        since_s: float | None = None
        while True:
            await asyncio.sleep(0.1)
            if any(half.stage is Stage.SERVING for half in self._halves):
                since_s = None
                continue
            now_s = time.monotonic()
            since_s = now_s if since_s is None else since_s
            if now_s - since_s >= self._options.patience_s:
                num = _close_waiting(self._agi_listener)
                if num:
                    logger.error("calls_closed_unread", extra=fields(calls=num))

    def _tell_manager(self) -> None:
        if self._stop.is_set() or not self._was_ready:
            return
        serving = [h.pid for h in self._halves if h.stage is Stage.SERVING]
        retiring = sum(h.stage is Stage.RETIRING for h in self._halves)
        self._manager.ready(
            (f"taking calls, phone half {serving[-1]}" if serving else "no phone half")
            + (f"; {retiring} ending with their last calls" if retiring else "")
        )


def _close_waiting(listener: socket.socket) -> int:
    """Close what waits to be accepted; how many."""
    num = 0
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return num
        connection.close()
        num += 1


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """A listening socket that phone halves share.

    Raises:
        OSError: taken, not ours, or no such address.
    """
    family = _family_of(host, port)
    listener = socket.create_server(
        (host, port),
        family=family,
        backlog=backlog,
        dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
    )
    listener.setblocking(False)
    return listener


def _family_of(host: str, port: int) -> socket.AddressFamily:
    found: Sequence[tuple[socket.AddressFamily, object, object, object, object]]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return found[0][0]
