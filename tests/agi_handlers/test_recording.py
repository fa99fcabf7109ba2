"""Recordings of calls: whole files, whatever happens to disk or process."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile

from agi_handlers.audio_leg.tapped_leg import TappedLeg
from agi_handlers.campaigns import Campaign
from agi_handlers.conversation.call import Call
from agi_handlers.conversation.call_parts import CallParts
from agi_handlers.conversation.turn_taking import TurnTaking
from agi_handlers.recording import RecordingOptions, RecordingStore
from agi_handlers.records.recording_files import recording_files
from model.audio.prompts import Prompt
from tests.fakes.call_parts import (
    Answer,
    HangsUp,
    ScriptedLeg,
    ScriptedSession,
    Speaks,
)
from tests.fakes.clock import run_in_virtual_time
from tests.fakes.ear import loudness_ear

SECOND = bytes(8000 * 2)
HALF = bytes(8000)
LOUD = b"\x00\x20" * 8000


@contextmanager
def store(data_dir: Path, **options: Any) -> Iterator[RecordingStore]:
    keeper = RecordingStore(
        RecordingOptions(data_dir, **{"min_free_bytes": 0, **options})
    )
    with keeper.running():
        yield keeper


def _wave(path: Path) -> tuple[int, int, int]:
    with wave.open(str(path)) as file:
        return file.getnchannels(), file.getframerate(), file.getnframes()


def _messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


def test_a_conversation_is_recorded_with_both_sides(data_dir: Path) -> None:
    with store(data_dir) as keeper:
        recording = keeper.begin("c-1", is_full_duplex=True)
        assert recording is not None
        leg = ScriptedLeg([Speaks(2.0, 3.0), Speaks(5.0, 6.0), HangsUp(9.0)])
        parts = CallParts(
            leg=TappedLeg(leg, [recording]),
            ear=loudness_ear(),
            session=ScriptedSession([Answer(speech_s=10.0)]),
            phrases=Campaign().phrases.as_mapping(),
            prompts={
                name: Prompt(name, name, bytes(1600))
                for name in ("one_moment", "technical_trouble")
            },
            target_of=lambda _: None,
        )
        run_in_virtual_time(Call(parts, TurnTaking()).run())
        recording.close()
    assert _wave(data_dir / recording.name) == (2, 8000, 9 * 8000)
    with wave.open(str(data_dir / recording.name)) as file:
        frames = file.readframes(9 * 8000)
    samples = [frames[at : at + 4] for at in range(0, len(frames), 4)]
    speaks = [at / 8000 for at, both in enumerate(samples) if both[:2] != b"\0\0"]
    talks = [at / 8000 for at, both in enumerate(samples) if both[2:] != b"\0\0"]
    assert (speaks[0], round(speaks[-1], 2)) == (2.0, 6.0)
    # every stretch the scripted caller heard is on the right, to a frame
    heard_s = sum(end - start for start, end in leg.played)
    assert len(talks) / 8000 == pytest.approx(heard_s, abs=0.05)
    assert talks[0] == pytest.approx(leg.played[0][0], abs=0.05)
    assert talks[-1] == pytest.approx(leg.played[-1][1], abs=0.05)


def test_file_is_whole_after_every_write(data_dir: Path) -> None:
    with store(data_dir) as keeper:
        recording = keeper.begin("c-1", is_full_duplex=True)
        assert recording is not None
        recording.caller(SECOND + HALF, 0)
        path = data_dir / recording.name
        deadline = time.monotonic() + 20
        while not path.exists() or path.stat().st_size < 32_044:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # as if the process had been killed now
        assert _wave(path) == (2, 8000, 8000)
        recording.close()
    assert path.stat().st_mode & 0o077 == 0


def test_nothing_is_begun_on_a_disk_with_too_little_room(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with store(data_dir, min_free_bytes=1 << 60) as keeper:
        assert keeper.begin("c-1", is_full_duplex=True) is None
        assert keeper.begin("c-2", is_full_duplex=True) is None
    assert _messages(caplog) == ["not_recording"]
    assert not list(data_dir.rglob("*.wav"))


def test_disk_error_ends_the_recording_and_is_said_once(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with store(data_dir) as keeper:
        recordings = [keeper.begin(f"c-{n}", is_full_duplex=True) for n in range(3)]
        # a file where the day's folder should be: every write fails
        assert recordings[0] is not None
        recordings[0].path.parent.write_bytes(b"")
        for _ in range(3):
            for recording in recordings:
                assert recording is not None
                recording.caller(SECOND, 0)
        for recording in recordings:
            assert recording is not None
            recording.close()
    assert _messages(caplog).count("not_recording") == 1


def test_recording_that_could_not_begin_leaves_no_empty_file(data_dir: Path) -> None:
    with store(data_dir) as keeper:
        recording = keeper.begin("c-1", is_full_duplex=True)
        assert recording is not None
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            recording.caller(SECOND, 0)
            recording.close()
            deadline = time.monotonic() + 20
            while not recording.is_lost:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(data_dir.rglob("*.wav"))


def test_slow_disk_ends_recordings_and_holds_up_nothing(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # never running: as slow as a disk can be
    keeper = RecordingStore(
        RecordingOptions(data_dir, min_free_bytes=0, max_queued_s=2)
    )
    recording = keeper.begin("c-1", is_full_duplex=True)
    assert recording is not None
    for _ in range(5):
        recording.caller(SECOND, 0)
    assert recording.is_lost
    assert _messages(caplog) == ["not_recording"]


def test_old_recordings_expire_and_empty_days_with_them(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    old, new = (
        data_dir / f"recordings/{d}/x.wav" for d in ("2020-01-01", "2020-01-02")
    )
    for path in (old, new):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    os.utime(old, (0, time.time() - 3 * 86_400))
    with store(data_dir, days=2):
        pass
    assert new.exists()
    assert not old.parent.exists()


def _loud_seconds(path: Path) -> list[float]:
    """Where the caller's side is not silent, by the second."""
    samples, rate_hz = soundfile.read(path, dtype="int16")
    seconds = np.abs(samples[:, 0]).reshape(-1, rate_hz).max(axis=1)
    return [float(n) for n in np.flatnonzero(seconds > 1000)]


def test_pause_leaves_silence_of_the_same_length_from_a_moment_before(
    data_dir: Path,
) -> None:
    with store(data_dir) as keeper:
        recording = keeper.begin("c-1", is_full_duplex=True)
        assert recording is not None
        recording.caller(LOUD + SECOND, 0)
        recording.caller(LOUD[:8000], 0)  # the tone that was reported as a key
        recording.pause()
        recording.queue(LOUD)
        recording.caller(LOUD + HALF, 1000)
        recording.stopped(1000)
        recording.pause(is_paused=False)
        recording.caller(LOUD, 0)
        recording.close()
    assert _wave(data_dir / recording.name) == (2, 8000, 5 * 8000)
    assert _loud_seconds(data_dir / recording.name) == [0.0, 4.0]


@pytest.mark.parametrize("form", ["flac", "opus"])
def test_finished_recording_becomes_smaller_and_stays_itself(
    data_dir: Path, form: Literal["flac", "opus"]
) -> None:
    with store(data_dir, form=form) as keeper:
        recording = keeper.begin("c-1", is_full_duplex=True)
        assert recording is not None
        recording.caller(LOUD + SECOND + LOUD, 0)
        recording.close()
        deadline = time.monotonic() + 20
        smaller = recording.path.with_suffix(f".{form}")
        while recording.path.exists() or not smaller.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    (path,) = recording_files(data_dir, recording.name)
    assert path == smaller
    assert path.stat().st_mode & 0o077 == 0
    assert soundfile.info(path).frames == 3 * 8000
    if form == "flac":
        assert _loud_seconds(path) == [0.0, 2.0]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_recording_a_killed_process_left_is_encoded_at_the_next_start(
    data_dir: Path,
) -> None:
    with store(data_dir) as keeper:
        recording = keeper.begin("c-1", is_full_duplex=True)
        assert recording is not None
        recording.caller(LOUD, 0)
        recording.close()
    hours_ago = time.time() - 7200
    os.utime(recording.path, (hours_ago, hours_ago))
    with store(data_dir, form="flac"):
        deadline = time.monotonic() + 20
        while recording.path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    (path,) = recording_files(data_dir, recording.name)
    assert path.stat().st_mtime == pytest.approx(hours_ago, abs=1)


def test_unreadable_recording_stays_as_it_is_and_is_told(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = data_dir / "recordings/2020-01-01/x.wav"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"RIFF, but no more")
    os.utime(path, (0, time.time() - 7200))
    with store(data_dir, form="flac", days=0):
        deadline = time.monotonic() + 20
        while "recording_not_encoded" not in _messages(caplog):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert [file.name for file in path.parent.iterdir()] == ["x.wav"]


def test_the_oldest_go_when_recordings_take_too_much_of_the_disk(
    data_dir: Path,
) -> None:
    folder = data_dir / "recordings/2020-01-01"
    folder.mkdir(parents=True)
    now_at = time.time()
    for age, suffix in enumerate((".wav", ".flac", ".opus")):
        path = folder / f"c{suffix}"
        path.write_bytes(bytes(1 << 20))
        os.utime(path, (0, now_at - age))
    one_percent = (1 << 20) * 100 / shutil.disk_usage(folder).total
    with store(data_dir, max_disk_percent=2.5 * one_percent):
        pass
    assert sorted(file.name for file in folder.iterdir()) == ["c.flac", "c.wav"]
