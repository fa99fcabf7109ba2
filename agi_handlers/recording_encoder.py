"""Finished recordings made smaller: WAV to FLAC or Opus, after the call.

A thread of low priority takes one at a time.  The new file is complete before the WAV
goes, and what cannot be encoded stays a WAV: whenever the process ends, one of the two
is whole.  WAVs that a killed process left are found again.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, TypeAlias

import soundfile

from agi_handlers.records.recording_files import UNREADY, all_recordings
from telemetry import ERRORS, fields

logger = logging.getLogger(__name__)

RecordingFormat: TypeAlias = Literal["wav", "flac", "opus"]

_CONTAINERS: Final = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}
_BLOCK_FRAMES: Final = 8000
_NICE: Final = 15
_LEFT_AFTER_S: Final = 3600.0
"""A WAV not written to for so long is nobody's; another process may write here too."""
_LOOK_INTERVAL_S: Final = 3600.0


class RecordingEncoder:
    """Encodes the recordings of one data folder."""

    def __init__(self, data_dir: Path, wanted: Literal["flac", "opus"]) -> None:
        self._data_dir = data_dir
        self._wanted = wanted
        # Never full: one entry a call, and one that is missed is found by the look.
        self._paths: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._is_ending = threading.Event()

    def finished(self, path: Path) -> None:
        """This WAV will not grow any more."""
        self._paths.put(path)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The encoder's thread; on leaving it ends after the file in hand."""
        thread = threading.Thread(target=self._run, name="encoder")
        thread.start()
        try:
            yield
        finally:
            self._is_ending.set()
            self._paths.put(None)
            thread.join()

    def _run(self) -> None:
        # of this thread only: Linux counts it by thread
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._is_ending.is_set():
            for path in self._left():
                self._encode(path)
                if self._is_ending.is_set():
                    return
            deadline_s = time.monotonic() + _LOOK_INTERVAL_S
            while (left_s := deadline_s - time.monotonic()) > 0:
                try:
                    path_or_end = self._paths.get(timeout=left_s)
                except queue.Empty:
                    break
                if path_or_end is None or self._is_ending.is_set():
                    return  # what waits is found at the next start
                self._encode(path_or_end)

    def _left(self) -> list[Path]:
        before_at = time.time() - _LEFT_AFTER_S
        found = []
        for path in all_recordings(self._data_dir):
            try:
                if path.suffix == ".wav" and path.stat().st_mtime < before_at:
                    found.append(path)
            except OSError:  # it has just expired
                continue
        return found

    def _encode(self, path: Path) -> None:
        try:
            encode(path, self._wanted)
        except FileNotFoundError:
            return  # forgotten, expired, or never begun for want of room
        except (OSError, soundfile.SoundFileError) as exc:
            ERRORS.labels(kind="recordings").inc()
            logger.error(
                "recording_not_encoded", extra=fields(path=path.name, error=str(exc))
            )


def encode(path: Path, wanted: Literal["flac", "opus"]) -> Path:
    """Make a WAV into the other format; the new file, the old one is gone.

    Raises:
        FileNotFoundError: there is no such file.
        OSError, soundfile.SoundFileError: it stays as it was.
    """
    times = path.stat()
    container, subtype = _CONTAINERS[wanted]
    encoded = path.with_suffix(f".{wanted}")
    unready = encoded.with_name(encoded.name + UNREADY)
    try:
        with soundfile.SoundFile(path) as source:
            unready.touch(mode=0o600)
            with soundfile.SoundFile(
                unready, "w", source.samplerate, source.channels, subtype,
                format=container,
            ) as sink:  # fmt: skip
                for block in source.blocks(_BLOCK_FRAMES, dtype="int16"):
                    sink.write(block)
        # retention counts from the call, not from the encoding
        os.utime(unready, (times.st_atime, times.st_mtime))
        if not path.exists():
            raise FileNotFoundError(path)  # forgotten meanwhile
        unready.replace(encoded)
        path.unlink()
    finally:
        unready.unlink(missing_ok=True)
    return encoded
