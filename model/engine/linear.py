"""A linear layer in the form its device computes fastest.

On a CPU, oneDNN with the weight packed beforehand takes a half to a third of the time
of plain `F.linear`, at every batch size that matters here (measured on an AMD EPYC
with torch 2.13; plain float32 goes to another library there). Packing costs about
10 us more a call, so small layers with few rows still take the plain way.

The packed operator is the one torch's own compiler emits; where it is missing, all
goes the plain way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# Multiply-adds of one call from which packing pays: rows x out x in.
_WORTH_PACKING = 350_000
# The layout is chosen for a number of rows; this one suits 1 to 512 of them.
_ROWS_HINT = 64


class FastLinear(nn.Module):
    """`F.linear` with a fixed weight, for inference only."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._size = weight.numel()
        self._bias = bias
        self._packed = pack(weight)
        # Large layers always go the packed way, so their plain weight can be let go.
        keeps_plain = self._packed is None or self._size < _WORTH_PACKING
        self._weight = weight if keeps_plain else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if self._packed is not None:
            num_rows = x.numel() // self.in_features
            if self._weight is None or num_rows * self._size >= _WORTH_PACKING:
                return cast(
                    "Tensor",
                    torch.ops.mkldnn._linear_pointwise.default(
                        x, self._packed, self._bias, "none", [], ""
                    ),
                )
        assert self._weight is not None, "an unpacked layer keeps its weight"
        return F.linear(x, self._weight, self._bias)

    @property
    def plain_weight(self) -> Tensor | None:
        """The weight as it was given, unless it was let go."""
        return self._weight


def join(layers: Sequence[nn.Module]) -> FastLinear:
    """Several linear layers of the same input as one, outputs side by side.

    The weights move: the layers are left with views of the joined weight, or with
    nothing where only the packed form is kept.
    """
    weights = [cast("Tensor", layer.weight).detach() for layer in layers]
    biases = [cast("Tensor | None", layer.bias) for layer in layers]
    bias = None
    if any(b is not None for b in biases):
        pairs = zip(weights, biases, strict=True)
        bias = torch.cat([w.new_zeros(len(w)) if b is None else b for w, b in pairs])
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    joined = FastLinear(weight, bias)
    start = 0
    for layer, own in zip(layers, weights, strict=True):
        stop = start + len(own)
        kept = joined.plain_weight
        left = torch.empty(0, device="meta") if kept is None else kept[start:stop]
        layer.weight = nn.Parameter(left, requires_grad=False)
        start = stop
    return joined


def speed_up_linears(module: nn.Module) -> None:
    """Replace every `nn.Linear` inside, in place; the module can't be trained then."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, join([child]))
        else:
            speed_up_linears(child)


def pack(weight: Tensor) -> Tensor | None:
    """The weight in oneDNN's own layout; None where that is not to be had."""
    is_possible = (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and (weight.dtype != torch.bfloat16 or _has_bfloat16())
    )
    if not is_possible:
        return None
    with torch.no_grad():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_HINT)
    return cast("Tensor", packed)


def _has_bfloat16() -> bool:
    """oneDNN refuses bfloat16 on processors without AVX-512 or its like."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
