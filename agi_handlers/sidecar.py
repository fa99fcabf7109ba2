"""The speech half as a supervised child.

    start ─▶ not ready ─▶ ready ─▶ died or silent ─▶ pause ─▶ start

The pause doubles each time and is short again after a minute of life.  On request a
successor is started beside it; when that one has its model and the port, the old one
ends with the last of its dialogues.
The child holds the other end of a pipe as its standard input and ends when that is
closed, so it never outlives us, not even when we are killed.  Its log lines go to our
standard error.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import signal
import ssl
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from agi_handlers.supervision.freeze_watch import FreezeWatch, activity_of
from model.client import tls_context
from model.http_bodies import plain_client
from telemetry import fields

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SidecarOptions:
    """How the child is started and how long it may be silent."""

    url: str
    """Where it will answer, e.g. http://127.0.0.1:8000."""
    command: tuple[str, ...]
    """See `sidecar_command`."""
    environ: Mapping[str, str] | None = None
    """None: ours."""
    backoff_first_s: float = 0.5
    """A crash in mid-call is mended while the caller hears that somebody comes."""
    backoff_max_s: float = 30.0
    """A model that cannot be loaded is tried again, not hammered."""
    steady_s: float = 60.0
    """Alive for so long, it counts as started well: the next pause is the first."""
    start_timeout_s: float = 120.0
    """Without an answer before it was ready once: importing torch from a cold disk
    takes half a minute, and loading a model leaves few moments on a busy machine."""
    live_interval_s: float = 1.0
    live_timeout_s: float = 2.0
    max_missed: int = 5
    """Unanswered polls in a row until it counts as hung, once it was ready."""
    stop_grace_s: float = 10.0
    """From the request to end to SIGKILL."""
    take_over_timeout_s: float = 600.0
    """For a successor to be ready: large models are read from disk for minutes."""
    retire_s: float = 1200.0
    """For the last dialogues of one that was replaced; what is left then goes on at
    its successor."""


def sidecar_command(root: Path) -> tuple[str, ...]:
    """The command line of the speech half in this checkout."""
    return (sys.executable, str(root / "ultravox_api_server.py"), "--supervised")


class Sidecar:
    """One child process, started again whenever it ends."""

    def __init__(self, options: SidecarOptions) -> None:
        self._options = options
        self._process: Process | None = None
        self._ready = asyncio.Event()
        self._num_starts = 0
        self._is_replacement_wanted = asyncio.Event()
        self._retired: set[asyncio.Task[None]] = set()
        self.on_lost: Callable[[str], None] = lambda reason: None
        """Hears that it has to be started again: `died` or `hung`."""
        self._last_exit = ""

    @property
    def is_ready(self) -> bool:
        """It has its model and takes dialogues."""
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        """Of the running child."""
        return self._process.pid if self._process else None

    @property
    def num_restarts(self) -> int:
        """Starts after the first."""
        return max(0, self._num_starts - 1)

    @property
    def last_exit(self) -> str:
        """How the last child ended, e.g. "killed by SIGKILL"."""
        return self._last_exit

    def reload(self) -> None:
        """Have it read its API keys again."""
        if self._process is not None:
            with suppress(ProcessLookupError):  # just ended: it reads them anew
                self._process.send_signal(signal.SIGHUP)

    def replace(self) -> None:
        """Have another one take over from the running child, without a gap."""
        self._is_replacement_wanted.set()

    async def wait_ready(self, timeout_s: float | None = None) -> bool:
        """Whether it became ready in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Keep the child running until cancelled; then it is ended."""
        pause_s = self._options.backoff_first_s
        context = tls_context(self._options.url)
        try:
            async with _poller(self._options, context) as client:
                while True:
                    began = time.monotonic()
                    is_hung = await self._run_once(client)
                    self.on_lost("hung" if is_hung else "died")
                    if time.monotonic() - began >= self._options.steady_s:
                        pause_s = self._options.backoff_first_s
                    logger.warning(
                        "sidecar_ended",
                        extra=fields(how=self._last_exit, restart_in_s=pause_s),
                    )
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, self._options.backoff_max_s)
        finally:
            for task in self._retired:
                task.cancel()
            if self._retired:
                await asyncio.wait(self._retired)

    async def _run_once(self, client: httpx.AsyncClient) -> bool:
        """From a start to the end of it, or of its last successor; True: it hung."""
        process: Process | None
        try:
            process = await self._start()
        except OSError as exc:
            self._last_exit = f"cannot start: {exc}"
            return False
        is_hung = False
        while process is not None:
            process, is_hung = await self._attend(process, client)
        return is_hung

    async def _attend(
        self, process: Process, client: httpx.AsyncClient
    ) -> tuple[Process | None, bool]:
        """Watch it until it ends, or has a successor; True: it hung."""
        self._process = process
        self._num_starts += 1
        self._is_replacement_wanted.clear()
        logger.info("sidecar_started", extra=fields(pid=process.pid))
        waiting = asyncio.create_task(process.wait())
        watching = asyncio.create_task(self._watch(client))
        succeeding = asyncio.create_task(self._successor())
        tasks = {waiting, watching, succeeding}
        successor: Process | None = None
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            successor = succeeding.result() if succeeding.done() else None
        finally:
            is_hung = watching.done()
            watching.cancel()
            succeeding.cancel()
            await asyncio.wait({watching, succeeding})
            if successor is not None:
                self._retire(process, waiting)
            else:
                self._ready.clear()
                try:
                    if not succeeding.cancelled():  # in the moment we were cancelled
                        await _kill(succeeding.result())
                    await self._end(process, waiting, is_hung=is_hung)
                finally:
                    self._process = None
                    self._last_exit = _how(process.returncode)
        return successor, is_hung

    async def _start(self, take_over: int | None = None) -> Process:
        """`take_over`: the pipe on which it says that it has done so.

        Raises:
            OSError: it cannot be started.
        """
        more = () if take_over is None else ("--take-over", str(take_over))
        return await asyncio.create_subprocess_exec(
            *self._options.command,
            *more,
            stdin=PIPE,
            stdout=sys.stderr,
            env=self._options.environ,
            pass_fds=() if take_over is None else (take_over,),
            # Ctrl-C at our terminal is for us: we end it when calls are over
            start_new_session=True,
        )

    # --- one that takes over ---

    async def _successor(self) -> Process:
        """A child that has its model and the port, once one is wanted."""
        while True:
            await self._is_replacement_wanted.wait()
            logger.info("sidecar_replacing", extra=fields(pid=self.pid))
            try:
                process = await self._start_successor()
            except OSError as exc:
                logger.error("sidecar_not_replaced", extra=fields(error=str(exc)))
            else:
                if process is not None:
                    return process
            self._is_replacement_wanted.clear()

    async def _start_successor(self) -> Process | None:
        """None: it did not become ready; the log has its reasons."""
        ours, theirs = os.pipe()
        with io.FileIO(ours) as told:
            try:
                process = await self._start(theirs)
            finally:
                os.close(theirs)
            is_ready = False
            try:
                async with asyncio.timeout(self._options.take_over_timeout_s):
                    is_ready = bool(await _first_line(told))
            except TimeoutError:
                pass
            finally:
                if not is_ready:
                    await _kill(process)
                    how = _how(process.returncode)
                    logger.error("sidecar_not_replaced", extra=fields(how=how))
        return process if is_ready else None

    def _retire(self, process: Process, waiting: asyncio.Task[int]) -> None:
        logger.info("sidecar_replaced", extra=fields(pid=process.pid))
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGUSR2)
        task = asyncio.create_task(self._see_off(process, waiting))
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    async def _see_off(self, process: Process, waiting: asyncio.Task[int]) -> None:
        try:
            async with asyncio.timeout(self._options.retire_s):
                await asyncio.shield(waiting)
        except TimeoutError:
            pass
        finally:
            await self._end(process, waiting, is_hung=False)
            how = _how(process.returncode)
            logger.info("sidecar_retired", extra=fields(pid=process.pid, how=how))

    # --- watching ---

    async def _watch(self, client: httpx.AsyncClient) -> None:
        """Poll it; returns when it counts as hung.

        Until it was ready once, silence is allowed for as long as a start: loading a
        model on a busy machine leaves no time for answers.  Then only silence counts
        that the machine does not explain, see `FreezeWatch`.
        """
        options = self._options
        process = self._process
        assert process is not None
        poll_s = options.live_interval_s + options.live_timeout_s
        silence = FreezeWatch(options.max_missed * poll_s, poll_s)
        heard_s = time.monotonic()
        was_ready = False
        while True:
            try:
                response = await client.get("/health/ready")
            except httpx.HTTPError:
                self._ready.clear()
                now_s = time.monotonic()
                silence.tick(now_s, activity_of(process.pid))
                if was_ready and silence.is_frozen:
                    break
                if not was_ready and now_s - heard_s > options.start_timeout_s:
                    break
            else:
                heard_s = time.monotonic()
                silence.tick(heard_s, activity_of(process.pid))
                silence.beat()
                is_ready = response.status_code == httpx.codes.OK
                was_ready = was_ready or is_ready
                self._note_ready(is_ready)
            await asyncio.sleep(options.live_interval_s)
        logger.error(
            "sidecar_hung",
            extra=fields(pid=self.pid, silent_s=round(time.monotonic() - heard_s, 1)),
        )

    def _note_ready(self, is_ready: bool) -> None:
        if is_ready and not self._ready.is_set():
            logger.info("sidecar_ready", extra=fields(pid=self.pid))
            self._ready.set()
        elif not is_ready:
            self._ready.clear()

    async def _end(
        self, process: Process, waiting: asyncio.Task[int], *, is_hung: bool
    ) -> None:
        """Ask it to end by closing its standard input; kill it when it doesn't."""
        assert process.stdin is not None
        process.stdin.close()
        if process.returncode is None and is_hung:
            _kill_group(process)
        try:
            async with asyncio.timeout(self._options.stop_grace_s):
                await asyncio.shield(waiting)
        except TimeoutError:
            logger.error("sidecar_killed", extra=fields(pid=process.pid))
        finally:
            # Even when it has ended: killed, it could not end its own children.
            _kill_group(process)
            await waiting


async def _kill(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    _kill_group(process)
    await process.wait()


async def _first_line(pipe: io.RawIOBase) -> bytes:
    """Empty: it was closed before there was one."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        return await reader.readline()
    finally:
        transport.close()


def _kill_group(process: Process) -> None:
    """Kill the child and its own children; it leads a process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _how(returncode: int | None) -> str:
    if returncode is None:
        return "unknown"
    if returncode < 0:
        return f"killed by {signal.Signals(-returncode).name}"
    return f"exit status {returncode}"


def _poller(
    options: SidecarOptions, context: ssl.SSLContext | None
) -> httpx.AsyncClient:
    return plain_client(
        base_url=options.url,
        timeout=options.live_timeout_s,
        verify=context or True,
        trust_env=False,
    )
