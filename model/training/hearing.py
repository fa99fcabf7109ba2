"""Audio vectors for the language model: from the ear, or imagined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.training.heads import FrameHead, WordHead, mixtures

if TYPE_CHECKING:
    from model.training.arithmetic import Arithmetic
    from model.training.dataset import Batch
    from model.training.rows import Heard
    from model.ultravox.network import UltravoxModel


@dataclass(slots=True)
class Ear:
    """Encoder, projector and the two heads that teach them.

    `word_table` (V, E): the vectors that stand for the words, as the embeddings were
    when the ear first learnt them. The language model's own move on while it reads; an
    ear that had to follow them each time would learn little else.
    """

    network: UltravoxModel
    frame_head: FrameHead
    word_head: WordHead
    silence: int
    arithmetic: Arithmetic
    word_table: Tensor | None = None

    def listen(
        self, batch: Batch, numbers: dict[str, float]
    ) -> tuple[list[Tensor], Tensor]:
        """Vectors (T, E) of each clip, and the two heads' loss."""
        network, device = self.network, self.arithmetic.device
        vectors: list[Tensor] = [torch.empty(0)] * len(batch.heard)
        states, classes = [], []
        for audio in batch.audio:
            mel, num_frames, phones = (
                torch.from_numpy(a).to(device)
                for a in (audio.mel, audio.num_frames, audio.phones)
            )
            counts = torch.tensor(
                [batch.heard[c].num_tokens for c in audio.clips], device=device
            )
            with self.arithmetic.autocast():
                out = network.audio_tower(mel, num_frames)
                projected = network.multi_modal_projector(out, counts).float()
            frames = torch.arange(out.shape[1], device=device)
            valid = frames < ((num_frames + 1) // 2)[:, None]
            states.append(out[valid].float())
            classes.append(phones[:, : out.shape[1]][valid])
            for row, clip in enumerate(audio.clips):
                vectors[clip] = projected[row, : int(counts[row])]
        frame_loss, frame_right = self.frame_head(torch.cat(states), torch.cat(classes))
        ids, shares = mixtures(batch.heard, self.silence, device)
        table = self.word_table
        if table is None:
            table = network.language_model.get_input_embeddings().weight.detach()
        word_loss, word_right = self.word_head(torch.cat(vectors), table, ids, shares)
        numbers.update(
            frame=frame_loss.item(),
            frame_right=frame_right.item(),
            word=word_loss.item(),
            word_right=word_right.item(),
        )
        return vectors, frame_loss + word_loss


def imagine(
    heard: tuple[Heard, ...],
    embeddings: Tensor,
    silence: int,
    noise_seed: int,
    *,
    wrong: float,
    blur: float,
) -> list[Tensor]:
    """What a good projector would give, with the errors of a fair one.

    Args:
        embeddings: (V, E), trained through here.
        wrong: share of word pieces that are others; a mean, a clip has between
            nothing and twice as much.
        blur: noise against the spread of the embeddings; a mean, too.
    """
    device = embeddings.device
    ids, shares = mixtures(heard, silence)
    generator = torch.Generator().manual_seed(noise_seed)
    # Some clips are heard well and some badly.
    badly = 2 * torch.rand((len(heard), 1), generator=generator)
    badly = badly.repeat_interleave(torch.tensor([h.num_tokens for h in heard]), 0)
    swapped = torch.rand(ids.shape, generator=generator) < badly * wrong
    others = torch.randint(0, len(embeddings), ids.shape, generator=generator)
    ids = torch.where(swapped, others, ids).to(device)
    mixed = (embeddings[ids] * shares[..., None].to(device)).sum(1)
    noise = torch.randn(mixed.shape, generator=generator) * badly
    mixed = mixed + noise.to(device) * (blur * embeddings.detach().std())
    return list(torch.split(mixed, [h.num_tokens for h in heard]))
