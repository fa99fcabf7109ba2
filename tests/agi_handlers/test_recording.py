"""Recordings of calls: whole files, whatever happens to disk or process."""

from __future__ import annotations

import logging
import os
import resource
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agi_handlers.campaigns import Campaign
from agi_handlers.conversation.call import Call, CallParts
from agi_handlers.conversation.turn_taking import TurnTaking
from agi_handlers.recording import RecordedLeg, RecordingOptions, RecordingStore
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
            leg=RecordedLeg(leg, recording),
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
        recording.timeline.caller(SECOND, 0)
        recording.flush()
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
                recording.timeline.caller(SECOND, 0)
                recording.flush()
        for recording in recordings:
            assert recording is not None
            recording.close()
    assert _messages(caplog).count("not_recording") == 1


def test_recording_that_could_not_begin_leaves_no_empty_file(data_dir: Path) -> None:
    with store(data_dir) as keeper:
        recording = keeper.begin("c-1", is_full_duplex=True)
        assert recording is not None
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        recording.timeline.caller(SECOND, 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            recording.flush()
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
        recording.timeline.caller(SECOND, 0)
        recording.flush()
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
