"""What goes into each step, made here or by other processes beside the training.

A step's input depends only on the seed, the step's number, the stage and the shards
there are: a resumed run sees what an unbroken one would have seen, and the number of
workers changes nothing.
"""

from __future__ import annotations

import multiprocessing
import random
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from model.training.dataset import (
    Batch,
    StoredDialogue,
    imagined_batch,
    read_corpus,
    spoken_batch,
)
from model.training.rows import RowMaker


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """How much a step takes in; dialogues."""

    seed: int
    spoken: int
    imagined: int
    imagined_beside: int
    openings: int
    openings_beside: int
    clips_a_group: int


@dataclass(frozen=True, slots=True)
class StepInput:
    """Dialogues that nobody spoke, the seed of their noise, and spoken ones."""

    imagined: Batch | None
    noise_seed: int
    spoken: Batch | None


class BatchMaker:
    """Knows the corpus; makes any step's input."""

    def __init__(self, tokenizer: Tokenizer, corpus: Path, sizes: BatchSizes) -> None:
        self.maker = RowMaker(tokenizer)
        self.corpus, self.sizes = corpus, sizes
        self._shards: dict[str, list[StoredDialogue]] = {}
        self.dialogues: list[StoredDialogue] = []

    def look_for_shards(self) -> tuple[str, ...]:
        """Take in shards that have appeared since; the names of all."""
        read_corpus(self.corpus, self._shards)
        return self.use_shards(tuple(sorted(self._shards)))

    def use_shards(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Draw from these shards only."""
        if any(name not in self._shards for name in names):
            read_corpus(self.corpus, self._shards)
        self.dialogues = [d for name in names for d in self._shards[name]]
        return names

    def shard(self, name: str) -> list[StoredDialogue]:
        """One shard's dialogues."""
        return self._shards[name]

    def make(self, step: int, stage: str) -> StepInput:
        """The input of a step of the stage ``text``, ``heads`` or ``all``."""
        sizes = self.sizes
        rng = random.Random(f"{sizes.seed}-{step}")
        imagined = spoken = None
        if stage != "heads":
            count, openings = sizes.imagined, sizes.openings
            if stage == "all":
                count, openings = sizes.imagined_beside, sizes.openings_beside
            imagined = imagined_batch(self.maker, rng, count, openings)
        noise_seed = rng.getrandbits(60)
        if stage != "text":
            count = min(sizes.spoken, len(self.dialogues))
            spoken = spoken_batch(
                self.maker,
                rng,
                rng.sample(self.dialogues, count),
                with_rows=stage == "all",
                transcripts=0.4,
                clips_a_group=sizes.clips_a_group,
            )
        return StepInput(imagined, noise_seed, spoken)


class Workers:
    """Batches of the coming steps, made ahead by other processes.

    Close it: the processes wait for work until then.
    """

    def __init__(self, tokenizer: Path, maker: BatchMaker, count: int) -> None:
        self._pool = ProcessPoolExecutor(
            count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(tokenizer, maker.corpus, maker.sizes),
        )
        self._ahead = 2 * count
        self._coming: dict[tuple[int, str, tuple[str, ...]], Future[StepInput]] = {}

    def take(self, step: int, stage: str, shards: tuple[str, ...]) -> StepInput:
        """The input of a step; those after it are begun."""
        for number in range(step, step + self._ahead + 1):
            key = (number, stage, shards)
            if key not in self._coming:
                self._coming[key] = self._pool.submit(_make, *key)
        wanted = self._coming.pop((step, stage, shards))
        for key in [k for k in self._coming if k[1:] != (stage, shards)]:
            self._coming.pop(key).cancel()
        return wanted.result()

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)


_maker: BatchMaker | None = None  # a worker's own


def _begin(tokenizer: Path, corpus: Path, sizes: BatchSizes) -> None:
    global _maker
    _maker = BatchMaker(Tokenizer.from_file(str(tokenizer)), corpus, sizes)


def _make(step: int, stage: str, shards: tuple[str, ...]) -> StepInput:
    assert _maker is not None
    _maker.use_shards(shards)
    return _maker.make(step, stage)
