"""In-band actions come out of the reply's text however the text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.actions import MAX_ARGUMENT_CHARS, Action, ActionParser, Part

ALLOWED = ("transfer", "hangup", "note")


def parse(text: str, cuts: list[int] | None = None) -> list[Part]:
    parser = ActionParser(ALLOWED)
    parts: list[Part] = []
    start = 0
    for cut in [*sorted(cuts or []), len(text)]:
        parts += parser.receive_text(text[start:cut])
        start = cut
    parts += parser.flush()
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Hello.", ["Hello."]),
        ("[[hangup]]", [Action("hangup", "")]),
        ("Bye. [[hangup]]", ["Bye. ", Action("hangup", "")]),
        (
            "One moment. [[transfer sales]] Thanks.",
            ["One moment. ", Action("transfer", "sales"), " Thanks."],
        ),
        ("[[ Transfer  the sales team ]]", [Action("transfer", "the sales team")]),
        ("[[note a]b]]", [Action("note", "a]b")]),
        ("[[note a [b]]]", [Action("note", "a [b"), "]"]),
        ("[[hangup]][[hangup]]", [Action("hangup", ""), Action("hangup", "")]),
    ],
)
def test_actions_are_taken_out_of_the_text(text: str, parts: list[Part]) -> None:
    assert parse(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "Press [1] or [2].",
        "A list [[1, 2], [3]].",
        "[]",
        "[[]]",
        "[[ ]]",
        "[[[1",
        "[[hang\nup]] on two lines",
        "[[note " + "x" * (MAX_ARGUMENT_CHARS + 1) + "]]",
        "[[never closed" + " x" * MAX_ARGUMENT_CHARS,
        "ends with [",
        "ends with [[",
        "[[a]b]",
    ],
)
def test_text_that_merely_has_brackets_passes_through(text: str) -> None:
    assert parse(text) == [text]


def test_an_action_that_is_not_allowed_is_dropped_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert parse("Sure. [[wire_money all]]Done.") == ["Sure. Done."]
    assert [record.getMessage() for record in caplog.records] == ["action_not_allowed"]


def test_no_action_is_allowed_by_default() -> None:
    assert ActionParser(()).receive_text("[[hangup]]") == []


@pytest.mark.parametrize("cut_off", ["[[h", "[[hangup", "[[hangup]", "[[transfer sal"])
def test_an_action_cut_off_by_the_end_is_neither_spoken_nor_done(
    cut_off: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert parse("Wait. " + cut_off) == ["Wait. "]
    assert [record.getMessage() for record in caplog.records] == ["action_cut_off"]


def test_a_longest_argument_is_still_an_action() -> None:
    longest = "x" * MAX_ARGUMENT_CHARS
    assert parse(f"[[note {longest}]]") == [Action("note", longest)]


def test_text_is_not_held_back_outside_brackets() -> None:
    parser = ActionParser(ALLOWED)
    assert parser.receive_text("Hel") == ["Hel"]
    assert parser.receive_text("lo [") == ["lo "]
    assert parser.receive_text("1]") == ["[1]"]


TEXTS = st.text(alphabet="[]ab1 \nhangup", max_size=60) | st.lists(
    st.sampled_from(
        ["[[hangup]]", "[[transfer a b]]", "[[bad x]]", "[", "]", "word ", "[[", "]]"]
    ),
    max_size=12,
).map("".join)


@given(TEXTS, st.lists(st.integers(0, 60), max_size=8))
def test_any_cutting_gives_the_same_parts(text: str, cuts: list[int]) -> None:
    cuts = [min(cut, len(text)) for cut in cuts]
    assert parse(text, cuts) == parse(text)
    assert parse(text, list(range(len(text)))) == parse(text)


@given(st.text(max_size=200).filter(lambda text: "[[" not in text))
def test_text_without_double_brackets_is_never_changed(text: str) -> None:
    assert "".join(str(part) for part in parse(text)) == text
