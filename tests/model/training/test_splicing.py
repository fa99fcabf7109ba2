"""Sentences put together from what the ear gave: the right words in the right order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.training.dataset import StoredDialogue
from model.training.dialogue import draw_opening
from model.training.kept_hearing import KeptHearing
from model.training.rows import IGNORE, TOKEN_S, RowMaker
from model.training.splicing import Splicer
from model.training.tokenizer import train_tokenizer

WORDS = ("what", "are", "your", "opening", "hours", "please")


def _clip(
    words: tuple[str, ...], *, lead: int = 1
) -> tuple[Tensor, list[list[object]]]:
    """Each word fills two tokens with its number in `WORDS`; silence is -1."""
    numbers = [-1.0] * lead
    spans: list[list[object]] = []
    for word in words:
        start_s = len(numbers) * TOKEN_S
        spans.append([word, start_s, start_s + 2 * TOKEN_S])
        numbers += [float(WORDS.index(word))] * 2
    return torch.tensor([*numbers, -1.0])[:, None].half(), spans


def _said(vectors: Tensor) -> list[str]:
    return [WORDS[int(v)] for v in vectors[:, 0].tolist() if v >= 0]


@pytest.fixture
def splicer() -> Splicer:
    splicer = Splicer()
    splicer.add(*_clip(("what", "are", "your", "hours")))
    splicer.add(*_clip(("your", "opening", "hours"), lead=3))
    return splicer


def test_words_come_in_the_order_of_the_text(splicer: Splicer) -> None:
    for seed in range(20):
        said = splicer.say(random.Random(seed), "what are your opening hours")
        assert said is not None
        assert said.dtype == torch.float32
        wanted = ["what", "are", "your", "opening", "hours"]
        assert _said(said) == [word for word in wanted for _ in range(2)]
        assert said[-1, 0] == -1  # silence of the line behind it


def test_a_word_never_heard_is_not_made_up(splicer: Splicer) -> None:
    assert splicer.say(random.Random(1), "your hours please") is None
    splicer.add(*_clip(("please",)))
    assert splicer.say(random.Random(1), "your hours please") is not None


def test_a_clip_without_words_adds_nothing() -> None:
    splicer = Splicer()
    splicer.add(torch.zeros(4, 1), [])
    assert splicer.say(random.Random(1), "what") is None


def test_rows_stand_over_heard_and_spliced_turns(tmp_path: Path) -> None:
    rng = random.Random(3)
    maker = RowMaker(train_tokenizer(num_dialogues=300))
    dialogues = []
    for _ in range(200):
        turns = []
        for _ in range(2):
            turn = draw_opening(rng)
            words = turn.transcript.split()
            spans = [(w, i * TOKEN_S, (i + 1) * TOKEN_S) for i, w in enumerate(words)]
            turns.append(asdict(turn) | {"words": spans})
        dialogues.append(StoredDialogue(None, tuple(turns), ()))

    def ear(some: Sequence[StoredDialogue]) -> list[Tensor]:
        return [torch.ones(len(t["words"]), 8) for d in some for t in d.turns]

    kept, again = KeptHearing(maker), KeptHearing(maker)
    kept.hear(dialogues, tmp_path / "heard.pt", ear)
    batch, vectors = kept.batch(random.Random(5), 3, 40)
    assert len(batch.heard) == len(vectors) > 25
    assert [h.num_tokens for h in batch.heard] == [len(v) for v in vectors]
    assert len(batch.reply_rows) > 20
    for row in (*batch.reply_rows, *batch.transcript_rows):
        assert any(target != IGNORE for target in row.targets)
        for start, clip in row.audio:
            places = row.ids[start : start + len(vectors[clip])]
            assert places == [maker.silence] * len(vectors[clip])

    def deaf(_some: Sequence[StoredDialogue]) -> list[Tensor]:
        raise AssertionError("heard twice")

    again.hear(dialogues, tmp_path / "heard.pt", deaf)
    same, _ = again.batch(random.Random(5), 3, 40)
    assert [r.ids for r in same.reply_rows] == [r.ids for r in batch.reply_rows]
