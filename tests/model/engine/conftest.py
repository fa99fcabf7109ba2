"""A checkpoint small enough to run real batches in a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest
import torch

from model.engine.fast_paths import RunnerOptions
from model.engine.kv_cache import KvCache
from model.engine.runner import Runner
from model.engine.scheduler import Scheduler
from model.engine.slots import SlotTable
from model.engine.worker import Worker
from model.ultravox.checkpoint import Checkpoint, LoadOptions, load_checkpoint
from tests.model.ultravox.parity_data import V0_4

WorkerFactory: TypeAlias = Callable[..., Worker]


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    """The v0.4 fixture: its greedy replies are sensitive to every input."""
    torch.set_num_threads(1)
    return load_checkpoint(str(V0_4), LoadOptions(device="cpu"))


@pytest.fixture
def make_worker(checkpoint: Checkpoint) -> WorkerFactory:
    """Workers of any size, without threads or event loops."""

    def make(
        *,
        slots: int = 4,
        step_tokens: int = 512,
        step_audio_s: float = 100.0,
        options: RunnerOptions | None = None,
    ) -> Worker:
        cache = KvCache(
            checkpoint.network.text_config,
            num_slots=slots,
            max_context_tokens=512,
            device=checkpoint.device,
            dtype=checkpoint.dtype,
            has_spare=options is not None,
        )
        scheduler = Scheduler(
            SlotTable(slots),
            max_slots=slots,
            max_waiting=64,
            max_step_tokens=step_tokens,
        )
        runner = Runner(checkpoint, cache, options or RunnerOptions())
        return Worker(scheduler, cache, runner, checkpoint.stop_ids, step_audio_s)

    return make
