"""What one call tells VICIdial: an opt-out, and its one ending.

    opt out    the number on the DNC list while the caller is still there
    end        callback ▶ ra_call_control, once ▶ hold and notes

The ending is on disk before it is sent.  What VICIdial does not take in time is the
outbox's; the caller is never kept waiting for it longer than `CallControlOptions` say.
Source: AST_VDremote_agents.pl, agc/api.php (ra_call_control), res_agi.c.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
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
    VicidialUnavailable,
)
from agi_handlers.vicidial.api_text import phone_digits
from agi_handlers.vicidial.call_facts import CallControlOptions, CallFacts
from agi_handlers.vicidial.call_ids import VicidialCallId
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
from agi_handlers.vicidial.outbox import Outbox
from agi_handlers.vicidial.responses import Refusal, Refused
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
        self._chain = chain
        self._utc_offset_s = utc_offset_s
        self._has_ended = False
        self.facts = CallFacts(client, options, campaign, request)

    # --- while the caller is there ---

    async def opt_out(self) -> None:
        """Put the caller's number on the DNC list: on disk, then told at once."""
        of_lead = self.facts.lead.values.get("phone_number", "")
        number = phone_digits(of_lead) or self.facts.number
        if not number:
            logger.error("opt_out_without_a_number")
            return
        for duty in self._opt_outs(number):
            await self._outbox.tell_now(self._chain, duty)

    def _opt_outs(self, number: str) -> list[OptOut]:
        where, campaign_id = self._campaign.vicidial.dnc, self.facts.campaign_id
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
        identity = self.facts.identity
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
                agent_user=self.facts.agent_user,
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
            group=self.facts.group,
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
        users = [self.facts.agent_user]
        fallback = self._campaign.vicidial.agent_user or self._options.agent_user
        if fallback and fallback != self.facts.agent_user:
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
                self.facts.agent_user = user
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
        identity = self.facts.identity
        if identity is None or identity.lead_id is None:
            return
        lead_id = identity.lead_id
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
        lead_offset_s = self.facts.lead.utc_offset_s
        if lead_offset_s is None:
            lead_offset_s = server_offset_s
        now = datetime.now(UTC).replace(tzinfo=None)
        there = now + timedelta(seconds=lead_offset_s)
        moment = parse_callback_time(outcome.callback, there)
        if moment is None or not self.facts.campaign_id:
            logger.warning(
                "callback_not_scheduled",
                extra=fields(
                    is_time_understood=moment is not None,
                    campaign=self.facts.campaign_id,
                ),
            )
            return None
        at = moment + timedelta(seconds=server_offset_s - lead_offset_s)
        return ScheduleCallback(
            identity.lead_id,
            self.facts.campaign_id,
            at.strftime("%Y-%m-%d %H:%M:%S"),
            f"bot: {outcome.callback}"[:100],
        )
