"""A running bot as a caller and an operator reach it: AGI port and HTTP port."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from config import Settings
from tools.caller.agi_wire import Channel
from tools.caller.call import CallPlan, CallReport, place_call
from tools.caller.channel import Abilities, folders_of
from tools.caller.journal import Journal
from tools.caller.say_items import Item
from tools.caller.wheel import Wheel

_SOUNDS: Final = Path(__file__).resolve().parent.parent / "sounds"
_RECORD_AFTER_S: Final = 10.0
"""How long after a call its record may take."""


class StackUnusable(Exception):
    """The bot cannot be called, or its records cannot be read."""


@dataclass(frozen=True, slots=True)
class StackAddress:
    agi_host: str
    agi_port: int
    http_url: str
    api_key: str = ""


def stack_address(settings: Settings) -> StackAddress:
    """Where the service of these settings answers on this machine."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    http_host = local.get(settings.host, settings.host)
    shown = f"[{http_host}]" if ":" in http_host else http_host
    scheme = "https" if settings.tls_certificate else "http"
    return StackAddress(
        agi_host=local.get(settings.agi_host, settings.agi_host),
        agi_port=settings.agi_port,
        http_url=f"{scheme}://{shown}:{settings.port}",
        api_key=settings.api_key.get_secret_value(),
    )


class LiveStack:
    """Use `open_stack`."""

    def __init__(
        self, address: StackAddress, http: httpx.AsyncClient, wheel: Wheel
    ) -> None:
        self._address = address
        self._http = http
        self._wheel = wheel
        self._abilities = Abilities(folders_of([_SOUNDS]), has_audiosocket=True)
        self._num_calls = 0

    async def call(
        self,
        script: str,
        items: Sequence[Item],
        *,
        variables: Mapping[str, str],
        linger_s: float,
        longest_s: float,
    ) -> tuple[CallReport, dict[str, Any]]:
        """A call from its start to its record.

        Raises:
            StackUnusable: nobody answers there, or no record can be had.
        """
        self._num_calls += 1
        plan = CallPlan(
            host=self._address.agi_host,
            port=self._address.agi_port,
            script=script,
            items=items,
            variables=variables,
            about=Channel(
                uniqueid=f"{int(time.time())}.{self._num_calls}",
                name=f"PJSIP/scenario-{self._num_calls:08x}",
            ),
            linger_s=linger_s,
            max_s=longest_s,
        )
        loop = asyncio.get_running_loop()
        report = await place_call(
            plan, self._abilities, Journal(loop.time), self._wheel
        )
        call_id = report.variables.get("BOT_CALL_ID")
        if report.ended == "unreachable":
            raise StackUnusable("; ".join(report.errors))
        if call_id is None:
            status = report.variables.get("BOT_STATUS", "nothing")
            reason = report.variables.get("BOT_REASON", "")
            raise StackUnusable(f"the bot did not take the call: {status} {reason}")
        return report, await self._record(call_id)

    async def get(self, path: str) -> httpx.Response:
        """What the HTTP port answers.

        Raises:
            StackUnusable: nothing, or a refusal.
        """
        try:
            answer = await self._http.get(path)
        except httpx.HTTPError as exc:
            url = self._address.http_url
            raise StackUnusable(f"{url}{path} does not answer: {exc!r}") from exc
        if answer.status_code in (401, 403):
            raise StackUnusable(f"{path} wants an API key (ULTRAVOX_API_KEY)")
        return answer

    async def _record(self, call_id: str) -> dict[str, Any]:
        deadline_s = time.monotonic() + _RECORD_AFTER_S
        why = ""
        while time.monotonic() < deadline_s:
            try:
                answer = await self._http.get(f"/calls/{call_id}")
                body = answer.json()
                if answer.is_success and body["data"]["call"]["ended_at"] is not None:
                    call: dict[str, Any] = body["data"]["call"]
                    return call
                why = str(body.get("error") or "the call has not ended in its record")
            except (httpx.HTTPError, ValueError, KeyError) as exc:
                why = repr(exc)
            await asyncio.sleep(0.2)
        raise StackUnusable(f"no record of the call (ULTRAVOX_RECORDS): {why}")


@asynccontextmanager
async def open_stack(address: StackAddress) -> AsyncIterator[LiveStack]:
    """The stack for the block; nothing is asked of it yet."""
    wheel = Wheel()
    headers = {"Authorization": f"Bearer {address.api_key}"} if address.api_key else {}
    # on loopback the certificate names another host
    is_ours = "//127.0.0.1" in address.http_url or "//[::1]" in address.http_url
    async with httpx.AsyncClient(
        base_url=address.http_url,
        headers=headers,
        trust_env=False,
        verify=not is_ours,
    ) as http:
        turning = asyncio.create_task(wheel.run())
        try:
            yield LiveStack(address, http, wheel)
        finally:
            turning.cancel()
            with suppress(asyncio.CancelledError):
                await turning
