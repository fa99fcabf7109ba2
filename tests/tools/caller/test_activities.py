"""What a channel does for a command, and the response it ends in."""

from __future__ import annotations

import numpy as np
import pytest

from model.audio.frames import SILENCE_FRAME
from tools.caller.activities import (
    Activity,
    PlayFile,
    PlayToEnd,
    RecordFile,
    WaitForDigit,
    WaitSeconds,
)
from tools.caller.ear import Ear
from tools.caller.mouth import Slot

TONE = (np.tile([5000, -5000], 80)).astype("<i2").tobytes()
SILENT = Slot(SILENCE_FRAME)
VOICE = Slot(TONE)


def run(
    activity: Activity, slots: list[Slot], ear: Ear | None = None
) -> tuple[str | None, int]:
    """The response and after how many slots it came."""
    ear = ear or Ear()
    for number, slot in enumerate(slots):
        response = activity.on_slot(number * 0.02, slot, ear)
        if response is not None:
            return response, number
    return None, len(slots)


class TestPlayFile:
    def test_to_its_end_the_caller_hears_all_of_it(self) -> None:
        ear = Ear()
        response, num_slots = run(PlayFile(TONE * 5, "1"), [SILENT] * 9, ear)
        assert (response, num_slots) == ("200 result=0 endpos=800", 5)
        ear.finish()
        assert ear.sounds[0].end_s == pytest.approx(0.1)

    def test_an_escape_key_ends_it(self) -> None:
        response, _ = run(PlayFile(TONE * 9, "5"), [SILENT] * 3 + [Slot(None, "5")])
        assert response == "200 result=53 endpos=480"

    def test_another_key_does_not(self) -> None:
        response, _ = run(PlayFile(TONE * 9, "5"), [SILENT] * 3 + [Slot(None, "6")])
        assert response is None

    def test_an_offset_is_skipped(self) -> None:
        response, num_slots = run(PlayFile(TONE * 5, "", 640), [SILENT] * 9)
        assert (response, num_slots) == ("200 result=0 endpos=800", 1)

    def test_an_interrupt_is_not_answered_a_hangup_is(self) -> None:
        playing = PlayFile(TONE * 9, "")
        run(playing, [SILENT] * 2)
        assert playing.is_interruptible
        assert playing.on_interrupt() is None
        assert playing.on_hangup() == "200 result=-1 endpos=320"

    def test_exec_playback_is_not_interruptible(self) -> None:
        playing = PlayToEnd(TONE)
        assert not playing.is_interruptible
        assert run(playing, [SILENT] * 3)[0] == "200 result=0"


class TestWaiting:
    def test_for_a_digit(self) -> None:
        assert run(WaitForDigit(1000), [SILENT, Slot(None, "7")])[0] == "200 result=55"

    def test_for_a_digit_that_does_not_come(self) -> None:
        response, num_slots = run(WaitForDigit(100), [SILENT] * 20)
        assert (response, num_slots) == ("200 result=0", 5)

    def test_for_ever(self) -> None:
        assert run(WaitForDigit(-1), [SILENT] * 1000)[0] is None

    def test_a_new_command_ends_the_wait_with_a_response(self) -> None:
        assert WaitForDigit(100).on_interrupt() == "200 result=1"

    def test_for_seconds(self) -> None:
        assert run(WaitSeconds(0.1), [SILENT] * 20) == ("200 result=0", 5)
        assert WaitSeconds(1).on_hangup() == "200 result=-1"


class TestRecordFile:
    @staticmethod
    def recording(
        keys: str = "#", timeout_ms: int = 1000, silence_s: int = 0
    ) -> tuple[RecordFile, list[bytes]]:
        saved: list[bytes] = []

        def save(pcm16: bytes) -> int:
            saved.append(pcm16)
            return len(pcm16) // 2

        return RecordFile(save, keys, timeout_ms, silence_s), saved

    def test_time_is_over(self) -> None:
        record, saved = self.recording(timeout_ms=100)
        assert run(record, [VOICE] * 9)[0] == "200 result=0 (timeout) endpos=800"
        assert saved == [TONE * 5]

    def test_silence_ends_it_with_the_time_that_was_left(self) -> None:
        record, _ = self.recording(timeout_ms=6000, silence_s=1)
        response, _ = run(record, [VOICE] * 50 + [SILENT] * 60)
        assert response == "200 result=3980 (timeout) endpos=16160"

    def test_of_a_longer_silence_one_second_is_kept(self) -> None:
        record, saved = self.recording(timeout_ms=6000, silence_s=2)
        run(record, [VOICE] * 50 + [SILENT] * 110)
        assert len(saved[0]) == len(TONE) * (50 + 51)

    def test_silence_counts_from_the_start(self) -> None:
        record, _ = self.recording(timeout_ms=6000, silence_s=1)
        response, _ = run(record, [SILENT] * 60)
        assert response == "200 result=4980 (timeout) endpos=8160"

    def test_a_key_ends_it_and_is_cut_off(self) -> None:
        record, _ = self.recording()
        response, _ = run(record, [VOICE] * 20 + [Slot(None, "#")])
        assert response == "200 result=35 (dtmf) endpos=1600"

    def test_a_hangup_keeps_what_there_is(self) -> None:
        record, saved = self.recording()
        run(record, [VOICE] * 3)
        assert record.on_hangup() == "200 result=-1 (hangup) endpos=480"
        assert saved == [TONE * 3]

    def test_a_file_that_cannot_be_written(self) -> None:
        def save(pcm16: bytes) -> int:
            raise OSError("disk full")

        record = RecordFile(save, "", 40)
        assert run(record, [VOICE] * 5)[0] == "200 result=-1 (writefile)"

    def test_a_key_is_a_gap_in_the_audio(self) -> None:
        record, saved = self.recording(keys="", timeout_ms=100)
        run(record, [VOICE, VOICE, Slot(None), Slot(None, "1"), VOICE])
        assert saved == [TONE * 3]
