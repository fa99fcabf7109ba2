"""Speech of fixed phrases on disk: a service that starts again has it at once.

One file a phrase, named by a digest of everything that makes a difference to the ear;
what was not used for longest goes first.  A file that is broken is a phrase that is not
there.  Nothing here needs to be kept: the folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from telemetry import fields

if TYPE_CHECKING:
    from model.tts.cache import PhraseKey

logger = logging.getLogger(__name__)

_SUFFIX: Final = ".pcm16"
_DIGEST_BYTES: Final = 16
_MAX_AGE_S: Final = 30 * 86_400.0
"""Unused for so long: the campaign says something else by now."""


class PhraseFiles:
    """A folder of phrases; every call may take as long as the disk does."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """The folder is made when first needed."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()

    def load(self, key: PhraseKey) -> bytes | None:
        """The phrase, if it is there and whole."""
        path = self._path(key)
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        digest, pcm16 = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        if digest != _digest(pcm16):
            logger.warning("phrase_file_broken", extra=fields(file=path.name))
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used now: it goes last
        return pcm16

    def save(self, key: PhraseKey, pcm16: bytes) -> None:
        """Keep a phrase, as far as there is room; a full disk is only logged."""
        if len(pcm16) + _DIGEST_BYTES > self._max_bytes:
            return
        path = self._path(key)
        new = path.with_name(f"{path.stem}.{os.getpid()}.new")
        with self._lock:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                new.write_bytes(_digest(pcm16) + pcm16)
                new.replace(path)
                self._make_room()
            except OSError as exc:
                logger.warning("phrase_not_kept", extra=fields(error=str(exc)))
                with contextlib.suppress(OSError):
                    new.unlink(missing_ok=True)

    def num_bytes(self) -> int:
        """On disk now."""
        return sum(size for _, size, _ in self._files())

    def _make_room(self) -> None:
        oldest_s = time.time() - _MAX_AGE_S
        files = sorted(self._files())
        left = sum(size for _, size, _ in files)
        for used_s, size, path in files:
            if left <= self._max_bytes and used_s >= oldest_s:
                return
            path.unlink(missing_ok=True)
            left -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """When used last, how large, and where."""
        for path in self._folder.glob(f"*{_SUFFIX}"):
            try:
                status = path.stat()
            except OSError:  # another process's turn to delete it
                continue
            yield status.st_mtime, status.st_size, path

    def _path(self, key: PhraseKey) -> Path:
        name = hashlib.sha256(repr(key).encode()).hexdigest()[:40]
        return self._folder / f"{name}{_SUFFIX}"


def _digest(pcm16: bytes) -> bytes:
    return hashlib.blake2b(pcm16, digest_size=_DIGEST_BYTES).digest()
