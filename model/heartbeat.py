"""A phone half's word to the sidecars that it is alive, and how it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import httpx
from prometheus_client import generate_latest

from model.remote_session import one_line
from model.sidecar_address import checked_url, http_client
from telemetry import fields

logger = logging.getLogger(__name__)

HEARTBEAT_PATH: Final = "/internal/heartbeat"
_FAILURES_TOLD: Final = 3
"""In a row; at a start together the sidecar takes a moment longer."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a phone half says of itself."""

    num_calls: int
    max_calls: int
    is_draining: bool = False
    num_frames_late: int = 0
    last_error: str = ""
    uptime_s: float = 0.0
    version: str = ""


class HeartbeatSender:
    """Tells every sidecar how the phone half is, so that `/health` knows both halves.

    The first one also gets this process's metrics, for its `/metrics`.
    """

    def __init__(
        self,
        urls: Sequence[str],
        name: str,
        snapshot: Callable[[], Heartbeat],
        api_key: str = "",
        interval_s: float = 5.0,
    ) -> None:
        """`name` tells phone halves apart, e.g. host:port of its AGI listener."""
        self._urls = [checked_url(url) for url in urls]
        self.name = name
        self._snapshot = snapshot
        self._api_key = api_key
        self._interval_s = interval_s
        self._num_failures = dict.fromkeys(self._urls, 0)

    async def run(self) -> None:
        """Send until cancelled; an address that doesn't answer holds up no other."""
        async with asyncio.TaskGroup() as tasks:
            for number, url in enumerate(self._urls):
                # To one of them, or whoever adds them up counts everything twice.
                tasks.create_task(self._send_to(url, with_metrics=number == 0))

    async def _send_to(self, url: str, *, with_metrics: bool) -> None:
        async with http_client(url, self._api_key, self._interval_s) as client:
            while True:
                body = {
                    "name": self.name,
                    "interval_s": self._interval_s,
                    **asdict(self._snapshot()),
                    "metrics": generate_latest().decode() if with_metrics else "",
                }
                try:
                    response = await client.post(HEARTBEAT_PATH, json=body)
                    response.raise_for_status()
                    self._note(url, "")
                except httpx.HTTPError as exc:
                    self._note(url, one_line(exc))
                await asyncio.sleep(self._interval_s)

    def _note(self, url: str, problem: str) -> None:
        """Log when an address has failed for a while, and when it is back."""
        before = self._num_failures[url]
        self._num_failures[url] = before + 1 if problem else 0
        if self._num_failures[url] == _FAILURES_TOLD:
            logger.warning("heartbeat_failing", extra=fields(url=url, reason=problem))
        elif not problem and before >= _FAILURES_TOLD:
            logger.info("heartbeat_back", extra=fields(url=url))
