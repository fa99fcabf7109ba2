"""One request inside the engine: its tokens and how far the work on them is.

No torch. `keys` say what stands at each position (see `inputs.Prompt`), `token_ids`
what is fed to the model there; both grow by one with every token produced.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.engine.request import GenerationRequest
    from model.ultravox.clip import AudioClip
    from model.ultravox.inputs import AudioSpan


@dataclass(slots=True, eq=False)
class Sequence:
    """A request with its progress."""

    number: int  # order of submission
    request: GenerationRequest
    submitted_at_s: float
    slot: int | None = None
    num_computed: int = 0  # positions whose keys and values are in the slot
    num_cached: int = 0  # of those, the ones found there when the slot was given
    produced: list[int] = field(default_factory=list)
    cancelled: bool = False
    started_at_s: float | None = None  # taken up by the scheduler
    first_token_at_s: float | None = None
    encode_s: float = 0.0
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.request.seed)

    @property
    def length(self) -> int:
        """Positions of prompt and reply so far."""
        return len(self.request.prompt) + len(self.produced)

    @property
    def num_pending(self) -> int:
        """Positions the model has yet to read; 1 while decoding."""
        return self.length - self.num_computed

    @property
    def is_decoding(self) -> bool:
        """Whether only the newest token of the reply is pending."""
        return bool(self.produced) and self.num_pending == 1

    @property
    def rank(self) -> tuple[int, int]:
        """Who goes first: priority, then order of submission."""
        return (self.request.priority, self.number)

    def ids(self, start: int, stop: int) -> list[int]:
        """Token ids of positions [start, stop); 0 at audio places."""
        prompt = self.request.prompt.token_ids
        split = len(prompt)
        if start >= split:
            return self.produced[start - split : stop - split]
        head: list[int] = prompt[start : min(stop, split)].tolist()
        return head + self.produced[: max(0, stop - split)]

    def keys(self) -> NDArray[np.int64]:
        """What stands at every position so far."""
        produced = np.asarray(self.produced, np.int64)
        return np.concatenate([self.request.prompt.keys, produced])

    def spans(self, start: int, stop: int) -> list[AudioSpan]:
        """Audio that touches positions [start, stop)."""
        return [
            span
            for span in self.request.prompt.audio
            if span.start < stop and start < span.start + span.num_tokens
        ]

    def clips_to_encode(self, start: int, stop: int) -> list[AudioClip]:
        """Clips needed for positions [start, stop) that have no vectors yet."""
        spans = self.spans(start, stop)
        return [span.clip for span in spans if span.clip.vectors is None]
