"""Muon: momentum whose steps have all their singular values at one, for matrices.

Measured on the ear of this model: in the same processor time a quarter fewer steps than
AdamW's, and further. `torch.optim.Muon` is the same, but it multiplies in bfloat16: on
a processor without it a step of this model took 2.4 s there, and 0.15 s here.
Source: Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

# A quintic that pulls singular values between 0 and 1 towards 1, five times over.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_TIMES = 5


def with_singular_values_one(matrix: Tensor) -> Tensor:
    """(N, M) -> about U V^T of its singular value decomposition."""
    x = matrix / (matrix.norm() + 1e-7)
    is_tall = x.shape[0] > x.shape[1]
    if is_tall:
        x = x.T
    a, b, c = _QUINTIC
    for _ in range(_TIMES):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    found: Tensor = x.T if is_tall else x
    return found


class Muon(torch.optim.Optimizer):
    """For the matrices inside a network; vectors, tables and convolutions want AdamW.

    A step is as large as AdamW's at the same learning rate (RMS about 0.2), so one
    schedule does for both.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        learning_rate: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        values = {
            "lr": learning_rate,
            "momentum": momentum,
            "weight_decay": weight_decay,
        }
        super().__init__(matrices, values)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum"] = torch.zeros_like(matrix)
                mean = state["momentum"].lerp_(matrix.grad, 1 - group["momentum"])
                update = with_singular_values_one(
                    matrix.grad.lerp(mean, group["momentum"])
                )
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                size = 0.2 * max(matrix.shape) ** 0.5
                matrix.add_(update, alpha=-group["lr"] * size)
