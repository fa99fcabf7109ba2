"""Where and in which number format a run computes."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class Arithmetic:
    """A device and a format; weights and sums stay in float32 whatever it is."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, device: str, name: str) -> Arithmetic:
        """From names; ``auto`` is CUDA where there is one, and on it bfloat16.

        Raises:
            ValueError: no such format.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "auto":
            name = "float32" if device == "cpu" else "bfloat16"
        found = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(name)
        if found is None:
            raise ValueError(f"arithmetic is float32, bfloat16 or auto, not {name}")
        # Attention weights in bfloat16 too; the name says CUDA, the CPU obeys as well.
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
        return cls(torch.device(device), found)

    @property
    def name(self) -> str:
        """The format's name."""
        return str(self.dtype).removeprefix("torch.")

    def take_the_faster(self, work: Callable[[], None]) -> None:
        """Time `work` in both formats.

        bfloat16 is three times as fast on a processor that has it and several times
        slower on one that has not.
        """
        spent_s = {}
        for dtype in (torch.float32, torch.bfloat16):
            self.dtype = dtype
            for _ in range(2):  # the first one builds kernels
                began = time.perf_counter()
                work()
                spent_s[dtype] = time.perf_counter() - began
        self.dtype = min(spent_s, key=lambda dtype: spent_s[dtype])

    def autocast(self) -> torch.autocast:
        """For the layers."""
        return torch.autocast(
            self.device.type,
            torch.bfloat16,
            enabled=self.dtype == torch.bfloat16,
        )

    def kernels(self) -> AbstractContextManager[None]:
        """For attention: in bfloat16 a processor's fused ones are slow at our sizes."""
        if self.dtype == torch.bfloat16 and self.device.type == "cpu":
            return cast("AbstractContextManager[None]", sdpa_kernel(SDPBackend.MATH))
        return nullcontext()
