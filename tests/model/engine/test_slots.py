"""Who may build on what another request left in the cache."""

from __future__ import annotations

import numpy as np

from model.engine.request import Session
from model.engine.slots import SlotTable, shared_length
from model.ultravox.inputs import Prompt
from tests.model.engine.prompts import dialogue, spoken_prompt, text_prompt, wave


def _run(slots: SlotTable, prompt: Prompt, session: Session | None) -> tuple[int, int]:
    """Take a slot, compute the whole prompt, release: (slot, cached positions)."""
    placement = slots.take(prompt, session)
    assert placement is not None
    slots.commit(placement.slot, prompt.keys)
    slots.release(placement.slot)
    return placement.slot, placement.num_cached


def test_audio_is_never_shared_between_callers() -> None:
    slots = SlotTable(4)
    first, second = spoken_prompt(seed=1), spoken_prompt(seed=2)
    assert (first.token_ids == second.token_ids).all()  # the trap: same ids
    _run(slots, first, Session())
    _, cached = _run(slots, second, Session())
    assert cached == first.text_prefix_length


def test_even_the_same_sound_is_not_shared_between_callers() -> None:
    slots = SlotTable(4)
    _run(slots, spoken_prompt(seed=1), Session())
    same = spoken_prompt(seed=1)
    _, cached = _run(slots, same, Session())
    assert cached == same.text_prefix_length
    _, cached = _run(slots, same, None)
    assert cached == same.text_prefix_length


def test_other_audio_of_the_same_call_is_not_taken_for_this() -> None:
    slots, session = SlotTable(4), Session()
    _run(slots, spoken_prompt(seed=1), session)
    retry = spoken_prompt(seed=2)
    _, cached = _run(slots, retry, session)
    assert cached == retry.text_prefix_length


def test_a_calls_next_turn_builds_on_the_last() -> None:
    slots, session = SlotTable(4), Session()
    call = dialogue()
    call.append_user_audio(wave(1))
    slot, _ = _run(slots, call.prompt(), session)
    before = len(call.prompt())
    call.append_assistant_text("Yes?")
    call.append_user_audio(wave(2))
    again, cached = _run(slots, call.prompt(), session)
    assert again == slot
    assert cached == before


def test_the_last_position_is_always_computed() -> None:
    slots, session = SlotTable(2), Session()
    prompt = text_prompt("hello")
    _run(slots, prompt, session)
    _, cached = _run(slots, prompt, session)
    assert cached == len(prompt) - 1


def test_the_end_of_the_callers_turn_is_always_computed() -> None:
    slots, session = SlotTable(2), Session()
    prompt = spoken_prompt(seed=1)
    _run(slots, prompt, session)
    _, cached = _run(slots, prompt, session)
    assert cached == prompt.turn_end


def test_instructions_are_copied_from_a_call_that_is_under_way() -> None:
    slots = SlotTable(4)
    first, second = spoken_prompt(seed=1), spoken_prompt(seed=2)
    taken = slots.take(first, Session())
    assert taken is not None
    slots.commit(taken.slot, first.keys)
    other = slots.take(second, Session())
    assert other is not None
    assert other.needs_copy
    assert other.source == taken.slot
    assert other.slot != taken.slot


def test_another_live_calls_history_is_copied_from_not_built_over() -> None:
    slots, session = SlotTable(4), Session()
    slot, _ = _run(slots, spoken_prompt(seed=1), session)
    other = slots.take(spoken_prompt(seed=2), Session())
    assert other is not None
    assert other.slot != slot
    assert other.source == slot


def test_a_short_match_does_not_undo_a_long_history() -> None:
    slots = SlotTable(2)
    slot, _ = _run(slots, text_prompt("a" * 200), None)
    placement = slots.take(text_prompt("b" * 200), None)
    assert placement is not None
    assert placement.slot != slot
    assert placement.num_cached == len("user: ")


def test_room_is_made_by_what_is_missed_least() -> None:
    slots = SlotTable(3)
    live, ended = Session(), Session()
    live_slot, _ = _run(slots, text_prompt("live " * 9), live)
    ended_slot, _ = _run(slots, text_prompt("ended " * 9), ended)
    ended.close()
    empty = slots.take(text_prompt("x" * 50), None)
    first = slots.take(text_prompt("y" * 50), None)
    second = slots.take(text_prompt("z" * 50), None)
    assert empty is not None
    assert first is not None
    assert second is not None
    assert {empty.slot, live_slot, ended_slot} == {0, 1, 2}
    assert (first.slot, second.slot) == (ended_slot, live_slot)
    assert slots.take(text_prompt("w"), None) is None


def test_a_slot_that_went_wrong_is_not_built_on() -> None:
    slots, session = SlotTable(1), Session()
    prompt = text_prompt("hello")
    placement = slots.take(prompt, session)
    assert placement is not None
    slots.commit(placement.slot, prompt.keys)
    slots.discard(placement.slot)
    _, cached = _run(slots, prompt, session)
    assert cached == 0


def test_shared_length_stops_at_the_first_difference() -> None:
    a, b = np.array([1, 2, 3, 4]), np.array([1, 2, 9, 4, 5])
    assert shared_length(a, b) == 2
    assert shared_length(a, a[:3]) == 3
    assert shared_length(a[:0], b) == 0
