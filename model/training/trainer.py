"""One step of training, and the state that a run keeps.

Three stages share one budget. First the language model alone, on dialogues laid out as
if heard; then encoder and projector alone, against phonemes and words; then everything
together, where imagined dialogues go on beside the heard ones and the ear is updated
only in some of the steps: it learns faster than the language model, and costs more.
"""

from __future__ import annotations

import random
import shutil
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

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
from model.training.reading import (
    groups_of_like_length,
    read_group,
    share_wholly_right,
)
from model.training.rows import Heard, Row, RowMaker
from model.training.start import Sizes, build_config, fresh_network
from model.training.tokenizer import load_or_train_tokenizer
from model.ultravox.checkpoint import LoadOptions, load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train. With `max_steps` the budget is steps, for tests; else minutes."""

    minutes: float = 180.0
    max_steps: int | None = None
    seed: int = 1
    sizes: Sizes = field(default_factory=Sizes)
    dialogues_a_step: int = 14
    imagined_a_step: int = 48
    # Beside the heard dialogues of the last stage. They are cheap, and the language
    # model is what needs most steps.
    imagined_beside: int = 16
    ear_every: int = 3
    learning_rate: float = 1.5e-3
    # Shares of the budget.
    text_until: float = 0.20
    heads_until: float = 0.45
    decay_from: float = 0.65
    last_share: float = 0.03
    warm_up_steps: int = 100
    # Of an imagined clip's word pieces, those heard wrong; and blur, against the
    # spread of the embeddings. About what a fair projector does.
    imagined_wrong: float = 0.1
    imagined_blur: float = 0.4
    rows_a_group: int = 8  # small enough that rows of a group are of one length
    save_every_s: float = 180.0
    check_every_s: float = 400.0
    num_threads: int = 2
    # "auto" times both: bfloat16 is three times as fast on a processor that has it and
    # several times slower on one that has not.
    arithmetic: str = "auto"
    tokenizer_dialogues: int = 20_000


class Trainer:
    """Network, heads, optimiser and how far the run is."""

    def __init__(
        self,
        options: TrainOptions,
        folder: Path,
        corpus: Path,
        start_from: Path | None = None,
    ) -> None:
        """Begin a run.

        Args:
            start_from: a checkpoint whose tokenizer and weights are the first values;
                without it everything is new.

        Raises:
            ValueError: the checkpoint is of another size.
        """
        self.options, self.folder, self.corpus = options, folder, corpus
        folder.mkdir(parents=True, exist_ok=True)
        # Attention weights in bfloat16 too; the name says CUDA, the CPU obeys as well.
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
        if start_from is not None and not (folder / "tokenizer.json").exists():
            shutil.copy(start_from / "tokenizer.json", folder / "tokenizer.json")
        tokenizer = load_or_train_tokenizer(folder, options.tokenizer_dialogues)
        self.maker = RowMaker(tokenizer)
        self._shards: dict[str, list[StoredDialogue]] = {}
        self.dialogues: list[StoredDialogue] = []
        self.look_for_shards()
        sample = spoken_batch(
            self.maker, random.Random(0), self.dialogues[:8], with_rows=False
        )
        maker = self.maker
        config = build_config(
            options.sizes, tokenizer.get_vocab_size(), maker.end_of_turn, maker.begin
        )
        self.network = fresh_network(config, sample.audio[-1].mel, options.seed)
        if start_from is not None:
            self._start_from(start_from)
        self.frame_head = FrameHead(options.sizes.d_model)
        self.word_head = WordHead(0.08 * options.sizes.text_width**0.5)
        self.everything = nn.ModuleList([self.network, self.frame_head, self.word_head])
        parameters = list(self.everything.parameters())
        matrices = [p for p in parameters if p.dim() > 1]
        others = [p for p in parameters if p.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": 0.01},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=options.learning_rate,
            betas=(0.9, 0.98),
        )
        self._reading = list(self.network.language_model.parameters())
        reading = {id(p) for p in self._reading}
        self._hearing = [p for p in parameters if id(p) not in reading]
        self.step = 0
        self.stage = ""
        self.stage_began_step = 0
        self.spent_s = 0.0
        kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
        self.arithmetic = kinds.get(options.arithmetic, torch.float32)
        if options.arithmetic == "auto":
            self.arithmetic = self._faster_arithmetic(sample)

    def _start_from(self, checkpoint: Path) -> None:
        loaded = load_checkpoint(str(checkpoint), LoadOptions(device="cpu"))
        values = loaded.network.state_dict()
        own = self.network.state_dict()
        if {k: v.shape for k, v in values.items()} != {
            k: v.shape for k, v in own.items()
        }:
            raise ValueError(f"{checkpoint} is of another size than this run")
        self.network.load_state_dict({k: v.float() for k, v in values.items()})

    def _faster_arithmetic(self, sample: Batch) -> torch.dtype:
        spent_s = {}
        for dtype in (torch.float32, torch.bfloat16):
            self.arithmetic = dtype
            for _ in range(2):  # the first one builds kernels
                began = time.perf_counter()
                with self._kernels():
                    self.listen(sample, {})[1].backward()  # type: ignore[no-untyped-call]
                spent_s[dtype] = time.perf_counter() - began
        self.optimizer.zero_grad(set_to_none=True)
        return min(spent_s, key=lambda dtype: spent_s[dtype])

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            "cpu", torch.bfloat16, enabled=self.arithmetic == torch.bfloat16
        )

    def _kernels(self) -> AbstractContextManager[None]:
        # In bfloat16 the fused kernels are slow at these sizes: a third of a step.
        if self.arithmetic == torch.bfloat16:
            return cast(AbstractContextManager[None], sdpa_kernel(SDPBackend.MATH))
        return nullcontext()

    def look_for_shards(self) -> None:
        """Take in shards of the corpus that have appeared since."""
        read_corpus(self.corpus, self._shards)
        self.dialogues = [d for s in sorted(self._shards) for d in self._shards[s]]

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
            warm = min((since + 1) / options.warm_up_steps, 1.0)
        over = (self.progress - options.decay_from) / (1 - options.decay_from)
        share = 1 - (1 - options.last_share) * min(max(over, 0.0), 1.0)
        return options.learning_rate * warm * share

    # -- one step --------------------------------------------------------------

    def take_step(self) -> dict[str, float]:
        """One update; the losses."""
        self._enter_stage()
        rng = random.Random(f"{self.options.seed}-{self.step}")
        numbers: dict[str, float] = {}
        with self._kernels():
            loss = self._loss(rng, numbers)
        rate = self.learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        # Apart, or the ear's larger gradients would silence the other's.
        for name, part in (("reading", self._reading), ("hearing", self._hearing)):
            given = [p for p in part if p.grad is not None]
            if given:
                norm = nn.utils.clip_grad_norm_(given, 1.0)
                numbers[f"{name}_norm"] = float(norm)
        self.optimizer.step()
        self.step += 1
        return numbers | {"loss": loss.item()}

    def _loss(self, rng: random.Random, numbers: dict[str, float]) -> Tensor:
        options = self.options
        loss = torch.zeros(())
        clips = 0
        if self.stage != "heads":
            count = options.imagined_a_step
            if self.stage == "all":
                count = options.imagined_beside
            batch = imagined_batch(self.maker, rng, count)
            loss = loss + self._answers(batch, self._imagine(batch.heard, rng), numbers)
            clips += len(batch.heard)
        if self.stage != "text":
            count = min(options.dialogues_a_step, len(self.dialogues))
            batch = spoken_batch(
                self.maker,
                rng,
                rng.sample(self.dialogues, count),
                with_rows=self.stage == "all",
                transcripts=0.4,
            )
            ear_learns = self.stage == "heads" or self.step % options.ear_every == 0
            with nullcontext() if ear_learns else torch.no_grad():
                vectors, heard_loss = self.listen(batch, numbers)
            if ear_learns:
                loss = loss + heard_loss
            loss = loss + self._answers(batch, vectors, numbers, "heard_")
            clips += len(batch.heard)
        numbers["clips"] = float(clips)
        return loss

    def _answers(
        self,
        batch: Batch,
        vectors: list[Tensor],
        numbers: dict[str, float],
        prefix: str = "",
    ) -> Tensor:
        loss = torch.zeros(())
        for name, rows in (
            (f"{prefix}reply", batch.reply_rows),
            (f"{prefix}transcript", batch.transcript_rows),
        ):
            if rows:
                logits, targets = self._predict(rows, vectors)
                value = F.cross_entropy(logits, targets)
                right = (logits.argmax(-1) == targets).float().mean()
                loss = loss + value
                numbers[name], numbers[f"{name}_right"] = value.item(), right.item()
        return loss

    def _imagine(self, heard: tuple[Heard, ...], rng: random.Random) -> list[Tensor]:
        """What a good projector would give, with the errors of a fair one."""
        options = self.options
        ids, shares = mixtures(heard, self.maker.silence)
        embeddings = self.network.language_model.get_input_embeddings().weight
        generator = torch.Generator().manual_seed(rng.getrandbits(60))
        wrong = torch.rand(ids.shape, generator=generator) < options.imagined_wrong
        others = torch.randint(0, len(embeddings), ids.shape, generator=generator)
        ids = torch.where(wrong, others, ids)
        mixed = (embeddings[ids] * shares[..., None]).sum(1)
        noise = torch.randn(mixed.shape, generator=generator)
        mixed = mixed + noise * (options.imagined_blur * embeddings.detach().std())
        return list(mixed.split([h.num_tokens for h in heard]))

    def listen(
        self, batch: Batch, numbers: dict[str, float]
    ) -> tuple[list[Tensor], Tensor]:
        """Audio vectors of each clip, and the two heads' loss."""
        network = self.network
        vectors: list[Tensor] = [torch.empty(0)] * len(batch.heard)
        states, classes = [], []
        for audio in batch.audio:
            counts = torch.tensor([batch.heard[c].num_tokens for c in audio.clips])
            with self._autocast():
                out = network.audio_tower(audio.mel, audio.num_frames)
                projected = network.multi_modal_projector(out, counts).float()
            valid = torch.arange(out.shape[1]) < ((audio.num_frames + 1) // 2)[:, None]
            states.append(out[valid].float())
            classes.append(audio.phones[:, : out.shape[1]][valid])
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

    def _predict(
        self, rows: Sequence[Row], vectors: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, V) at the targets and the targets (N,), in groups' order."""
        hidden, targets = [], []
        for group in groups_of_like_length(rows, self.options.rows_a_group):
            with self._autocast():
                found = read_group(self.network, group, vectors, self.maker.silence)
            hidden.append(found[0])
            targets.append(found[1])
        logits = self.network.language_model.lm_head(torch.cat(hidden))
        return logits, torch.cat(targets)

    @torch.no_grad()
    def wholly_right(self, rows: Sequence[Row], vectors: list[Tensor]) -> float:
        """Share of the rows' answers that are right to the last token."""
        logits, targets = self._predict(rows, vectors)
        groups = groups_of_like_length(rows, self.options.rows_a_group)
        in_order = [row for group in groups for row in group]
        return share_wholly_right(in_order, (logits.argmax(-1) == targets).tolist())

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
