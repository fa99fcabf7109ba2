"""What is cut from a tape is what was put there, until it is forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agi_handlers.conversation.speech_tape import SpeechTape

PLACES = st.integers(-10, 120)


@given(st.lists(st.binary(max_size=20), max_size=8), PLACES, PLACES, PLACES)
def test_a_tape_holds_what_was_put_on_it(
    pieces: list[bytes], forgotten: int, begin: int, end: int
) -> None:
    tape, whole = SpeechTape(), b"".join(pieces)
    for piece in pieces:
        tape.append(piece)
    assert tape.end_bytes == len(whole)
    assert tape.cut(begin, end) == whole[max(0, begin) : max(0, end)]
    tape.forget_before(forgotten)
    assert 0 <= tape.begin_bytes <= max(0, forgotten)
    kept = whole[max(tape.begin_bytes, begin) : max(tape.begin_bytes, end)]
    assert tape.cut(begin, end) == kept
    tape.append(b"more")
    assert tape.cut(len(whole), len(whole) + 4) == b"more"


def test_pieces_are_let_go_one_by_one() -> None:
    tape = SpeechTape()
    for _ in range(5):
        tape.append(bytes(100))
    tape.forget_before(250)
    assert tape.begin_bytes == 200
    tape.forget_before(1000)
    assert tape.begin_bytes == tape.end_bytes == 500
