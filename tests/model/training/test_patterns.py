"""Templates: choices, options, pieces and slots; and what is recognised."""

from __future__ import annotations

import random

import pytest

from model.training import patterns
from model.training.patterns import Recogniser

PIECES = {"want": ("i want to", "i'd like [so much] to")}


def _ways(template: str) -> set[str]:
    pattern = patterns.parse(template, PIECES)
    rng = random.Random(1)
    return {" ".join(patterns.draw(rng, pattern)) for _ in range(300)}


def test_choices_options_and_pieces_are_all_said() -> None:
    assert _ways("(can|may) i [please] go") == {
        "can i go",
        "may i go",
        "can i please go",
        "may i please go",
    }
    assert _ways("call me [again|any more]") == {
        "call me",
        "call me again",
        "call me any more",
    }
    assert _ways("<want> (go [home]|leave)") == {
        f"{want} {what}"
        for want in ("i want to", "i'd like to", "i'd like so much to")
        for what in ("go", "go home", "leave")
    }


@pytest.mark.parametrize("template", ["(a|b", "a)", "[a", "(a]", "<other> a"])
def test_a_broken_template_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"bracket|piece"):
        patterns.parse(template, PIECES)


def test_only_whole_ones_are_recognised() -> None:
    found = [patterns.parse(t, PIECES) for t in ("<want> go {day}", "stop [it] now")]
    days = patterns.parse("[on] (monday|next week)", {})
    well = patterns.parse("[well]", {})
    recogniser = Recogniser(found, {"day": days}, before=well)
    for text in ("i want to go on monday", "i'd like to go next week", "well stop now"):
        assert recogniser.accepts(text.split())
    for text in ("", "i want to go", "i want to go on", "stop it", "stop now now"):
        assert not recogniser.accepts(text.split())


def test_an_open_slot_is_a_word() -> None:
    recogniser = Recogniser([patterns.parse("go {day}", {})], {})
    assert recogniser.accepts(["go", "{day}"])
    assert not recogniser.accepts(["go", "monday"])
