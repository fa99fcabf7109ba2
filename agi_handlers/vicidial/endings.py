"""How a talk ended -> what VICIdial is told.  Pure.

caller gone, or goodbye said   HANGUP with the status reached
transfer with a target         INGROUPTRANSFER or EXTENSIONTRANSFER
failure, or people wanted      nothing: the dialplan takes the caller to its people,
                               and VICIdial's own script writes the log
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from agi_handlers.campaigns import Campaign, TransferTarget
from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.vicidial.api_text import stored_text

_MAX_NOTE_CHARS = 120  # of the lead's 255, so that earlier comments keep room
DEFAULT_IN_GROUP = "DEFAULTINGROUP"
"""VICIdial's word for the campaign's own default transfer group."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """The call is over."""

    status: str


@dataclass(frozen=True, slots=True)
class TransferTo:
    """The caller goes to people of VICIdial, or out."""

    status: str
    target: TransferTarget


@dataclass(frozen=True, slots=True)
class LeaveToDialplan:
    """The caller is on the line and the dialplan takes him on."""


Ending: TypeAlias = HangUp | TransferTo | LeaveToDialplan


def ending_of(outcome: CallOutcome, campaign: Campaign, *, has_hung_up: bool) -> Ending:
    """What `ra_call_control` has to do.  has_hung_up: the channel is gone."""
    if has_hung_up or outcome.status in ("caller_hung_up", "completed", "no_input"):
        return HangUp(status_of(outcome, campaign))
    if outcome.status == "transfer":
        target = TransferTarget.parse(outcome.transfer_to)
        if target.kind != "people":
            return TransferTo(status_of(outcome, campaign), target)
    return LeaveToDialplan()


def status_of(outcome: CallOutcome, campaign: Campaign) -> str:
    """The disposition: an opt-out before all, then the model's own, then the way out.

    Always a status of 1 to 6 characters: without one VICIdial writes RAXFER.
    """
    known = campaign.dispositions
    if outcome.is_opt_out:
        return known.opt_out
    given = known.of_code(outcome.disposition) if outcome.disposition else ""
    if given:
        return given
    if outcome.callback:
        return known.callback
    match outcome.status:
        case "completed":
            return known.completed
        case "no_input":
            return known.no_input
        case "transfer":
            return known.transfer
        case "caller_hung_up" | "failed" | "refused":
            return known.caller_hung_up


def comment_of(outcome: CallOutcome, *, is_callback_scheduled: bool) -> str:
    """What goes into the lead's comments; empty: nothing."""
    parts = list(outcome.notes)
    if outcome.callback and not is_callback_scheduled:
        parts.append(f"wants a call back {outcome.callback}")
    text = stored_text(", ".join(parts), "comments")
    return f"bot: {text[:_MAX_NOTE_CHARS].rstrip()}" if text else ""


def for_dialplan(outcome: CallOutcome) -> CallOutcome:
    """The target without what tells in-groups from extensions."""
    return replace(outcome, transfer_to=TransferTarget.parse(outcome.transfer_to).name)


def without_control(outcome: CallOutcome) -> CallOutcome:
    """A transfer that VICIdial did not make: the dialplan goes to the in-group.

    It takes the name for an in-group's, so with an extension, or with a default that
    only VICIdial can resolve, the dialplan's own people take over.
    """
    target = TransferTarget.parse(outcome.transfer_to)
    usable = target.kind == "in_group" and target.name != DEFAULT_IN_GROUP
    return replace(outcome, transfer_to=target.name if usable else "")
