"""One call's dealings with VICIdial, from the id on its channel to its one ending.

    learn      id, lead, campaign or in-group, the line that has the call
    opt out    the number on the DNC list while the caller is still there
    end        callback ▶ ra_call_control, once ▶ hold and notes

The ending is on disk before it is sent.  What VICIdial does not take in time is the
outbox's; the caller is never kept waiting for it longer than `CallControlOptions` say.
Source: AST_VDremote_agents.pl, agc/api.php (ra_call_control), res_agi.c.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias, TypeVar

from agi_handlers.agi import commands
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.agi.protocol import AgiRequest
from agi_handlers.campaigns import Campaign
from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.errors import (
    AgiCommandRefused,
    AgiTimeout,
    ChannelGone,
    VicidialError,
    VicidialUnavailable,
)
from agi_handlers.vicidial.api_text import phone_digits
from agi_handlers.vicidial.call_ids import LineState, VicidialCallId, identify, recover
from agi_handlers.vicidial.callback_time import parse_callback_time
from agi_handlers.vicidial.client import NotSent, VicidialClient
from agi_handlers.vicidial.duties import (
    AddComment,
    Duty,
    HoldForCallback,
    OptOut,
    ReportEnding,
    ScheduleCallback,
)
from agi_handlers.vicidial.endings import (
    HangUp,
    LeaveToDialplan,
    TransferTo,
    comment_of,
    ending_of,
    for_dialplan,
    status_of,
    without_control,
)
from agi_handlers.vicidial.lead import NO_LEAD, Lead
from agi_handlers.vicidial.outbox import Outbox
from agi_handlers.vicidial.responses import ColumnsShifted, Refusal, Refused
from telemetry import fields

logger = logging.getLogger(__name__)

T = TypeVar("T")
Controlled: TypeAlias = Literal[
    "done",  # queued; the channel follows
    "gone",  # VICIdial knows of no such call any more
    "bad_target",  # no such in-group, no such extension
    "not_done",  # refused, or not sent
    "unknown",  # sent, and no answer: it may have been done
]

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


class VicidialCall:
    """One call; made by `Vicidial.open_call`."""

    def __init__(
        self,
        client: VicidialClient,
        outbox: Outbox,
        options: CallControlOptions,
        campaign: Campaign,
        request: AgiRequest,
        chain: str,
        utc_offset_s: Callable[[], int | None],
    ) -> None:
        self._client = client
        self._outbox = outbox
        self._options = options
        self._campaign = campaign
        self._number = phone_digits(request.callerid)
        self._chain = chain
        self._utc_offset_s = utc_offset_s
        self._group = ""
        self._campaign_id = campaign.vicidial.campaign_id
        self._agent_user = campaign.vicidial.agent_user or options.agent_user
        self._has_ended = False
        self.lead: Lead = NO_LEAD
        self.identity: VicidialCallId | None = identify(
            request.calleridname, request.args
        )

    # --- who is calling ---

    async def recover(self, claimed: Callable[[], frozenset[str]]) -> None:
        """Find the call on one of the own lines, by the caller's number."""
        options = self._options
        first = self._agent_user
        if self.identity is not None or not first or not self._number:
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
        found = recover(self._number, [li for li in lines if li], claimed())
        if found is not None:
            self.identity, self._agent_user = found

    async def _line_state(self, user: str) -> LineState | None:
        status = await self._client.agent_status(user)
        if status is None:
            return None
        return LineState(user, status.call_id, status.phone_number)

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
        found = await self._client.lead_search(self._number) if self._number else ()
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
            self._group = info.campaign_id
            if not self.identity.has_inbound_log:
                self._campaign_id = self._campaign_id or info.campaign_id
            if info.user not in _NOBODY:
                self._agent_user = info.user
                break
        if not self._campaign_id and self._agent_user:
            await self._learn_campaign()

    async def _learn_campaign(self) -> None:
        """An inbound call shows its in-group; the campaign is its line's."""
        try:
            line = await self._client.agent_status(self._agent_user)
        except VicidialError as exc:
            logger.warning("line_not_read", extra=fields(error=str(exc)))
            return
        if line is not None:
            self._campaign_id = line.campaign_id

    # --- while the caller is there ---

    async def opt_out(self) -> None:
        """Put the caller's number on the DNC list: on disk, then told at once."""
        number = phone_digits(self.lead.values.get("phone_number", "")) or self._number
        if not number:
            logger.error("opt_out_without_a_number")
            return
        for duty in self._opt_outs(number):
            await self._outbox.tell_now(self._chain, duty)

    def _opt_outs(self, number: str) -> list[OptOut]:
        where, campaign_id = self._campaign.vicidial.dnc, self._campaign_id
        duties = []
        # rather on the list of all campaigns than on none
        if where != "campaign" or not campaign_id:
            duties.append(OptOut(number))
        if where != "system" and campaign_id:
            duties.append(OptOut(number, campaign_id))
        return duties

    # --- the end ---

    async def end(self, outcome: CallOutcome, agi: AgiConnection) -> CallOutcome:
        """Tell VICIdial; what is left for the dialplan to do.

        Exactly one `ra_call_control`, however often this is called.
        """
        if self._has_ended:
            return for_dialplan(outcome)
        self._has_ended = True
        identity = self.identity
        if identity is None:
            return without_control(outcome) if outcome.transfer_to else outcome
        if not identity.is_controllable:
            await self._report_three_way(outcome, identity)
            return for_dialplan(outcome)
        ending = ending_of(outcome, self._campaign, has_hung_up=agi.hung_up)
        callback = self._callback(outcome, identity)
        controlled: Controlled = "not_done"
        if isinstance(ending, HangUp | TransferTo):
            controlled = await self._control(ending, identity, callback)
        elif callback is not None:
            await self._outbox.put(self._chain, callback)
        await self._put_afterwards(outcome, ending, callback)
        logger.info(
            "vicidial_told",
            extra=fields(
                ending=type(ending).__name__,
                result=controlled,
                disposition=getattr(ending, "status", ""),
                agent_user=self._agent_user,
            ),
        )
        match ending:
            case HangUp(status):
                await self._see_it_hang_up(controlled, agi)
                return replace(for_dialplan(outcome), disposition=status)
            case TransferTo(status):
                told = replace(outcome, disposition=status)
                return await self._see_it_move(controlled, told, agi)
            case LeaveToDialplan():
                return for_dialplan(outcome)

    async def _control(
        self,
        ending: HangUp | TransferTo,
        identity: VicidialCallId,
        callback: ScheduleCallback | None,
    ) -> Controlled:
        options = self._options
        ends_s = asyncio.get_running_loop().time() + options.ending_timeout_s
        if callback is not None:
            try:
                async with asyncio.timeout(options.callback_timeout_s):
                    await self._outbox.tell_now(self._chain, callback)
            except TimeoutError:
                logger.info("callback_left_to_outbox")
        duty = ReportEnding(
            call_id=identity.text,
            lead_id=identity.lead_id,
            group=self._group,
            status=ending.status,
            sets_lead=isinstance(ending, HangUp),
        )
        hold_s = 2 * options.ending_timeout_s
        number = await self._outbox.put(self._chain, duty, hold_s=hold_s)
        controlled: Controlled = "unknown"
        try:
            async with asyncio.timeout_at(ends_s):
                controlled = await self._send(ending, identity)
        except TimeoutError:
            logger.warning("ending_left_to_outbox")
        finally:
            if controlled == "done":
                await self._outbox.remove(number)
            else:
                await self._outbox.release(number)
        return controlled

    async def _send(
        self, ending: HangUp | TransferTo, identity: VicidialCallId
    ) -> Controlled:
        """`ra_call_control`; again only where the first one had no effect at all."""
        users = [self._agent_user]
        fallback = self._campaign.vicidial.agent_user or self._options.agent_user
        if fallback and fallback != self._agent_user:
            users.append(fallback)
        for user in users:
            try:
                await self._send_as(user, ending, identity)
            except Refused as exc:
                logger.warning(
                    "ending_refused",
                    extra=fields(reason=exc.reason, error=str(exc), agent_user=user),
                )
                if exc.reason is Refusal.NO_ACTIVE_CALL:
                    return "gone"
                if exc.reason in (Refusal.INGROUP_INVALID, Refusal.PHONE_INVALID):
                    return "bad_target"
                if exc.reason is not Refusal.AGENT_NOT_LOGGED_IN:
                    return "not_done"
            except NotSent as exc:
                logger.warning("ending_not_sent", extra=fields(error=str(exc)))
                return "not_done"
            except VicidialUnavailable as exc:
                logger.warning("ending_unanswered", extra=fields(error=str(exc)))
                return "unknown"
            else:
                self._agent_user = user
                return "done"
        return "not_done"

    async def _send_as(
        self, user: str, ending: HangUp | TransferTo, identity: VicidialCallId
    ) -> None:
        client, call_id = self._client, identity.text
        match ending:
            case HangUp(status):
                await client.hang_up(call_id, user, status)
            case TransferTo(status, target) if target.kind == "in_group":
                await client.transfer_to_in_group(call_id, user, status, target.name)
            case TransferTo(status, target):
                await client.transfer_to_extension(call_id, user, status, target.name)

    async def _put_afterwards(
        self,
        outcome: CallOutcome,
        ending: HangUp | TransferTo | LeaveToDialplan,
        callback: ScheduleCallback | None,
    ) -> None:
        """What has its place after the ending; the outbox keeps the order."""
        lead_id = self.identity.lead_id if self.identity is not None else None
        if lead_id is None:
            return
        duties: list[Duty] = []
        if callback is not None and isinstance(ending, HangUp):
            duties.append(
                HoldForCallback(
                    lead_id,
                    ending.status,
                    callback.campaign_id,
                    callback.at,
                    callback.comments,
                )
            )
        comment = comment_of(outcome, is_callback_scheduled=callback is not None)
        if comment:
            duties.append(AddComment(lead_id, comment))
        for duty in duties:
            await self._outbox.put(self._chain, duty)

    async def _report_three_way(
        self, outcome: CallOutcome, identity: VicidialCallId
    ) -> None:
        """The agent who dialled us keeps the call: only what was asked for is told."""
        if outcome.disposition or outcome.is_opt_out:
            status = status_of(outcome, self._campaign)
            duty = ReportEnding(identity.text, identity.lead_id, "", status)
            await self._outbox.put(self._chain, duty)
        comment = comment_of(outcome, is_callback_scheduled=False)
        if comment and identity.lead_id is not None:
            await self._outbox.put(self._chain, AddComment(identity.lead_id, comment))

    async def _see_it_hang_up(self, controlled: Controlled, agi: AgiConnection) -> None:
        """Queued is not done: wait a little, then hang up ourselves."""
        if agi.hung_up:
            return
        if controlled == "done":
            try:
                async with asyncio.timeout(self._options.hang_up_wait_s):
                    await agi.wait_hangup()
                return
            except TimeoutError:
                logger.warning("vicidial_did_not_hang_up")
        try:
            await agi.execute(commands.hangup())
        except (ChannelGone, AgiTimeout, AgiCommandRefused) as exc:
            logger.info("hang_up_not_needed", extra=fields(error=str(exc)))

    async def _see_it_move(
        self, controlled: Controlled, outcome: CallOutcome, agi: AgiConnection
    ) -> CallOutcome:
        """The line is kept busy until Asterisk takes the channel away.

        A HANGUP line is the transfer itself; Asterisk goes on when we close.
        """
        options = self._options
        wait_s = {"done": options.transfer_wait_s, "unknown": options.hang_up_wait_s}
        if controlled in wait_s:
            try:
                async with asyncio.timeout(wait_s[controlled]):
                    await agi.wait_hangup()
                return for_dialplan(outcome)
            except TimeoutError:
                logger.error("vicidial_did_not_transfer")
        if controlled == "bad_target":
            return replace(outcome, transfer_to="")
        return without_control(outcome)

    def _callback(
        self, outcome: CallOutcome, identity: VicidialCallId
    ) -> ScheduleCallback | None:
        """The callback the caller asked for, in the web server's time."""
        if not outcome.callback or identity.lead_id is None or outcome.is_opt_out:
            return None
        server_offset_s = self._utc_offset_s()
        if server_offset_s is None:
            logger.error("callback_without_server_time")
            return None
        lead_offset_s = self.lead.utc_offset_s
        if lead_offset_s is None:
            lead_offset_s = server_offset_s
        now = datetime.now(UTC).replace(tzinfo=None)
        there = now + timedelta(seconds=lead_offset_s)
        moment = parse_callback_time(outcome.callback, there)
        if moment is None or not self._campaign_id:
            logger.warning(
                "callback_not_scheduled",
                extra=fields(
                    is_time_understood=moment is not None, campaign=self._campaign_id
                ),
            )
            return None
        at = moment + timedelta(seconds=server_offset_s - lead_offset_s)
        return ScheduleCallback(
            identity.lead_id,
            self._campaign_id,
            at.strftime("%Y-%m-%d %H:%M:%S"),
            f"bot: {outcome.callback}"[:100],
        )


async def _all(asked: Iterable[Awaitable[T]]) -> list[T]:
    """All answers, or the first failure; nothing is left running either way."""
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]
