"""How a talk ended, and what the dialplan is told about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

CallStatus: TypeAlias = Literal[
    "completed",  # the bot said goodbye
    "transfer",  # the bot hands the caller on, see transfer_to
    "no_input",  # the caller said nothing, the bot said goodbye
    "caller_hung_up",
    "failed",  # something broke: the dialplan takes the caller to people
    "refused",  # not taken at all: full, draining, not ready
]


MACHINE_ANSWERED: Final = "machine_answered"
"""The reason of a call that reached no person; see `answer_screen`."""


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """The end of a call, as `BOT_STATUS`, `BOT_REASON` … carry it."""

    status: CallStatus
    reason: str = ""
    """One word for logs and the dialplan, e.g. `time_limit`, `speech_unavailable`."""
    disposition: str = ""
    """The campaign's own status code, at most six characters; empty: none set."""
    transfer_to: str = ""
    """Where the dialplan sends the caller; empty: the campaign's default people."""
    transfer_kind: str = ""
    """`in_group` or `extension`, once `transfer_to` is the name alone."""
    is_opt_out: bool = False
    """The caller wants no more calls; recorded while he was still there."""
    callback: str = ""
    """When the caller wants to be called back, in the model's words."""
    notes: tuple[str, ...] = ()
    """What the model noted for the people who read the lead."""
    updates: tuple[str, ...] = ()
    """Fields of the lead the caller corrected, each as `field new value`."""

    @property
    def is_orderly(self) -> bool:
        """The bot did what it meant to; anything else goes to people."""
        return self.status in ("completed", "transfer", "no_input", "caller_hung_up")
