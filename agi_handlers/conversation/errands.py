"""What is done for the caller behind the talk: an opt-out noted, a person looked for.

Each is a task of the call's.  Phrases that promise its result wait for it: "you will
get no more calls" until that is written down, "I am transferring you" until it is known
that somebody is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from agi_handlers.conversation.outcome import CallOutcome
from telemetry import fields

logger = logging.getLogger(__name__)

# Longer than VICIdial may take; what is not done by then is done after the call.
_OPT_OUT_TIMEOUT_S: Final = 4.0
# While the caller waits for "I am transferring you".
_CONFIRM_TIMEOUT_S: Final = 1.0


class Errands:
    """Those of one call."""

    def __init__(
        self,
        target_of: Callable[[str], str | None],
        record_opt_out: Callable[[], Awaitable[None]] | None,
        confirm_transfer: Callable[[str], Awaitable[str | None]] | None,
        *,
        on_failed: Callable[[str], None],
        on_nobody_free: Callable[[], None],
    ) -> None:
        """The first three as in `CallParts`.

        on_failed: told what could not be done, for the call's record.
        on_nobody_free: called when there is nobody to transfer to.
        """
        self._target_of = target_of
        self._record_opt_out = record_opt_out
        self._confirm_transfer = confirm_transfer
        self._opting_out: asyncio.Task[None] | None = None
        self._confirming: asyncio.Task[str] | None = None
        self._confirmed_for = ""
        self._on_failed = on_failed
        self._on_nobody_free = on_nobody_free

    def note_opt_out(self, tasks: asyncio.TaskGroup) -> None:
        """The caller wants no more calls."""
        self._opting_out = tasks.create_task(self._opt_out())

    def look_for(self, destination: str, tasks: asyncio.TaskGroup) -> None:
        """Find out whether that destination of a transfer can be had."""
        self._confirmed_for = destination
        self._confirming = tasks.create_task(self._confirm(destination))

    def when_done(self, act: Callable[[], None]) -> None:
        """Call `act` when all that is under way has been done; now, if nothing is."""
        both = (self._opting_out, self._confirming)
        first = [task for task in both if task is not None and not task.done()]

        def look(_: object) -> None:
            if all(task.done() for task in first):
                act()

        for task in first:
            task.add_done_callback(look)
        look(None)

    async def finish(self, outcome: CallOutcome) -> CallOutcome:
        """Wait for what a call's end waits for; the outcome with its target."""
        if self._opting_out is not None:
            await self._opting_out
        if outcome.status != "transfer":
            return outcome
        if self._confirming is not None and self._confirmed_for == outcome.transfer_to:
            target = await self._confirming
        else:  # nobody asked for it: the time limit
            target = self._target(outcome.transfer_to)
        return replace(outcome, transfer_to=target)

    async def _opt_out(self) -> None:
        record = self._record_opt_out
        logger.info("opt_out", extra=fields(is_recorded_here=record is not None))
        if record is None:
            self._on_failed("the do-not-call list: there is no VICIdial")
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OPT_OUT_TIMEOUT_S):
                await record()

    async def _confirm(self, destination: str) -> str:
        """The target of a transfer; tells when nobody is free there."""
        target = self._target(destination)
        if self._confirm_transfer is None:
            return target
        found: str | None = target
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CONFIRM_TIMEOUT_S):
                found = await self._confirm_transfer(destination)
        if found is not None:
            return found
        logger.info("nobody_free", extra=fields(destination=destination))
        self._on_failed(f"transfer to {destination}: nobody is free")
        self._on_nobody_free()
        return target

    def _target(self, destination: str) -> str:
        target = self._target_of(destination)
        if target is None:
            # the caller was promised a transfer: people take the call all the same
            logger.warning("transfer_target_unknown", extra=fields(name=destination))
        return target or ""
