"""Recordings of calls: stereo files below the data folder, caller left, bot right.

    TappedLeg ─▶ StereoTimeline ─▶ bounded queue ─▶ writer thread ─▶ DAY/CALL.wav

A WAV is valid at any moment, its header follows every write; once the call is over it
may become FLAC or Opus.  Files expire after some days, or by their share of the disk;
with too little room on the disk none are begun and running ones end.  Trouble
with the disk is logged once, and the calls go on.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import queue
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from agi_handlers.recording_encoder import RecordingEncoder, RecordingFormat
from agi_handlers.records.recording_files import FOLDER, all_recordings
from agi_handlers.records.stereo_timeline import StereoTimeline
from model.audio.frames import RATE_HZ
from telemetry import ERRORS, fields

logger = logging.getLogger(__name__)

_BYTES_PER_S: Final = RATE_HZ * 4  # two channels of pcm16
_HEADER_BYTES: Final = 44
_HELD_BYTES: Final = _BYTES_PER_S // 2  # may still be silenced by a pause
_MAX_BYTES: Final = 0xFFFF_FFFF - _HEADER_BYTES  # what a WAV header can say: 37 hours
_LOOK_INTERVAL_S: Final = 5.0  # between looks at the free space while writing


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """Where recordings go and how long they stay."""

    data_dir: Path
    days: float = 30.0
    """0 keeps them for good."""
    max_disk_percent: float = 0.0
    """Of the disk; where recordings take more the oldest go first.  0: no limit."""
    form: RecordingFormat = "wav"
    """What a WAV is made into when its call is over."""
    min_free_bytes: int = 2048 << 20
    """Two gigabytes: records, logs and the system go before recordings."""
    max_queued_s: int = 1000
    """Seconds of audio waiting for the disk, 32 kB each; when it is full, the
    recording that has no room ends, and a log line says so."""
    expiry_interval_s: float = 3600.0


class Recording:
    """One call's recording, while it is being made; a tap on the call's leg."""

    def __init__(
        self, store: RecordingStore, path: Path, *, is_full_duplex: bool
    ) -> None:
        self.path = path
        self._timeline = StereoTimeline(is_full_duplex=is_full_duplex)
        self.is_lost = False
        self._store = store

    @property
    def name(self) -> str:
        """Its path below the data folder, as the call's record has it."""
        return f"{FOLDER}/{self.path.parent.name}/{self.path.name}"

    @property
    def is_paused(self) -> bool:
        """Silence is recorded: a card number is being given."""
        return self._timeline.is_muted

    def pause(self, is_paused: bool = True) -> None:
        """Record silence instead, from a moment before now, or sound again."""
        if is_paused and not self.is_paused:
            # a key is reported when its tone has begun
            self._timeline.mute_ready()
        self._timeline.is_muted = is_paused

    def close(self) -> None:
        """The call is over."""
        self._timeline.ended()
        self._flush(is_last=True)

    # --- the tap ---

    def queue(self, pcm16: bytes) -> None:
        self._timeline.queue(pcm16)

    def end_of_speech(self) -> None:
        self._timeline.end_of_speech()

    def stopped(self, heard_ms: int) -> None:
        self._timeline.stopped(heard_ms)

    def finished(self) -> None:
        self._timeline.finished()

    def caller(self, pcm16: bytes, heard_ms: int) -> None:
        self._timeline.caller(pcm16, heard_ms)
        self._flush()

    def _flush(self, *, is_last: bool = False) -> None:
        """Hand what is ready to the writer, a second at a time; half of one waits."""
        timeline = self._timeline
        if self.is_lost:
            timeline.take()
        elif is_last:
            self._store.put(self, timeline.take(), is_last=True)
        elif timeline.num_ready_bytes >= _BYTES_PER_S + _HELD_BYTES:
            self._store.put(self, timeline.take(_HELD_BYTES), is_last=False)


@dataclass(slots=True)
class _OpenFile:
    file: BinaryIO
    num_bytes: int = 0


class RecordingStore:
    """Writes recordings, and deletes them when their time has come."""

    def __init__(
        self, options: RecordingOptions, on_problem: Callable[[str], None] | None = None
    ) -> None:
        """`on_problem` hears of each new trouble, from either thread."""
        self._options = options
        self._on_problem = on_problem or (lambda _: None)
        self._parts: queue.Queue[tuple[Recording, bytes, bool] | None] = queue.Queue(
            options.max_queued_s
        )
        self._files: dict[Path, _OpenFile] = {}
        self._encoder = (
            None
            if options.form == "wav"
            else RecordingEncoder(options.data_dir, options.form)
        )
        self._problem = ""
        self._looked_at_s = 0.0
        self._expire_at_s = 0.0

    @property
    def folder(self) -> Path:
        return self._options.data_dir / FOLDER

    def begin(self, call_id: str, *, is_full_duplex: bool) -> Recording | None:
        """Record a call; None: there is no room for it."""
        if not self._has_room():
            return None
        day = time.strftime("%Y-%m-%d", time.gmtime())
        path = self.folder / day / f"{call_id}.wav"
        return Recording(self, path, is_full_duplex=is_full_duplex)

    def put(self, recording: Recording, pcm16: bytes, *, is_last: bool) -> None:
        """Queue the next part of a recording; never waits."""
        try:
            self._parts.put_nowait((recording, pcm16, is_last))
        except queue.Full:
            recording.is_lost = True
            self._note_problem("the disk does not keep up, recordings end early")

    @contextmanager
    def running(self) -> Iterator[None]:
        """The writer's thread; on leaving, what is queued is written."""
        thread = threading.Thread(target=self._run, name="recordings")
        with self._encoder.running() if self._encoder else contextlib.nullcontext():
            thread.start()
            try:
                yield
            finally:
                self._parts.put(None)
                thread.join()

    # --- the writer's thread ---

    def _run(self) -> None:
        try:
            while True:
                self._expire()
                try:
                    part = self._parts.get(timeout=self._options.expiry_interval_s)
                except queue.Empty:
                    continue
                if part is None:
                    return
                self._write(*part)
        finally:
            for path in list(self._files):
                self._close(path)

    def _write(self, recording: Recording, pcm16: bytes, is_last: bool) -> None:
        path = recording.path
        if not recording.is_lost and pcm16:
            try:
                self._append(path, pcm16)
            except OSError as exc:
                recording.is_lost = True
                self._note_problem(f"{path}: {exc.strerror or exc}")
            else:
                self._look(recording)
        if is_last or recording.is_lost:
            self._close(path)
            if self._encoder is not None:
                self._encoder.finished(path)

    def _append(self, path: Path, pcm16: bytes) -> None:
        entry = self._files.get(path)
        if entry is None:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # unbuffered: an error belongs to the write that had it
            file = path.open("xb", buffering=0)
            entry = self._files[path] = _OpenFile(file)
            path.chmod(0o600)
            _write_all(file, _header(0))
        room = max(0, _MAX_BYTES - entry.num_bytes)
        entry.file.seek(_HEADER_BYTES + entry.num_bytes)
        _write_all(entry.file, pcm16[:room])
        entry.num_bytes += len(pcm16[:room])
        entry.file.seek(0)
        _write_all(entry.file, _header(entry.num_bytes))

    def _look(self, recording: Recording) -> None:
        now_s = time.monotonic()
        if now_s < self._looked_at_s + _LOOK_INTERVAL_S:
            return
        self._looked_at_s = now_s
        if not self._has_room():
            recording.is_lost = True
            self._looked_at_s = 0.0  # the next one's write looks again

    def _close(self, path: Path) -> None:
        entry = self._files.pop(path, None)
        if entry is not None:
            with contextlib.suppress(OSError):  # every write was checked by itself
                entry.file.close()
                if not entry.num_bytes:  # not even its beginning could be written
                    path.unlink()

    def _has_room(self) -> bool:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            free = shutil.disk_usage(self.folder).free
        except OSError as exc:
            self._note_problem(f"{self.folder}: {exc.strerror or exc}")
            return False
        if free < self._options.min_free_bytes:
            least_mb = self._options.min_free_bytes >> 20
            self._note_problem(f"{self.folder}: less than {least_mb} MB are free")
            return False
        if self._problem:
            self._problem = ""
            logger.info("recording_again")
        return True

    def _expire(self) -> None:
        now_s = time.monotonic()
        if now_s < self._expire_at_s:
            return
        self._expire_at_s = now_s + self._options.expiry_interval_s
        num = 0
        try:
            for path in self._too_many():
                path.unlink(missing_ok=True)
                num += 1
            for day in self.folder.glob("*/"):
                with contextlib.suppress(OSError):  # not empty
                    day.rmdir()
        except OSError as exc:
            self._note_problem(f"{self.folder}: {exc.strerror or exc}")
        if num:
            logger.info("recordings_expired", extra=fields(files=num))

    def _too_many(self) -> Iterator[Path]:
        """Those too old, and the oldest of those that take too much of the disk."""
        options = self._options
        known = []
        for path in all_recordings(options.data_dir):
            with contextlib.suppress(FileNotFoundError):  # it was just encoded
                known.append((path.stat().st_mtime, path.stat().st_size, path))
        known.sort()
        before_at = time.time() - options.days * 86_400 if options.days else -math.inf
        excess = 0.0
        if options.max_disk_percent and known:
            total = shutil.disk_usage(self.folder).total
            excess = sum(size for _, size, _ in known)
            excess -= total * options.max_disk_percent / 100
        for modified_at, size, path in known:
            if modified_at >= before_at and excess <= 0:
                return
            if path not in self._files:
                excess -= size
                yield path

    def _note_problem(self, problem: str) -> None:
        """Log a trouble when it begins, not at every call."""
        if problem == self._problem:
            return
        is_first, self._problem = not self._problem, problem
        if is_first:
            ERRORS.labels(kind="recordings").inc()
            logger.error("not_recording", extra=fields(error=problem))
            self._on_problem(f"calls are not recorded: {problem}")


def _write_all(file: BinaryIO, content: bytes) -> None:
    """Raw files may take a part; raises OSError."""
    left = memoryview(content)
    while left:
        num = cast("io.RawIOBase", file).write(left)
        left = left[num or 0 :]


def _header(num_bytes: int) -> bytes:
    """Of a stereo pcm16 WAV with that many bytes of samples."""
    return b"".join(
        (
            b"RIFF" + struct.pack("<I", _HEADER_BYTES - 8 + num_bytes) + b"WAVE",
            b"fmt " + struct.pack("<IHHIIHH", 16, 1, 2, RATE_HZ, _BYTES_PER_S, 4, 16),
            b"data" + struct.pack("<I", num_bytes),
        )
    )
