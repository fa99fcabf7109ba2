"""Rows through the language model: grouping, padding, and judging whole answers."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache

from model.training.rows import IGNORE, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ultravox.network import UltravoxModel

_SHARED_FROM = 8  # tokens; fewer are read again for every row
_USUAL_TOKENS = 64  # of a row
_MOST_PADDING = 1.25


def groups_of_like_rows(rows: Sequence[Row], size: int) -> list[list[Row]]:
    """Rows that begin alike together, and of like length: little is read in vain.

    A group has as many tokens as `size` usual rows: on a processor what is computed at
    a time should stay in its cache, and yet be worth its while.
    """
    groups: list[list[Row]] = []
    alone: list[Row] = []
    for beginning, found in groupby(sorted(rows, key=_beginning), key=_beginning):
        some = list(found)
        if len(beginning) < _SHARED_FROM or len(some) < 3:
            alone += some
        else:
            groups += _of_like_length(some, size, len(beginning))
    return groups + _of_like_length(alone, size, 0)


def _of_like_length(rows: Sequence[Row], size: int, shared: int) -> list[list[Row]]:
    groups: list[list[Row]] = []
    shortest = 0
    for row in sorted(rows, key=lambda row: len(row.ids)):
        own = len(row.ids) - shared
        is_full = not groups or (len(groups[-1]) + 1) * own > size * _USUAL_TOKENS
        if is_full or own > _round_up(shortest) * _MOST_PADDING:
            groups.append([])
            shortest = own
        groups[-1].append(row)
    return groups


def _beginning(row: Row) -> tuple[int, ...]:
    """What stands before the first audio, if nothing is to be learnt there."""
    end = row.audio[0][0] if row.audio else 0
    is_given = all(target == IGNORE for target in row.targets[:end])
    return tuple(row.ids[:end]) if is_given else ()


def read_group(
    network: UltravoxModel, rows: Sequence[Row], vectors: Sequence[Tensor], pad_id: int
) -> tuple[Tensor, Tensor]:
    """Rows -> hidden states where there are targets (N, E), and the targets (N,).

    What all rows begin with is read once. They are padded on the right: attention is
    causal, so padding changes nothing.
    """
    model = network.language_model.model
    beginnings = {_beginning(row) for row in rows} if len(rows) > 1 else set()
    shared = beginnings.pop() if len(beginnings) == 1 else ()
    if len(shared) < _SHARED_FROM:
        shared = ()
    skipped = len(shared)
    longest = _round_up(max(len(row.ids) for row in rows) - skipped)
    ids = torch.full((len(rows), longest), pad_id)
    targets = torch.full((len(rows), longest), IGNORE)
    is_audio = torch.zeros((len(rows), longest), dtype=torch.bool)
    pieces: list[Tensor] = []
    look_up = network.language_model.get_input_embeddings()
    device = look_up.weight.device
    for r, row in enumerate(rows):
        length = len(row.ids) - skipped
        ids[r, :length] = torch.tensor(row.ids[skipped:])
        targets[r, :length] = torch.tensor(row.targets[skipped:])
        for start, clip in row.audio:
            first = start - skipped
            is_audio[r, first : first + len(vectors[clip])] = True
            pieces.append(vectors[clip])
    ids, targets, is_audio = (t.to(device) for t in (ids, targets, is_audio))
    embeds = network.merge(ids, is_audio, torch.cat(pieces)) if pieces else look_up(ids)
    read = None
    if shared:
        first_ids = torch.tensor([shared], device=device)
        read = DynamicCache(config=network.text_config)
        model(inputs_embeds=look_up(first_ids), cache=read, use_cache=True)
        read.batch_repeat_interleave(len(rows))
    hidden = model(
        inputs_embeds=embeds, cache=read, use_cache=read is not None
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
