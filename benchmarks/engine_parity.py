"""The fixtures' prompts through the engine: alone, and with others in flight.

Alone and in company every row must get the same tokens. Where the reference heard each
clip by itself, as on a telephone, they must be the reference's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model.engine.engine import Engine, EngineOptions
from model.engine.request import GenerationRequest
from model.ultravox.clip import AudioClip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from model.ultravox.checkpoint import Checkpoint
    from model.ultravox.inputs import Prompt

_NUM_OTHERS = 6


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt, made anew each time so that its clips are encoded again.

    `expected` is what the reference said, or None where it heard clips differently.
    """

    make_prompt: Callable[[], Prompt]
    num_new_tokens: int
    expected: tuple[int, ...] | None


def check_engine(
    checkpoint: Checkpoint, cases: Mapping[str, Sequence[Row]]
) -> dict[str, bool]:
    """By case, whether all its rows got the tokens they should.  Takes the weights."""
    return asyncio.run(_check(checkpoint, cases))


async def _check(
    checkpoint: Checkpoint, cases: Mapping[str, Sequence[Row]]
) -> dict[str, bool]:
    rows = [row for case in cases.values() for row in case]
    options = EngineOptions(max_slots=len(rows) + _NUM_OTHERS, max_context_tokens=1024)
    async with Engine(checkpoint, options) as engine:
        alone = [await _read(engine, _request(row)) for row in rows]
        others = [_other(engine, seed) for seed in range(_NUM_OTHERS)]
        together = await asyncio.gather(
            *(_read(engine, request) for request in [*map(_request, rows), *others])
        )
    right = iter(
        mine == its_own and row.expected in (None, mine)
        for row, mine, its_own in zip(rows, alone, together, strict=False)
    )
    verdicts = {name: [next(right) for _ in case] for name, case in cases.items()}
    return {name: all(verdict) for name, verdict in verdicts.items()}


def _request(row: Row) -> GenerationRequest:
    return GenerationRequest(row.make_prompt(), max_new_tokens=row.num_new_tokens)


def _other(engine: Engine, seed: int) -> GenerationRequest:
    """Somebody else's request: noise of some length, sampled."""
    rng = np.random.default_rng(seed)
    dialogue = engine.new_dialogue("You are someone else's bot." if seed % 2 else None)
    noise = 0.1 * rng.standard_normal(4_000 + 7_001 * seed)
    dialogue.append_user_clip(AudioClip(noise.astype(np.float32)))
    return GenerationRequest(
        dialogue.prompt(),
        max_new_tokens=40,
        min_new_tokens=40,
        temperature=1.0,
        seed=seed,
    )


async def _read(engine: Engine, request: GenerationRequest) -> tuple[int, ...]:
    async with engine.submit(request) as stream:
        async for _ in stream:
            pass
    return stream.token_ids
