"""What only a GPU can show: fast paths against plain steps, in half precision."""

from __future__ import annotations

import asyncio

import pytest
import torch

from benchmarks.bench_engine import Load, random_checkpoint
from model.engine.engine import Engine, EngineOptions
from model.engine.fast_paths import RunnerOptions, Wish
from model.engine.request import GenerationRequest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
_LOAD = Load(200, 60, 24, 1.0, 3.0)


async def _tokens(options: RunnerOptions, dtype: torch.dtype) -> list[tuple[int, ...]]:
    checkpoint = random_checkpoint("tiny", torch.device("cuda"), dtype)
    engine_options = EngineOptions(max_slots=8, max_context_tokens=512, runner=options)
    async with Engine(checkpoint, engine_options) as engine:
        print(engine.description.decoding)

        async def read(call: int) -> tuple[int, ...]:
            request = GenerationRequest(
                _LOAD.prompt("tiny", call), max_new_tokens=24, min_new_tokens=24
            )
            async with engine.submit(request) as stream:
                async for _ in stream:
                    pass
            return stream.token_ids

        return list(await asyncio.gather(*(read(call) for call in range(6))))


@pytest.mark.parametrize("kind", ["graphs", "paged", "both"])
async def test_fast_paths_agree_with_plain_steps(kind: str) -> None:
    graphs: Wish = "off" if kind == "paged" else "on"
    paged: Wish = "off" if kind == "graphs" else "on"
    # Full precision where the path has it: then tokens must be equal. In half
    # precision two kernels round differently, and a near tie may fall either way.
    dtype = torch.float32 if kind == "graphs" else torch.bfloat16
    plain = await _tokens(RunnerOptions("off", "off"), dtype)
    fast = await _tokens(RunnerOptions(paged, graphs), dtype)
    if dtype == torch.float32:
        assert fast == plain
    else:
        same = sum(a[:4] == b[:4] for a, b in zip(fast, plain, strict=True))
        assert same >= 4, (fast, plain)
