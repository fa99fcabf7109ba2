"""Text that never has to be taken back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.engine.detokenizer import Detokenizer
from model.engine.plain_chat import PlainChat

_decode = PlainChat().decode  # one id a byte: the hardest case for characters


def _feed(detokenizer: Detokenizer, ids: list[int], size: int = 1) -> list[str]:
    pieces = [
        detokenizer.push(ids[start : start + size])
        for start in range(0, len(ids), size)
    ]
    return [*pieces, detokenizer.finish()]


def test_no_half_character_is_passed_on() -> None:
    ids = list("añ€😀!".encode())
    pieces = _feed(Detokenizer(_decode), ids)
    assert "".join(pieces) == "añ€😀!"
    assert not any("\ufffd" in piece for piece in pieces)


def test_bytes_that_never_become_a_character_are_dropped_at_the_end() -> None:
    assert "".join(_feed(Detokenizer(_decode), [*b"ok", 0xE2, 0x82])) == "ok"


@given(st.text(), st.integers(1, 7))
def test_any_text_comes_through_whole_however_it_is_cut(text: str, size: int) -> None:
    pieces = _feed(Detokenizer(_decode), list(text.encode()), size)
    assert "".join(pieces).rstrip("\ufffd") == text.rstrip("\ufffd")


@given(st.lists(st.integers(0, 255), max_size=40))
def test_any_bytes_at_all_are_survived(ids: list[int]) -> None:
    detokenizer = Detokenizer(_decode)
    assert "".join(_feed(detokenizer, ids)) == detokenizer.text
    assert detokenizer.token_ids == ids


@given(st.text("ab#", max_size=30), st.integers(1, 5))
def test_a_stop_string_ends_the_text_before_it(text: str, size: int) -> None:
    detokenizer = Detokenizer(_decode, stop=("#a#", "bb"))
    said = "".join(_feed(detokenizer, list(text.encode()), size))
    ends = [i for stop in ("#a#", "bb") if (i := text.find(stop)) >= 0]
    assert said == (text[: min(ends)] if ends else text)
    assert detokenizer.stopped == bool(ends)
    assert _decode(detokenizer.token_ids) == said


def test_text_that_might_begin_a_stop_string_is_held_back() -> None:
    detokenizer = Detokenizer(_decode, stop=("User:",))
    assert detokenizer.push(list(b"Yes. Us")) == "Yes. "
    assert detokenizer.push(list(b"ual")) == "Usual"
    assert detokenizer.push(list(b" User")) == " "
    assert detokenizer.push(list(b": x")) == ""
    assert detokenizer.stopped
    assert detokenizer.text == "Yes. Usual "


def test_held_back_text_comes_at_the_end() -> None:
    detokenizer = Detokenizer(_decode, stop=("###",))
    detokenizer.push(list(b"a##"))
    assert detokenizer.finish() == "##"


@pytest.mark.parametrize("later", [[104], []])
def test_nothing_follows_a_stop(later: list[int]) -> None:
    detokenizer = Detokenizer(_decode, stop=("#",))
    detokenizer.push(list(b"a#b"))
    assert detokenizer.push(later) == ""
    assert detokenizer.finish() == ""
