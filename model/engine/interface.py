"""What every engine offers, so that the service need not know which one runs.

local      `engine.py`: in this process, on PyTorch
scripted   `scripted.py`: says what it was told to, for load tests
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from datetime import date

    from model.engine.request import GenerationRequest, Session
    from model.engine.stream import TokenStream
    from model.ultravox.config import TurnEndBounds
    from model.ultravox.inputs import Dialogue, Prompt


@dataclass(frozen=True, slots=True)
class EngineDescription:
    """What is running, for logs, `/health` and the console.

    `weights_kind` is "random", "demo", "published" or, for the scripted engine,
    "none": then replies are not the model's.
    """

    engine: str
    model_name: str
    weights_kind: str
    device: str
    dtype: str
    num_parameters: int
    context_tokens: int
    decoding: str = ""  # which of the fast paths its steps take
    turn_end: TurnEndBounds | None = None  # None: not calibrated
    weights_version: str = ""  # tells them from others of the same name


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How full the engine is, now."""

    num_active: int
    num_waiting: int
    max_slots: int
    max_waiting: int
    num_sessions: int
    # Of the last seconds, spent computing for callers; 0 where it is not measured.
    busy_share: float = 0.0
    step_ms: float = 0.0  # 95th percentile of those steps

    @property
    def is_full(self) -> bool:
        """Whether the next request would be refused."""
        return self.num_waiting >= self.max_waiting and self.num_active > 0


class ReplyEngine(Protocol):
    """Turns prompts into streams of tokens, many at a time."""

    @property
    def description(self) -> EngineDescription:
        """What is running."""
        ...

    @property
    def is_running(self) -> bool:
        """Whether requests are taken; false for good if it has died."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    def new_dialogue(
        self, instructions: str | None = None, *, today: date | None = None
    ) -> Dialogue:
        """A dialogue in this model's chat format; one per call."""
        ...

    def open_session(self) -> Session:
        """A call's place in the engine; close it when the call ends."""
        ...

    def submit(self, request: GenerationRequest) -> TokenStream:
        """Take on a request.

        Raises:
            EngineOverloaded: no slot, and the waiting line is full.
            ContextTooLong: prompt and reply do not fit.
            InvalidRequest: the prompt cannot be used with this model.
            SpeechUnavailable: the engine is not running.
        """
        ...

    async def warm(self, prompt: Prompt) -> None:
        """Read a prompt now so that requests beginning with it start sooner."""
        ...

    def memory(self) -> dict[str, int]:
        """Bytes by what they are for."""
        ...

    def load(self) -> EngineLoad:
        """How full the engine is."""
        ...
