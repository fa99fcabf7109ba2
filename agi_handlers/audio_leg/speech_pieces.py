"""Speech cut into pieces worth a sound file each.

Pure: says when a piece is due.  The first is short, so that the caller hears something
early; each next one is taken shortly before the last has been played, and is then as
long as the synthesiser allows, since every seam costs a few milliseconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from model.audio.frames import SAMPLE_BYTES, SAMPLES_PER_MS

_BYTES_PER_MS = SAMPLES_PER_MS * SAMPLE_BYTES


@dataclass(frozen=True, slots=True)
class PieceOptions:
    first_piece_ms: int = 500  # enough to prepare the next one behind it
    # Before the end of the piece being played: a transfer takes 3 to 50 ms.
    prepare_ahead_ms: int = 400
    max_piece_ms: int = 10_000  # 80 kB of mu-law: quick to transfer, quick to drop


@dataclass(frozen=True, slots=True)
class SpeechPiece:
    """Some speech (possibly none), and whether its speech ends with it."""

    pcm16: bytes
    ends_speech: bool

    @property
    def duration_ms(self) -> int:
        return len(self.pcm16) // _BYTES_PER_MS


class SpeechPieces:
    """Speech queued but not yet cut."""

    def __init__(self, options: PieceOptions) -> None:
        self._options = options
        # one buffer a speech; all but the last are complete
        self._speeches: deque[bytearray] = deque([bytearray()])

    @property
    def queued_ms(self) -> int:
        return sum(len(speech) for speech in self._speeches) // _BYTES_PER_MS

    @property
    def is_empty(self) -> bool:
        """Nothing to play and no end to report."""
        return len(self._speeches) == 1 and not self._speeches[0]

    def add(self, pcm16: bytes) -> None:
        """Queue speech; an odd byte waits for its other half."""
        self._speeches[-1] += pcm16

    def end_of_speech(self) -> None:
        """What is queued so far is a whole speech."""
        self._speeches.append(bytearray())

    def stop(self) -> None:
        """Drop everything."""
        self._speeches = deque([bytearray()])

    def due_in_ms(self, left_to_play_ms: int | None) -> int | None:
        """When to take a piece: 0 now, None not before more comes.

        left_to_play_ms: of the pieces taken so far; None when nothing is playing.
        """
        if self.is_empty:
            return None
        if left_to_play_ms is not None:
            return max(0, left_to_play_ms - self._options.prepare_ahead_ms)
        is_whole = len(self._speeches) > 1
        if is_whole or self.queued_ms >= self._options.first_piece_ms:
            return 0
        return None

    def take(self) -> SpeechPiece:
        """The next piece; only when one is due."""
        assert not self.is_empty
        speech = self._speeches[0]
        is_whole = len(self._speeches) > 1
        available = len(speech) - len(speech) % SAMPLE_BYTES
        size = min(available, self._options.max_piece_ms * _BYTES_PER_MS)
        pcm16 = bytes(speech[:size])
        del speech[:size]
        ends_speech = is_whole and len(speech) < SAMPLE_BYTES
        if ends_speech:
            self._speeches.popleft()
        return SpeechPiece(pcm16, ends_speech)
