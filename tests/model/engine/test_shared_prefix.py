"""Finding the callers that begin with the same instructions."""

from __future__ import annotations

from model.engine.shared_prefix import SharingFinder
from tests.model.engine.prompts import sequence, spoken_prompt, text_prompt


def test_the_group_that_saves_most_is_found() -> None:
    long = [sequence(n, text_prompt("x" * 100 + str(n))) for n in range(2)]
    short = [sequence(n, text_prompt("y" * 60 + str(n))) for n in range(2, 6)]
    group = SharingFinder(1).find([long[0], short[0], *short[1:], long[1]])
    assert group is not None
    assert group.members == frozenset(s.number for s in short)
    assert group.length == len("user: ") + 60
    assert group.positions_saved == 3 * 66


def test_sharing_ends_where_audio_begins_even_if_it_sounds_the_same() -> None:
    prompts = [spoken_prompt(seed=1), spoken_prompt(seed=1)]
    assert (prompts[0].keys == prompts[1].keys).all()
    group = SharingFinder(1).find([sequence(n, p) for n, p in enumerate(prompts)])
    assert group is not None
    assert group.length == prompts[0].text_prefix_length


def test_too_little_to_save_is_nothing() -> None:
    both = [sequence(n, text_prompt("hello")) for n in range(2)]
    assert SharingFinder(1000).find(both) is None
    assert SharingFinder(1).find(both[:1]) is None
    assert SharingFinder(1).find([]) is None


def test_a_changed_batch_is_searched_again() -> None:
    finder = SharingFinder(1)
    three = [sequence(n, text_prompt("hello" + str(n))) for n in range(3)]
    first = finder.find(three)
    assert finder.find(three) is first
    fewer = finder.find(three[:2])
    assert fewer is not None
    assert fewer.members == frozenset([0, 1])
