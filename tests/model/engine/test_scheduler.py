"""Who runs in the next step, without a model."""

from __future__ import annotations

from model.engine.request import Priority, Session
from model.engine.scheduler import Scheduler, Step
from model.engine.slots import SlotTable
from tests.model.engine.prompts import sequence, text_prompt


def _scheduler(slots: int = 2, waiting: int = 2, step_tokens: int = 100) -> Scheduler:
    return Scheduler(
        SlotTable(slots),
        max_slots=slots,
        max_waiting=waiting,
        max_step_tokens=step_tokens,
    )


def _compute(scheduler: Scheduler) -> Step:
    """Do a step as the worker would, every sampled token being 7."""
    step = scheduler.next_step()
    pieces = [*step.decode, *step.prefill]
    scheduler.commit(pieces)
    for piece in pieces:
        if piece.completes:
            piece.sequence.produced.append(7)
    return step


def test_a_prompt_is_read_and_then_decoded_token_by_token() -> None:
    scheduler = _scheduler()
    one = sequence(1, text_prompt("hello"))
    scheduler.admit(one)
    (piece,) = _compute(scheduler).prefill
    assert (piece.start, piece.stop) == (0, len(one.request.prompt))
    for number in range(3):
        step = _compute(scheduler)
        assert step.prefill == []
        (piece,) = step.decode
        assert piece.stop - piece.start == 1
        assert piece.start == len(one.request.prompt) + number


def test_a_long_prompt_is_read_in_pieces_while_others_decode() -> None:
    scheduler = _scheduler(step_tokens=50)
    talking = sequence(1, text_prompt("hi"))
    scheduler.admit(talking)
    _compute(scheduler)
    long = sequence(2, text_prompt("x" * 120))
    scheduler.admit(long)
    lengths = []
    while not long.produced:
        step = _compute(scheduler)
        assert [piece.sequence for piece in step.decode] == [talking]
        lengths += [piece.stop - piece.start for piece in step.prefill]
    assert sum(lengths) == len(long.request.prompt) - long.num_cached
    assert max(lengths) == 49  # the step's budget less the decode
    assert len(talking.produced) == 1 + len(lengths)


def test_phone_calls_are_taken_up_before_earlier_transcripts() -> None:
    scheduler = _scheduler(slots=1, waiting=3)
    transcript = sequence(1, text_prompt("t"), priority=Priority.TRANSCRIPT)
    rest = sequence(2, text_prompt("r"), priority=Priority.REST)
    phone = sequence(3, text_prompt("p"), priority=Priority.PHONE)
    for one in (transcript, rest, phone):
        assert scheduler.admit(one) is None
    order = []
    while scheduler.waiting or scheduler.running:
        _compute(scheduler)
        (running,) = scheduler.running
        order.append(running)
        scheduler.remove(running)
    assert order == [phone, rest, transcript]


def test_a_phone_call_takes_the_slot_of_a_transcript_under_way() -> None:
    scheduler = _scheduler(slots=1)
    transcript = sequence(1, text_prompt("t"), priority=Priority.TRANSCRIPT)
    scheduler.admit(transcript)
    _compute(scheduler)
    phone = sequence(2, text_prompt("p"))
    scheduler.admit(phone)
    _compute(scheduler)
    assert scheduler.running == [phone]
    assert transcript.slot is None
    scheduler.remove(phone)
    (piece,) = _compute(scheduler).prefill
    # What it had produced is read again, and not produced again.
    assert piece.sequence is transcript
    assert piece.stop == len(transcript.request.prompt) + 1
    assert transcript.produced == [7, 7]


def test_transcripts_step_back_while_a_caller_is_answered() -> None:
    scheduler = _scheduler()
    transcript = sequence(1, text_prompt("t"), priority=Priority.TRANSCRIPT)
    phone = sequence(2, text_prompt("p"))
    scheduler.admit(phone)
    scheduler.admit(transcript)
    for _ in range(16):
        _compute(scheduler)
    assert len(phone.produced) == 16
    assert len(transcript.produced) == 4
    scheduler.remove(phone)
    for _ in range(3):
        _compute(scheduler)
    assert len(transcript.produced) == 7


def test_equals_do_not_displace_each_other() -> None:
    scheduler = _scheduler(slots=1)
    first, second = (sequence(n, text_prompt("p")) for n in (1, 2))
    scheduler.admit(first)
    _compute(scheduler)
    scheduler.admit(second)
    _compute(scheduler)
    assert scheduler.running == [first]


def test_a_full_line_refuses_the_newest_of_the_least_important() -> None:
    scheduler = _scheduler(slots=1, waiting=2)
    running = sequence(0, text_prompt("x"))
    scheduler.admit(running)
    _compute(scheduler)
    old, new = (
        sequence(n, text_prompt("t"), priority=Priority.TRANSCRIPT) for n in (1, 2)
    )
    assert scheduler.admit(old) is None
    assert scheduler.admit(new) is None
    phone = sequence(3, text_prompt("p"))
    assert scheduler.admit(phone) is new
    late = sequence(4, text_prompt("t"), priority=Priority.TRANSCRIPT)
    assert scheduler.admit(late) is late
    assert scheduler.waiting == [old, phone]


def test_prompts_with_common_instructions_wait_for_the_first_to_read_them() -> None:
    scheduler = _scheduler(slots=4, step_tokens=150)
    shared = "i" * 300
    calls = [sequence(n, text_prompt(f"{shared} {n}")) for n in range(3)]
    for call in calls:
        scheduler.admit(call)
    for _ in range(2):
        step = _compute(scheduler)
        assert [piece.sequence for piece in step.prefill] == calls[:1]
    step = _compute(scheduler)
    assert {p.slot for p in step.copies} == {calls[1].slot, calls[2].slot}
    assert [call.num_cached for call in calls] == [0, 300, 300]


def test_a_transcripts_prompt_is_not_waited_for_by_a_phone_call() -> None:
    scheduler = _scheduler(slots=2, step_tokens=50)
    shared = "i" * 200
    transcript = sequence(1, text_prompt(shared), priority=Priority.TRANSCRIPT)
    scheduler.admit(transcript)
    _compute(scheduler)
    phone = sequence(2, text_prompt(shared))
    scheduler.admit(phone)
    step = _compute(scheduler)
    assert step.prefill[0].sequence is phone


def test_a_removed_sequences_work_can_be_built_on() -> None:
    scheduler, session = _scheduler(), Session()
    prompt = text_prompt("hello there")
    first = sequence(1, prompt, session=session)
    scheduler.admit(first)
    _compute(scheduler)
    _compute(scheduler)
    scheduler.remove(first)
    assert scheduler.slots.num_cached_tokens == len(prompt) + 1
    again = sequence(2, prompt, session=session)
    scheduler.admit(again)
    _compute(scheduler)
    assert again.num_cached == len(prompt) - 1


def test_a_failed_sequences_work_is_not_built_on() -> None:
    scheduler = _scheduler()
    failed = sequence(1, text_prompt("hello"))
    scheduler.admit(failed)
    _compute(scheduler)
    scheduler.fail(failed)
    assert scheduler.slots.num_free == 2
    assert scheduler.slots.num_cached_tokens == 0


def test_decodes_come_in_the_order_of_their_slots() -> None:
    scheduler = _scheduler(slots=4, waiting=4)
    calls = [sequence(n, text_prompt("x")) for n in range(4)]
    for call in calls:
        scheduler.admit(call)
    _compute(scheduler)
    step = _compute(scheduler)
    slots = [piece.sequence.slot for piece in step.decode]
    assert slots == [0, 1, 2, 3]


def test_nothing_to_do_is_an_empty_step() -> None:
    step = _scheduler().next_step()
    assert (step.decode, step.prefill, step.copies) == ([], [], [])
