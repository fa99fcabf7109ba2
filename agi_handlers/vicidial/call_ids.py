"""Which VICIdial call this is, read from what Asterisk says of the channel.

VICIdial writes its call id into the caller-id name:

    V ddddddddd llllllllll   letter, date and time, lead id (ten digits)
    V auto-dialled   M dialled by an agent   Y inbound or once in an in-group
    J on its way into an in-group            DC dddddd W llllllllll W  a three-way leg

Where a list has customer names, the name is the customer's and the id stands in the
connected-line name, which the dialplan passes as an AGI argument.  What is no call id
is none: nothing is guessed.
Source: AST_VDauto_dial.pl, agi-VDAD_ALL_outbound.agi, agi-VDAD_ALL_inbound.agi (2.14).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

IdSource: TypeAlias = Literal["name", "argument", "line"]

_CALL = re.compile(r"([VMYJ])[0-9]{9}([0-9]{10})", re.ASCII)
_THREE_WAY = re.compile(r"(DC)[0-9]{6}W([0-9]{10})W", re.ASCII)
_NAME_AND_NUMBER = re.compile(r"\s*\"?([^\"<]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class VicidialCallId:
    """A call id, exactly as VICIdial wrote it."""

    text: str
    kind: str
    """V, M, Y, J or DC."""
    lead_id: int | None
    """None: the id carries no lead (ten zeros)."""
    source: IdSource = "name"

    @property
    def is_controllable(self) -> bool:
        """`ra_call_control` can act on it; a three-way leg belongs to its agent."""
        return self.kind != "DC"

    @property
    def has_inbound_log(self) -> bool:
        """The log row is one of an in-group (`vicidial_closer_log`)."""
        return self.kind in ("Y", "J")


def parse_call_id(name: str, source: IdSource = "name") -> VicidialCallId | None:
    """The call id a caller-id name is, or begins with; None: it is something else.

    Some systems append an extension, or user and campaign: cut at the first space.
    """
    match = _NAME_AND_NUMBER.match(name)
    words = (match[1] if match else "").split()
    if not words:
        return None
    found = _CALL.fullmatch(words[0]) or _THREE_WAY.fullmatch(words[0])
    if found is None:
        return None
    return VicidialCallId(words[0], found[1], int(found[2]) or None, source)


def identify(calleridname: str, arguments: Sequence[str]) -> VicidialCallId | None:
    """The call's id: from the name, or else from the dialplan's AGI arguments."""
    found = parse_call_id(calleridname)
    if found is not None:
        return found
    for argument in arguments:
        found = parse_call_id(argument, "argument")
        if found is not None:
            return found
    return None


@dataclass(frozen=True, slots=True)
class LineState:
    """What VICIdial knows of one of the bot's lines."""

    user: str
    call_id: str
    phone_number: str


def recover(
    caller_number: str, lines: Sequence[LineState], claimed: frozenset[str]
) -> tuple[VicidialCallId, str] | None:
    """The call of exactly one own line with this caller's number, and that line's user.

    claimed: call ids that other running calls have.  None, or more than one line that
    fits: None.
    """
    digits = _digits(caller_number)
    if (
        len(digits) < 5
    ):  # an extension, or "anonymous": too little to tell callers apart
        return None
    fitting = [
        (call_id, line.user)
        for line in lines
        if _digits(line.phone_number) == digits and line.call_id not in claimed
        if (call_id := parse_call_id(line.call_id, "line")) is not None
    ]
    return fitting[0] if len(fitting) == 1 else None


def _digits(number: str) -> str:
    return "".join(c for c in number if c in "0123456789")
