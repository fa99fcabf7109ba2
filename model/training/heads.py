"""Heads that exist in training only, and what they teach.

`FrameHead`: which phoneme each 20 ms of the encoder's output belongs to. `WordHead`:
which words each audio token holds, measured as nearness to those words' embeddings,
so that the language model, taught on text first, can read the projector's output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.training.phones import PHONE_CLASSES, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.training.rows import Heard


class FrameHead(nn.Module):
    """Encoder states (T, D) -> phoneme classes."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.classify = nn.Linear(d_model, len(PHONE_CLASSES))

    def forward(self, states: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) states and (N,) classes -> mean loss, share right."""
        logits = self.classify(states)
        loss = F.cross_entropy(
            logits, classes, ignore_index=UNKNOWN, label_smoothing=0.05
        )
        known = classes != UNKNOWN
        right = (logits.argmax(-1) == classes)[known].float().mean()
        return loss, right.detach()


class WordHead(nn.Module):
    """Projector output (N, E) against mixtures of embeddings."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        # Two words' embeddings are about as far apart as each is long; at this scale
        # the right one among a thousand still gets most of the probability.
        self.log_scale = nn.Parameter(torch.tensor(10.0 / spread**2).log())

    def forward(
        self, vectors: Tensor, embeddings: Tensor, ids: Tensor, shares: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss and the share of tokens whose nearest word is the main one.

        Args:
            vectors: (N, E).
            embeddings: (V, E), not trained through here.
            ids, shares: (N, K) what is in each token; shares add up to 1.
        """
        square = embeddings.square().sum(-1)
        nearness = (vectors @ embeddings.T - 0.5 * square) * self.log_scale.exp()
        log_p = nearness.log_softmax(-1).gather(1, ids)
        cross = -(log_p * shares).sum(-1).mean()
        wanted = (embeddings[ids] * shares[..., None]).sum(1)
        distance = (vectors - wanted).square().sum(-1).mean() / square.mean()
        right = (
            nearness.argmax(-1) == ids.gather(1, shares.argmax(-1, keepdim=True))[:, 0]
        )
        return cross + 0.5 * distance, right.float().mean().detach()


def mixtures(
    heard: Sequence[Heard], silence: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """All clips' mixtures end to end: ids (N, 4) and shares (N, 4), silence last."""
    ids: list[list[int]] = []
    shares: list[list[float]] = []
    for clip in heard:
        for slot in clip.mixture:
            total = sum(share for _, share in slot)
            scale = 1.0 / max(total, 1.0)
            row_ids = [token for token, _ in slot]
            row_shares = [share * scale for _, share in slot]
            gap = 3 - len(slot)
            ids.append([*row_ids, *[silence] * gap, silence])
            shares.append([*row_shares, *[0.0] * gap, max(1.0 - total * scale, 0.0)])
    return torch.tensor(ids, device=device), torch.tensor(shares, device=device)
