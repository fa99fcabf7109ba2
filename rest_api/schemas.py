"""Bodies of the chat requests and their answers, as the interactive docs show them."""

from __future__ import annotations

import base64
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    field_validator,
    model_validator,
)

MAX_TURNS = 200
MAX_TURN_CHARS = 100_000
"""Far past any model's context; the context itself is checked later, in tokens."""
MAX_AUDIO_BASE64_CHARS = 256 * 1024 * 1024
"""The most that a body may be allowed to have; bytes and seconds are checked later."""

MAX_METRICS_CHARS = 1024 * 1024
"""A process has some tens of kilobytes of them."""


AudioFormat: TypeAlias = Literal["wav", "pcm16", "mulaw", "alaw"]
"""A WAV file; bare 16-bit little-endian samples; bare G.711 octets."""
G711: Final = frozenset({"mulaw", "alaw"})
G711_RATE_HZ: Final = 8000

_Audio = Annotated[str, StringConstraints(max_length=MAX_AUDIO_BASE64_CHARS)]
_Rate = Annotated[int, Field(ge=4000, le=192_000)]
_AUDIO_HELP = (
    "base64 of a WAV, FLAC, OGG or MP3 file, or of bare 16-bit little-endian "
    "mono samples at sampling_rate"
)
_RATE_HELP = "of bare samples, in Hz; a file says its own"


class ChatTurn(BaseModel):
    """One message of a conversation; a user's may carry the audio he spoke."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, StringConstraints(max_length=MAX_TURN_CHARS)] = Field(
        "", validate_default=False, description="text; may be left out beside audio"
    )
    audio_base64: _Audio | None = Field(None, description=_AUDIO_HELP)
    sampling_rate: _Rate = Field(16000, description=_RATE_HELP)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.audio_base64 is None and "content" not in self.model_fields_set:
            raise ValueError("content is missing")
        if self.audio_base64 is not None and self.role != "user":
            raise ValueError("only a user turn carries audio")
        return self


_Turns = Annotated[
    list[ChatTurn],
    Field(
        max_length=MAX_TURNS,
        description="the conversation, oldest first, with what the user has just said",
    ),
]


class ReplyWishes(BaseModel):
    """How the reply is made and in what form it comes; the same for every route."""

    # Numbers may come as strings: scripts on dialers write them so.  Fields that are
    # not known are ignored, as they were before.
    max_new_tokens: int = Field(
        100, ge=1, le=4096, description="maximum number of tokens to generate"
    )
    temperature: float = Field(
        0.7, ge=0.0, le=1.0, description="randomness; 0 is the likeliest reply"
    )
    stream: bool = Field(
        False, description="answer with server-sent events: text, audio, done, error"
    )
    speak: bool = Field(False, description="speak the reply too")
    audio_format: AudioFormat = Field(
        "wav", description="of the spoken reply; mulaw and alaw are G.711 at 8000 Hz"
    )
    audio_rate_hz: int | None = Field(
        None, ge=8000, le=48_000, description="of the spoken reply; 16000 unless G.711"
    )
    voice: Annotated[str, StringConstraints(max_length=80)] = Field(
        "", description="a voice's name; empty: the service's own"
    )
    language: Annotated[str, StringConstraints(max_length=20)] = Field(
        "", description="the voice's language, such as en-us; empty: the service's own"
    )
    transcript: bool = Field(
        False, description="also write down what the newest audio says"
    )
    conversation_id: (
        Annotated[str, StringConstraints(pattern=r"^(new|c_[A-Za-z0-9_-]{22})$")] | None
    ) = Field(
        None,
        description="new: keep this conversation here, and say its id; an id: go on "
        "with that one, turns holding only what is new",
    )

    @model_validator(mode="after")
    def _g711_is_8_khz(self) -> Self:
        if self.audio_format in G711 and self.audio_rate_hz not in (None, G711_RATE_HZ):
            raise ValueError("mulaw and alaw have 8000 Hz")
        return self

    @property
    def reply_rate_hz(self) -> int:
        """Of the spoken reply."""
        if self.audio_format in G711:
            return G711_RATE_HZ
        return self.audio_rate_hz or 16_000


_EXAMPLE_TURNS: list[JsonValue] = [
    {"role": "system", "content": "You are a helpful customer service assistant."},
    {"role": "user", "content": "Hello, I need help with my order."},
]
_TEXT_EXAMPLE: JsonValue = {
    "turns": _EXAMPLE_TURNS,
    "max_new_tokens": 100,
    "temperature": 0.7,
}
EXAMPLE_AUDIO_BASE64: Final = base64.b64encode(bytes(3200)).decode()
"""A tenth of a second of silence at 16 kHz."""
_AUDIO_EXAMPLE: JsonValue = {
    "audio_base64": EXAMPLE_AUDIO_BASE64,
    "turns": _EXAMPLE_TURNS[:1],
    "sampling_rate": 16000,
    "max_new_tokens": 100,
    "temperature": 0.7,
}


class TextChat(ReplyWishes):
    """A conversation in text that ends with a user turn."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                _TEXT_EXAMPLE,
                {"turns": _EXAMPLE_TURNS, "speak": True, "audio_format": "mulaw"},
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


class AudioUpload(ReplyWishes):
    """What goes with audio that comes as a file or as the body itself."""

    turns: _Turns = Field(default_factory=list)
    sampling_rate: _Rate = Field(16000, description=_RATE_HELP)


class AudioChat(AudioUpload):
    """A conversation whose last user turn is, or ends with, the audio."""

    model_config = ConfigDict(json_schema_extra={"examples": [_AUDIO_EXAMPLE]})

    audio_base64: _Audio = Field(description=_AUDIO_HELP)


class Conversation(AudioUpload):
    """A conversation, with or without audio."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [_TEXT_EXAMPLE, _AUDIO_EXAMPLE]}
    )

    audio_base64: _Audio | None = Field(None, description=_AUDIO_HELP)


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
    first_audio_ms: float | None = None
    """Until speech was there; with speak."""
    total_ms: float


class AudioAnswer(BaseModel):
    """The reply, spoken."""

    format: AudioFormat
    rate_hz: int
    duration_s: float
    audio_base64: str


class ChatData(BaseModel):
    """The reply."""

    response: str
    model: str
    finish_reason: Literal["stop", "length"]
    usage: UsageAnswer
    timings: TimingsAnswer
    audio: AudioAnswer | None = None
    """With speak, unless the audio came in events."""
    transcript: str | None = None
    """Empty: no words could be made out."""
    conversation_id: str | None = None


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
