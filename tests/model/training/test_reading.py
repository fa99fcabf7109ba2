"""Rows that begin alike are read together and give what each gives alone."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

import model
from model.training.dialogue import GREETING, draw_opening
from model.training.grammar import Slots
from model.training.reading import groups_of_like_rows, read_group
from model.training.rows import TOKENS_THAT_DECIDE, Heard, Row, RowMaker
from model.training.start import Sizes, build_config
from model.ultravox.network import UltravoxModel

_TOKENIZER = Path(model.__file__).parent / "checkpoints" / "demo" / "tokenizer.json"
_SMALL = Sizes(
    d_model=16,
    encoder_layers=1,
    encoder_heads=2,
    encoder_ffn=16,
    projector=16,
    text_width=16,
    text_layers=2,
    text_heads=2,
    text_ffn=16,
)


@pytest.fixture(scope="module")
def maker() -> RowMaker:
    return RowMaker(Tokenizer.from_file(str(_TOKENIZER)))


@pytest.fixture
def network(maker: RowMaker) -> UltravoxModel:
    torch.manual_seed(3)
    size = maker.tokenizer.get_vocab_size()
    return UltravoxModel(build_config(_SMALL, size, maker.end_of_turn, maker.begin))


def _rows(maker: RowMaker, num_rows: int, opening: str | None) -> list[Row]:
    rng = random.Random(1)
    begun = maker.begin_call(rng, opening)
    rows = []
    for clip in range(num_rows):
        heard = Heard(3 + clip, ())
        turn = asdict(draw_opening(rng))
        rows.append(maker.opening_row(rng, begun, turn, heard, clip))
    return rows


def _loss(
    network: UltravoxModel, groups: list[list[Row]], clips: list[Tensor]
) -> Tensor:
    parts = [read_group(network, group, clips, 0) for group in groups]
    logits = network.language_model.lm_head(torch.cat([hidden for hidden, _ in parts]))
    targets = torch.cat([targets for _, targets in parts])
    loss: Tensor = torch.nn.functional.cross_entropy(logits, targets)
    return loss


@pytest.mark.parametrize("opening", [GREETING, None])
def test_together_rows_give_what_they_give_alone(
    maker: RowMaker, network: UltravoxModel, opening: str | None
) -> None:
    rows = _rows(maker, 9, opening)
    clips = [torch.randn(3 + i, 16) for i in range(9)]
    together = groups_of_like_rows(rows, 8)
    assert 1 <= len(together) < 6
    losses, gradients = [], []
    for groups in (together, [[row] for row in rows]):
        network.zero_grad()
        loss = _loss(network, groups, clips)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        found = [p.grad for p in network.language_model.parameters()]
        gradients.append(torch.cat([g.flatten() for g in found if g is not None]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-3)
    assert gradients[0].abs().max() > 1e-3


def test_every_row_is_in_one_group(maker: RowMaker) -> None:
    rows = _rows(maker, 20, GREETING) + _rows(maker, 3, None)
    groups = groups_of_like_rows(rows, 4)
    grouped = [row for group in groups for row in group]
    assert sorted(map(id, grouped)) == sorted(map(id, rows))
    assert max(map(len, groups)) > 4  # they share most of what they have


def test_fixed_replies_are_told_apart_by_what_is_learnt(maker: RowMaker) -> None:
    rng = random.Random(4)
    turns = [draw_opening(rng) for _ in range(600)]
    fixed = {t.reply for t in turns if t.spoken and t.spoken.slots == Slots()}
    beginnings = {tuple(maker.encode(r)[:TOKENS_THAT_DECIDE]) for r in fixed}
    assert len(beginnings) == len(fixed) > 30
