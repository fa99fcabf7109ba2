"""What a caller sends, slot by slot."""

from __future__ import annotations

import numpy as np
import pytest

from model.audio.frames import SILENCE_FRAME
from tools.caller.ear import Ear
from tools.caller.mouth import Mouth, Slot
from tools.caller.say_items import (
    HangUp,
    Item,
    Pause,
    Press,
    Say,
    SilentUntil,
    WaitForQuiet,
    WaitForSound,
)

TONE = (np.tile([5000, -5000], 80)).astype("<i2").tobytes()  # one frame
SILENT = Slot(SILENCE_FRAME)


class Speaking:
    """A mouth, an ear and a clock of 20 ms."""

    def __init__(self, *items: Item, answered_s: float = 0.0) -> None:
        self.mouth = Mouth(items)
        self.ear = Ear()
        self.num_slots = 0
        self._answered_s = answered_s

    @property
    def now_s(self) -> float:
        return self.num_slots * 0.02

    def slot(self, heard: bytes = b"") -> Slot:
        if heard:
            self.ear.on_audio(self.now_s, heard)
        slot = self.mouth.next_slot(self.now_s, self._answered_s, self.ear)
        self.num_slots += 1
        return slot

    def silent_slots(self, most: int = 500) -> int:
        """How many silent slots come before the next that is not."""
        for number in range(most):
            if self.slot() != SILENT:
                return number
        raise AssertionError("silent for ever")


def test_nothing_to_say_is_silence() -> None:
    speaking = Speaking()
    assert speaking.slot() == SILENT
    assert speaking.mouth.is_done


def test_a_recording_is_sent_frame_by_frame_and_padded() -> None:
    speaking = Speaking(Say("a", TONE + TONE[:100]))
    assert speaking.slot() == Slot(TONE)
    assert speaking.slot() == Slot(TONE[:100] + bytes(220))
    assert speaking.mouth.is_done
    names = [(e.name, e.what) for e in speaking.mouth.events()]
    assert names == [("said-start", "a"), ("said-end", "a")]


def test_the_voiced_part_is_noted_by_the_frames_that_carry_it() -> None:
    pcm16 = SILENCE_FRAME * 2 + TONE * 3 + SILENCE_FRAME * 5
    speaking = Speaking(Pause(0.1), Say("a", pcm16))
    for _ in range(20):
        speaking.slot()
    (said,) = speaking.mouth.said
    times = (said.start_s, said.voiced_start_s, said.voiced_end_s)
    assert times == pytest.approx((0.1, 0.14, 0.18))


def test_a_silent_recording_is_no_turn() -> None:
    speaking = Speaking(Say("a", SILENCE_FRAME))
    speaking.slot()
    assert speaking.mouth.said == []


def test_pauses_count_from_where_they_stand() -> None:
    speaking = Speaking(Pause(0.1), Say("a", TONE), Pause(0.2), Say("b", TONE))
    assert speaking.silent_slots() == 5
    assert speaking.silent_slots() == 10


def test_silent_until_counts_from_the_answer() -> None:
    speaking = Speaking(SilentUntil(1.0), Say("a", TONE), answered_s=0.5)
    assert speaking.silent_slots() == 75


def test_a_key_is_a_gap_in_the_audio_and_told_at_its_release() -> None:
    speaking = Speaking(Press("5#"))
    slots = [speaking.slot() for _ in range(24)]
    assert [s.key for s in slots if s.key] == ["5", "#"]
    assert [s.pcm16 is None for s in slots[:12]] == [True] * 8 + [False] * 4
    assert speaking.mouth.is_done


def test_waiting_for_a_sound_that_is_there_already_does_not_count_the_past() -> None:
    speaking = Speaking(Pause(0.1), WaitForSound(300, 0.1), Say("a", TONE))
    speaking.slot(heard=TONE)
    for _ in range(20):
        assert speaking.slot() == SILENT
    assert speaking.slot(heard=TONE) == SILENT
    assert speaking.silent_slots() == 4


def test_waiting_for_quiet() -> None:
    speaking = Speaking(WaitForQuiet(300, 0.2), Say("a", TONE))
    for _ in range(20):
        assert speaking.slot(heard=TONE) == SILENT
    assert speaking.silent_slots() == 10


def test_quiet_counts_from_when_the_wait_began() -> None:
    speaking = Speaking(Pause(1.0), WaitForQuiet(300, 0.2), Say("a", TONE))
    assert speaking.silent_slots() == 60


def test_a_level_is_what_counts() -> None:
    speaking = Speaking(WaitForSound(20_000, 0), Say("a", TONE))
    for _ in range(10):
        assert speaking.slot(heard=TONE) == SILENT


def test_bye_hangs_up_and_nothing_follows() -> None:
    speaking = Speaking(HangUp(), Say("a", TONE))
    assert speaking.slot() == SILENT
    assert speaking.mouth.has_hung_up
    assert speaking.slot() == SILENT
