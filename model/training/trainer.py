"""One step of training, and the state that a run keeps.

Four stages share one budget. First the language model alone, on dialogues laid out as
if heard; then encoder and projector alone, against phonemes and words; then, on a GPU,
everything together, where imagined dialogues go on beside the heard ones; last the
language model alone again, on what the ear, which stays as it is, gives for the corpus.
"""

from __future__ import annotations

import random
import shutil
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.training.arithmetic import Arithmetic
from model.training.batches import BatchMaker, BatchSizes, StepInput, Workers
from model.training.dataset import Batch, StoredDialogue, spoken_batch
from model.training.heads import FrameHead, WordHead
from model.training.hearing import Ear, imagine
from model.training.kept_hearing import KeptHearing
from model.training.muon import Muon
from model.training.options import TrainOptions
from model.training.reading import (
    groups_of_like_rows,
    read_group,
    share_wholly_right,
)
from model.training.rows import Row, RowMaker
from model.training.start import build_config, fresh_network, take_values
from model.training.together import Alone, Together
from model.training.tokenizer import load_or_train_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tokenizers import Tokenizer
    from torch.optim import Optimizer


def run_tokenizer(
    options: TrainOptions, folder: Path, start_from: Path | None
) -> Tokenizer:
    """The run's; made, or taken from the checkpoint that it starts from, if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    if start_from is not None and not (folder / "tokenizer.json").exists():
        shutil.copy(start_from / "tokenizer.json", folder / "tokenizer.json")
    return load_or_train_tokenizer(folder, options.tokenizer_dialogues)


class Trainer:
    """Network, heads, optimiser and how far the run is."""

    def __init__(
        self,
        options: TrainOptions,
        folder: Path,
        corpus: Path,
        start_from: Path | None = None,
        together: Together | None = None,
    ) -> None:
        """Begin a run.

        Args:
            start_from: a checkpoint whose tokenizer and weights are the first values;
                without it everything is new.
            together: the processes that share the work; this one alone if not said.

        Raises:
            ValueError: the checkpoint is of another size.
        """
        self.options, self.folder, self.corpus = options, folder, corpus
        self.together: Together = together or Alone()
        tokenizer = run_tokenizer(options, folder, start_from)
        self.maker = RowMaker(tokenizer)
        self.arithmetic = Arithmetic.choose(options.device, options.arithmetic)
        self.device = self.arithmetic.device
        sizes = BatchSizes(
            options.seed,
            options.dialogues_a_step,
            options.imagined_a_step,
            options.imagined_beside,
            options.openings_a_step,
            options.openings_beside,
            options.clips_a_group,
        )
        self._batches = BatchMaker(tokenizer, corpus, sizes)
        self._workers: Workers | None = None
        self.shards: tuple[str, ...] = ()
        self._kept = KeptHearing(self.maker)
        self.look_for_shards()
        sample = spoken_batch(
            self.maker, random.Random(0), self.dialogues[:8], with_rows=False
        )
        maker = self.maker
        config = build_config(
            options.sizes, tokenizer.get_vocab_size(), maker.end_of_turn, maker.begin
        )
        mel = torch.from_numpy(sample.audio[-1].mel)
        self.network = fresh_network(config, mel, options.seed)
        if start_from is not None:
            take_values(self.network, start_from, tokenizer)
        frame_head = FrameHead(options.sizes.d_model)
        word_head = WordHead(0.08 * options.sizes.text_width**0.5)
        self.everything = nn.ModuleList([self.network, frame_head, word_head])
        self.everything.to(self.device)
        self._ear = Ear(
            self.network, frame_head, word_head, maker.silence, self.arithmetic
        )
        parameters = list(self.everything.parameters())
        self.optimizers = _optimizers(self.everything, options.learning_rate)
        self._reading = list(self.network.language_model.parameters())
        reading = {id(p) for p in self._reading}
        self._hearing = [p for p in parameters if id(p) not in reading]
        self.step = 0
        self.stage = ""
        self.stage_began_step = 0
        self.spent_s = 0.0
        if self._chooses_arithmetic():
            self.arithmetic.take_the_faster(lambda: self._try(sample))
            is_full = self.arithmetic.dtype == torch.float32
            (is_full,) = map(bool, self.together.agree(is_full))
            self.arithmetic.dtype = torch.float32 if is_full else torch.bfloat16

    def _chooses_arithmetic(self) -> bool:
        return self.device.type == "cpu" and self.options.arithmetic == "auto"

    def _try(self, sample: Batch) -> None:
        with self.arithmetic.kernels():
            self.listen(sample, {})[1].backward()  # type: ignore[no-untyped-call]
        self._forget_gradients()

    def _forget_gradients(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def look_for_shards(self) -> None:
        """Take in shards of the corpus that have appeared since."""
        self.shards = self._batches.look_for_shards()

    @property
    def dialogues(self) -> Sequence[StoredDialogue]:
        """All that are there to learn from."""
        return self._batches.dialogues

    def close(self) -> None:
        """End the processes that prepare batches, leave those that share the work."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None
        self.together.close()

    def _input(self) -> StepInput:
        count, number = self.options.workers, self._input_number
        if not count:
            return self._batches.make(number, self.stage)
        if self._workers is None:
            path = self.folder / "tokenizer.json"
            self._workers = Workers(path, self._batches, count)
        return self._workers.take(number, self.stage, self.shards)

    @property
    def _input_number(self) -> int:
        """Of this process's part of the step; no two are the same."""
        return self.step * self.together.count + self.together.rank

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
        elif progress >= options.reading_from:
            stage = "reading"
        if stage != self.stage:
            self.stage, self.stage_began_step = stage, self.step

    def learning_rate(self) -> float:
        """Warm-up in each of the first two stages, constant, then linear down.

        Where the ear does not learn on with everything, it has its fall in the second
        half of its own stage.
        """
        options, progress = self.options, self.progress
        since = self.step - self.stage_began_step
        warm = 1.0
        if self.stage in {"text", "heads"}:
            warm = min((since + 1) / options.warm_up_steps, 1.0)
        begin, end = options.decay_from, 1.0
        if self.stage == "heads" and options.reading_from <= options.heads_until:
            begin, end = (
                (options.text_until + options.heads_until) / 2,
                options.heads_until,
            )
        over = (progress - begin) / (end - begin)
        share = 1 - (1 - options.last_share) * min(max(over, 0.0), 1.0)
        return options.learning_rate * warm * share

    # -- one step --------------------------------------------------------------

    def take_step(self) -> dict[str, float]:
        """One update; the losses."""
        self._enter_stage()
        numbers: dict[str, float] = {}
        if self.stage == "reading":
            with self.arithmetic.kernels():
                loss = self._reading_loss(numbers)
        else:
            given = self._input()
            with self.arithmetic.kernels():
                loss = self._loss(given, numbers)
        rate = self.learning_rate()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        self._forget_gradients()
        loss.backward()  # type: ignore[no-untyped-call]
        self.together.average_gradients([*self._reading, *self._hearing])
        # Apart, or the ear's larger gradients would silence the other's.
        for name, part in (("reading", self._reading), ("hearing", self._hearing)):
            learning = [p for p in part if p.grad is not None]
            if learning:
                norm = nn.utils.clip_grad_norm_(learning, 1.0)
                numbers[f"{name}_norm"] = float(norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        return numbers | {"loss": loss.item()}

    def _loss(self, given: StepInput, numbers: dict[str, float]) -> Tensor:
        options = self.options
        loss = torch.zeros((), device=self.device)
        clips = 0
        if given.imagined is not None:
            heard = given.imagined.heard
            vectors = imagine(
                heard,
                self.network.language_model.get_input_embeddings().weight,
                self.maker.silence,
                given.noise_seed,
                wrong=options.imagined_wrong,
                blur=options.imagined_blur,
            )
            loss = loss + self._answers(given.imagined, vectors, numbers)
            clips += len(heard)
        if given.spoken is not None:
            self._settle_words()
            ear_learns = self.stage == "heads" or self.step % options.ear_every == 0
            with nullcontext() if ear_learns else torch.no_grad():
                vectors, heard_loss = self.listen(given.spoken, numbers)
            if ear_learns:
                loss = loss + heard_loss
            loss = loss + self._answers(given.spoken, vectors, numbers, "heard_")
            clips += len(given.spoken.heard)
        numbers["clips"] = float(clips)
        return loss

    def _settle_words(self) -> None:
        """From the first clip on, what the ear gives for a word stays the same."""
        if self._ear.word_table is None:
            look_up = self.network.language_model.get_input_embeddings()
            self._ear.word_table = look_up.weight.detach().clone()

    def _reading_loss(self, numbers: dict[str, float]) -> Tensor:
        """The language model alone, on what the ear gave; the ear stays as it is."""
        options = self.options
        since = self.step - self.stage_began_step
        together, kept = self.together, self._kept
        # Each hears its own part of the corpus.
        own = self.shards[together.rank :: together.count] or self.shards
        while kept.num_shards < min(1 + since // options.steps_a_heard_shard, len(own)):
            name = own[kept.num_shards]
            path = self.folder / f"heard-{self.stage_began_step}-{name}.pt"
            kept.hear(self._batches.shard(name), path, partial(self._hear, name))
        rng = random.Random(f"{options.seed}-{self._input_number}-reading")
        batch, vectors = kept.batch(rng, options.read_a_step, options.spliced_a_step)
        numbers["clips"] = float(len(vectors))
        vectors = [v.to(self.device) for v in vectors]
        return self._answers(batch, vectors, numbers, "heard_")

    @torch.no_grad()
    def _hear(self, shard: str, dialogues: Sequence[StoredDialogue]) -> list[Tensor]:
        """Vectors of the dialogues' clips; half of the time some get new noise."""
        rng = random.Random(f"{shard}-{dialogues[0].clips[0].first_frame}")
        batch = spoken_batch(
            self.maker,
            rng,
            dialogues,
            augment=False,
            noisy=rng.random() < 0.5,
            with_rows=False,
            clips_a_group=self.options.clips_a_group,
        )
        return self.listen(batch, {})[0]

    def _answers(
        self,
        batch: Batch,
        vectors: list[Tensor],
        numbers: dict[str, float],
        prefix: str = "",
    ) -> Tensor:
        loss = torch.zeros((), device=self.device)
        for name, rows, weight in (
            (f"{prefix}reply", batch.reply_rows, 1.0),
            # What the ear got wrong can not be written down right: at full weight
            # that would be most of the gradient.
            (f"{prefix}transcript", batch.transcript_rows, self.options.written_weight),
        ):
            if rows:
                logits, targets = self._predict(rows, vectors)
                value = F.cross_entropy(logits, targets)
                right = (logits.argmax(-1) == targets).float().mean()
                loss = loss + weight * value
                numbers[name], numbers[f"{name}_right"] = value.item(), right.item()
        return loss

    def listen(
        self, batch: Batch, numbers: dict[str, float]
    ) -> tuple[list[Tensor], Tensor]:
        """Audio vectors of each clip, and the two heads' loss."""
        return self._ear.listen(batch, numbers)

    def _predict(
        self, rows: Sequence[Row], vectors: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, V) at the targets and the targets (N,), in groups' order."""
        hidden, targets = [], []
        for group in groups_of_like_rows(rows, self.options.rows_a_group):
            with self.arithmetic.autocast():
                found = read_group(self.network, group, vectors, self.maker.silence)
            hidden.append(found[0])
            targets.append(found[1])
        logits = self.network.language_model.lm_head(torch.cat(hidden))
        return logits, torch.cat(targets)

    @torch.no_grad()
    def wholly_right(self, rows: Sequence[Row], vectors: list[Tensor]) -> float:
        """Share of the rows' answers that are right to the last token."""
        logits, targets = self._predict(rows, vectors)
        groups = groups_of_like_rows(rows, self.options.rows_a_group)
        in_order = [row for group in groups for row in group]
        return share_wholly_right(in_order, (logits.argmax(-1) == targets).tolist())

    # -- keeping ---------------------------------------------------------------

    def save(self) -> None:
        """State for resuming, written aside and renamed."""
        state = {
            "everything": self.everything.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step,
            "stage": self.stage,
            "stage_began_step": self.stage_began_step,
            "spent_s": self.spent_s,
            "arithmetic": self.arithmetic.name,
            "word_table": self._ear.word_table,
        }
        aside = self.folder / ".state.pt"
        torch.save(state, aside)
        aside.rename(self.folder / "state.pt")

    def resume(self) -> None:
        """Go on from the last saved state."""
        path = self.folder / "state.pt"
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.everything.load_state_dict(state["everything"])
        for optimizer, found in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(found)
        self.step, self.stage = state["step"], state["stage"]
        self.stage_began_step = state["stage_began_step"]
        self.spent_s = state["spent_s"]
        self._ear.word_table = state.get("word_table")
        if self._chooses_arithmetic():
            self.arithmetic.dtype = Arithmetic.choose("cpu", state["arithmetic"]).dtype


def _optimizers(everything: nn.Module, learning_rate: float) -> list[Optimizer]:
    """Muon for the matrices of layers and projector, AdamW for all else."""
    inner: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in everything.named_parameters():
        is_inner = "layers." in name or "multi_modal_projector." in name
        is_inner = is_inner and parameter.dim() == 2
        (inner if is_inner else others).append(parameter)
    adam = torch.optim.AdamW(
        others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    return [Muon(inner, learning_rate), adam]
