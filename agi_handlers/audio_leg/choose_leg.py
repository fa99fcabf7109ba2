"""Which audio leg a call gets: tried in order, and what a dialer cannot do is kept.

::

    auto: AudioSocket ──unavailable──▶ EAGI relay ──unavailable──▶ recorded turns

A way that failed on a dialer is not tried there again for some minutes, so that only
the first call waits for it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias
from uuid import UUID

from agi_handlers.agi.commands import (
    ChannelState,
    answer,
    channel_status,
    get_full_variable,
)
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.ami.watch import AmiWatch
from agi_handlers.audio_leg.ami_hints import detect_talk, hints_for
from agi_handlers.audio_leg.audiosocket_leg import (
    AudioSocketOptions,
    open_audiosocket_leg,
)
from agi_handlers.audio_leg.choose_files import FileChooser, MediaAddress
from agi_handlers.audio_leg.dialer_memory import DialerMemory
from agi_handlers.audio_leg.eagi_leg import EagiOptions, open_eagi_leg
from agi_handlers.audio_leg.file_shell import FileShellOptions
from agi_handlers.audio_leg.frame_wheel import FrameWheel
from agi_handlers.audio_leg.leg import AudioLeg, LegEvent, LegName
from agi_handlers.audio_leg.media_port import MediaPort
from agi_handlers.audio_leg.recorded_turns_leg import (
    RecordedTurnsOptions,
    open_recorded_turns_leg,
)
from agi_handlers.errors import AudioLegUnavailable
from telemetry import ERRORS, fields

logger = logging.getLogger(__name__)

Media: TypeAlias = Literal["auto", "audiosocket", "eagi", "recorded_turns"]
_ORDER: tuple[LegName, ...] = ("audiosocket", "eagi", "recorded_turns")
# Pasted into a shell line on the Asterisk host and into an argument of EXEC.
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")


@dataclass(frozen=True, slots=True)
class LegOptions:
    media: Media = "auto"
    # What Asterisk is told to connect to: HOST or HOST:PORT; empty: the address at
    # which the dialer reached our AGI port.
    advertise: str = ""
    shared_dir: Path | None = None  # seen by Asterisk under the same path
    exchange_dir: Path | None = None  # used when Asterisk runs on this host
    asterisk_dir: str = "/tmp"  # noqa: S108 - on a remote Asterisk host
    # Long enough that only one call in many waits for what cannot work; short enough
    # that a repaired dialer is soon used fully.
    remember_failure_s: float = 300.0
    audiosocket: AudioSocketOptions = field(default_factory=AudioSocketOptions)
    eagi: EagiOptions = field(default_factory=EagiOptions)
    recorded_turns: RecordedTurnsOptions = field(default_factory=RecordedTurnsOptions)


class LegChooser:
    """Opens the best leg each dialer can have; one for the whole process."""

    def __init__(
        self,
        options: LegOptions,
        media_port: MediaPort,
        wheel: FrameWheel,
        ami: AmiWatch | None = None,
    ) -> None:
        """ami: hears what a leg cannot; None: nobody does."""
        self._ami = ami
        self._options = options
        self._media_port = media_port
        self._wheel = wheel
        self._advertised = parse_advertise(options.advertise)
        self._failures = DialerMemory(options.remember_failure_s)
        self._files = FileChooser(
            media_port,
            shared_dir=options.shared_dir,
            exchange_dir=options.exchange_dir,
            shell=FileShellOptions(folder=options.asterisk_dir),
            keep_s=options.remember_failure_s,
        )

    @asynccontextmanager
    async def open_leg(
        self,
        agi: AgiConnection,
        *,
        media: Media | None = None,
        call_id: UUID | None = None,
    ) -> AsyncIterator[AudioLeg]:
        """The caller's audio for the block; the channel is answered first.

        media: instead of the option, for this call. call_id: a fresh uuid4, which
        AudioSocket will carry. While the block lasts the AGI connection belongs to
        the leg; afterwards it takes commands again.

        Raises:
            AudioLegUnavailable: no way works; the message says what was tried.
            ChannelGone: the caller left meanwhile. AgiTimeout, AgiCommandRefused.
        """
        await _bring_up(agi)
        async with AsyncExitStack() as stack:
            wanted = media or self._options.media
            if wanted == "auto":
                leg = await self._first_available(agi, call_id, stack)
            else:
                opening = self._opening(wanted, agi, call_id)
                leg = await stack.enter_async_context(opening)
                logger.info("leg_chosen", extra=fields(leg=leg.name, reason="forced"))
            yield leg

    async def _first_available(
        self, agi: AgiConnection, call_id: UUID | None, stack: AsyncExitStack
    ) -> AudioLeg:
        dialer = agi.peer_host
        tried: list[str] = []
        for name in _ORDER:
            known = self._failures.recall(dialer, name)
            if known is not None:
                tried.append(known)
                continue
            opening = self._opening(name, agi, call_id)
            try:
                leg = await stack.enter_async_context(opening)
            except AudioLegUnavailable as exc:
                tried.append(str(exc))
                self._failures.remember(dialer, name, str(exc))
                ERRORS.labels(kind=f"leg_unavailable_{name}").inc()
                logger.warning(
                    "leg_unavailable",
                    extra=fields(leg=name, reason=str(exc), dialer=dialer),
                )
                continue
            reason = "; ".join(tried) or "first choice"
            logger.info("leg_chosen", extra=fields(leg=name, reason=reason))
            return leg
        raise AudioLegUnavailable("; ".join(tried))

    def _opening(
        self, name: LegName, agi: AgiConnection, call_id: UUID | None
    ) -> AbstractAsyncContextManager[AudioLeg]:
        match name:
            case "audiosocket":
                return self._open_audiosocket(agi, call_id)
            case "eagi":
                return self._open_eagi(agi)
            case "recorded_turns":
                return self._open_recorded_turns(agi)

    @asynccontextmanager
    async def _open_audiosocket(
        self, agi: AgiConnection, call_id: UUID | None
    ) -> AsyncIterator[AudioLeg]:
        # empty when func_module is not loaded: then trying tells
        loaded = await agi.execute(get_full_variable("${IFMODULE(app_audiosocket.so)}"))
        if loaded == "0":
            raise AudioLegUnavailable("AudioSocket: Asterisk has no app_audiosocket")
        async with open_audiosocket_leg(
            agi,
            self._media_port,
            self._wheel,
            address=str(self._address(agi)),
            options=self._options.audiosocket,
            call_id=call_id,
        ) as leg:
            with self._hints(agi, leg.name, leg.heard_elsewhere):
                yield leg

    @asynccontextmanager
    async def _open_eagi(self, agi: AgiConnection) -> AsyncIterator[AudioLeg]:
        address = self._address(agi)
        async with (
            self._files.open_files(agi, address) as files,
            open_eagi_leg(
                agi,
                self._media_port,
                self._wheel,
                files,
                host=address.host,
                port=address.port,
                options=self._options.eagi,
            ) as leg,
        ):
            yield leg

    @asynccontextmanager
    async def _open_recorded_turns(self, agi: AgiConnection) -> AsyncIterator[AudioLeg]:
        if self._ami is not None and self._ami.is_connected:
            await detect_talk(agi)
        async with (
            self._files.open_files(agi, self._address(agi)) as files,
            open_recorded_turns_leg(agi, files, self._options.recorded_turns) as leg,
        ):
            with self._hints(agi, leg.name, leg.heard_elsewhere):
                yield leg

    def _hints(
        self, agi: AgiConnection, name: LegName, heard: Callable[[LegEvent], None]
    ) -> AbstractContextManager[None]:
        if self._ami is None:
            return nullcontext()
        return hints_for(self._ami, agi, name, heard)

    def _address(self, agi: AgiConnection) -> MediaAddress:
        host, port = self._advertised
        return MediaAddress(host or agi.local_host, port or self._media_port.port)


def parse_advertise(text: str) -> tuple[str, int]:
    """HOST, HOST:PORT or [HOST]:PORT -> (host, port); "" and 0 where not given.

    Raises:
        ValueError: not an address that may be pasted into a command.
    """
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if host and not _HOST.fullmatch(host):
        raise ValueError(f"not a host name or address: {host!r}")
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"not a port: {port!r}")
    return host, int(port or 0)


async def _bring_up(agi: AgiConnection) -> None:
    """Answer, unless the channel is up: AudioSocket refuses an unanswered one."""
    if await agi.execute(channel_status()) is ChannelState.UP:
        return
    if not await agi.execute(answer()):
        await agi.execute(channel_status())  # ChannelGone: the caller gave up
        raise AudioLegUnavailable("the channel cannot be answered")
