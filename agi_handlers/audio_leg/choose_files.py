"""Where a call's sound files go: a folder both sides see, or the file shell.

A folder is believed only after Asterisk has played a file of ours from it and we have
read a recording of Asterisk's; that costs 50 ms, once for each dialer in some minutes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agi_handlers.agi.commands import (
    PlaybackEnd,
    RecordingEnd,
    channel_status,
    record_file,
)
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.audio_leg.dialer_memory import DialerMemory
from agi_handlers.audio_leg.file_exchange import (
    FileExchange,
    FileExchangeFailed,
    SharedFolder,
    make_folder,
    sweep,
)
from agi_handlers.audio_leg.file_shell import (
    FileShell,
    FileShellOptions,
    open_file_shell,
)
from agi_handlers.audio_leg.media_port import MediaPort
from agi_handlers.errors import AudioLegUnavailable
from model.audio.frames import FRAME_MS, FRAME_SAMPLES
from model.audio.g711 import ULAW_SILENCE
from telemetry import fields

logger = logging.getLogger(__name__)

_WORKS = "works"
_SHELL = "file shell"
_TEST_MS = 2 * FRAME_MS


@dataclass(frozen=True, slots=True)
class MediaAddress:
    """The media port as Asterisk reaches it."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class FileChooser:
    """Opens the file exchange each dialer can have; one for the whole process."""

    def __init__(
        self,
        media_port: MediaPort,
        *,
        shared_dir: Path | None,
        exchange_dir: Path | None,
        shell: FileShellOptions,
        keep_s: float,
    ) -> None:
        self._media_port = media_port
        # absolute: Asterisk would look for a relative name among its own sounds
        self._shared_dir = shared_dir and shared_dir.absolute()
        self._exchange_dir = exchange_dir and exchange_dir.absolute()
        self._shell = shell
        self._memory = DialerMemory(keep_s)
        self._has_swept = False

    @asynccontextmanager
    async def open_files(
        self, agi: AgiConnection, address: MediaAddress
    ) -> AsyncIterator[FileExchange]:
        """Sound files for one call, removed at its end.

        Raises:
            AudioLegUnavailable: neither a folder nor the shell works.
            ChannelGone: the caller left meanwhile.
        """
        folder = await self._usable_folder(agi)
        if folder is not None:
            files = SharedFolder(folder)
            try:
                yield files
            finally:
                await files.close()
            return
        async with AsyncExitStack() as stack:
            yield await self._open_shell(agi, address, stack)

    async def _open_shell(
        self, agi: AgiConnection, address: MediaAddress, stack: AsyncExitStack
    ) -> FileShell:
        known = self._memory.recall(agi.peer_host, _SHELL)
        if known is not None:
            raise AudioLegUnavailable(known)
        opening = open_file_shell(
            agi,
            self._media_port,
            host=address.host,
            port=address.port,
            options=self._shell,
        )
        try:
            return await stack.enter_async_context(opening)
        except AudioLegUnavailable as exc:
            # two legs ask for it: the second need not wait as long as the first
            self._memory.remember(agi.peer_host, _SHELL, str(exc))
            raise

    async def _usable_folder(self, agi: AgiConnection) -> Path | None:
        dialer = agi.peer_host
        folder = self._shared_dir
        if folder is None and _is_this_host(dialer, agi.local_host):
            folder = self._exchange_dir
        if folder is None:
            return None
        known = self._memory.recall(dialer, str(folder))
        if known is None:
            known = await self._try_folder(agi, folder)
            self._memory.remember(dialer, str(folder), known)
            if known != _WORKS:
                # for exchange_dir quite normal: Asterisk runs as another user
                is_fault = folder is self._shared_dir
                logger.log(
                    logging.ERROR if is_fault else logging.INFO,
                    "folder_not_shared",
                    extra=fields(folder=str(folder), dialer=dialer, reason=known),
                )
        return folder if known == _WORKS else None

    async def _try_folder(self, agi: AgiConnection, folder: Path) -> str:
        """`_WORKS`, or why Asterisk and we cannot exchange files there."""
        try:
            if folder is self._exchange_dir:
                await asyncio.to_thread(make_folder, folder)
            if not self._has_swept:
                self._has_swept = True
                num_removed = await asyncio.to_thread(sweep, folder)
                logger.info("folder_swept", extra=fields(num_removed=num_removed))
            files = SharedFolder(folder)
            try:
                return await _exchange_test_files(agi, files)
            finally:
                await files.close()
        except FileExchangeFailed as exc:
            return str(exc)


async def _exchange_test_files(agi: AgiConnection, files: FileExchange) -> str:
    ours, theirs = files.new_name(), files.new_name()
    await files.put(ours, bytes((ULAW_SILENCE,)) * FRAME_SAMPLES)
    played = await agi.play_interruptible(files.path_for_asterisk(ours))
    if played.how is PlaybackEnd.FAILED:
        await agi.execute(channel_status())  # ChannelGone: a hang-up, not the folder
        return "Asterisk cannot read there"
    recording = record_file(
        files.path_for_asterisk(theirs), "ulaw", timeout_ms=_TEST_MS, escape_keys=""
    )
    recorded = await agi.execute(recording)
    if recorded.how in (RecordingEnd.WRITE_FAILED, RecordingEnd.FAILED):
        return "Asterisk cannot write there"
    await files.get(theirs)
    return _WORKS


def _is_this_host(dialer: str, local_host: str) -> bool:
    if dialer == local_host:
        return True
    try:
        return ipaddress.ip_address(dialer).is_loopback
    except ValueError:
        return False
