"""What is noted of a conversation's turns."""

from __future__ import annotations

from agi_handlers.conversation.call_notes import CallNotes
from agi_handlers.records.rows import EventRow, Row, TurnRow
from model.speech import (
    ReplyAudio,
    ReplyDone,
    Timings,
    TypedTurn,
    Usage,
    Utterance,
)


def _notes() -> tuple[CallNotes, list[Row]]:
    rows: list[Row] = []
    return CallNotes("c-1", rows.append), rows


def _turn(rows: list[Row]) -> TurnRow:
    last = rows[-1]
    assert isinstance(last, TurnRow)
    return last


def _speech(turn: int, piece: int, text: str, ms: int) -> ReplyAudio:
    return ReplyAudio(turn, piece, text, bytes(16 * ms))


def test_stages_of_a_turn_stand_in_its_row() -> None:
    notes, rows = _notes()
    notes.asked(2, 1500, Utterance(bytes(16_000), 8000))
    notes.text(2, "We open ")
    notes.text(2, "at nine.")
    notes.audio(_speech(2, 0, "We open at nine.", 1000))
    notes.released(2, 1800, 1300)
    notes.played(2, 1810)
    notes.done(
        ReplyDone(
            2,
            "We open at nine.",
            "stop",
            Usage(completion_tokens=5),
            Timings(1.0, 2.0, 30.0, 90.0, 200.0),
        )
    )
    notes.sealed(2, 2900, "heard")
    row = _turn(rows)
    assert (row.said_kind, row.said_ms) == ("speech", 1000)
    assert (row.speech_ended_ms, row.asked_ms, row.released_ms) == (1300, 1500, 1800)
    assert (row.played_ms, row.first_token_ms, row.completion_tokens) == (1810, 30.0, 5)
    assert row.reply_text == row.heard_text == "We open at nine."
    assert (row.heard_ms, row.fate, row.ended_ms) == (1000, "heard", 2900)


def test_interrupted_reply_keeps_the_words_that_were_heard() -> None:
    notes, rows = _notes()
    notes.asked(2, 0, Utterance(bytes(16_000), 8000))
    notes.text(2, "One two. Three four five six.")
    notes.audio(_speech(2, 0, "One two.", 400))
    notes.audio(_speech(2, 1, "Three four five six.", 400))
    notes.audio(_speech(2, 1, "", 400))
    notes.released(2, 100, 50)
    notes.sealed(2, 900, "interrupted", 850)
    row = _turn(rows)
    # 450 of 800 ms of the second piece: two of its four words
    assert row.heard_text == "One two. Three four"
    assert row.reply_text.endswith("six.")
    assert row.heard_ms == 850


def test_sentence_heard_to_its_last_millisecond_counts_whole() -> None:
    notes, rows = _notes()
    notes.phrase(1, 0, "greeting", "Hello there.")
    notes.audio(ReplyAudio(1, 0, "Hello there.", bytes(2 * 805)))  # 100.6 ms
    notes.sealed(1, 100, "interrupted", 100)
    assert _turn(rows).heard_text == "Hello there."


def test_reply_to_half_a_sentence_leaves_no_trace() -> None:
    notes, rows = _notes()
    notes.asked(2, 0, Utterance(bytes(160), 8000))
    notes.text(2, "Pardon?")
    notes.sealed(2, 300, "dropped", 0)
    assert rows == []


def test_words_of_half_a_sentence_leave_no_trace_either() -> None:
    notes, rows = _notes()
    notes.asked(2, 0, Utterance(bytes(160), 8000))
    notes.words(2, "I would")
    notes.sealed(2, 300, "dropped", 0)
    assert rows == []


def test_callers_words_stand_in_the_row() -> None:
    notes, rows = _notes()
    notes.asked(2, 0, Utterance(bytes(160), 8000))
    notes.released(2, 10, 5)
    notes.words(2, "When do you close?")
    assert _turn(rows).said_text == "When do you close?"


def test_keys_are_masked() -> None:
    notes, rows = _notes()
    notes.asked(2, 0, TypedTurn("4 0 2 1"))
    notes.released(2, 0, None)
    assert (_turn(rows).said_kind, _turn(rows).said_text) == ("keys", "****")


def test_keys_that_the_reply_repeats_are_masked_too() -> None:
    notes, rows = _notes()
    notes.asked(2, 0, TypedTurn("4 0 2 1"))
    notes.released(2, 0, None)
    notes.text(2, "Your code 40")
    notes.text(2, "21 is right.")
    notes.audio(_speech(2, 0, "Your code 4021 is right.", 1000))
    notes.done(ReplyDone(2, "Your code 4021 is right.", "stop"))
    notes.sealed(2, 2000, "heard")
    assert _turn(rows).reply_text == _turn(rows).heard_text
    assert _turn(rows).reply_text == "Your code **** is right."


def test_failure_is_an_event_and_stays_the_fate_of_the_turn() -> None:
    notes, rows = _notes()
    notes.asked(2, 0, Utterance(bytes(160), 8000))
    notes.released(2, 10, 5)
    notes.failed(2, 50, "generation_failed", "nan")
    notes.sealed(2, 60, "dropped", 0)
    assert EventRow("c-1", 50, "error", "generation_failed", "nan", 2) in rows
    assert _turn(rows).fate == "failed"


def test_turn_is_written_as_soon_as_the_caller_has_finished() -> None:
    notes, rows = _notes()
    notes.asked(2, 0, Utterance(bytes(160), 8000))
    assert rows == []
    notes.released(2, 10, 5)
    assert (_turn(rows).turn, _turn(rows).fate) == (2, "")


def test_where_numbers_are_not_kept_none_is_in_any_row() -> None:
    rows: list[Row] = []
    notes = CallNotes("c-1", rows.append, redacts=True)
    notes.asked(2, 0, Utterance(bytes(16_000), 8000))
    notes.released(2, 10, 0)
    notes.words(2, "my card is 4111 and four one one one")
    notes.text(2, "So 41")
    notes.text(2, "11?")
    notes.audio(_speech(2, 0, "So 4111?", 1000))
    notes.happened(20, "action", "note", "card 4111")
    notes.sealed(2, 2000, "heard")
    assert not any(c.isdigit() for c in "".join(map(_words, rows)))
    assert _turn(rows).said_text == "my card is **** and ***"
    assert _turn(rows).heard_text == "So ****?"


def test_a_turn_that_was_secret_for_a_moment_stays_without_numbers() -> None:
    notes, rows = _notes()
    notes.asked(2, 0, Utterance(bytes(16_000), 8000))
    notes.is_secret = True
    notes.released(2, 10, 0)
    notes.is_secret = False
    notes.words(2, "it is 4111")
    notes.sealed(2, 2000, "heard")
    assert _turn(rows).said_text == "it is ****"
    notes.asked(3, 3000, Utterance(bytes(16_000), 8000))
    notes.released(3, 3010, 3000)
    notes.words(3, "at 5 then")
    assert _turn(rows).said_text == "at 5 then"


def test_what_became_of_the_greeting_is_known() -> None:
    for fate, wanted in (("heard", "heard"), ("interrupted", "cut_short")):
        notes, _ = _notes()
        assert notes.disclosure == ""
        notes.phrase(1, 0, "greeting", "This is a machine.")
        notes.released(1, 0, None)
        notes.audio(_speech(1, 0, "This is a machine.", 1000))
        notes.sealed(1, 500, fate, None if fate == "heard" else 500)  # type: ignore[arg-type]
        assert notes.disclosure == wanted


def test_a_disclosure_of_its_own_is_what_counts() -> None:
    notes, _ = _notes()
    for turn, phrase, fate in (
        (1, "disclosure", "heard"),
        (2, "greeting", "interrupted"),
    ):
        notes.phrase(turn, 0, phrase, "This call is recorded.")
        notes.released(turn, 0, None)
        notes.audio(_speech(turn, 0, "This call is recorded.", 1000))
        notes.sealed(turn, 500, fate, None if fate == "heard" else 500)  # type: ignore[arg-type]
    assert notes.disclosure == "heard"


def _words(row: Row) -> str:
    if isinstance(row, TurnRow):
        return row.said_text + row.reply_text + row.heard_text
    return row.detail if isinstance(row, EventRow) else ""
