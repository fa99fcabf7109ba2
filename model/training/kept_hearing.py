"""What the ear gave for a corpus, kept, and batches of reading over it.

The encoder runs over every clip once; from then on the language model learns from the
stored conversations and from new turns spliced of their words.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model.training.dataset import Batch, StoredDialogue, dialogue_rows
from model.training.dialogue import GREETING, Policy, draw_opening
from model.training.grammar import Slots, draw_words
from model.training.rows import ROWS_THAT_BEGIN_ALIKE, Heard, Row, RowMaker
from model.training.splicing import Splicer

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence
    from pathlib import Path

_DIALOGUES_A_TIME = 32
_MISSED = {"intent": "", "transcript": ""}


@dataclass(frozen=True, slots=True)
class _HeardDialogue:
    """A stored dialogue and what the ear gave for its clips."""

    stored: StoredDialogue
    heard: tuple[Heard, ...]
    vectors: tuple[Tensor, ...]


class KeptHearing:
    """Grows by a shard at a time."""

    def __init__(self, maker: RowMaker) -> None:
        self.maker = maker
        self.num_shards = 0
        self._splicer = Splicer()
        self._dialogues: list[_HeardDialogue] = []
        self._misses: list[tuple[str, Tensor]] = []

    def hear(
        self,
        dialogues: Sequence[StoredDialogue],
        path: Path,
        ear: Callable[[Sequence[StoredDialogue]], list[Tensor]],
    ) -> None:
        """Add a shard.

        Args:
            path: where a resumed run finds what the ear gave; written when missing.
            ear: vectors (T, E) of dialogues' clips, in their order.
        """
        if path.exists():
            found = torch.load(path, weights_only=True)
        else:
            found = []
            for start in range(0, len(dialogues), _DIALOGUES_A_TIME):
                some = dialogues[start : start + _DIALOGUES_A_TIME]
                found += [v.half().cpu() for v in ear(some)]
            torch.save(found, path)
        at = 0
        for dialogue in dialogues:
            vectors = tuple(found[at : at + len(dialogue.turns)])
            at += len(vectors)
            heard = tuple(Heard(len(v), ()) for v in vectors)
            if dialogue.turns[0]["kind"] != "words":  # those are spliced
                self._dialogues.append(_HeardDialogue(dialogue, heard, vectors))
            for turn, clip in zip(dialogue.turns, vectors, strict=True):
                if turn["kind"] in {"outside", "noise"}:
                    self._misses.append((turn["kind"], clip))
                else:
                    self._splicer.add(clip, turn["words"])
        self.num_shards += 1

    def batch(
        self, rng: random.Random, dialogues: int, openings: int
    ) -> tuple[Batch, list[Tensor]]:
        """Rows over so many heard dialogues and spliced turns; vectors by clip.

        Of the spliced turns one in sixteen is words without sense, to be written down;
        the others open a call. Beside them stand calls that begin with what is not to
        be understood.
        """
        maker = self.maker
        heard: list[Heard] = []
        vectors: list[Tensor] = []
        replies: list[Row] = []
        transcripts: list[Row] = []
        count = min(dialogues, len(self._dialogues))
        for dialogue in rng.sample(self._dialogues, count):
            first = len(heard)
            heard += dialogue.heard
            vectors += [v.float() for v in dialogue.vectors]
            found = dialogue_rows(
                maker,
                rng,
                dialogue.stored,
                heard,
                first,
                transcripts=0.25,
                as_text=0.04,
            )
            replies += found[0]
            transcripts += found[1]
        beginnings = [
            maker.begin_call(rng, GREETING if rng.random() < 0.4 else None)
            for _ in range(0, openings, ROWS_THAT_BEGIN_ALIKE)
        ]
        for number in range(openings):
            begun = beginnings[number // ROWS_THAT_BEGIN_ALIKE]
            words_only = number % 16 == 0
            entry: dict[str, Any] = (
                {"transcript": draw_words(rng)}
                if words_only
                else asdict(draw_opening(rng))
            )
            spoken = self._splicer.say(rng, entry["transcript"])
            if spoken is None:
                continue
            index = len(heard)
            heard.append(Heard(len(spoken), ()))
            vectors.append(spoken)
            if not words_only:
                row = maker.opening_row(rng, begun, entry, heard[index], index)
                replies.append(row)
            if words_only or rng.random() < 0.1:
                row = maker.transcript_row(rng, entry, heard[index], index)
                transcripts.append(row)
        for _ in range(openings // 16 if self._misses else 0):
            policy, first = Policy(), len(heard)
            turns: list[dict[str, Any]] = []
            for _ in range(rng.choice((1, 2))):
                kind, clip = rng.choice(self._misses)
                heard.append(Heard(len(clip), ()))
                vectors.append(clip.float())
                reply = policy.answer(kind, Slots())
                turns.append({"kind": kind, "reply": reply, "rest": None} | _MISSED)
            greeting = GREETING if rng.random() < 0.6 else None
            begun = maker.begin_call(rng, greeting)
            replies.append(maker.reply_row(rng, begun, turns, heard[first:], first))
        return Batch((), tuple(heard), tuple(replies), tuple(transcripts)), vectors
