"""What VICIdial must be told of a call, and how each of it is told.

Every duty can be told twice without harm, so that a crash between telling and noting
costs nothing.  A duty that comes late gives way to what has happened to the lead since.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, assert_never

from agi_handlers.errors import VicidialUnavailable
from agi_handlers.vicidial.client import CallbackRequest, VicidialClient
from agi_handlers.vicidial.responses import LoginRefused, Refusal, Refused
from telemetry import fields

logger = logging.getLogger(__name__)

CALLBACK_HOLD = "CBHOLD"
"""Keeps a lead with a callback out of the hopper until its time."""
# What VICIdial writes by itself when nobody reports; anything else in a lead's status
# was put there by a later call or a person.
_OWN_STATUSES = frozenset(
    ("", "NEW", "QUEUE", "INCALL", "XFER", "RAXFER", "DROP", "PDROP", "XDROP")
)
_NO_LOG_ROW = (Refusal.GROUP_NOT_FOUND, Refusal.NOT_FOUND, Refusal.UNKNOWN_FUNCTION)
_MAX_COMMENT_BYTES = 255
_COMMENT_SEPARATOR = " / "


@dataclass(frozen=True, slots=True)
class OptOut:
    """The caller wants no more calls."""

    phone_number: str
    campaign_id: str = ""
    """Empty: the system's list."""


@dataclass(frozen=True, slots=True)
class ScheduleCallback:
    """Call the lead back; the lead's status stays as it is."""

    lead_id: int
    campaign_id: str
    at: str
    comments: str


@dataclass(frozen=True, slots=True)
class ReportEnding:
    """The status of an ended call, where `ra_call_control` did not take it."""

    call_id: str
    lead_id: int | None
    group: str
    """Campaign or in-group; empty: asked for."""
    status: str
    sets_lead: bool = True
    """False after a transfer: the lead's status is the human's."""


@dataclass(frozen=True, slots=True)
class HoldForCallback:
    """CALLBK becomes CBHOLD once the call is over.

    The callback is made sure of first: a lead on hold without one is never called.
    """

    lead_id: int
    from_status: str
    campaign_id: str
    at: str
    comments: str


@dataclass(frozen=True, slots=True)
class AddComment:
    """A note at the end of the lead's comments; there is no other place by API."""

    lead_id: int
    text: str


@dataclass(frozen=True, slots=True)
class UpdateLead:
    """Fields the caller corrected; the lead's status stays as it is."""

    lead_id: int
    values: Mapping[str, str]
    custom: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AddLead:
    """A caller VICIdial did not know: a lead with what came of his call."""

    phone_number: str
    phone_code: str
    list_id: int
    status: str
    comment: str
    campaign_id: str = ""
    callback_at: str = ""
    """Empty: no callback was agreed."""


Duty: TypeAlias = (
    OptOut
    | ScheduleCallback
    | ReportEnding
    | HoldForCallback
    | AddComment
    | UpdateLead
    | AddLead
)
_KINDS: dict[str, type[Duty]] = {
    kind.__name__: kind
    for kind in (
        OptOut, ScheduleCallback, ReportEnding, HoldForCallback, AddComment, UpdateLead,
        AddLead,
    )
}  # fmt: skip


class DutyUnreadable(ValueError):
    """A stored duty is none that this version knows."""


def to_text(duty: Duty) -> tuple[str, str]:
    """Kind and JSON body."""
    return type(duty).__name__, json.dumps(asdict(duty))


def from_text(kind: str, body: str) -> Duty:
    """Raises DutyUnreadable."""
    try:
        values: dict[str, Any] = json.loads(body)
        return _KINDS[kind](**values)
    except (KeyError, TypeError, ValueError) as exc:
        raise DutyUnreadable(f"{kind}: {exc}") from exc


def description_of(duty: Duty) -> str:
    """For people, in a call's record; shows no number."""
    match duty:
        case OptOut(_, campaign_id):
            whose = f"campaign {campaign_id}'s" if campaign_id else "the system's"
            return f"the number on {whose} do-not-call list"
        case ScheduleCallback(_, _, at, _):
            return f"a callback at {at}"
        case ReportEnding(status=status):
            return f"status {status}"
        case HoldForCallback(at=at):
            return f"{CALLBACK_HOLD} until the callback at {at}"
        case AddComment():
            return "a comment on the lead"
        case UpdateLead(_, values, custom):
            return f"the lead's {', '.join([*values, *custom])}"
        case AddLead(list_id=list_id):
            return f"a new lead in list {list_id}"
        case _:
            assert_never(duty)


async def tell(client: VicidialClient, duty: Duty, *, is_late: bool) -> None:
    """Carry out a duty.

    is_late: the call ended a while ago; its lead may have been called again.

    Raises:
        VicidialUnavailable: try again later.  Refused: no use.  LoginRefused.
    """
    match duty:
        case OptOut(number, campaign_id):
            await client.add_dnc_phone(number, campaign_id)
        case ScheduleCallback(lead_id, campaign_id, at, comments):
            wanted = CallbackRequest(campaign_id, at, comments)
            await client.update_lead(lead_id, {}, callback=wanted)
        case ReportEnding():
            await _report_ending(client, duty, is_late=is_late)
        case HoldForCallback():
            await _hold_for_callback(client, duty)
        case AddComment(lead_id, text):
            await _add_comment(client, lead_id, text)
        case UpdateLead(lead_id, values, custom):
            await client.update_lead(lead_id, values, custom=custom)
        case AddLead():
            await _add_lead(client, duty)
        case _:
            assert_never(duty)


async def _report_ending(
    client: VicidialClient, duty: ReportEnding, *, is_late: bool
) -> None:
    group = duty.group
    if not group:
        info = await client.callid_info(duty.call_id)
        group = info.campaign_id if info is not None else ""
    refused: Refused | None = None
    if group:
        try:
            await client.update_log_entry(group, duty.call_id, duty.status)
        except LoginRefused:
            raise
        except Refused as exc:
            # the lead can still be told
            if exc.reason in _NO_LOG_ROW:
                logger.warning("call_not_in_vicidials_log", extra=fields(why=str(exc)))
            else:
                refused = exc
    await _report_to_lead(client, duty, is_late=is_late)
    if refused is not None:
        raise refused


async def _report_to_lead(
    client: VicidialClient, duty: ReportEnding, *, is_late: bool
) -> None:
    if not duty.sets_lead or duty.lead_id is None:
        return
    if is_late:
        found = await client.lead_value(duty.lead_id, "status")
        if found not in _OWN_STATUSES:
            logger.info("lead_has_moved_on", extra=fields(lead_id=duty.lead_id))
            return
    await client.update_lead(duty.lead_id, {"status": duty.status})


async def _hold_for_callback(client: VicidialClient, duty: HoldForCallback) -> None:
    found = await client.lead_value(duty.lead_id, "status")
    if found == duty.from_status:
        wanted = CallbackRequest(duty.campaign_id, duty.at, duty.comments)
        await client.update_lead(duty.lead_id, {}, callback=wanted)
        await client.update_lead(duty.lead_id, {"status": CALLBACK_HOLD})
    elif found != CALLBACK_HOLD:
        logger.info("lead_has_moved_on", extra=fields(lead_id=duty.lead_id))


async def _add_lead(client: VicidialClient, duty: AddLead) -> None:
    callback = None
    if duty.callback_at:
        callback = CallbackRequest(duty.campaign_id, duty.callback_at, duty.comment)
    lead_id = await client.add_lead(
        duty.phone_number, duty.list_id, {"phone_code": duty.phone_code}, callback
    )
    if lead_id is None:  # it is there already, perhaps by an earlier try of this
        found = await client.lead_search(duty.phone_number)
        if not found:
            raise VicidialUnavailable("add_lead: neither added nor found")
        lead_id = found[0]
        if callback is not None:
            await client.update_lead(lead_id, {}, callback=callback)
            await client.update_lead(lead_id, {"status": CALLBACK_HOLD})
    if callback is None and duty.status:
        await client.update_lead(lead_id, {"status": duty.status})
    if duty.comment:
        await _add_comment(client, lead_id, duty.comment)


async def _add_comment(client: VicidialClient, lead_id: int, text: str) -> None:
    before = await client.lead_value(lead_id, "comments")
    if text in before:
        return
    room = _MAX_COMMENT_BYTES - len(text) - len(_COMMENT_SEPARATOR)
    # the newest part of what people wrote; a letter cut in two is dropped
    kept = before.encode()[-room:].decode(errors="ignore").lstrip() if room > 0 else ""
    if kept:
        text = kept + _COMMENT_SEPARATOR + text
    await client.update_lead(lead_id, {}, comments=text)
