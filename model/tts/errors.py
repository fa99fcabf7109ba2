"""The synthesiser's own errors; `model.errors` draws the tree they hang from.

SpeechOverloaded
  SynthesisOverloaded      the waiting line for the synthesiser is full
SpeechUnavailable
  SynthesizerUnavailable   a package, voice file or server is missing; found at start
InvalidRequest
  VoiceUnknown             no such voice; asking again will not help
SynthesisFailed (there)    a piece of text could not be spoken, one retry included
"""

from __future__ import annotations

from typing import ClassVar

from model.errors import InvalidRequest, SpeechOverloaded, SpeechUnavailable


class SynthesisOverloaded(SpeechOverloaded):
    """More pieces are waiting to be spoken than is sensible."""

    code: ClassVar[str] = "synthesis_overloaded"


class SynthesizerUnavailable(SpeechUnavailable):
    """The synthesiser cannot start; the message says what is missing."""

    code: ClassVar[str] = "synthesizer_unavailable"
    retryable: ClassVar[bool] = False


class VoiceUnknown(InvalidRequest):
    """The voice, language, speed or pitch is not one the synthesiser has."""

    code: ClassVar[str] = "voice_unknown"
