"""Sound files where both Asterisk and we can reach them: two ways, one interface.

A folder both see (`SharedFolder`), or a small shell on the Asterisk host that we
start over AGI and that moves the bytes (`file_shell.py`).  Names are unguessable and
all begin with a word of their own, so that leftovers of a crash can be swept.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from agi_handlers.errors import TelephonyError
from telemetry import fields

logger = logging.getLogger(__name__)

FILE_PREFIX = "ultravox-"
SUFFIX = ".ulaw"  # format_pcm is in every Asterisk; half the size of sln
SWEEP_AFTER_S = 7200.0  # older than any call that could still use them


class FileExchangeFailed(TelephonyError):
    """A sound file could not be written, read or transferred."""


class FileExchange(Protocol):
    """Sound files of one call. Names come from `new_name`, without suffix."""

    def new_name(self) -> str: ...

    def path_for_asterisk(self, name: str) -> str:
        """What STREAM FILE and RECORD FILE are told: without the suffix."""
        ...

    async def put(self, name: str, ulaw: bytes) -> None:
        """Make the file. Raises: FileExchangeFailed."""
        ...

    async def get(self, name: str) -> bytes:
        """Read the file. Raises: FileExchangeFailed."""
        ...

    async def remove(self, name: str) -> None:
        """Remove the file if it is there; never raises."""
        ...


class SharedFolder:
    """A folder that Asterisk sees under the same path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = f"{FILE_PREFIX}{uuid4().hex}-"
        self._num_files = 0

    def new_name(self) -> str:
        self._num_files += 1
        return f"{self._prefix}{self._num_files}"

    def path_for_asterisk(self, name: str) -> str:
        return str(self._folder / name)

    async def put(self, name: str, ulaw: bytes) -> None:
        # a thread, since a shared folder may be on the network
        await asyncio.to_thread(self._put, name, ulaw)

    async def get(self, name: str) -> bytes:
        try:
            return await asyncio.to_thread((self._folder / (name + SUFFIX)).read_bytes)
        except OSError as exc:
            raise FileExchangeFailed(
                f"recording cannot be read: {_reason(exc)}"
            ) from exc

    async def remove(self, name: str) -> None:
        await asyncio.to_thread(_unlink, self._folder / (name + SUFFIX))

    async def close(self) -> None:
        """Remove what is left of this call."""
        await asyncio.to_thread(self._remove_all)

    def _put(self, name: str, ulaw: bytes) -> None:
        path = self._folder / (name + SUFFIX)
        try:
            path.write_bytes(ulaw)
        except OSError as exc:
            _unlink(path)
            raise FileExchangeFailed(
                f"sound file cannot be written: {_reason(exc)}"
            ) from exc

    def _remove_all(self) -> None:
        for path in self._folder.glob(f"{self._prefix}*"):
            _unlink(path)


def make_folder(folder: Path) -> None:
    """Create the exchange folder, readable by its owner only.

    Raises:
        FileExchangeFailed: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise FileExchangeFailed(
            f"exchange folder cannot be made: {_reason(exc)}"
        ) from exc


def sweep(folder: Path, *, older_than_s: float = SWEEP_AFTER_S) -> int:
    """Remove files of calls that died with their process; returns how many."""
    limit_s = time.time() - older_than_s
    num_removed = 0
    try:
        for path in folder.glob(f"{FILE_PREFIX}*{SUFFIX}"):
            if path.stat().st_mtime < limit_s:
                _unlink(path)
                num_removed += 1
    except OSError as exc:  # gone meanwhile, or not readable: not this call's trouble
        logger.warning("sweep_failed", extra=fields(reason=_reason(exc)))
    return num_removed


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        logger.warning("file_not_removed", extra=fields(reason=_reason(exc)))


def _reason(exc: OSError) -> str:
    return f"{exc.strerror or exc} ({exc.filename})" if exc.filename else str(exc)
