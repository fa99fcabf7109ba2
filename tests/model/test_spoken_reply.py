"""Playback milliseconds become the words the caller heard."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model.spoken_reply import SpokenReply

RATE_HZ = 8000


def spoken(*pieces: tuple[str, int]) -> SpokenReply:
    """A reply of pieces with their lengths in ms, a blank between them."""
    reply = SpokenReply(RATE_HZ)
    for number, (text, ms) in enumerate(pieces):
        start = len(reply.text)
        reply.add_text(text)
        end = len(reply.text)
        reply.add_text(" ")
        half = ms * RATE_HZ // 1000 // 2
        for num_samples in (half, ms * RATE_HZ // 1000 - half):
            reply.add_speech(
                number, b"\0\0" * num_samples, start_chars=start, end_chars=end
            )
    return reply


TWO = spoken(("One two three four.", 1000), ("Five six.", 500))


def test_nothing_was_heard_at_zero() -> None:
    assert TWO.heard(0) == ""


def test_words_of_the_cut_piece_count_by_their_share_rounded_down() -> None:
    assert TWO.heard(249) == ""
    assert TWO.heard(250) == "One"
    assert TWO.heard(740) == "One two"
    assert TWO.heard(999) == "One two three"


def test_a_piece_played_to_its_end_counts_whole() -> None:
    assert TWO.heard(1000) == "One two three four."
    assert TWO.heard(1250) == "One two three four. Five"


def test_all_of_it_was_heard_when_nothing_else_is_said() -> None:
    assert TWO.heard(None) == "One two three four. Five six."
    assert TWO.heard(99_999) == "One two three four. Five six."


def test_text_that_was_not_spoken_yet_was_not_heard() -> None:
    reply = spoken(("Hello.", 300))
    reply.add_text("And more that the voice has not reached.")
    assert reply.heard(None) == "Hello."
    assert reply.heard(10_000) == "Hello."


def test_a_reply_without_speech_was_not_heard() -> None:
    reply = SpokenReply(RATE_HZ)
    reply.add_text("Silent.")
    assert reply.heard(None) == ""
    assert reply.heard(500) == ""


def test_a_piece_that_says_nothing_is_passed_over() -> None:
    reply = spoken(("Hi.", 200), ("\N{GRINNING FACE}", 0), ("Bye.", 200))
    assert reply.heard(200).startswith("Hi.")
    assert reply.heard(400) == "Hi. \N{GRINNING FACE} Bye."


PIECES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["a", "bb", "ccc."]), min_size=1, max_size=5).map(
            " ".join
        ),
        st.integers(0, 2000),
    ),
    max_size=5,
)


@given(PIECES, st.integers(0, 12_000), st.integers(0, 12_000))
def test_more_time_never_means_fewer_words(
    pieces: list[tuple[str, int]], one_ms: int, other_ms: int
) -> None:
    reply = spoken(*pieces)
    less, more = sorted((one_ms, other_ms))
    assert reply.heard(more).startswith(reply.heard(less))
    assert reply.text.startswith(reply.heard(more))
    assert reply.heard(reply.speech_ms + 1) == reply.heard(None)
