"""The speech half's errors.

    SpeechError                  anything the speech half reports; has a `code`
      SpeechOverloaded           no room now; the caller hears a hold prompt or a person
        EngineOverloaded         the engine's slots and its waiting line are full
      SpeechUnavailable          sidecar down, engine stopped, or answer too late
        DeviceLost               the GPU failed; this process cannot use it again
      ModelLoadError             weights, config or tokenizer cannot be used; names what
      InvalidRequest             the request itself makes no sense
        InvalidAudio             empty, too long, not finite, or not audio at all
        ContextTooLong           dialogue and reply do not fit; names the limit
      GenerationFailed           a step of the model failed for this request
      SynthesisFailed            text could not be turned into speech

`code` is the short string that HTTP answers, the live protocol and logs carry.
`retryable` says whether the same request may succeed a moment later; it is decided
by class, where the cause is known.

This module imports nothing, so the telephone half may use it.
"""

from __future__ import annotations

from typing import ClassVar


class SpeechError(Exception):
    """Anything the speech half reports to whoever asked it for a reply."""

    code: ClassVar[str] = "speech_error"
    retryable: ClassVar[bool] = False


class SpeechOverloaded(SpeechError):
    """No room for this request now."""

    code: ClassVar[str] = "overloaded"
    retryable: ClassVar[bool] = True


class EngineOverloaded(SpeechOverloaded):
    """Every slot is taken and the waiting line is full."""

    code: ClassVar[str] = "engine_overloaded"


class SpeechUnavailable(SpeechError):
    """The speech half is not there, is stopping, or took longer than allowed."""

    code: ClassVar[str] = "unavailable"
    retryable: ClassVar[bool] = True


class DeviceLost(SpeechUnavailable):
    """The GPU failed for good, as far as this process is concerned."""

    code: ClassVar[str] = "device_lost"


class ModelLoadError(SpeechError):
    """A checkpoint cannot be used.

    `subject` names the tensor, file, field or repository at fault; the message says
    what to do about it.
    """

    code: ClassVar[str] = "model_load_failed"

    def __init__(self, message: str, *, subject: str) -> None:
        super().__init__(message)
        self.subject = subject


class InvalidRequest(SpeechError):
    """The request makes no sense as it stands; sending it again will not help."""

    code: ClassVar[str] = "invalid_request"


class InvalidAudio(InvalidRequest):
    """The audio is empty, too long, not finite, or not audio."""

    code: ClassVar[str] = "invalid_audio"


class ContextTooLong(InvalidRequest):
    """Dialogue plus the longest reply asked for do not fit in the model's context."""

    code: ClassVar[str] = "context_too_long"

    def __init__(self, message: str, *, num_tokens: int, limit_tokens: int) -> None:
        super().__init__(message)
        self.num_tokens = num_tokens
        self.limit_tokens = limit_tokens


class GenerationFailed(SpeechError):
    """A step of the model failed for this request; other requests go on."""

    code: ClassVar[str] = "generation_failed"
    retryable: ClassVar[bool] = True


class SynthesisFailed(SpeechError):
    """Text could not be turned into speech."""

    code: ClassVar[str] = "synthesis_failed"
    retryable: ClassVar[bool] = True
