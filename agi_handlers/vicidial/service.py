"""VICIdial as the phone half sees it: one client, one outbox, every call's identity."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType

from agi_handlers.agi.protocol import AgiRequest
from agi_handlers.errors import VicidialError
from agi_handlers.vicidial.call_control import VicidialCall
from agi_handlers.vicidial.call_facts import CallControlOptions, CallFacts
from agi_handlers.vicidial.client import Api, VicidialClient, VicidialOptions
from agi_handlers.vicidial.duties import Duty, tell
from agi_handlers.vicidial.lines import Lines
from agi_handlers.vicidial.look_ups import ApiVersion
from agi_handlers.vicidial.outbox import Confirm, Outbox, OutboxOptions, not_kept
from agi_handlers.vicidial.server_clock import ServerClock, read_clock
from telemetry import call_context, fields

logger = logging.getLogger(__name__)

OUTBOX_FILE = "vicidial-outbox.sqlite"
_PROBE_AGAIN_S = 60.0  # while VICIdial is down
_PROBE_INTERVAL_S = 3600.0  # its clock changes twice a year
_READY_INTERVAL_S = 1.0
_DRAIN_S = 4.5  # the service waits five seconds for us


class Vicidial:
    """Made by `open_vicidial`."""

    def __init__(
        self,
        client: VicidialClient,
        outbox: Outbox,
        options: CallControlOptions,
        lines: Lines,
        confirm: Confirm,
    ) -> None:
        self._client = client
        self._confirm = confirm
        self._outbox = outbox
        self._options = options
        self._lines = lines
        self._calls: dict[VicidialCall, str] = {}
        self._clock: ServerClock | None = None
        self.versions: Mapping[Api, ApiVersion] = MappingProxyType({})
        self.problem = "not asked yet"
        """What an operator should know; empty: all well."""

    @property
    def clock(self) -> ServerClock | None:
        """VICIdial's; None until the first answer."""
        return self._clock

    @asynccontextmanager
    async def open_call(
        self, request: AgiRequest, call_id: str, agent_user: str = ""
    ) -> AsyncIterator[VicidialCall]:
        """A call's dealings with VICIdial, for as long as the block lasts.

        agent_user: the remote agent whose lines the call may be on, if not the
        service's own.
        """
        facts = CallFacts(self._client, self._options, request, agent_user)
        await facts.recover(self._claimed)
        call = VicidialCall(
            self._client,
            self._outbox,
            self._options,
            facts,
            call_id,
            lambda: self._clock,
            partial(self._confirm, call_id),
        )
        self._claim(call, request.uniqueid)
        identity = facts.identity
        with call_context(
            vicidial_call_id=identity.text if identity else "",
            lead_id=(identity.lead_id if identity else None) or "",
        ):
            logger.info(
                "vicidial_call" if identity else "no_vicidial_call",
                extra=fields(source=identity.source if identity else "none"),
            )
            try:
                yield call
            finally:
                self._calls.pop(call, None)
                await call.close()

    def _claim(self, call: VicidialCall, uniqueid: str) -> None:
        """One id is one call: the same channel's newer session, or else the first."""
        identity = call.facts.identity
        for other, its_uniqueid in list(self._calls.items()):
            theirs = other.facts.identity
            if identity is None or theirs is None or theirs.text != identity.text:
                continue
            if its_uniqueid == uniqueid:
                other.supersede()
                logger.warning("session_superseded")
            elif not other.has_ended:
                # whose it is cannot be told; ending it would end the other's call
                logger.error(
                    "call_id_claimed_twice",
                    extra=fields(vicidial_call_id=identity.text, held_by=its_uniqueid),
                )
                call.facts.identity = None
        self._calls[call] = uniqueid

    def _claimed(self) -> frozenset[str]:
        known = (call.facts.identity for call in self._calls)
        return frozenset(identity.text for identity in known if identity)

    def retire(self) -> None:
        """Leave what is to be told later to the process that takes over."""
        self._outbox.retire()

    async def run(self, is_ready: Callable[[], bool] = lambda: True) -> None:
        """Probe VICIdial and empty the outbox, until cancelled.

        is_ready: calls can be taken; before, no line is opened.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._outbox.run())
            tasks.create_task(self._watch())
            tasks.create_task(self._open_lines(is_ready))

    async def drain(self) -> None:
        """The service stops: the dialer shall send no more calls, if so configured."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await self._lines.close()

    async def _open_lines(self, is_ready: Callable[[], bool]) -> None:
        """What the last stop closed, until VICIdial has taken it."""
        while True:
            pause_s = _READY_INTERVAL_S
            if is_ready():
                if await self._lines.open():
                    return
                pause_s = _PROBE_AGAIN_S
            await asyncio.sleep(pause_s)

    async def _watch(self) -> None:
        while True:
            await self.probe()
            await asyncio.sleep(_PROBE_AGAIN_S if self.problem else _PROBE_INTERVAL_S)

    async def probe(self) -> None:
        """Which versions answer, and whether the login works."""
        versions: dict[Api, ApiVersion] = {}
        try:
            # the non-agent one first: it is the one that looks things up
            for api in ("non_agent", "agent"):
                versions[api] = await self._client.version(api)
                self._note_clock(versions[api])
            if self._options.agent_user:
                await self._client.agent_status(self._options.agent_user)
        except VicidialError as exc:
            self._note(str(exc))
        else:
            self._note("")
        if versions and _names(versions) != _names(self.versions):
            self.versions = MappingProxyType(versions)
            logger.info(
                "vicidial_version",
                extra=fields(
                    **{api: f"{v.version} {v.build}" for api, v in versions.items()},
                    utc_offset_s=self._clock.utc_offset_s if self._clock else None,
                ),
            )

    def _note_clock(self, version: ApiVersion) -> None:
        found = read_clock(version, time.time())
        if found is None:
            return
        if found.ahead_s and (self._clock is None or not self._clock.ahead_s):
            logger.warning(
                "clocks_differ",
                extra=fields(
                    vicidial_ahead_s=found.ahead_s,
                    advice="NTP on both hosts; callbacks go by VICIdial's clock",
                ),
            )
        self._clock = found

    def _note(self, problem: str) -> None:
        if problem != self.problem:
            if problem:
                logger.warning("vicidial_unusable", extra=fields(error=problem))
            else:
                logger.info("vicidial_usable")
        self.problem = problem


@asynccontextmanager
async def open_vicidial(
    options: VicidialOptions,
    control: CallControlOptions,
    data_dir: Path,
    outbox_options: OutboxOptions | None = None,
    *,
    drains: Iterable[str] = (),
    confirm: Confirm = not_kept,
) -> AsyncIterator[Vicidial]:
    """VICIdial for the block; `Vicidial.run` has to run beside it.

    drains: remote agents (User ID Start) to make INACTIVE when the service stops.
    confirm: hears what became of what a call asked for; the chain is its `call_id`.
    """
    async with VicidialClient(options) as client:

        async def tell_duty(duty: Duty, is_late: bool) -> None:
            await tell(client, duty, is_late=is_late)

        path = data_dir / OUTBOX_FILE
        async with Outbox(path, tell_duty, outbox_options, confirm) as outbox:
            lines = Lines(client, data_dir, drains)
            yield Vicidial(client, outbox, control, lines, confirm)


def _names(versions: Mapping[Api, ApiVersion]) -> dict[Api, tuple[str, str]]:
    return {api: (found.version, found.build) for api, found in versions.items()}
