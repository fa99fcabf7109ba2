"""VICIdial as the phone half sees it: one client, one outbox, every call's identity."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

from agi_handlers.agi.protocol import AgiRequest
from agi_handlers.campaigns import Campaign
from agi_handlers.errors import VicidialError
from agi_handlers.vicidial.call_control import VicidialCall
from agi_handlers.vicidial.call_facts import CallControlOptions
from agi_handlers.vicidial.client import Api, VicidialClient, VicidialOptions
from agi_handlers.vicidial.duties import Duty, tell
from agi_handlers.vicidial.lead import placeholders
from agi_handlers.vicidial.look_ups import ApiVersion
from agi_handlers.vicidial.outbox import Outbox, OutboxOptions
from telemetry import call_context, fields

logger = logging.getLogger(__name__)

OUTBOX_FILE = "vicidial-outbox.sqlite"
_PROBE_AGAIN_S = 60.0  # while VICIdial is down
_PROBE_INTERVAL_S = 3600.0  # its clock changes twice a year


class Vicidial:
    """Made by `open_vicidial`."""

    def __init__(
        self, client: VicidialClient, outbox: Outbox, options: CallControlOptions
    ) -> None:
        self._client = client
        self._outbox = outbox
        self._options = options
        self._calls: set[VicidialCall] = set()
        self.versions: Mapping[Api, ApiVersion] = MappingProxyType({})
        self.problem = "not asked yet"
        """What an operator should know; empty: all well."""

    @property
    def utc_offset_s(self) -> int | None:
        """Of VICIdial's local time; None until the first answer."""
        return next(
            (
                version.utc_offset_s
                for version in self.versions.values()
                if version.utc_offset_s is not None
            ),
            None,
        )

    @asynccontextmanager
    async def open_call(
        self, request: AgiRequest, campaign: Campaign, call_id: str
    ) -> AsyncIterator[VicidialCall]:
        """A call's dealings with VICIdial, for as long as the block lasts."""
        call = VicidialCall(
            self._client,
            self._outbox,
            self._options,
            campaign,
            request,
            call_id,
            lambda: self.utc_offset_s,
        )
        await call.facts.recover(self._claimed)
        self._calls.add(call)
        identity = call.facts.identity
        with call_context(
            vicidial_call_id=identity.text if identity else "",
            lead_id=(identity.lead_id if identity else None) or "",
        ):
            logger.info(
                "vicidial_call" if identity else "no_vicidial_call",
                extra=fields(source=identity.source if identity else "none"),
            )
            if _wants_lead(campaign):
                await call.facts.fetch_lead()
            learning = asyncio.create_task(call.facts.learn())
            try:
                yield call
            finally:
                self._calls.discard(call)
                learning.cancel()
                await asyncio.wait([learning])
            if not learning.cancelled():
                learning.result()

    def _claimed(self) -> frozenset[str]:
        known = (call.facts.identity for call in self._calls)
        return frozenset(identity.text for identity in known if identity)

    def retire(self) -> None:
        """Leave what is to be told later to the process that takes over."""
        self._outbox.retire()

    async def run(self) -> None:
        """Probe VICIdial and empty the outbox, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._outbox.run())
            tasks.create_task(self._watch())

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
            if self._options.agent_user:
                await self._client.agent_status(self._options.agent_user)
        except VicidialError as exc:
            self._note(str(exc))
        else:
            self._note("")
        if versions and versions != self.versions:
            self.versions = MappingProxyType(versions)
            logger.info(
                "vicidial_version",
                extra=fields(
                    **{api: f"{v.version} {v.build}" for api, v in versions.items()},
                    utc_offset_s=self.utc_offset_s,
                ),
            )

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
) -> AsyncIterator[Vicidial]:
    """VICIdial for the block; `Vicidial.run` has to run beside it."""
    async with VicidialClient(options) as client:

        async def tell_duty(duty: Duty, is_late: bool) -> None:
            await tell(client, duty, is_late=is_late)

        async with Outbox(data_dir / OUTBOX_FILE, tell_duty, outbox_options) as outbox:
            yield Vicidial(client, outbox, control)


def _wants_lead(campaign: Campaign) -> bool:
    texts = (campaign.instructions, *campaign.phrases.as_mapping().values())
    return any(True for text in texts for _ in placeholders(text))
