"""What is known about each dialer for a while: what failed there, and what works."""

from __future__ import annotations

import time

# One entry a dialer and thing; a service has a handful of dialers.
_MAX_ENTRIES = 1024


class DialerMemory:
    """Remarks about dialers, by address, each for a limited time."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._remarks: dict[tuple[str, str], tuple[float, str]] = {}

    def recall(self, dialer: str, subject: str) -> str | None:
        """What was remembered, unless that was too long ago."""
        kept = self._remarks.get((dialer, subject))
        if kept is None:
            return None
        until_s, remark = kept
        if time.monotonic() >= until_s:
            del self._remarks[dialer, subject]
            return None
        return remark

    def remember(self, dialer: str, subject: str, remark: str) -> None:
        """Keep a remark; the oldest gives way when there are far too many."""
        self._remarks.pop((dialer, subject), None)
        while len(self._remarks) >= _MAX_ENTRIES:
            del self._remarks[next(iter(self._remarks))]
        self._remarks[dialer, subject] = (time.monotonic() + self._keep_s, remark)
