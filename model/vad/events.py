"""What endpointing says of the caller's speech.

Per utterance, in this order: started, (suspected end, resumed)*, suspected end, ended.
An utterance that reaches the cap is too long instead; one that is forced to end,
because the audio does, may lack the suspicion. Times are samples at 8 kHz since the
call's first; `decided_samples` says how much had been heard when it was decided.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller speaks."""

    started_samples: int
    decided_samples: int


@dataclass(frozen=True, slots=True)
class SpeechSuspectedEnd:
    """A silence that may be the end: an answer can be prepared, not yet spoken."""

    started_samples: int
    ended_samples: int
    decided_samples: int
    kept_from_samples: int
    kept_to_samples: int
    pcm16: bytes = field(default=b"", repr=False)
    """8 kHz, from `kept_from_samples` to `kept_to_samples`; the listener fills it."""


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """It was no end: what `SpeechSuspectedEnd` said last no longer holds."""

    decided_samples: int


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """The utterance is over. Its audio is that of the suspicion that still holds."""

    started_samples: int
    ended_samples: int
    decided_samples: int
    kept_from_samples: int
    kept_to_samples: int
    forced: bool = False
    """The audio ended, not the speech: no suspicion may have come before."""
    pcm16: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class SpeechTooLong:
    """An utterance cut at the cap; speech that goes on starts the next one."""

    started_samples: int
    ended_samples: int
    decided_samples: int
    kept_from_samples: int
    kept_to_samples: int
    pcm16: bytes = field(default=b"", repr=False)


SpeechEvent: TypeAlias = (
    SpeechStarted | SpeechSuspectedEnd | SpeechResumed | SpeechEnded | SpeechTooLong
)
