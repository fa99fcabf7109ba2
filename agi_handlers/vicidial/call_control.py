"""What one call tells VICIdial: an opt-out, and its one ending.

    opt out    the number on the DNC list while the caller is still there
    confirm    is somebody free where the caller wants to go?
    end        callback ▶ ra_call_control, once ▶ hold and notes

The ending is on disk before it is sent.  What VICIdial does not take in time is the
outbox's; the caller is never kept waiting for it longer than `CallControlOptions` say.
Source: AST_VDremote_agents.pl, agc/api.php (ra_call_control), res_agi.c.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal, TypeAlias

from agi_handlers.agi import commands
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.campaigns import Campaign
from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.errors import (
    AgiCommandRefused,
    AgiTimeout,
    ChannelGone,
    VicidialUnavailable,
)
from agi_handlers.records.rows import Result
from agi_handlers.vicidial.api_text import phone_digits
from agi_handlers.vicidial.call_facts import CallControlOptions, CallFacts
from agi_handlers.vicidial.call_ids import VicidialCallId
from agi_handlers.vicidial.callback_agreement import CallbackAgreement
from agi_handlers.vicidial.client import NotSent, VicidialClient
from agi_handlers.vicidial.duties import (
    AddComment,
    AddLead,
    Duty,
    HoldForCallback,
    OptOut,
    ReportEnding,
    ScheduleCallback,
    UpdateLead,
)
from agi_handlers.vicidial.endings import (
    HangUp,
    LeaveToDialplan,
    TransferTo,
    comment_of,
    ending_of,
    for_dialplan,
    status_of,
    updates_of,
    without_control,
)
from agi_handlers.vicidial.lead import Lead
from agi_handlers.vicidial.outbox import Outbox
from agi_handlers.vicidial.responses import Refusal, Refused
from agi_handlers.vicidial.server_clock import ServerClock, utc_now
from agi_handlers.vicidial.transfer_look import confirm_transfer
from telemetry import VICIDIAL, fields

logger = logging.getLogger(__name__)

_NUMBER_DIGITS = 9  # fewer behind what looks like a country code are a whole number
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
        facts: CallFacts,
        chain: str,
        clock: Callable[[], ServerClock | None],
        confirm: Callable[[Result, str], None],
    ) -> None:
        self._client = client
        self._outbox = outbox
        self._options = options
        self._campaign = Campaign()
        self._chain = chain
        self._clock = clock
        self._confirm = confirm
        self._has_ended = False
        self._learning: asyncio.Task[None] | None = None
        self.facts = facts
        self.callback = CallbackAgreement(facts, clock)

    async def follow(self, campaign: Campaign) -> Lead:
        """The persona is known: its lead if its words or hours want one.

        Whatever else can be known is learnt while the talk goes on.
        """
        self._campaign = campaign
        self.facts.follow(campaign)
        if campaign.wants_lead:
            await self.facts.fetch_lead()
        self._learning = asyncio.create_task(self.facts.learn())
        return self.facts.lead

    async def close(self) -> None:
        """The session is over."""
        learning, self._learning = self._learning, None
        if learning is not None:
            learning.cancel()
            await asyncio.wait([learning])
            if not learning.cancelled():
                learning.result()

    @property
    def has_ended(self) -> bool:
        """True: nothing more is told of this call."""
        return self._has_ended

    def supersede(self) -> None:
        """Another session has this channel now: nothing more is told by this one."""
        self._has_ended = True

    # --- while the caller is there ---

    def is_open(self) -> bool:
        """Whether the campaign's hours allow the call now."""
        hours, clock = self._campaign.hours, self._clock()
        server_s = clock.utc_offset_s if clock is not None else None
        local = hours.local_time(utc_now(clock), self.facts.lead.utc_offset_s, server_s)
        return hours.is_open(local)

    async def confirm_transfer(self, destination: str) -> str | None:
        """See `transfer_look`."""
        return await confirm_transfer(self._client, self._campaign, destination)

    async def opt_out(self) -> None:
        """Put the caller's number on the DNC list: on disk, then told at once."""
        of_lead = phone_digits(self.facts.lead.values.get("phone_number", ""))
        numbers = [of_lead] if of_lead else self._own_numbers()
        if not numbers:
            logger.error("opt_out_without_a_number")
            self._confirm("failed", "the do-not-call list: no number is known")
        for number in numbers:
            for duty in self._opt_outs(number):
                await self._outbox.tell_now(self._chain, duty)

    def _own_numbers(self) -> list[str]:
        """As the caller's number came, and without the country code before it."""
        number, code = self.facts.number, self._campaign.vicidial.phone_code
        if number.startswith(code) and len(number) - len(code) >= _NUMBER_DIGITS:
            return [number, number.removeprefix(code)]
        return [number] if number else []

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
            await self._report_without_id(outcome, has_hung_up=agi.hung_up)
            return without_control(outcome)
        if not identity.is_controllable:
            await self._report_three_way(outcome, identity)
            return for_dialplan(outcome)
        ending = ending_of(outcome, self._campaign, has_hung_up=agi.hung_up)
        callback = self._schedule(outcome, identity.lead_id)
        controlled: Controlled = "not_done"
        if isinstance(ending, HangUp | TransferTo):
            controlled = await self._control(ending, identity, callback)
            result, what = _confirmation(ending, controlled)
            VICIDIAL.labels(duty=type(ending).__name__, result=result).inc()
            self._confirm(result, what)
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

    def _schedule(
        self, outcome: CallOutcome, lead_id: int | None
    ) -> ScheduleCallback | None:
        callback = self.callback.schedule(outcome, lead_id)
        if callback is None and outcome.callback and not outcome.is_opt_out:
            why = "cannot be put into VICIdial; a note says so"
            self._confirm("failed", f"a callback {outcome.callback}: {why}")
        return callback

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
        is_to_agent = isinstance(ending, TransferTo) and ending.target.kind == "agent"
        for user in self._users():
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
                if is_to_agent:
                    return "bad_target"  # that person is not there
                if exc.reason is not Refusal.AGENT_NOT_LOGGED_IN:
                    return "not_done"
            except NotSent as exc:
                logger.warning("ending_not_sent", extra=fields(error=str(exc)))
                return "not_done"
            except VicidialUnavailable as exc:
                logger.warning("ending_unanswered", extra=fields(error=str(exc)))
                return "unknown"
            else:
                if not is_to_agent:
                    self.facts.agent_user = user
                return "done"
        return "not_done"

    def _users(self) -> list[str]:
        """Whom to name as the line: the call's own, or else the first there is."""
        fallback = self._campaign.vicidial.agent_user or self._options.agent_user
        users = [self.facts.agent_user, fallback]
        return [user for user in dict.fromkeys(users) if user]

    async def _send_as(
        self, user: str, ending: HangUp | TransferTo, identity: VicidialCallId
    ) -> None:
        client, call_id = self._client, identity.text
        match ending:
            case HangUp(status):
                await client.hang_up(call_id, user, status)
            case TransferTo(status, target) if target.kind == "in_group":
                await client.transfer_to_in_group(call_id, user, status, target.name)
            case TransferTo(status, target) if target.kind == "agent":
                await client.transfer_to_agent(call_id, target.name, status)
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
        await self._put(*duties, *self._updates(outcome, lead_id))

    async def _put(self, *duties: Duty) -> None:
        for duty in duties:
            await self._outbox.put(self._chain, duty)

    def _updates(self, outcome: CallOutcome, lead_id: int) -> list[Duty]:
        values, custom = updates_of(outcome, self._campaign)
        return [UpdateLead(lead_id, values, custom)] if values or custom else []

    async def _report_without_id(
        self, outcome: CallOutcome, *, has_hung_up: bool
    ) -> None:
        """Nothing is controlled or guessed; what was agreed with the caller is kept.

        For a caller at a DID: the one lead that has his number, or a new one of the
        campaign's list.
        """
        rules, facts = self._campaign.vicidial, self.facts
        lead_id = facts.lead.lead_id
        callback = self._schedule(outcome, lead_id or 0)
        comment = comment_of(outcome, is_callback_scheduled=callback is not None)
        if lead_id is not None:
            duties: list[Duty] = [callback] if callback is not None else []
            if comment:
                duties.append(AddComment(lead_id, comment))
            await self._put(*duties, *self._updates(outcome, lead_id))
        elif rules.new_lead_list and facts.is_number_unknown:
            ending = ending_of(outcome, self._campaign, has_hung_up=has_hung_up)
            duty = AddLead(
                self._own_numbers()[-1],
                rules.phone_code,
                rules.new_lead_list,
                "" if isinstance(ending, LeaveToDialplan) else ending.status,
                comment,
            )
            if callback is not None:
                duty = replace(
                    duty, campaign_id=callback.campaign_id, callback_at=callback.at
                )
            await self._put(duty)
        elif callback is not None or comment:
            logger.warning("nothing_to_keep_it_in", extra=fields(comment=bool(comment)))

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
                self._confirm(
                    "failed", "the channel did not move; the dialplan goes on"
                )
        if controlled == "bad_target":
            return replace(outcome, transfer_to="")
        return without_control(outcome)


_WHY_NOT: Mapping[Controlled, str] = {
    "gone": "VICIdial has no such call any more",
    "bad_target": "nobody, or no such destination, is there",
    "not_done": "VICIdial was not reached, or refused",
    "unknown": "VICIdial has not answered",
}


def _confirmation(
    ending: HangUp | TransferTo, controlled: Controlled
) -> tuple[Result, str]:
    """For the call's record; what was not done the outbox or the dialplan does."""
    what = "hang up"
    if isinstance(ending, TransferTo):
        what = f"transfer to {ending.target.kind} {ending.target.name}"
    what = f"{what}, status {ending.status}"
    if controlled == "done":
        return "ok", f"{what}: taken by VICIdial"
    return "failed", f"{what}: {_WHY_NOT[controlled]}"
