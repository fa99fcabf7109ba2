"""Train the demo model: python -m model.training.train --corpus DIR --out DIR.

Three stages share one time budget. First the language model alone, on dialogues laid
out as if heard; then encoder and projector alone, against phonemes and words; then
everything together. The learning rate falls over the last part: judge no run before.
Runs resume where they stopped (``--resume``); progress is JSON lines in ``log.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.training.dataset import (
    Batch,
    StoredDialogue,
    imagined_batch,
    read_corpus,
    spoken_batch,
)
from model.training.heads import FrameHead, WordHead, mixtures
from model.training.rows import IGNORE, Heard, Row, RowMaker
from model.training.start import Sizes, build_config, fresh_network
from model.training.threads import ThreadChoice
from model.training.tokenizer import save_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train. With `max_steps` the budget is steps, for tests; else minutes."""

    minutes: float = 90.0
    max_steps: int | None = None
    seed: int = 1
    sizes: Sizes = field(default_factory=Sizes)
    dialogues_a_step: int = 16
    imagined_a_step: int = 48
    learning_rate: float = 1.5e-3
    # Shares of the budget: the language model needs little, the ear most.
    text_until: float = 0.07
    heads_until: float = 0.36
    decay_from: float = 0.60
    last_share: float = 0.03
    warm_up_steps: int = 100
    save_every_s: float = 180.0
    check_every_s: float = 300.0
    rows_a_group: int = 8  # small enough that rows of a group are of one length
    num_threads: int = 2


class Trainer:
    """Network, heads, optimiser and how far the run is."""

    def __init__(self, options: TrainOptions, folder: Path, corpus: Path) -> None:
        self.options, self.folder, self.corpus = options, folder, corpus
        folder.mkdir(parents=True, exist_ok=True)
        # Attention weights in bfloat16 too; the name says CUDA, the CPU obeys as well.
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
        tokenizer = train_tokenizer(
            num_dialogues=2000 if options.max_steps is not None else 20_000
        )
        save_tokenizer(tokenizer, folder)
        self.maker = RowMaker(tokenizer)
        self.shards: dict[str, list[StoredDialogue]] = {}
        self.dialogues: list[StoredDialogue] = []
        self._look_for_shards()
        config = build_config(
            options.sizes,
            tokenizer.get_vocab_size(),
            self.maker.end_of_turn,
            self.maker.begin,
        )
        sample = spoken_batch(
            self.maker, random.Random(0), self.dialogues[:8], with_rows=False
        )
        self.network = fresh_network(config, sample.audio[-1].mel, options.seed)
        self.frame_head = FrameHead(options.sizes.d_model)
        self.word_head = WordHead(0.08 * options.sizes.text_width**0.5)
        everything = nn.ModuleList([self.network, self.frame_head, self.word_head])
        matrices = [p for p in everything.parameters() if p.dim() > 1]
        others = [p for p in everything.parameters() if p.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": 0.01},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=options.learning_rate,
            betas=(0.9, 0.98),
        )
        self.everything = everything
        self.step = 0
        self.stage = ""
        self.stage_began_step = 0
        self.spent_s = 0.0
        self.stop_asked = False  # set from outside: save and return after this step

    def _look_for_shards(self) -> None:
        read_corpus(self.corpus, self.shards)
        self.dialogues = [d for s in sorted(self.shards) for d in self.shards[s]]

    # -- how far ---------------------------------------------------------------

    @property
    def progress(self) -> float:
        """Share of the budget used."""
        options = self.options
        if options.max_steps is not None:
            return self.step / options.max_steps
        return self.spent_s / (60 * options.minutes)

    def _enter_stage(self) -> None:
        options, progress = self.options, self.progress
        stage = "all"
        if progress < options.text_until:
            stage = "text"
        elif progress < options.heads_until:
            stage = "heads"
        if stage != self.stage:
            self.stage, self.stage_began_step = stage, self.step

    def learning_rate(self) -> float:
        """Warm-up in each of the first two stages, constant, then linear down."""
        options = self.options
        since = self.step - self.stage_began_step
        warm = 1.0
        if self.stage != "all":
            steps = options.warm_up_steps / (2 if self.stage == "text" else 1)
            warm = min((since + 1) / steps, 1.0)
        over = (self.progress - options.decay_from) / (1 - options.decay_from)
        share = 1 - (1 - options.last_share) * min(max(over, 0.0), 1.0)
        return options.learning_rate * warm * share

    # -- one step --------------------------------------------------------------

    def take_step(self) -> dict[str, float]:
        """One update; the losses."""
        self._enter_stage()
        rng = random.Random(f"{self.options.seed}-{self.step}")
        if self.stage == "text":
            batch = imagined_batch(self.maker, rng, self.options.imagined_a_step)
        else:
            chosen = rng.sample(
                self.dialogues, min(self.options.dialogues_a_step, len(self.dialogues))
            )
            batch = spoken_batch(self.maker, rng, chosen, with_rows=self.stage == "all")
        # The fused kernels are slow at these sizes: a third of a step went into them.
        with sdpa_kernel(SDPBackend.MATH):
            loss, numbers = self._loss(batch, rng)
        rate = self.learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.everything.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return numbers | {"norm": float(norm), "clips": float(len(batch.heard))}

    def _loss(
        self, batch: Batch, rng: random.Random
    ) -> tuple[Tensor, dict[str, float]]:
        numbers: dict[str, float] = {}
        if self.stage == "text":
            vectors = self._imagine(batch.heard, rng)
            loss = torch.zeros(())
        else:
            vectors, loss = self._listen(batch, numbers)
        if batch.reply_rows:
            for name, rows in (
                ("reply", batch.reply_rows),
                ("transcript", batch.transcript_rows),
            ):
                if not rows:
                    continue
                value, right = self._read(rows, vectors)
                loss = loss + value
                numbers[name], numbers[f"{name}_right"] = value.item(), right
        numbers["loss"] = loss.item()
        return loss, numbers

    def _imagine(self, heard: tuple[Heard, ...], rng: random.Random) -> list[Tensor]:
        """What a good projector would give, with the errors of a fair one."""
        ids, shares = mixtures(heard, self.maker.silence)
        embeddings = self.network.language_model.get_input_embeddings().weight
        generator = torch.Generator().manual_seed(rng.getrandbits(60))
        wrong = torch.rand(ids.shape, generator=generator) < 0.03
        others = torch.randint(0, len(embeddings), ids.shape, generator=generator)
        ids = torch.where(wrong, others, ids)
        mixed = (embeddings[ids] * shares[..., None]).sum(1)
        noise = torch.randn(mixed.shape, generator=generator)
        mixed = mixed + noise * (0.3 * embeddings.detach().std())
        return list(mixed.split([h.num_tokens for h in heard]))

    def _listen(
        self, batch: Batch, numbers: dict[str, float]
    ) -> tuple[list[Tensor], Tensor]:
        network = self.network
        vectors: list[Tensor] = [torch.empty(0)] * len(batch.heard)
        states, classes = [], []
        for audio in batch.audio:
            with torch.autocast("cpu", torch.bfloat16):
                out = network.audio_tower(audio.mel, audio.num_frames)
            valid = torch.arange(out.shape[1]) < ((audio.num_frames + 1) // 2)[:, None]
            states.append(out[valid].float())
            classes.append(audio.phones[:, : out.shape[1]][valid])
            counts = torch.tensor([batch.heard[c].num_tokens for c in audio.clips])
            with torch.autocast("cpu", torch.bfloat16):
                projected = network.multi_modal_projector(out, counts).float()
            for row, clip in enumerate(audio.clips):
                vectors[clip] = projected[row, : int(counts[row])]
        frame_loss, frame_right = self.frame_head(torch.cat(states), torch.cat(classes))
        ids, shares = mixtures(batch.heard, self.maker.silence)
        embeddings = network.language_model.get_input_embeddings().weight.detach()
        word_loss, word_right = self.word_head(
            torch.cat(vectors), embeddings, ids, shares
        )
        numbers.update(
            frame=frame_loss.item(),
            frame_right=frame_right.item(),
            word=word_loss.item(),
            word_right=word_right.item(),
        )
        return vectors, frame_loss + word_loss

    def _read(
        self, rows: tuple[Row, ...], vectors: list[Tensor]
    ) -> tuple[Tensor, float]:
        """Mean loss of the rows' targets, and the share of targets right."""
        logits, targets = self._predict(rows, vectors)
        loss = F.cross_entropy(logits, targets)
        right = (logits.argmax(-1) == targets).float().mean()
        return loss, right.item()

    def _predict(
        self, rows: Sequence[Row], vectors: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, V) at the rows' targets and the targets (N,), row by row."""
        hidden, targets = [], []
        for group in _groups(rows, self.options.rows_a_group):
            with torch.autocast("cpu", torch.bfloat16):
                found = read_rows(self.network, group, vectors, self.maker.silence)
            hidden.append(found[0])
            targets.append(found[1])
        logits = self.network.language_model.lm_head(torch.cat(hidden))
        return logits, torch.cat(targets)

    # -- keeping ---------------------------------------------------------------

    def save(self) -> None:
        """State for resuming, written aside and renamed."""
        state = {
            "everything": self.everything.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "stage": self.stage,
            "stage_began_step": self.stage_began_step,
            "spent_s": self.spent_s,
        }
        aside = self.folder / ".state.pt"
        torch.save(state, aside)
        aside.rename(self.folder / "state.pt")

    def resume(self) -> None:
        """Go on from the last saved state."""
        state = torch.load(self.folder / "state.pt", weights_only=True)
        self.everything.load_state_dict(state["everything"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.stage = state["step"], state["stage"]
        self.stage_began_step = state["stage_began_step"]
        self.spent_s = state["spent_s"]

    def run(self, check: Path | None = None) -> None:
        """Train until the budget is used."""
        began = time.monotonic() - self.spent_s
        saved = checked = reported = self.spent_s
        sums: dict[str, float] = {}
        count = 0
        choice = ThreadChoice(self.options.num_threads)
        with (self.folder / "log.jsonl").open("a") as log:

            def note(entry: dict[str, Any]) -> None:
                log.write(json.dumps(entry) + "\n")
                log.flush()

            while self.progress < 1 and not self.stop_asked:
                numbers = self.take_step()
                for name, value in numbers.items():
                    sums[name] = sums.get(name, 0.0) + value
                count += 1
                now_s = time.monotonic() - began
                done = choice.step_done(numbers["clips"], now_s - self.spent_s)
                torch.set_num_threads(done)
                self.spent_s = now_s
                if self.spent_s - reported > 15:
                    means = {k: round(v / count, 4) for k, v in sums.items()}
                    rate = sums["clips"] / (self.spent_s - reported)
                    note(
                        {
                            "step": self.step,
                            "stage": self.stage,
                            "minutes": round(self.spent_s / 60, 2),
                            "lr": round(self.learning_rate(), 6),
                            "clips_per_s": round(rate, 1),
                            "threads": choice.threads,
                            "dialogues": len(self.dialogues),
                            **means,
                        }
                    )
                    sums, count, reported = {}, 0, self.spent_s
                    self._look_for_shards()
                if self.spent_s - saved > self.options.save_every_s:
                    self.save()
                    saved = self.spent_s
                due = self.spent_s - checked > self.options.check_every_s
                if check is not None and due and self.stage == "all":
                    note({"step": self.step, "check": self.check(check)})
                    checked = self.spent_s
                self.spent_s = time.monotonic() - began
            self.save()

    @torch.no_grad()
    def check(self, folder: Path, num_dialogues: int = 60) -> dict[str, float]:
        """Share of replies and transcripts wholly right, given what came before."""
        shards: dict[str, list[StoredDialogue]] = {}
        read_corpus(folder, shards)
        result: dict[str, float] = {}
        for name, dialogues in shards.items():
            rng = random.Random(5)
            batch = spoken_batch(
                self.maker,
                rng,
                dialogues[:num_dialogues],
                augment=False,
                transcripts=1.0,
            )
            vectors, _ = self._listen(batch, result)
            for kind, rows in (
                ("reply", batch.reply_rows),
                ("transcript", batch.transcript_rows),
            ):
                result[f"{name}_{kind}"] = self._whole(rows, vectors)
        return {k: round(v, 3) for k, v in result.items()}

    def _whole(self, rows: tuple[Row, ...], vectors: list[Tensor]) -> float:
        """Runs of targets that are all right; a run of one is an end of turn."""
        logits, targets = self._predict(rows, vectors)
        right, total, at = 0, 0, 0
        good = (logits.argmax(-1) == targets).tolist()
        groups = _groups(rows, self.options.rows_a_group)
        for row in (row for group in groups for row in group):
            run: list[bool] = []
            for target in [*row.targets, IGNORE]:
                if target != IGNORE:
                    run.append(good[at])
                    at += 1
                elif run:
                    if len(run) > 1:
                        right, total = right + all(run), total + 1
                    run = []
        return right / max(total, 1)


def _groups(rows: Sequence[Row], size: int) -> list[list[Row]]:
    """Rows of like length together, so that little is padded."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


def read_rows(
    network: Any, rows: Sequence[Row], vectors: list[Tensor], pad_id: int
) -> tuple[Tensor, Tensor]:
    """Rows -> hidden states where there are targets (N, E), and the targets (N,).

    Rows are padded on the right: attention is causal, so padding changes nothing.
    """
    longest = _round_up(max(len(row.ids) for row in rows))
    ids = torch.full((len(rows), longest), pad_id)
    targets = torch.full((len(rows), longest), IGNORE)
    is_audio = torch.zeros((len(rows), longest), dtype=torch.bool)
    pieces: list[Tensor] = []
    for r, row in enumerate(rows):
        ids[r, : len(row.ids)] = torch.tensor(row.ids)
        targets[r, : len(row.ids)] = torch.tensor(row.targets)
        for start, clip in row.audio:
            is_audio[r, start : start + len(vectors[clip])] = True
            pieces.append(vectors[clip])
    embeds = network.merge(ids, is_audio, torch.cat(pieces)) if pieces else None
    if embeds is None:
        embeds = network.language_model.get_input_embeddings()(ids)
    hidden = network.language_model.model(
        inputs_embeds=embeds, use_cache=False
    ).last_hidden_state
    wanted = targets != IGNORE
    return hidden[wanted].float(), targets[wanted]


def _round_up(length: int, multiple: int = 32) -> int:
    """Few different shapes: the CPU library compiles a kernel for each."""
    return -(-length // multiple) * multiple


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--check", type=Path, help="corpus to measure on, not trained")
    parser.add_argument("--minutes", type=float, default=TrainOptions().minutes)
    parser.add_argument("--seed", type=int, default=TrainOptions().seed)
    parser.add_argument("--threads", type=int, default=TrainOptions().num_threads)
    parser.add_argument("--resume", action="store_true")
    chosen = parser.parse_args()
    options = TrainOptions(
        minutes=chosen.minutes, seed=chosen.seed, num_threads=chosen.threads
    )
    torch.set_num_threads(options.num_threads)
    trainer = Trainer(options, chosen.out, chosen.corpus)
    if chosen.resume:
        trainer.resume()

    def stop(_signal: int, _frame: object) -> None:
        trainer.stop_asked = True

    signal.signal(signal.SIGTERM, stop)
    trainer.run(chosen.check)


if __name__ == "__main__":
    main()
