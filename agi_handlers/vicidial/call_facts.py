"""What VICIdial knows of a call: its id, lead, group, campaign and line.

Known at once from the channel, or else asked for; whatever is not told in time stays
unknown, and the call goes on without.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from agi_handlers.agi.protocol import AgiRequest
from agi_handlers.campaigns import Campaign
from agi_handlers.errors import VicidialError
from agi_handlers.vicidial.api_text import phone_digits
from agi_handlers.vicidial.call_ids import LineState, VicidialCallId, identify, recover
from agi_handlers.vicidial.client import VicidialClient
from agi_handlers.vicidial.lead import NO_LEAD, Lead
from agi_handlers.vicidial.look_ups import CallInfo, ColumnsShifted
from agi_handlers.vicidial.responses import Refusal, Refused
from telemetry import fields

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Users VICIdial shows for a call before the keepalive has noted its line.
_NOBODY = frozenset(("", "VDAD", "VDCL"))
# What a campaign may ask for when the row of all fields cannot be read.
_SINGLE_FIELDS = (
    "status", "first_name", "last_name", "title", "phone_number", "city", "state",
    "comments", "vendor_lead_code", "gmt_offset_now", "list_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CallControlOptions:
    """How long what may take."""

    agent_user: str = ""
    """User ID Start of the remote agent; any logged-in line will do for control."""
    num_lines: int = 1
    """The lines are agent_user, agent_user + 1 …; asked when a call has no id."""
    # Before the greeting; longer silence after the answer makes people hang up.
    lead_timeout_s: float = 1.0
    # Asterisk keeps the dead channel while we report.
    ending_timeout_s: float = 3.0
    # A share of that: without the callback there is still the status to tell.
    callback_timeout_s: float = 1.0
    # SUCCESS means queued; the queue is polled every 0.1 s.
    hang_up_wait_s: float = 2.0
    # A redirect that has not come after this never will (a strict database).
    transfer_wait_s: float = 10.0
    # The keepalive notes the line within ten seconds.
    second_look_s: float = 12.0


class CallFacts:
    """One call's facts; they grow while it lasts."""

    def __init__(
        self,
        client: VicidialClient,
        options: CallControlOptions,
        request: AgiRequest,
        agent_user: str = "",
    ) -> None:
        """agent_user: whose lines the call may be on, if not the service's own."""
        self._client = client
        self._options = options
        self.number = phone_digits(request.callerid)
        self.identity: VicidialCallId | None = identify(
            request.calleridname, request.args
        )
        self.lead: Lead = NO_LEAD
        self.group = ""  # campaign, or in-group: where the log row is
        self.campaign_id = ""
        self.list_id = ""
        self.agent_user = agent_user or options.agent_user
        self._is_line_known = False
        self.is_number_unknown = False
        """True: VICIdial was asked, and has no lead with the caller's number."""

    @property
    def in_group(self) -> str:
        """Of an inbound call, once that is known."""
        is_inbound = self.identity is not None and self.identity.has_inbound_log
        return self.group if is_inbound else ""

    def follow(self, campaign: Campaign) -> None:
        """What the persona says about its calls."""
        rules = campaign.vicidial
        self.campaign_id = rules.campaign_id or self.campaign_id
        if not self._is_line_known:
            self.agent_user = rules.agent_user or self.agent_user

    async def recover(self, claimed: Callable[[], frozenset[str]]) -> None:
        """Find the call on one of the own lines, by the caller's number."""
        options = self._options
        first = self.agent_user
        if self.identity is not None or not first or not self.number:
            return
        users = [first]
        if first.isascii() and first.isdigit():  # User ID Start + 0 … n-1
            users = [str(int(first) + i) for i in range(options.num_lines)]
        try:
            async with asyncio.timeout(options.lead_timeout_s):
                lines = await _all(map(self._line_state, users))
        except (TimeoutError, VicidialError) as exc:
            # with a line missing, the one that fits might not be the only one
            logger.warning("call_not_recovered", extra=fields(error=str(exc)))
            return
        found = recover(self.number, [li for li in lines if li], claimed())
        if found is not None:
            self.identity, self.agent_user = found
            self._is_line_known = True

    async def _line_state(self, user: str) -> LineState | None:
        status = await self._client.agent_status(user)
        if status is None:
            return None
        return LineState(user, status.call_id, status.phone_number)

    async def fetch_group(self) -> None:
        """Campaign or in-group, at once: it chooses the persona."""
        if self.identity is None or self.group:
            return
        try:
            async with asyncio.timeout(self._options.lead_timeout_s):
                info = await self._client.callid_info(self.identity.text)
        except (TimeoutError, VicidialError) as exc:
            logger.warning("group_not_read", extra=fields(error=str(exc) or "too slow"))
            return
        if info is not None:
            self._note(info)

    def _note(self, info: CallInfo) -> None:
        assert self.identity is not None
        self.group, self.list_id = info.campaign_id, info.list_id
        if not self.identity.has_inbound_log:
            self.campaign_id = self.campaign_id or info.campaign_id
        if info.user not in _NOBODY:
            self.agent_user, self._is_line_known = info.user, True

    async def fetch_lead(self) -> None:
        """Its data, if VICIdial tells in time; a call goes on without."""
        if self.lead is not NO_LEAD:
            return
        try:
            async with asyncio.timeout(self._options.lead_timeout_s):
                lead_id = await self._lead_id()
                if lead_id is not None:
                    self.lead = await self._lead(lead_id)
        except (TimeoutError, VicidialError) as exc:
            logger.warning("lead_not_read", extra=fields(error=str(exc) or "too slow"))

    async def _lead_id(self) -> int | None:
        """Of a call without an id: the one lead that has the caller's number."""
        if self.identity is not None:
            return self.identity.lead_id
        if not self.number:
            return None
        found = await self._client.lead_search(self.number)
        self.is_number_unknown = not found
        return found[0] if len(found) == 1 else None

    async def _lead(self, lead_id: int) -> Lead:
        try:
            values = await self._client.lead_all_info(lead_id)
        except (ColumnsShifted, Refused) as exc:
            is_too_old = (
                isinstance(exc, Refused) and exc.reason is Refusal.UNKNOWN_FUNCTION
            )
            if not isinstance(exc, ColumnsShifted) and not is_too_old:
                raise
            ask = self._client.lead_field_info
            found = await _all(ask(lead_id, name) for name in _SINGLE_FIELDS)
            values = dict(zip(_SINGLE_FIELDS, found, strict=True))
        return Lead(lead_id, values) if values is not None else NO_LEAD

    async def learn(self) -> None:
        """While the talk goes on: the call's group, the line that has it, its lead."""
        if self.identity is None:
            return
        await self.fetch_lead()
        for wait_s in (0.0, self._options.second_look_s):
            await asyncio.sleep(wait_s)
            try:
                info = await self._client.callid_info(self.identity.text)
            except VicidialError as exc:
                logger.warning("call_info_not_read", extra=fields(error=str(exc)))
                continue
            if info is None:
                continue
            self._note(info)
            if self._is_line_known:
                break
        if not self.campaign_id and self.agent_user:
            await self._learn_campaign()

    async def _learn_campaign(self) -> None:
        """An inbound call shows its in-group; the campaign is its line's."""
        try:
            line = await self._client.agent_status(self.agent_user)
        except VicidialError as exc:
            logger.warning("line_not_read", extra=fields(error=str(exc)))
            return
        if line is not None:
            self.campaign_id = line.campaign_id


async def _all(asked: Iterable[Awaitable[T]]) -> list[T]:
    """All answers, or the first failure; nothing is left running either way."""
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]
