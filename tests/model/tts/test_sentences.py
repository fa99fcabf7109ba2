"""Sentence cutting: hard cases, the first piece, and the properties of any splitter."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tts.sentences import Piece, SentenceSplitter, SplitOptions

SENTENCES_ONLY = SplitOptions(first_clause_words=0, first_max_words=0)


def split(text: str, options: SplitOptions | None = None) -> list[Piece]:
    splitter = SentenceSplitter(options)
    return splitter.receive_text(text) + splitter.flush()


def texts(text: str, options: SplitOptions | None = SENTENCES_ONLY) -> list[str]:
    return [piece.text for piece in split(text, options)]


@pytest.mark.parametrize(
    "sentences",
    [
        ["Hello there.", "How are you?", "Fine!"],
        ["Dr. Smith is here.", "He waits."],
        ["Ask Mrs. Jones or Prof. Lee.", "They know."],
        ["I live in the U.S. and work.", "Fine."],
        ["She moved to the U.S. in May.", "He stayed."],
        ["The capital is Washington D.C.", "It is warm there."],
        ["We open at 3 p.m.", "We close at 9 p.m. Eastern time."],
        ["It costs $3.50.", "OK?"],
        ["The rate is 4.25 percent.", "It may change."],
        ["1. Check the cable.", "2. Restart the box."],
        ["J. K. Rowling wrote it.", "She did."],
        ["George W. Bush spoke.", "We listened."],
        ["We use plan B.", "The other one failed."],
        ["No. 5 is alive.", "No.", "We don't."],
        ["Hello...", "Are you there?"],
        ["Wait… what?", "Yes!"],
        ['He said "Stop."', "Then he left."],
        ["(It is free.)", "Try it."],
        ["**Bold.**", "Next one."],
        ["See example.com.", "Visit us!"],
        ["Write to a.b@example.co.uk.", "We answer."],
        ["Acme Inc. Boston office.", "Open."],
        ["I work for Acme Inc.", "The pay is good."],
        ["Use salts, e.g. Epsom.", "Good."],
        ["Nov. 22 is good.", "Dec. is fine."],
        ["Meet me on Main St. near the bank.", "Bye."],
        ["We are on Main St.", "You can park there."],
        ["Really?!", "Yes."],
        ["Is it 5?", "3 is enough."],
        ["Sr. López llamó.", "¿Está bien?", "¡Sí!"],
        ["Vive en EE.UU. desde mayo.", "Bien."],
        ["Thanks!", "😊 Let me check."],
        ["Call me at 5 p.m. tomorrow.", "Thanks."],
        ["See fig. 3 and vol. 2.", "Read both."],
    ],
    ids=lambda sentences: sentences[0],
)
def test_sentences_of_a_hard_case(sentences: list[str]) -> None:
    assert texts(" ".join(sentences)) == sentences


def test_full_width_stops_cut_without_waiting_for_a_space() -> None:
    splitter = SentenceSplitter(SENTENCES_ONLY)
    assert [p.text for p in splitter.receive_text("你好。今天好吗？")] == [
        "你好。",
        "今天好吗？",
    ]


def test_a_line_break_ends_a_piece() -> None:
    assert texts("Two things\n- bread\n- milk") == ["Two things", "- bread", "- milk"]


def test_a_stop_waits_until_the_next_word_begins() -> None:
    splitter = SentenceSplitter(SENTENCES_ONLY)
    assert splitter.receive_text("It is version 2.") == []
    assert splitter.receive_text("5 now. ") == []
    assert [p.text for p in splitter.receive_text("Y")] == ["It is version 2.5 now."]


def test_text_after_the_last_stop_comes_at_the_flush() -> None:
    splitter = SentenceSplitter(SENTENCES_ONLY)
    assert splitter.receive_text("One moment") == []
    assert splitter.flush() == [Piece("One moment", 0, 10, ends_sentence=True)]


def test_a_stop_that_only_the_last_word_settles_is_cut_at_the_flush() -> None:
    assert texts("Open until 5 p.m. The") == ["Open until 5 p.m.", "The"]


def test_first_piece_may_end_at_a_comma() -> None:
    pieces = split("Sure, I can help you with that, what is the number, please?")
    assert [(p.text, p.ends_sentence) for p in pieces] == [
        ("Sure, I can help you with that,", False),
        ("what is the number, please?", True),
    ]


def test_a_single_word_before_a_comma_is_too_short_for_a_first_piece() -> None:
    assert texts("Well, yes.", None) == ["Well, yes."]


def test_a_comma_inside_a_date_is_no_place_to_cut() -> None:
    assert texts("It is on November 22, 2026 at noon.", None) == [
        "It is on November 22, 2026 at noon."
    ]


def test_first_piece_ends_where_a_speaker_breathes_after_eight_words() -> None:
    text = "We have opened an account for you with the new number and it is ready"
    assert texts(text, None) == [
        "We have opened an account for you with the new number",
        "and it is ready",
    ]


def test_first_piece_ends_after_twelve_words_where_no_breath_comes() -> None:
    text = "Alpha beta gamma delta " * 5
    assert [len(t.split()) for t in texts(text, None)] == [12, 8]


def test_first_piece_never_ends_inside_a_telephone_number() -> None:
    text = "You can reach our friendly office in Springfield at 555 123 4567 any time"
    first = texts(text, None)[0]
    assert "555" not in first or "555 123 4567" in first


def test_later_pieces_are_not_cut_at_commas() -> None:
    assert texts("Hi. First this one, then that one, then the rest.", None) == [
        "Hi.",
        "First this one, then that one, then the rest.",
    ]


def test_an_overlong_piece_is_cut_at_a_clause_end() -> None:
    clause = "and a further clause that goes on for a while,"
    pieces = split("Hi. " + " ".join([clause] * 8))
    assert all(p.text.endswith(",") for p in pieces[1:])
    assert not any(p.ends_sentence for p in pieces[1:-1])


def test_text_without_a_space_is_cut_at_the_limit() -> None:
    assert [len(t) for t in texts("x" * 450)] == [200, 200, 50]


def test_white_space_alone_gives_no_piece() -> None:
    assert split(" \n\t \n ") == []


ANY_TEXT = st.text(alphabet=st.sampled_from("abcdeABCDE  ..!?,;'\"()0123\n…。，éß😊"))
WORDS = (
    "Dr. p.m. The the No. 5 U.S. hello, Hello world. e.g. J. 3.5 and… what? "
    "Ok! (so) “Yes.” 你好。 1. \n We 555-1234 ,"
)
WORDY_TEXT = st.lists(
    st.sampled_from(WORDS.split(" ")),
    max_size=60,
).map(" ".join)


@settings(deadline=None)  # the machine may be busy
@given(st.one_of(ANY_TEXT, WORDY_TEXT), st.data())
def test_pieces_do_not_depend_on_how_the_text_was_chunked(
    text: str, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    splitter = SentenceSplitter()
    pieces: list[Piece] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        pieces += splitter.receive_text(text[start:end])
    assert pieces + splitter.flush() == split(text)


@settings(deadline=None)  # the machine may be busy
@given(st.one_of(ANY_TEXT, WORDY_TEXT))
def test_nothing_is_lost_and_offsets_are_true(text: str) -> None:
    pieces = split(text)
    at = 0
    for piece in pieces:
        assert text[at : piece.start_chars].strip() == ""
        assert text[piece.start_chars : piece.end_chars] == piece.text
        assert 0 < len(piece.text) <= SplitOptions().max_chars + 1
        at = piece.end_chars
    assert text[at:].strip() == ""
