"""Train the demo model: python -m model.training.train --corpus DIR --out DIR.

The corpus comes from `python -m model.training.corpus`. A run can be stopped (SIGTERM
saves) and goes on when it is called again; progress is JSON lines in ``log.jsonl``. The
learning rate falls over the last part: judge no run before. On a processor every core
takes a part of each step, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from model.training.dataset import StoredDialogue, read_corpus, spoken_batch
from model.training.options import TrainOptions, on_gpu
from model.training.together import Group, Together
from model.training.trainer import Trainer, run_tokenizer

_REPORT_EVERY_S = 15.0
_MOST_PROCESSES = 4  # of one thread each; more would wait for memory


@dataclass(slots=True)
class Means:
    """Means of the numbers of some steps; not every step has every number."""

    sums: dict[str, float]
    counts: dict[str, int]

    def add(self, numbers: dict[str, float]) -> None:
        """Take in one step."""
        for name, value in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        means = {k: round(v / self.counts[k], 4) for k, v in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


class Run:
    """Takes steps until the budget is used or someone asks to stop."""

    def __init__(
        self,
        trainer: Trainer,
        check: Path | None = None,
        stop_after_s: float = math.inf,
    ) -> None:
        self.trainer = trainer
        self.check_folder = check
        self.stop_after_s = stop_after_s
        self.stop_asked = False
        self._means = Means({}, {})

    def go(self) -> None:
        """Train, log, save."""
        trainer, options = self.trainer, self.trainer.options
        called = time.monotonic()
        began = called - trainer.spent_s
        saved = checked = reported = trainer.spent_s
        clips = 0.0
        together = trainer.together
        is_first = together.rank == 0
        path = trainer.folder / "log.jsonl" if is_first else Path(os.devnull)
        with path.open("a") as log:

            def note(entry: dict[str, Any]) -> None:
                log.write(json.dumps(entry) + "\n")
                log.flush()

            while trainer.progress < 1 and not self.stop_asked:
                numbers = trainer.take_step()
                clips += numbers["clips"] * together.count
                self._means.add(numbers)
                now_s = trainer.spent_s = time.monotonic() - began
                if now_s - reported > _REPORT_EVERY_S:
                    note(self._progress(clips / (now_s - reported)))
                    clips, reported = 0.0, now_s
                    trainer.look_for_shards()
                if is_first and now_s - saved > options.save_every_s:
                    trainer.save()
                    saved = now_s
                due = is_first and now_s - checked > options.check_every_s
                if self.check_folder is not None and due and trainer.stage == "all":
                    rates = check(trainer, self.check_folder)
                    note({"step": trainer.step, "check": rates})
                    checked = now_s
                over = time.monotonic() - called > self.stop_after_s
                # All of them take the same steps at the same rates, and as many.
                trainer.spent_s, asked = together.agree(
                    time.monotonic() - began, self.stop_asked or over
                )
                self.stop_asked = bool(asked)
        if is_first:
            trainer.save()
            if trainer.progress >= 1:
                (trainer.folder / "done").touch()
        trainer.close()

    def _progress(self, clips_per_s: float) -> dict[str, Any]:
        trainer = self.trainer
        return {
            "step": trainer.step,
            "stage": trainer.stage,
            "minutes": round(trainer.spent_s / 60, 2),
            "lr": round(trainer.learning_rate(), 6),
            "clips_per_s": round(clips_per_s, 1),
            "processes": trainer.together.count,
            "dialogues": len(trainer.dialogues),
            **self._means.take(),
        }


@torch.no_grad()
def check(trainer: Trainer, folder: Path, num_dialogues: int = 60) -> dict[str, float]:
    """Replies and transcripts wholly right, given what came before, shard by shard."""
    shards: dict[str, list[StoredDialogue]] = {}
    read_corpus(folder, shards)
    result: dict[str, float] = {}
    for name, dialogues in shards.items():
        batch = spoken_batch(
            trainer.maker,
            random.Random(5),
            dialogues[:num_dialogues],
            augment=False,
            noisy=False,
            transcripts=1.0,
        )
        vectors, _ = trainer.listen(batch, result)
        for kind, rows in (
            ("reply", batch.reply_rows),
            ("transcript", batch.transcript_rows),
        ):
            result[f"{name}_{kind}"] = trainer.wholly_right(rows, vectors)
    return {k: round(v, 3) for k, v in result.items()}


def default_options(kind: str) -> TrainOptions:
    """Of ``cpu`` or ``gpu``; ``auto`` looks whether there is one."""
    if kind == "auto":
        kind = "gpu" if torch.cuda.is_available() else "cpu"
    return on_gpu(TrainOptions()) if kind == "gpu" else TrainOptions()


def prepare(
    options: TrainOptions,
    out: Path,
    corpus: Path,
    start_from: Path | None = None,
    together: Together | None = None,
) -> Trainer:
    """A trainer that goes on where the folder's run was, if there is one."""
    trainer = Trainer(options, out, corpus, start_from, together)
    if (out / "state.pt").exists():
        trainer.resume()
    return trainer


def num_processes(options: TrainOptions) -> int:
    """How many share the steps; one, where others prepare its batches.

    Raises:
        ValueError: both were asked for.
    """
    if options.workers and options.processes > 1:
        raise ValueError("workers prepare batches for one process: leave processes out")
    most = 1 if options.workers else _MOST_PROCESSES
    return options.processes or min(os.cpu_count() or 1, most)


@dataclass(frozen=True, slots=True)
class Job:
    """What each of the processes is to do."""

    options: TrainOptions
    out: Path
    corpus: Path
    check: Path | None
    start_from: Path | None
    stop_after_s: float

    def do(self) -> None:
        """In this process and as many others as the options say.

        Raises:
            RuntimeError: one of them failed; it said why.
        """
        run_tokenizer(self.options, self.out, self.start_from)
        count = num_processes(self.options)
        if count == 1:
            self.take_part(None)
            return
        context = multiprocessing.get_context("spawn")
        with tempfile.TemporaryDirectory() as folder:
            meeting = Path(folder) / "meeting"
            others = [
                context.Process(
                    target=_take_part, args=(self, rank, count, meeting), daemon=True
                )
                for rank in range(1, count)
            ]
            for other in others:
                other.start()
            _take_part(self, 0, count, meeting)
            for other in others:
                other.join()

    def take_part(self, together: Together | None) -> None:
        """This process's part, to its end."""
        trainer = prepare(
            self.options, self.out, self.corpus, self.start_from, together
        )
        run = Run(trainer, self.check, self.stop_after_s)
        if trainer.together.rank:
            run.go()
            return
        with stopped_by_sigterm(run):
            run.go()


def _take_part(job: Job, rank: int, count: int, meeting: Path) -> None:
    torch.set_num_threads(1)
    if rank:  # the first one says when to stop
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    job.take_part(Group(rank, count, meeting))


@contextmanager
def stopped_by_sigterm(run: Run) -> Iterator[None]:
    """Meanwhile the run saves and ends when it is asked to."""

    def stop(_signal: int, _frame: object) -> None:
        run.stop_asked = True

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--check", type=Path, help="corpus to measure on, not trained")
    parser.add_argument("--start-from", type=Path, help="checkpoint to go on from")
    parser.add_argument("--settings", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--stop-after", type=float, help="minutes of this call")
    kinds: dict[str, type] = {f.name: type(f.default) for f in fields(TrainOptions)}
    kinds["max_steps"] = int
    given = (
        *("minutes", "text_until", "heads_until", "decay_from", "learning_rate"),
        *("seed", "processes", "workers", "ear_every", "warm_up_steps"),
        *("dialogues_a_step", "imagined_a_step", "imagined_beside"),
        *("reading_from", "read_a_step", "spliced_a_step"),
        *("openings_a_step", "openings_beside", "rows_a_group"),
        *("device", "arithmetic", "max_steps", "tokenizer_dialogues"),
    )
    for name in given:
        parser.add_argument(f"--{name.replace('_', '-')}", type=kinds[name])
    chosen = vars(parser.parse_args())
    own = {name: chosen[name] for name in given if chosen[name] is not None}
    options = replace(default_options(chosen["settings"]), **own)
    Job(
        options,
        chosen["out"],
        chosen["corpus"],
        chosen["check"],
        chosen["start_from"],
        60 * (chosen["stop_after"] or math.inf),
    ).do()


if __name__ == "__main__":
    main()
