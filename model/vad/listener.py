"""The caller's ear: telephone audio in any chunks -> his utterances.

This is the live path of every call, and what `benchmarks.segment` measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from model.audio.frames import FRAME_SAMPLES, SAMPLE_BYTES
from model.audio.pcm import level_dbfs, levels_dbfs, wave_from_pcm16
from model.vad.detector import DetectorStream, SpeechDetector
from model.vad.endpointing import Endpointing
from model.vad.events import SpeechEnded, SpeechEvent, SpeechSuspectedEnd, SpeechTooLong
from model.vad.options import EndpointingOptions, Expected

# What is no longer needed is dropped in steps: moving the rest costs a copy.
_DROP_STEP_SAMPLES: Final = 4000


class CallerEar:
    """One call's ear. However the audio is cut, events and bytes are the same."""

    def __init__(
        self, detector: SpeechDetector, options: EndpointingOptions | None = None
    ) -> None:
        self._detector = detector
        self._window_samples = detector.window_samples
        self._stream: DetectorStream = detector.open_stream()
        self._endpointing = Endpointing(
            options or EndpointingOptions(), detector.window_samples
        )
        # Holds the utterance at hand: bounded by its cap (25 s are 400 kB), or half a
        # second of pre-roll between utterances.
        self._kept = bytearray()
        self._kept_from_samples = 0
        self._judged_samples = 0

    @property
    def bot_is_talking(self) -> bool:
        """Whether barge-in's stricter rule holds for what opens an utterance."""
        return self._endpointing.bot_is_talking

    @bot_is_talking.setter
    def bot_is_talking(self, is_talking: bool) -> None:
        self._endpointing.bot_is_talking = is_talking

    @property
    def samples_heard(self) -> int:
        """Samples fed since the call began."""
        return self._kept_from_samples + len(self._kept) // SAMPLE_BYTES

    @property
    def is_speech(self) -> bool:
        """Between start and end of an utterance, pauses included."""
        return self._endpointing.is_speech

    @property
    def may_be_starting(self) -> bool:
        """No utterance yet, but a first sign of one that is not too old."""
        return self._endpointing.may_be_starting

    @property
    def has_window(self) -> bool:
        """Whether there is something to judge."""
        return self.samples_heard - self._judged_samples >= self._window_samples

    def feed(self, pcm16: bytes) -> list[SpeechEvent]:
        """More of the caller's audio (8 kHz), cut anywhere, even within a sample."""
        [events] = feed_together([self], [pcm16])
        return events

    def add(self, pcm16: bytes) -> list[SpeechEvent]:
        """The same, but windows are left for `judge_together`."""
        self._kept += pcm16
        return self._hear_part()

    @property
    def softer_db(self) -> float:
        """How far the utterance at hand is below the caller's usual level."""
        return self._endpointing.softer_db

    def recently_heard(self, num_samples: int) -> bytes:
        """The last of the caller's audio (pcm16), at most so much."""
        whole = len(self._kept) - len(self._kept) % SAMPLE_BYTES
        return bytes(self._kept[max(0, whole - num_samples * SAMPLE_BYTES) : whole])

    def force_end(self) -> list[SpeechEvent]:
        """The audio is over: end the utterance at hand. The ear may go on."""
        return self._with_audio(self._endpointing.force_end(self.samples_heard))

    def expect(self, what: Expected) -> None:
        """What the caller was asked for: numbers come in groups, "yes" comes alone."""
        self._endpointing.expect(what)

    def hint_turn_over(self, probability: float) -> None:
        """How likely the last suspected end is the end of the turn (from its words)."""
        self._endpointing.hint_turn_over(probability)

    def _next_window(self) -> bytearray:
        begin = (self._judged_samples - self._kept_from_samples) * SAMPLE_BYTES
        end = begin + self._window_samples * SAMPLE_BYTES
        self._judged_samples += self._window_samples
        return self._kept[begin:end]

    def _hear_part(self) -> list[SpeechEvent]:
        """Whether a wait is over within the next window: looked at frame by frame.

        Audio comes in frames, a window is whole somewhere within one: for that alone
        nobody is kept waiting.
        """
        events: list[SpeechEvent] = []
        begin = self._judged_samples
        next_window = begin + self._window_samples
        at = begin - begin % FRAME_SAMPLES + FRAME_SAMPLES
        while (
            self._endpointing.awaits_end
            and at < next_window
            and at <= self.samples_heard
        ):
            kept_from = (begin - self._kept_from_samples) * SAMPLE_BYTES
            kept_to = (at - self._kept_from_samples) * SAMPLE_BYTES
            part = wave_from_pcm16(bytes(self._kept[kept_from:kept_to]))
            events += self._endpointing.on_part(at - begin, level_dbfs(part))
            at += FRAME_SAMPLES
        return self._with_audio(events)

    def _judge(self, probability: float, level_db: float) -> list[SpeechEvent]:
        events = self._endpointing.on_window(probability, level_db)
        heard = self._with_audio(events)
        self._drop_what_is_not_needed()
        return heard + self._hear_part()

    def _with_audio(self, events: list[SpeechEvent]) -> list[SpeechEvent]:
        return [
            replace(event, pcm16=self._audio(event))
            if isinstance(event, SpeechSuspectedEnd | SpeechEnded | SpeechTooLong)
            else event
            for event in events
        ]

    def _audio(self, event: SpeechSuspectedEnd | SpeechEnded | SpeechTooLong) -> bytes:
        begin = event.kept_from_samples - self._kept_from_samples
        end = event.kept_to_samples - self._kept_from_samples
        return bytes(self._kept[begin * SAMPLE_BYTES : end * SAMPLE_BYTES])

    def _drop_what_is_not_needed(self) -> None:
        if len(self._kept) < _DROP_STEP_SAMPLES * SAMPLE_BYTES:
            return
        num_samples = self._endpointing.needed_from_samples - self._kept_from_samples
        if num_samples >= _DROP_STEP_SAMPLES:
            del self._kept[: num_samples * SAMPLE_BYTES]
            self._kept_from_samples += num_samples


def feed_together(
    ears: Sequence[CallerEar], chunks: Sequence[bytes]
) -> list[list[SpeechEvent]]:
    """Feed many calls' ears, all of one detector, in batches: half the cost."""
    events = [ear.add(pcm16) for ear, pcm16 in zip(ears, chunks, strict=True)]
    return [
        first + then for first, then in zip(events, judge_together(ears), strict=True)
    ]


def judge_together(ears: Sequence[CallerEar]) -> list[list[SpeechEvent]]:
    """The events of what was added to each ear; all ears are of one detector."""
    events: list[list[SpeechEvent]] = [[] for _ in ears]
    while ready := [call for call, ear in enumerate(ears) if ear.has_window]:
        windows = wave_from_pcm16(
            b"".join([ears[call]._next_window() for call in ready])
        ).reshape(len(ready), -1)
        levels_db = levels_dbfs(windows)
        probabilities = ears[ready[0]]._detector.probabilities(
            [ears[call]._stream for call in ready], windows, levels_db
        )
        for call, probability, level_db in zip(
            ready, probabilities, levels_db, strict=True
        ):
            events[call] += ears[call]._judge(probability, level_db)
    return events
