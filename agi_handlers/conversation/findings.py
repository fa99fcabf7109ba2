"""What a talk has brought out, beside the talk: goes into the call's outcome."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from agi_handlers.conversation.outcome import CallOutcome

# A talk has a few; a model that is stuck writes one in every reply.
_MAX_NOTES: Final = 10
_MAX_DISPOSITION_LETTERS: Final = 6  # VICIdial's


@dataclass(slots=True)
class Findings:
    """Filled by what the model writes down and by what the caller wants."""

    disposition: str = ""
    callback: str = ""
    is_opt_out: bool = False
    notes: list[str] = field(default_factory=list)
    updates: list[str] = field(default_factory=list)

    def write_down(self, name: str, argument: str) -> None:
        """One action of the model's that only wants to be remembered."""
        match name:
            case "disposition":
                self.disposition = argument[:_MAX_DISPOSITION_LETTERS]
            case "callback":
                self.callback = argument
            case "note" if argument and len(self.notes) < _MAX_NOTES:
                self.notes.append(argument)
            case "update" if argument and len(self.updates) < _MAX_NOTES:
                self.updates.append(argument)

    def opt_out(self) -> bool:
        """The caller wants no more calls; whether that is news."""
        if self.is_opt_out:
            return False
        self.is_opt_out, self.disposition = True, "DNC"
        return True

    def complete(self, outcome: CallOutcome) -> CallOutcome:
        """The outcome with all that was found."""
        return replace(
            outcome,
            disposition=outcome.disposition or self.disposition,
            is_opt_out=self.is_opt_out,
            callback=self.callback,
            notes=tuple(self.notes),
            updates=tuple(self.updates),
        )
