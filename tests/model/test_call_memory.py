"""What is kept of a call, to be told to another sidecar."""

from __future__ import annotations

from model.call_memory import CallMemory, PastTurn
from model.speech import ReplyAudio, ReplyText, TypedTurn, Utterance

HI = TypedTurn("Hi")


def spoken(memory: CallMemory, turn: int, *pieces: str) -> None:
    """Each piece lasts 100 ms, in two parts."""
    for piece, text in enumerate(pieces):
        memory.note(ReplyText(turn, text))
        memory.note(ReplyAudio(turn, piece, text, bytes(800)))
        memory.note(ReplyAudio(turn, piece, "", bytes(800)))


def test_settled_turns_are_kept_in_order_with_what_was_heard() -> None:
    memory = CallMemory(8000, 10_000)
    memory.open(1, None)
    spoken(memory, 1, "Welcome.")
    memory.settle(1, None)
    memory.open(2, HI)
    spoken(memory, 2, "One two.", "Three four.")
    memory.settle(2, 150)
    assert memory.past() == [
        PastTurn(None, "Welcome."),
        PastTurn(HI, "One two. Three"),
    ]


def test_forgotten_and_unknown_turns_leave_nothing() -> None:
    memory = CallMemory(8000, 10_000)
    memory.open(1, HI)
    spoken(memory, 1, "Early.")
    memory.forget(1)
    memory.settle(1, None)
    memory.settle(7, None)
    memory.forget(8)
    spoken(memory, 9, "Nobody asked.")
    assert memory.past() == []


def test_a_turn_asked_again_begins_anew() -> None:
    memory = CallMemory(8000, 10_000)
    memory.open(1, HI)
    spoken(memory, 1, "Lost.")
    memory.open(1, HI)
    spoken(memory, 1, "Heard.")
    memory.settle(1, None)
    assert memory.past() == [PastTurn(HI, "Heard.")]


def test_the_oldest_go_when_the_callers_speech_is_too_much() -> None:
    memory = CallMemory(8000, 1000)
    for turn in range(5):
        memory.open(turn, Utterance(bytes(400), 8000, turn))
        memory.settle(turn, None)
    kept = [turn.user for turn in memory.past()]
    assert kept == [Utterance(bytes(400), 8000, turn) for turn in (3, 4)]
    memory.open(9, Utterance(bytes(2000), 8000))
    memory.settle(9, None)
    assert memory.past() == []


def test_turns_without_speech_are_bounded_too() -> None:
    memory = CallMemory(8000, 1000)
    for turn in range(1000):
        memory.open(turn, HI)
        memory.settle(turn, None)
    assert len(memory.past()) == 100
