"""A durable outbox: what VICIdial must be told is on disk before it is sent.

    put(chain, duty) ─▶ on disk ─▶ told ─▶ removed
                           └─ VICIdial down: again after 5 s, 10 s … 15 min, for days
                           └─ kill -9: again at the next start

Duties of one chain (a call) are told in their order; chains don't wait for each other.
Processes may share a file, as they do in a restart without a gap: all of them put
duties there and tell at once what cannot wait, one of them tells the rest.
A file that cannot be written is a loud error, and calls go on: then a duty is told
once, from memory, or lost with a log line of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias, TypeVar

from agi_handlers.errors import VicidialError, VicidialUnavailable
from agi_handlers.file_lock import FileLock
from agi_handlers.records.rows import Result
from agi_handlers.vicidial.duties import (
    Duty,
    DutyUnreadable,
    description_of,
    from_text,
    to_text,
)
from agi_handlers.vicidial.outbox_file import OutboxFile, OutboxUnusable, Waiting
from agi_handlers.vicidial.responses import LoginRefused
from telemetry import ERRORS, VICIDIAL, fields

logger = logging.getLogger(__name__)

T = TypeVar("T")
_OTHER_TELLS_S = 1.0  # how often a process looks whether it is its turn
Confirm: TypeAlias = Callable[[str, Result, str], None]
"""Hears what became of a chain's duty: chain, result, what it was and why."""
Tell: TypeAlias = Callable[[Duty, bool], Awaitable[None]]
"""Carries a duty out; the flag says that it comes late."""


def not_kept(chain: str, result: Result, detail: str) -> None:
    """Where no records are."""


@dataclass(frozen=True, slots=True)
class OutboxOptions:
    # A restart of Apache or MySQL takes seconds, an upgrade of VICIdial an evening.
    first_retry_s: float = 5.0
    longest_retry_s: float = 900.0
    # Older than this, the lead has had other calls: the report would do harm.
    give_up_after_s: float = 7 * 86_400.0
    # Told later than this after it was put, a duty is late.
    late_after_s: float = 20.0
    # After so many failures in a row VICIdial is down: the others wait, too.
    max_failures_in_a_row: int = 3
    batch: int = 50
    longest_sleep_s: float = 30.0


class Outbox:
    """Stores and tells duties; use as an async context, with `run` beside it."""

    def __init__(
        self,
        path: Path,
        tell: Tell,
        options: OutboxOptions | None = None,
        confirm: Confirm = not_kept,
    ) -> None:
        self._tell = tell
        self._confirm = confirm
        self._options = options or OutboxOptions()
        self._file = OutboxFile(path)
        # one thread: SQLite's fsync must not stop the audio of every call
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._wake = asyncio.Event()
        self._started_s = time.time()
        self._is_broken = False
        self._is_retiring = False
        self._teller = FileLock(path.with_name(path.name + ".teller"))

    async def __aenter__(self) -> Self:
        try:
            is_ours = self._teller.acquire()
            num = await self._in_thread(self._file.open, time.time()) if is_ours else 0
            if num:
                logger.warning("outbox_has_old_duties", extra=fields(num=num))
        except OutboxUnusable as exc:
            self._say_broken(exc)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._teller.release()
        await self._in_thread(self._file.close)
        self._thread.shutdown(wait=True)

    async def put(self, chain: str, duty: Duty, *, hold_s: float = 0.0) -> int | None:
        """Store a duty; its number, or None when it could not be stored.

        hold_s: the caller of this wants to tell it by himself first, within that time.
        """
        now_s = time.time()
        try:
            number = await self._in_thread(
                self._file.put, chain, *to_text(duty), now_s, now_s + hold_s
            )
        except OutboxUnusable as exc:
            self._say_broken(exc)
            return None
        self._is_broken = False
        if not hold_s:
            self._wake.set()
        return number

    async def remove(self, number: int | None) -> None:
        """A held duty has been told."""
        if number is not None:
            await self._quietly(self._file.remove, number)
            self._wake.set()  # the next of its chain may go

    async def release(self, number: int | None) -> None:
        """A held duty is the outbox's again."""
        if number is not None:
            await self._quietly(self._file.release, number, time.time())
            self._wake.set()

    async def tell_now(self, chain: str, duty: Duty) -> bool:
        """Store, tell at once, and leave it to `run` if that fails; True: told."""
        number = await self.put(chain, duty, hold_s=self._options.late_after_s)
        try:
            await self._tell(duty, False)
        except LoginRefused:
            return await self._keep(chain, number, duty, "login refused")
        except VicidialUnavailable as exc:
            return await self._keep(chain, number, duty, str(exc))
        except VicidialError as exc:
            self._say_refused(type(duty).__name__, str(exc))
            self._note(chain, duty, "failed", str(exc))
            if number is not None:
                await self._quietly(self._file.give_up, number, str(exc))
            return False
        except asyncio.CancelledError:
            # out of time; the worker tells it
            await asyncio.shield(self.release(number))
            raise
        self._note(chain, duty, "ok")
        await self.remove(number)
        return True

    async def num_waiting(self) -> int:
        """Duties not yet told; 0 as well when the file cannot be read."""
        return await self._quietly(self._file.num_waiting) or 0

    async def run(self) -> None:
        """Tell what is due, until cancelled or retired."""
        while not self._is_retiring:
            self._wake.clear()
            is_ours = self._teller.acquire()
            pause_s = await self._round() if is_ours else _OTHER_TELLS_S
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
        self._teller.release()

    def retire(self) -> None:
        """Leave the telling to another process; at once still works."""
        self._is_retiring = True
        self._wake.set()

    async def _round(self) -> float:
        """Tell every duty that is due; how long to rest then."""
        options = self._options
        longest_s = options.longest_retry_s + options.late_after_s + 60
        due = await self._quietly(self._file.due, time.time(), options.batch, longest_s)
        due = due or []
        num_failures = num_told = 0
        for waiting in due:
            try:
                is_told = await self._tell_stored(waiting)
            except LoginRefused:
                return options.longest_sleep_s  # it stays refused until a restart
            num_told += is_told
            num_failures = 0 if is_told else num_failures + 1
            if num_failures >= options.max_failures_in_a_row:
                break
        if num_told and num_failures < options.max_failures_in_a_row:
            return 0.0  # more of the same chains may be due now
        return min(options.longest_sleep_s, options.first_retry_s)

    async def _tell_stored(self, waiting: Waiting) -> bool:
        options, now_s = self._options, time.time()
        age_s = now_s - waiting.created_s
        try:
            duty = from_text(waiting.kind, waiting.body)
        except DutyUnreadable as exc:
            self._say_refused(waiting.kind, str(exc))
            self._confirm(waiting.chain, "failed", str(exc))
            await self._quietly(self._file.give_up, waiting.number, str(exc))
            return True
        is_late = age_s > options.late_after_s or waiting.created_s < self._started_s
        try:
            if age_s > options.give_up_after_s:
                raise VicidialError("too old to be told")
            await self._tell(duty, is_late)
        except LoginRefused:
            raise
        except VicidialUnavailable as exc:
            delay_s = min(
                options.longest_retry_s,
                options.first_retry_s * 2 ** min(waiting.attempts, 20),
            )
            await self._quietly(
                self._file.postpone, waiting.number, time.time() + delay_s, str(exc)
            )
            logger.warning(
                "duty_postponed",
                extra=fields(duty=waiting.kind, seconds=round(delay_s), error=str(exc)),
            )
            if not waiting.attempts:
                self._note(waiting.chain, duty, "later", str(exc))
            return False
        except VicidialError as exc:
            self._say_refused(waiting.kind, str(exc))
            self._note(waiting.chain, duty, "failed", str(exc))
            await self._quietly(self._file.give_up, waiting.number, str(exc))
            return True
        if waiting.attempts or is_late:
            logger.info("duty_told_late", extra=fields(duty=waiting.kind))
        self._note(waiting.chain, duty, "ok")
        await self._quietly(self._file.remove, waiting.number)
        return True

    async def _keep(
        self, chain: str, number: int | None, duty: Duty, problem: str
    ) -> bool:
        kind = type(duty).__name__
        self._note(chain, duty, "failed" if number is None else "later", problem)
        if number is None:
            ERRORS.labels(kind="vicidial_duty_lost").inc()
            logger.error("duty_lost", extra=fields(duty=kind, error=problem))
            return False
        logger.warning("duty_postponed", extra=fields(duty=kind, error=problem))
        due_s = time.time() + self._options.first_retry_s
        await self._quietly(self._file.postpone, number, due_s, problem)
        self._wake.set()
        return False

    def _note(self, chain: str, duty: Duty, result: Result, why: str = "") -> None:
        VICIDIAL.labels(duty=type(duty).__name__, result=result).inc()
        what = description_of(duty)
        self._confirm(chain, result, f"{what}: {why}" if why else what)

    # --- the file's thread ---

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, work, *arguments)

    async def _quietly(self, work: Callable[..., T], *arguments: object) -> T | None:
        try:
            return await self._in_thread(work, *arguments)
        except OutboxUnusable as exc:
            self._say_broken(exc)
            return None

    def _say_broken(self, exc: OutboxUnusable) -> None:
        if not self._is_broken:
            self._is_broken = True
            ERRORS.labels(kind="vicidial_outbox").inc()
            logger.error(
                "outbox_unusable",
                extra=fields(
                    error=str(exc),
                    advice="free space or permissions; calls go on, but what VICIdial "
                    "does not take at once is lost",
                ),
            )

    @staticmethod
    def _say_refused(kind: str, problem: str) -> None:
        ERRORS.labels(kind="vicidial_duty_refused").inc()
        logger.error("duty_refused", extra=fields(duty=kind, error=problem))
