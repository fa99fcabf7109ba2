"""One training by several processes, each with its own part of every step.

On a processor this is faster than threads: threads wait for each other at every
operation, processes once a step, when they add up their gradients. All begin with the
same values and take the same steps, so the values stay the same.
"""

from __future__ import annotations

import datetime
import os
from typing import TYPE_CHECKING, Protocol

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import Tensor

# One may have to hear a shard while the others wait.
_LONGEST_WAIT = datetime.timedelta(minutes=10)


class Together(Protocol):
    """What a training asks of the processes that it runs in."""

    rank: int
    """This one's number; the first one saves and reports."""
    count: int

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Each gradient becomes the mean over the processes, in place."""
        ...

    def agree(self, *values: float) -> tuple[float, ...]:
        """The first process's values, in all of them."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


class Alone:
    """A training in one process."""

    rank = 0
    count = 1

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Nothing to do."""

    def agree(self, *values: float) -> tuple[float, ...]:
        """As they are."""
        return values

    def close(self) -> None:
        """Nothing to do."""


class Group:
    """One of several processes on this machine."""

    def __init__(self, rank: int, count: int, meeting: Path) -> None:
        """Wait for the others.

        Args:
            meeting: a file that is not there yet, the same for all.

        Raises:
            RuntimeError: the others did not come.
        """
        self.rank, self.count = rank, count
        # All are on this machine, whatever its name resolves to.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group(
            "gloo",
            init_method=f"file://{meeting}",
            rank=rank,
            world_size=count,
            timeout=_LONGEST_WAIT,
        )

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Each gradient becomes the mean over the processes, in place.

        All have gradients of the same parameters: those of the stage.

        Raises:
            RuntimeError: one of the others is gone.
        """
        gradients = [p.grad for p in parameters if p.grad is not None]
        whole = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(whole)
        whole /= self.count
        parts = torch.split(whole, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def agree(self, *values: float) -> tuple[float, ...]:
        """The first process's values, in all of them."""
        shared = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(shared, src=0)
        return tuple(shared.tolist())

    def close(self) -> None:
        """Leave the group."""
        dist.destroy_process_group()
