"""How a talk ended -> what VICIdial is told.  Pure.

caller gone, or goodbye said   HANGUP with the status reached
transfer with a target         INGROUPTRANSFER or EXTENSIONTRANSFER
failure, or people wanted      nothing: the dialplan takes the caller to its people,
                               and VICIdial's own script writes the log
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from agi_handlers.campaigns import Campaign, TransferTarget
from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.vicidial.api_text import stored_text
from telemetry import fields

logger = logging.getLogger(__name__)

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
            if outcome.reason == "outside_hours":
                return known.closed
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


def updates_of(
    outcome: CallOutcome, campaign: Campaign
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Fields and custom ones the caller corrected, as far as the campaign lets him."""
    rules = campaign.vicidial
    labels = {label.lower(): label for label in rules.custom_fields}
    values: dict[str, str] = {}
    custom: dict[str, str] = {}
    for update in outcome.updates:
        name, _, value = update.partition(" ")
        name, value = name.strip(":=").lower(), value.strip()
        if name in rules.update_fields and value:
            values[name] = value
        elif name in labels and value:
            custom[labels[name]] = value
        else:
            logger.warning("update_not_allowed", extra=fields(field=name[:40]))
    return values, custom


def for_dialplan(outcome: CallOutcome) -> CallOutcome:
    """The target's kind and name, each by itself."""
    target = TransferTarget.parse(outcome.transfer_to)
    kind = "" if target.kind == "people" else target.kind
    return replace(outcome, transfer_to=target.name, transfer_kind=kind)


def without_control(outcome: CallOutcome) -> CallOutcome:
    """A transfer that VICIdial did not make: the dialplan goes there by itself.

    To an in-group or an extension it can; for one person, or for a default that only
    VICIdial can resolve, its own people take over.
    """
    target = TransferTarget.parse(outcome.transfer_to)
    usable = target.kind in ("in_group", "extension")
    if not usable or target.name == DEFAULT_IN_GROUP:
        outcome = replace(outcome, transfer_to="")
    return for_dialplan(outcome)
