"""What goes wrong with a store of call records."""

from __future__ import annotations

from agi_handlers.errors import TelephonyError


class StoreUnavailable(TelephonyError):
    """The shared database does not answer, or refuses; the message says how."""

    retryable = True
