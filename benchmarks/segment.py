"""Cut a recording into the caller's utterances, as a live call would.

    python -m benchmarks.segment FILE.wav

The file goes through the live detector and endpointing in 20 ms frames, as if it were
the caller's leg. Printed is one JSON list of {"start", "end", "decided_start",
"decided_end"} in seconds: the bounds of each utterance, and how much of the file had
been heard when each was decided. An utterance still open at the end of the file is
ended by it; then `decided_end` is the length of the file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from model.audio.frames import FRAME_BYTES, RATE_HZ
from model.audio.wav import AudioLimits, read_pcm16
from model.errors import InvalidAudio, ModelLoadError
from model.vad.detector import DetectorName, SpeechDetector, load_detector
from model.vad.events import SpeechEnded, SpeechEvent, SpeechStarted, SpeechTooLong
from model.vad.listener import CallerEar
from model.vad.options import EndpointingOptions

# A recorded call may be long; an hour at 8 kHz is 58 MB.
_LIMITS = AudioLimits(max_s=3600.0, max_encoded_bytes=1 << 30)


@dataclass(frozen=True, slots=True)
class Segment:
    """One utterance of a recording; all in seconds of it."""

    start: float
    end: float
    decided_start: float
    decided_end: float


def segment(
    pcm16: bytes, detector: SpeechDetector, options: EndpointingOptions | None = None
) -> list[Segment]:
    """The utterances of a recording (8 kHz), heard frame by frame."""
    ear = CallerEar(detector, options)
    events: list[SpeechEvent] = []
    for start in range(0, len(pcm16), FRAME_BYTES):
        events += ear.feed(pcm16[start : start + FRAME_BYTES])
    return segments_of(events + ear.force_end())


def segments_of(events: Iterable[SpeechEvent]) -> list[Segment]:
    """Pairs each start with its end."""
    segments = []
    decided_start = 0
    for event in events:
        if isinstance(event, SpeechStarted):
            decided_start = event.decided_samples
        elif isinstance(event, SpeechEnded | SpeechTooLong):
            bounds = (
                *(event.started_samples, event.ended_samples),
                *(decided_start, event.decided_samples),
            )
            segments.append(Segment(*(round(at / RATE_HZ, 4) for at in bounds)))
    return segments


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the segments; 0, or 2 when the file or the detector cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.segment",
        description="Cut a recording into utterances with the live endpointing.",
    )
    parser.add_argument("file", type=Path, help="WAV or other audio, any rate")
    parser.add_argument(
        "--detector",
        choices=get_args(DetectorName),
        default="silero",
        help="%(default)s",
    )
    parser.add_argument(
        "--fixed-ms", type=int, help="one hangover for all instead of the adaptive one"
    )
    given = parser.parse_args(arguments)
    try:
        options = EndpointingOptions.fixed(given.fixed_ms) if given.fixed_ms else None
        pcm16 = read_pcm16(given.file, rate_hz=RATE_HZ, limits=_LIMITS)
        found = segment(pcm16, load_detector(given.detector), options)
    except (InvalidAudio, ModelLoadError, ValueError) as exc:
        print(f"segment: {exc}", file=sys.stderr)
        return 2
    print(json.dumps([asdict(one) for one in found]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
