"""One process at a time: a lock that its holder's death opens."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FileLock:
    """Of one file, which is made and left there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Whether it is ours now; doesn't wait.

        Where the file cannot even be made, nobody shares it: then it is ours.
        """
        if self._descriptor is not None:
            return True
        try:
            descriptor = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode=0o600
            )
        except OSError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
