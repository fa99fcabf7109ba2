"""A phone half's line to each speech half, over which operators see and steer calls.

One WebSocket a speech half, opened from here and again whenever it is lost.  Nothing
in here makes a call wait: what does not fit into the line is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, assert_never

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from model.control_messages import (
    CONTROL_PATH,
    ControlMessageInvalid,
    ControlRefused,
    Controls,
    Do,
    Done,
    FromPhone,
    Hello,
    Watch,
    encode,
    pack_audio,
    to_phone,
)
from model.remote_session import one_line
from model.sidecar_address import checked_url, key_headers, tls_context
from telemetry import fields

logger = logging.getLogger(__name__)

SNAPSHOT_INTERVAL_S: Final = 1.0
_RETRY_S: Final = 2.0
_OPEN_TIMEOUT_S: Final = 5.0
_PING_S: Final = 10.0
_MAX_COMMAND_BYTES: Final = 64 << 10
_MAX_UNSENT: Final = 400
"""Messages; eight listeners for five seconds.  Full: the newest is dropped."""


class ControlLink:
    """Keeps the lines to all speech halves."""

    def __init__(
        self,
        urls: Sequence[str],
        name: str,
        controls: Controls,
        api_key: str = "",
    ) -> None:
        """`name` tells phone halves apart, as in their heartbeats."""
        self._urls = [checked_url(url) for url in urls]
        self._name = name
        self._controls = controls
        self._api_key = api_key

    async def run(self) -> None:
        """Keep connected until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for url in self._urls:
                tasks.create_task(self._keep(url))

    async def _keep(self, url: str) -> None:
        is_lost = False
        while True:
            try:
                # ws:// or wss://
                async with connect(
                    "ws" + url.removeprefix("http") + CONTROL_PATH,
                    additional_headers=key_headers(self._api_key),
                    ssl=tls_context(url),
                    open_timeout=_OPEN_TIMEOUT_S,
                    ping_interval=_PING_S,
                    ping_timeout=_PING_S,
                    max_size=_MAX_COMMAND_BYTES,
                    compression=None,
                    proxy=None,
                ) as websocket:
                    if is_lost:
                        logger.info("control_back", extra=fields(url=url))
                    is_lost = False
                    await _Line(websocket, self._controls).serve(self._name)
                    reason = "closed"
            except (OSError, TimeoutError, WebSocketException) as exc:
                reason = one_line(exc)
            if not is_lost:
                is_lost = True
                logger.info("control_lost", extra=fields(url=url, reason=reason))
            await asyncio.sleep(_RETRY_S)


class _Line:
    """One connection."""

    def __init__(self, websocket: ClientConnection, controls: Controls) -> None:
        self._websocket = websocket
        self._controls = controls
        # Full: what comes next is dropped, see `_MAX_UNSENT`.
        self._unsent: asyncio.Queue[str | bytes] = asyncio.Queue(_MAX_UNSENT)
        self._listeners: dict[int, Callable[[], None]] = {}
        self._watched_until_s = 0.0
        self._watched = asyncio.Event()

    async def serve(self, name: str) -> None:
        """Until the connection is lost."""
        self._put(Hello(name))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write())
                tasks.create_task(self._tell_calls())
                await self._read()
        except* ConnectionClosed:
            pass
        finally:
            for stop in list(self._listeners.values()):
                stop()

    async def _read(self) -> None:
        while True:  # until it raises ConnectionClosed
            text = await self._websocket.recv()
            try:
                message = to_phone(text)
            except ControlMessageInvalid as exc:
                logger.warning("control_not_understood", extra=fields(error=str(exc)))
                continue
            match message:
                case Watch(seconds=seconds):
                    now_s = asyncio.get_running_loop().time()
                    self._watched_until_s = now_s + min(seconds, 60.0)
                    self._watched.set()
                case Do():
                    self._do(message)
                case _:
                    assert_never(message)

    def _do(self, wanted: Do) -> None:
        number = wanted.number
        try:
            if wanted.action == "listen":
                ears = _Ears(self, number)
                self._listeners[number] = self._controls.listen(
                    wanted.call_id, wanted.by, ears
                )
                return  # `Done` comes when it is over
            if wanted.action == "unlisten":
                if stop := self._listeners.pop(number, None):
                    stop()
                return
            self._controls.carry_out(wanted)
        except ControlRefused as exc:
            self._put(Done(number, str(exc) or "refused"))
        except Exception:
            # an operator's wish must not end the line, or a call
            logger.exception("control_crashed", extra=fields(action=wanted.action))
            self._put(Done(number, "internal error; the phone half's log says more"))
        else:
            self._put(Done(number))

    def heard(self, number: int, pcm16: bytes) -> None:
        self._offer(pack_audio(number, pcm16))

    def ended(self, number: int) -> None:
        self._listeners.pop(number, None)
        self._put(Done(number))

    async def _tell_calls(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._watched.wait()
            while loop.time() < self._watched_until_s:
                self._put(self._controls.report())
                await asyncio.sleep(SNAPSHOT_INTERVAL_S)
            self._watched.clear()

    def _put(self, message: FromPhone) -> None:
        self._offer(encode(message).decode())

    def _offer(self, wire: str | bytes) -> None:
        try:
            self._unsent.put_nowait(wire)
        except asyncio.QueueFull:
            logger.debug("control_dropped", extra=fields(bytes=len(wire)))

    async def _write(self) -> None:
        while True:
            await self._websocket.send(await self._unsent.get())


class _Ears:
    """One listener at the other end of a line."""

    def __init__(self, line: _Line, number: int) -> None:
        self._line = line
        self._number = number

    def heard(self, stereo_pcm16: bytes) -> None:
        self._line.heard(self._number, stereo_pcm16)

    def ended(self) -> None:
        self._line.ended(self._number)
