"""Speech cut into sound files: when, how long, and that nothing is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agi_handlers.audio_leg.speech_pieces import (
    PieceOptions,
    SpeechPiece,
    SpeechPieces,
)

OPTIONS = PieceOptions(first_piece_ms=500, prepare_ahead_ms=400, max_piece_ms=1000)


def speech(duration_ms: int) -> bytes:
    return b"\1\2" * 8 * duration_ms


def pieces_with(duration_ms: int) -> SpeechPieces:
    pieces = SpeechPieces(OPTIONS)
    pieces.add(speech(duration_ms))
    return pieces


def test_the_first_piece_waits_for_half_a_second() -> None:
    pieces = pieces_with(480)
    assert pieces.due_in_ms(None) is None
    pieces.add(speech(20))
    assert pieces.due_in_ms(None) == 0


def test_a_whole_speech_is_due_however_short() -> None:
    pieces = pieces_with(60)
    pieces.end_of_speech()
    assert pieces.due_in_ms(None) == 0
    assert pieces.take() == SpeechPiece(speech(60), ends_speech=True)
    assert pieces.is_empty


def test_the_next_piece_is_taken_shortly_before_the_last_one_ends() -> None:
    pieces = pieces_with(40)
    assert pieces.due_in_ms(1500) == 1100
    assert pieces.due_in_ms(400) == 0
    assert pieces.due_in_ms(10) == 0


def test_nothing_is_due_when_nothing_is_queued() -> None:
    assert SpeechPieces(OPTIONS).due_in_ms(None) is None
    assert SpeechPieces(OPTIONS).due_in_ms(0) is None


def test_a_long_speech_is_cut_at_the_limit() -> None:
    pieces = pieces_with(2500)
    pieces.end_of_speech()
    taken = [pieces.take() for _ in range(3)]
    assert [piece.duration_ms for piece in taken] == [1000, 1000, 500]
    assert [piece.ends_speech for piece in taken] == [False, False, True]


def test_an_end_that_comes_late_is_a_piece_without_audio() -> None:
    pieces = pieces_with(600)
    assert not pieces.take().ends_speech
    pieces.end_of_speech()
    assert pieces.due_in_ms(None) == 0
    assert pieces.take() == SpeechPiece(b"", ends_speech=True)


def test_speeches_are_not_mixed_in_one_piece() -> None:
    pieces = pieces_with(100)
    pieces.end_of_speech()
    pieces.add(speech(200))
    assert pieces.take() == SpeechPiece(speech(100), ends_speech=True)
    pieces.end_of_speech()
    assert pieces.take() == SpeechPiece(speech(200), ends_speech=True)


def test_a_stop_drops_everything() -> None:
    pieces = pieces_with(700)
    pieces.end_of_speech()
    pieces.add(speech(100))
    pieces.stop()
    assert pieces.is_empty
    assert pieces.queued_ms == 0


@given(chunks=st.lists(st.binary(max_size=9000), max_size=8))
def test_no_sample_is_lost_and_no_piece_ends_inside_a_sample(
    chunks: list[bytes],
) -> None:
    pieces = SpeechPieces(OPTIONS)
    for chunk in chunks:
        pieces.add(chunk)
    pieces.end_of_speech()
    taken = []
    while not pieces.is_empty:
        taken.append(pieces.take())
    whole = b"".join(chunks)
    assert b"".join(piece.pcm16 for piece in taken) == whole[: len(whole) // 2 * 2]
    assert all(len(piece.pcm16) % 2 == 0 for piece in taken)
    assert [piece.ends_speech for piece in taken][-1]
    assert not any(piece.ends_speech for piece in taken[:-1])
