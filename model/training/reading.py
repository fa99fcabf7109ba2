"""Rows through the language model: padding, grouping, and judging whole answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.training.rows import IGNORE, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ultravox.network import UltravoxModel


def groups_of_like_length(rows: Sequence[Row], size: int) -> list[list[Row]]:
    """Rows of like length together, so that little is padded."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


def read_group(
    network: UltravoxModel, rows: Sequence[Row], vectors: Sequence[Tensor], pad_id: int
) -> tuple[Tensor, Tensor]:
    """Rows -> hidden states where there are targets (N, E), and the targets (N,).

    Rows are padded on the right: attention is causal, so padding changes nothing.
    """
    longest = _round_up(max(len(row.ids) for row in rows))
    ids = torch.full((len(rows), longest), pad_id)
    targets = torch.full((len(rows), longest), IGNORE)
    is_audio = torch.zeros((len(rows), longest), dtype=torch.bool)
    pieces: list[Tensor] = []
    device = network.language_model.get_input_embeddings().weight.device
    for r, row in enumerate(rows):
        ids[r, : len(row.ids)] = torch.tensor(row.ids)
        targets[r, : len(row.ids)] = torch.tensor(row.targets)
        for start, clip in row.audio:
            is_audio[r, start : start + len(vectors[clip])] = True
            pieces.append(vectors[clip])
    ids, targets, is_audio = (t.to(device) for t in (ids, targets, is_audio))
    if pieces:
        embeds = network.merge(ids, is_audio, torch.cat(pieces))
    else:
        embeds = network.language_model.get_input_embeddings()(ids)
    hidden = network.language_model.model(
        inputs_embeds=embeds, use_cache=False
    ).last_hidden_state
    wanted = targets != IGNORE
    return hidden[wanted].float(), targets[wanted]


def share_wholly_right(rows: Sequence[Row], is_right: Sequence[bool]) -> float:
    """Of the answers in `rows`, those with every token right.

    `is_right` has one entry a target, row after row. A run of targets is an answer; a
    run of one is the end of a turn, which is not.
    """
    right = total = at = 0
    for row in rows:
        run: list[bool] = []
        for target in [*row.targets, IGNORE]:
            if target != IGNORE:
                run.append(is_right[at])
                at += 1
            elif run:
                if len(run) > 1:
                    right, total = right + all(run), total + 1
                run = []
    return right / max(total, 1)


def _round_up(length: int, multiple: int = 8) -> int:
    """Few different shapes: the CPU library compiles a kernel for each."""
    return -(-length // multiple) * multiple
