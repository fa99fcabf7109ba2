"""The caller's script, slot by slot, without a call."""

from __future__ import annotations

import pytest

from tests.end_to_end.caller_script import (
    AudioSlot,
    CallerScript,
    HangUp,
    Item,
    KeySlot,
    Pause,
    Press,
    Say,
    SilentUntil,
    Slot,
    WaitForQuiet,
    WaitForSound,
    parse_item,
)
from tests.end_to_end.heard_sound import Ear

LOUD = b"\x80" * 160  # the largest sample
QUIET = b"\xff" * 160


def _slots(items: list[Item], num_slots: int, ear: Ear | None = None) -> list[Slot]:
    script = CallerScript(items)
    ear = ear or Ear()
    return [script.next_slot(0.02 * number, ear) for number in range(num_slots)]


def _first_loud(slots: list[Slot]) -> int | None:
    return next((i for i, slot in enumerate(slots) if slot == AudioSlot(LOUD)), None)


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("@2.5", SilentUntil(2.5)),
        ("+1", Pause(1)),
        ("dtmf:12#a", Press("12#A")),
        ("wait:200,0.5", WaitForSound(200, 0.5)),
        ("quiet:300,1", WaitForQuiet(300, 1)),
        ("bye", HangUp()),
    ],
)
def test_items_are_read(text: str, item: Item) -> None:
    assert parse_item(text) == item


@pytest.mark.parametrize("text", ["dtmf:", "dtmf:12x", "@soon", "wait:loud"])
def test_what_is_no_item_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_item(text)


def test_silence_is_sent_when_nothing_is_due() -> None:
    assert _slots([], 3) == [AudioSlot(QUIET)] * 3


def test_a_recording_is_padded_to_whole_slots() -> None:
    slots = _slots([Say("a", LOUD + b"\x80" * 10)], 3)
    assert slots == [
        AudioSlot(LOUD),
        AudioSlot(b"\x80" * 10 + b"\xff" * 150),
        AudioSlot(QUIET),
    ]


def test_pauses_count_from_the_answer_or_from_now() -> None:
    say = Say("a", LOUD)
    assert _first_loud(_slots([SilentUntil(0.1), say], 20)) == 5
    assert _first_loud(_slots([say, Pause(0.1), say], 20)[1:]) == 5


def test_a_key_is_repeated_while_down_and_ends_three_times() -> None:
    slots = _slots([Press("5")], 12)
    keys = [slot for slot in slots if isinstance(slot, KeySlot)]
    assert [key.event for key in keys] == [5] * 8
    assert [key.is_end for key in keys] == [False] * 5 + [True] * 3
    assert [key.slots_since_down for key in keys] == list(range(8))
    assert [key.duration_samples for key in keys[-3:]] == [960] * 3


def test_waiting_for_a_sound_ends_so_long_after_it_began() -> None:
    ear = Ear()
    script = CallerScript([WaitForSound(200, 0.1), Say("a", LOUD)])
    slots = []
    for number in range(30):
        if number == 10:
            ear.on_packet(0.2, LOUD)
        slots.append(script.next_slot(0.02 * number, ear))
    assert _first_loud(slots) == 15


def test_waiting_for_quiet_begins_anew_with_every_sound() -> None:
    ear = Ear()
    script = CallerScript([WaitForQuiet(200, 0.1), Say("a", LOUD)])
    slots = []
    for number in range(30):
        ear.on_packet(0.02 * number, LOUD if number in (3, 6) else QUIET)
        slots.append(script.next_slot(0.02 * number, ear))
    assert _first_loud(slots) == 11


def test_the_end_of_the_voice_is_told_without_the_silence_after_it() -> None:
    script = CallerScript([Say("a", LOUD * 2 + QUIET * 5)])
    for number in range(10):
        script.next_slot(0.02 * number, Ear())
    said = script.events()[-1]
    assert said.name == "said_end"
    assert said.voiced_until_s == pytest.approx(0.04)


def test_after_hanging_up_nothing_more_is_said() -> None:
    script = CallerScript([HangUp(), Say("a", LOUD)])
    assert script.next_slot(0.0, Ear()) == AudioSlot(QUIET)
    assert script.has_hung_up
