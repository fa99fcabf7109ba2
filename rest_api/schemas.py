"""Bodies of the chat requests and their answers, as the interactive docs show them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    field_validator,
)

MAX_TURNS = 200
MAX_TURN_CHARS = 100_000
"""Far past any model's context; the context itself is checked later, in tokens."""
MAX_AUDIO_BASE64_CHARS = 44 * 1024 * 1024
"""32 MiB of audio file; the length in seconds is checked when it is decoded."""

MAX_METRICS_CHARS = 1024 * 1024
"""A process has some tens of kilobytes of them."""


class ChatTurn(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, StringConstraints(max_length=MAX_TURN_CHARS)]


class _Generation(BaseModel):
    # Numbers may come as strings: scripts on dialers write them so.  Fields that are
    # not known are ignored, as they were before.
    max_new_tokens: int = Field(
        100, ge=1, le=4096, description="maximum number of tokens to generate"
    )
    temperature: float = Field(
        0.7, ge=0.0, le=1.0, description="randomness; 0 is the likeliest reply"
    )


_Turns = Annotated[list[ChatTurn], Field(max_length=MAX_TURNS)]
_Audio = Annotated[str, StringConstraints(max_length=MAX_AUDIO_BASE64_CHARS)]
_AUDIO_HELP = (
    "base64 of a WAV, FLAC, OGG or MP3 file, or of bare 16-bit little-endian "
    "mono samples at sampling_rate"
)
_RATE_HELP = "of bare samples, in Hz; a file says its own"


_EXAMPLE_TURNS: list[JsonValue] = [
    {"role": "system", "content": "You are a helpful customer service assistant."},
    {"role": "user", "content": "Hello, I need help with my order."},
]


class TextChat(_Generation):
    """A conversation in text that ends with a user turn."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"turns": _EXAMPLE_TURNS, "max_new_tokens": 100, "temperature": 0.7}
            ]
        }
    )

    turns: _Turns

    @field_validator("turns")
    @classmethod
    def _ends_with_user(cls, turns: list[ChatTurn]) -> list[ChatTurn]:
        if not turns or turns[-1].role != "user":
            raise ValueError("the last turn must be the user's")
        return turns


class AudioChat(_Generation):
    """A conversation whose last user turn is, or ends with, the audio."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "audio_base64": "",
                    "turns": _EXAMPLE_TURNS[:1],
                    "sampling_rate": 16000,
                    "max_new_tokens": 100,
                    "temperature": 0.7,
                }
            ]
        }
    )

    audio_base64: _Audio = Field(description=_AUDIO_HELP)
    turns: _Turns = Field(default_factory=list)
    sampling_rate: int = Field(16000, ge=4000, le=192_000, description=_RATE_HELP)


class Conversation(_Generation):
    """A conversation, with or without audio."""

    model_config = TextChat.model_config

    turns: _Turns = Field(default_factory=list)
    audio_base64: _Audio | None = Field(None, description=_AUDIO_HELP)
    sampling_rate: int = Field(16000, ge=4000, le=192_000, description=_RATE_HELP)


class UsageAnswer(BaseModel):
    """Tokens of one reply."""

    prompt_tokens: int
    audio_tokens: int
    cached_tokens: int
    completion_tokens: int
    total_tokens: int


class TimingsAnswer(BaseModel):
    """Durations of one reply in milliseconds."""

    queue_ms: float
    encode_ms: float
    first_token_ms: float
    total_ms: float


class ChatData(BaseModel):
    """The reply."""

    response: str
    model: str
    finish_reason: Literal["stop", "length"]
    usage: UsageAnswer
    timings: TimingsAnswer


class ChatAnswer(BaseModel):
    """A reply that came about."""

    success: Literal[True] = True
    data: ChatData


class ErrorDetail(BaseModel):
    """What went wrong, for programs and for people."""

    code: str
    message: str
    field: str | None = None


class ErrorAnswer(BaseModel):
    """A reply that didn't."""

    success: Literal[False] = False
    error: ErrorDetail


class HeartbeatBody(BaseModel):
    """What a phone half says of itself; see `model.client.Heartbeat`."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    interval_s: float = Field(gt=0, le=3600)
    num_calls: int = Field(ge=0)
    max_calls: int = Field(ge=0)
    is_draining: bool = False
    num_frames_late: int = Field(0, ge=0)
    last_error: Annotated[str, StringConstraints(max_length=1000)] = ""
    uptime_s: float = Field(0.0, ge=0)
    version: Annotated[str, StringConstraints(max_length=100)] = ""
    metrics: Annotated[str, StringConstraints(max_length=MAX_METRICS_CHARS)] = ""
