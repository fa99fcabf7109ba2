"""What systemd is told: ready, reloading, stopping, and that we still turn.

Source: man 3 sd_notify.  Without systemd (no NOTIFY_SOCKET) nothing happens.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping

from telemetry import fields

logger = logging.getLogger(__name__)


class ServiceManager:
    """Tells systemd, where it is there and asked for it."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = environ.get("NOTIFY_SOCKET", "")
        watchdog_us = environ.get("WATCHDOG_USEC", "")
        pid = environ.get("WATCHDOG_PID", "")
        is_for_us = not pid or pid == str(os.getpid())
        is_wanted = watchdog_us.isdecimal() and is_for_us
        self.watchdog_s: float | None = int(watchdog_us) / 1e6 if is_wanted else None
        """It kills us when it hears nothing for so long; None: it doesn't."""

    def ready(self, status: str) -> None:
        self._tell("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._tell(f"STATUS={status}")

    def reloading(self) -> None:
        """`ready` must follow."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=draining")

    async def stay_alive(self) -> None:
        """Show that this loop turns, until cancelled."""
        if self.watchdog_s is None:
            return
        while True:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / 4)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):  # Linux's abstract names
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)
                out.sendto("\n".join(lines).encode(), address)
        except OSError as exc:
            logger.warning("service_manager_not_told", extra=fields(error=str(exc)))
