"""Logits -> the next token of every row.

A row's choice depends on its own logits, options and random number only, so the same
seed gives the same reply whatever else is in the batch.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# Enough to hold the nucleus nearly always; a full sort of 128 k logits is 100 times
# the work. Rows whose nucleus is larger are sorted in full.
_TOP_K_FIRST = 1024


@dataclass(frozen=True, slots=True)
class Choice:
    """How one row is to choose.  Temperature 0 is greedy; `uniform` is in [0, 1)."""

    temperature: float
    top_p: float
    uniform: float


def choose_tokens(
    logits: Tensor, choices: Sequence[Choice]
) -> tuple[list[int], list[bool]]:
    """(R, V) float32 logits -> R ids, and whether each row's logits were numbers."""
    best, ids = logits.max(dim=-1)  # NaN anywhere in a row makes its maximum NaN
    tokens: list[int] = ids.tolist()
    is_finite: list[bool] = best.isfinite().tolist()
    sampled = [
        row
        for row, choice in enumerate(choices)
        if choice.temperature > 0 and is_finite[row]
    ]
    if sampled:
        rows = [choices[row] for row in sampled]
        for row, token in zip(sampled, _sample(logits[sampled], rows), strict=True):
            tokens[row] = token
    return tokens, is_finite


def _sample(logits: Tensor, choices: Sequence[Choice]) -> list[int]:
    """Inverse of the cumulative distribution, over each row's nucleus."""
    temperatures = logits.new_tensor([choice.temperature for choice in choices])
    probabilities = (logits / temperatures[:, None]).softmax(dim=-1)  # (R, V)
    k = min(_TOP_K_FIRST, probabilities.shape[1])
    top, ids = probabilities.topk(k)  # sorted, (R, k)
    tokens: list[int] = []
    enough = top.sum(dim=-1).tolist()
    for row, choice in enumerate(choices):
        if enough[row] >= choice.top_p or k == probabilities.shape[1]:
            tokens.append(_pick(top[row], ids[row], choice))
        else:
            everything, order = probabilities[row].sort(descending=True)
            tokens.append(_pick(everything, order, choice))
    return tokens


def _pick(probabilities: Tensor, ids: Tensor, choice: Choice) -> int:
    """Probabilities, falling, and their ids -> one id of the nucleus."""
    cumulative = probabilities.cumsum(dim=0)
    # The nucleus: the fewest tokens that reach top_p together, at least one.
    last = int((cumulative < choice.top_p).sum().clamp(max=len(ids) - 1))
    target = choice.uniform * cumulative[last]
    index = int(torch.searchsorted(cumulative[: last + 1], target, right=True))
    return int(ids[min(index, last)])
