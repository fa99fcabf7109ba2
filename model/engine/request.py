"""What is asked of an engine and what it answers.

Shared by every engine; imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

from model.errors import InvalidRequest

if TYPE_CHECKING:
    from model.ultravox.inputs import Prompt

FinishReason = Literal["stop", "length"]

# A reply on the telephone is a few sentences; four thousand tokens are twenty minutes.
_MAX_NEW_TOKENS_LIMIT = 4096


class Priority(IntEnum):
    """Who goes first when not all can.  Lower numbers do."""

    PHONE = 0  # a caller is waiting in silence
    REST = 1  # someone waits for an HTTP answer
    TRANSCRIPT = 2  # written down for later


class Session:
    """One call, as the engine sees it: its work is kept from turn to turn.

    Audio is only ever shared within a session. Close it when the call ends, so that
    its memory goes first when room is needed.
    """

    __slots__ = ("__weakref__", "closed")

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        """The call has ended."""
        self.closed = True


@dataclass(frozen=True, slots=True, eq=False)
class GenerationRequest:
    """One reply to be generated.

    Temperature 0 is greedy. The same seed gives the same reply whatever else runs;
    without one, each request draws its own. `max_new_tokens` 0 reads the prompt only:
    for `end_of_turn_probability`, or to have instructions ready before they are
    needed. Until `min_new_tokens` the reply cannot end by itself.

    Raises:
        InvalidRequest: a number is out of range.
    """

    prompt: Prompt
    session: Session | None = None
    priority: Priority = Priority.PHONE
    max_new_tokens: int = 256
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    request_id: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.max_new_tokens <= _MAX_NEW_TOKENS_LIMIT:
            raise InvalidRequest(
                f"max_new_tokens is {self.max_new_tokens}; 0 to "
                f"{_MAX_NEW_TOKENS_LIMIT} is possible"
            )
        if not 0.0 <= self.temperature <= 5.0:
            raise InvalidRequest(
                f"temperature is {self.temperature}; 0 to 5 is possible"
            )
        if not 0.0 < self.top_p <= 1.0:
            raise InvalidRequest(f"top_p is {self.top_p}; above 0 up to 1 is possible")
        if any(not text for text in self.stop):
            raise InvalidRequest("a stop string is empty")
        if not len(self.prompt):
            raise InvalidRequest("the prompt is empty")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request took, in tokens."""

    prompt_tokens: int
    cached_tokens: int  # of the prompt, not computed again
    audio_tokens: int  # of the prompt
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went, in milliseconds from its submission."""

    queue_ms: float  # until the engine took it up
    encode_ms: float  # encoding audio, shared with others in the same batch
    prefill_ms: float  # from being taken up to the first token, without encoding
    first_token_ms: float  # from submission to the first token
    total_ms: float  # from submission to this chunk


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """A piece of a reply, as soon as it is known.

    `text` never holds half a character or the start of a stop string. The chunk of
    the first token brings `timings`; with it or before it comes
    `end_of_turn_probability`; the last brings `finish_reason`, `usage` and `timings`.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    # P(the caller's turn is over): the model's own end-of-turn tokens, at the last
    # audio position of the prompt. None if the last message has no audio.
    end_of_turn_probability: float | None = None
    usage: Usage | None = None
    timings: Timings | None = None
