"""Choosing tokens: greedy, nucleus, and what is not a number."""

from __future__ import annotations

import torch

from model.engine.sampling import Choice, choose_tokens

_GREEDY = Choice(temperature=0.0, top_p=1.0, uniform=0.0)


def test_temperature_zero_takes_the_best() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    assert choose_tokens(logits, [_GREEDY, _GREEDY]) == ([1, 0], [True, True])


def test_the_distribution_is_the_softmaxs() -> None:
    probabilities = torch.tensor([0.1, 0.6, 0.3])
    num_draws = 1000
    choices = [Choice(1.0, 1.0, (i + 0.5) / num_draws) for i in range(num_draws)]
    logits = probabilities.log().expand(num_draws, 3)
    tokens, _ = choose_tokens(logits, choices)
    assert [tokens.count(i) for i in range(3)] == [100, 600, 300]


def test_temperature_sharpens() -> None:
    logits = torch.tensor([0.1, 0.6, 0.3]).log().expand(1000, 3)
    choices = [Choice(0.5, 1.0, (i + 0.5) / 1000) for i in range(1000)]
    tokens, _ = choose_tokens(logits, choices)
    # Squared and normalised: 0.01, 0.36, 0.09 of 0.46.
    assert [tokens.count(i) for i in range(3)] == [22, 783, 195]


def test_only_the_nucleus_is_drawn_from() -> None:
    logits = torch.tensor([0.1, 0.6, 0.3]).log().expand(1000, 3)
    choices = [Choice(1.0, 0.7, (i + 0.5) / 1000) for i in range(1000)]
    tokens, _ = choose_tokens(logits, choices)
    assert [tokens.count(i) for i in range(3)] == [0, 667, 333]


def test_a_nucleus_larger_than_the_first_cut_is_not_cut() -> None:
    vocabulary = 5000
    logits = torch.zeros(1, vocabulary)  # all alike: top-p 0.9 is 4500 tokens
    drawn = {
        choose_tokens(logits, [Choice(1.0, 0.9, i / 1000)])[0][0] for i in range(1000)
    }
    assert len(drawn) == 1000


def test_the_largest_draw_stays_in_the_vocabulary() -> None:
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    tokens, _ = choose_tokens(logits, [Choice(1.0, 1.0, 1.0 - 2**-53)])
    assert 0 <= tokens[0] < 50


def test_rows_do_not_change_each_other() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 100)
    choices = [Choice(0.8, 0.9, 0.1 * i) for i in range(3)] + [_GREEDY]
    together, _ = choose_tokens(logits, choices)
    alone = [
        choose_tokens(logits[i : i + 1], choices[i : i + 1])[0][0] for i in range(4)
    ]
    assert together == alone


def test_rows_that_are_not_numbers_are_told_apart() -> None:
    logits = torch.zeros(3, 5)
    logits[1, 2] = torch.nan
    logits[2, 4] = torch.inf
    choices = [Choice(1.0, 0.9, 0.5)] * 3
    _, is_finite = choose_tokens(logits, choices)
    assert is_finite == [True, False, False]
