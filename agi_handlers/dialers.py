"""The dialers whose calls came, for the console."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from model.client import DialerState

_MAX_DIALERS: Final = 200  # the one not heard of for longest is forgotten


@dataclass(slots=True)
class _Dialer:
    asterisk: str
    num_calls: int = 0
    last_call_s: float = 0.0
    leg: str = ""


class Dialers:
    """By their addresses, since the start."""

    def __init__(self) -> None:
        self._known: dict[str, _Dialer] = {}

    def called(self, peer: str, asterisk: str) -> None:
        """A call came; `peer` as address or address:port."""
        address = _address(peer)
        dialer = self._known.pop(address, None) or _Dialer(asterisk)
        dialer.asterisk = asterisk
        dialer.num_calls += 1
        dialer.last_call_s = time.monotonic()
        self._known[address] = dialer  # now the youngest
        if len(self._known) > _MAX_DIALERS:
            del self._known[next(iter(self._known))]

    def answered(self, peer: str, leg: str) -> None:
        """Audio flows with it, this way."""
        if dialer := self._known.get(_address(peer)):
            dialer.leg = leg

    def states(self) -> tuple[DialerState, ...]:
        """Each of them, by address."""
        now_s = time.monotonic()
        return tuple(
            DialerState(
                address,
                dialer.asterisk,
                dialer.leg,
                dialer.num_calls,
                round(now_s - dialer.last_call_s, 1),
            )
            for address, dialer in sorted(self._known.items())
        )


def _address(peer: str) -> str:
    """Of `10.0.0.1:40312` or `[::1]:40312` the part that stays from call to call."""
    host, colon, port = peer.rpartition(":")
    return host.strip("[]") if colon and port.isdigit() and host else peer
