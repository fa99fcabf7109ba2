"""How much of a reply the caller heard: playback milliseconds to words.

Pieces that were played to their end count whole.  Of the piece that was cut, as many
words count as its share of the time, rounded down: a word broken off was not heard.

    |-- piece 0 --|---- piece 1 ----|-- piece 2 --|
    ------------- heard_ms ---^       piece 0 and about half the words of piece 1
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from model.audio.frames import SAMPLE_BYTES

_WORD: Final = re.compile(r"\S+")


@dataclass(slots=True)
class _Piece:
    start_chars: int
    end_chars: int
    num_samples: int = 0


@dataclass(slots=True)
class SpokenReply:
    """One reply's text and the speech made of it so far, at one rate."""

    rate_hz: int
    text: str = ""
    _pieces: list[_Piece] = field(default_factory=list)

    def add_text(self, text: str) -> None:
        """Text as the model writes it."""
        self.text += text

    def add_speech(
        self, piece: int, pcm16: bytes, *, start_chars: int, end_chars: int
    ) -> None:
        """Speech of the part of `text` between these two places."""
        if piece >= len(self._pieces):
            self._pieces.append(_Piece(start_chars, end_chars))
        self._pieces[-1].num_samples += len(pcm16) // SAMPLE_BYTES

    @property
    def speech_ms(self) -> int:
        """Length of all speech so far."""
        return sum(piece.num_samples for piece in self._pieces) * 1000 // self.rate_hz

    def heard(self, heard_ms: int | None) -> str:
        """The text heard within the first `heard_ms`; None: everything spoken.

        Text that nothing was spoken of yet was not heard.
        """
        if heard_ms is None:
            return self.text[: self._pieces[-1].end_chars] if self._pieces else ""
        left_samples = heard_ms * self.rate_hz // 1000
        end = 0
        for piece in self._pieces:
            if left_samples < piece.num_samples:
                return self.text[: self._cut(piece, left_samples, end)]
            left_samples -= piece.num_samples
            end = piece.end_chars
        return self.text[:end]

    def _cut(self, piece: _Piece, heard_samples: int, before: int) -> int:
        words = list(
            _WORD.finditer(self.text, max(piece.start_chars, before), piece.end_chars)
        )
        num_heard = len(words) * heard_samples // piece.num_samples
        return words[num_heard - 1].end() if num_heard else before
