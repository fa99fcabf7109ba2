"""The whole demo model from nothing: python -m model.training.make --out DIR.

Corpus, training, export, calibration and evaluation, each a process of its own with
fixed seeds. What is done already is kept: call it again to go on. With ``--stop-after``
a call ends after so many minutes, so that a machine lent for a short time can do it in
pieces; the exit status is then 3. With ``--settings gpu`` (or a GPU that is found) the
corpus is larger, and big batches are prepared by many processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from model.training.corpus import CorpusOptions, make_corpus, write_shard
from model.training.train import default_options

if TYPE_CHECKING:
    from collections.abc import Sequence

NOT_DONE_YET = 3
CHECK_DIALOGUES = 80


@dataclass(frozen=True, slots=True)
class Size:
    """How much is made, and how much measured."""

    shards: int = 100
    word_shards: int = 50
    evaluate_clips: int = 300
    evaluate_sets: str = ""  # all
    dialogues_a_shard: int = 500


ON_CPU, ON_GPU = Size(), Size(shards=260, word_shards=130)


@dataclass(slots=True)
class Making:
    """The steps, in a folder, until the time of this call is over."""

    out: Path
    size: Size
    settings: str
    start_from: Path | None
    human: Path | None
    stop_after_s: float
    train_arguments: tuple[str, ...] = ()
    seed: int = 7
    workers: int = 2
    _end_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._end_s = time.monotonic() + self.stop_after_s
        self.out.mkdir(parents=True, exist_ok=True)

    @property
    def left_s(self) -> float:
        """Seconds left of this call."""
        return self._end_s - time.monotonic()

    def go(self) -> bool:
        """Take the steps that are left; says whether all are done."""
        steps = (self._corpus, self._check, self._train, self._export, self._evaluate)
        for step in steps:
            if self.left_s <= 0 or not step():
                return False
            print(json.dumps({"done": step.__name__.strip("_")}), flush=True)
        return True

    def _corpus(self) -> bool:
        return make_corpus(
            self.out / "corpus",
            shards=self.size.shards,
            word_shards=self.size.word_shards,
            workers=self.workers,
            seed=self.seed,
            stop_after_s=self.left_s,
            dialogues_a_shard=self.size.dialogues_a_shard,
        )

    def _check(self) -> bool:
        """Dialogues by held-out voices: seen phrasings, and held-out ones."""
        folder = self.out / "check"
        folder.mkdir(exist_ok=True)
        count = min(CHECK_DIALOGUES, self.size.dialogues_a_shard)
        for index, split in enumerate(("train", "held_out"), 1):
            if not (folder / f"{index:05d}.json").exists():
                options = CorpusOptions(
                    "held_out" if split == "held_out" else "train",
                    "held_out_espeak",
                    is_clean=True,
                    dialogues_a_shard=count,
                )
                write_shard(folder, index, self.seed + 900 + index, options)
        return True

    def _train(self) -> bool:
        run = self.out / "run"
        if (run / "done").exists():
            return True
        arguments = ["--corpus", self.out / "corpus", "--check", self.out / "check"]
        arguments += ["--out", run, "--settings", self.settings]
        if self.start_from is not None:
            arguments += ["--start-from", self.start_from]
        if self.stop_after_s < 1e9:
            arguments += ["--stop-after", round(self.left_s / 60, 2)]
        self._run("train", [*arguments, *self.train_arguments])
        return (run / "done").exists()

    def _export(self) -> bool:
        checkpoint = self.out / "checkpoint"
        if not (checkpoint / "turn_end.json").exists():
            self._run("export", [self.out / "run", checkpoint])
            clips = max(self.size.evaluate_clips, 4)
            self._run("calibrate", [checkpoint, "--clips", clips])
        return True

    def _evaluate(self) -> bool:
        report = self.out / "report.json"
        if not report.exists():
            arguments = [self.out / "checkpoint", "--report", report]
            arguments += ["--clips", self.size.evaluate_clips]
            arguments += ["--sets", self.size.evaluate_sets]
            if self.human is not None:
                arguments += ["--human", self.human]
            self._run("evaluate", arguments)
        return True

    def _run(self, module: str, arguments: Sequence[object]) -> None:
        # Threads that wait by spinning slow each other down on a busy machine.
        waiting = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
        subprocess.run(
            [sys.executable, "-m", f"model.training.{module}", *map(str, arguments)],
            check=True,
            env={**waiting, **os.environ},
        )


def main() -> None:
    """Command line; what it does not know goes to `model.training.train`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--settings", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--start-from", type=Path, help="checkpoint to go on from")
    parser.add_argument("--human", type=Path, help="folder of Asterisk's prompts")
    parser.add_argument("--stop-after", type=float, default=1e9, help="minutes")
    chosen, others = parser.parse_known_args()
    is_gpu = default_options(chosen.settings).device == "cuda"
    making = Making(
        chosen.out,
        ON_GPU if is_gpu else ON_CPU,
        "gpu" if is_gpu else "cpu",
        chosen.start_from,
        chosen.human,
        60 * chosen.stop_after,
        tuple(others),
        workers=os.cpu_count() or 2,
    )
    sys.exit(0 if making.go() else NOT_DONE_YET)


if __name__ == "__main__":
    main()
