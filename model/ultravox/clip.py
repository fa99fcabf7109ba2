"""One stretch of a caller's speech on its way into the model.

A clip is encoded once, by whichever engine first needs it, and then keeps its audio
vectors for as long as the dialogue keeps the clip: replies, transcripts and later
turns all use the same vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
from blake3 import blake3

from model.audio.pcm import wave_from_pcm16
from model.errors import InvalidAudio
from model.ultravox.lengths import RATE_HZ, count_mel_frames, piece_lengths

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_KEY_BYTES = 16
_PCM16_KEYS = "ultravox phone bot: audio clips of 16-bit samples"
"""Keeps their keys apart from those of float samples that are the same bytes."""

_LET_GO = "the clip's samples were let go when it was encoded"


def _digest(samples: NDArray[np.float32] | bytes) -> bytes:
    if isinstance(samples, bytes):
        return blake3(samples, derive_key_context=_PCM16_KEYS).digest(_KEY_BYTES)
    return blake3(samples.data.cast("B")).digest(_KEY_BYTES)


class AudioClip:
    """A wave, float32 in [-1, 1] at 16 kHz, and its audio vectors once encoded.

    Raises:
        InvalidAudio: empty, not one-dimensional, or not finite.
    """

    __slots__ = ("__weakref__", "_key", "_samples", "num_samples", "vectors")

    def __init__(self, wave: NDArray[np.float32]) -> None:
        wave = np.ascontiguousarray(wave, dtype=np.float32)
        if wave.ndim != 1:
            raise InvalidAudio(f"audio of shape {wave.shape}; one channel is wanted")
        if not len(wave):
            raise InvalidAudio("audio is empty")
        if not np.isfinite(wave).all():
            raise InvalidAudio("audio holds samples that are not numbers")
        self._begin(wave, len(wave))

    @classmethod
    def of_pcm16(cls, pcm16: bytes) -> Self:
        """The clip of 16-bit samples at 16 kHz, kept as they are until encoded.

        That is half the memory while it waits, half the bytes to digest, and every
        sample is a number.  (The same sound as floats has another key, and is encoded
        for itself.)

        Raises:
            InvalidAudio: empty, or a sample was cut in two on the way.
        """
        if not pcm16 or len(pcm16) % 2:
            raise InvalidAudio(f"{len(pcm16)} bytes are no 16-bit samples")
        clip = cls.__new__(cls)
        clip._begin(pcm16, len(pcm16) // 2)
        return clip

    def _begin(
        self,
        samples: NDArray[np.float32] | bytes,
        num_samples: int,
        key: bytes | None = None,
    ) -> None:
        self._samples: NDArray[np.float32] | bytes | None = samples
        self.num_samples = num_samples
        self._key = key
        self.vectors: Tensor | None = None  # (num_tokens, E), set by the engine

    @property
    def key(self) -> bytes:
        """A digest of the samples, made when an engine first asks for it.

        Two clips share a key only if they sound the same, so it may stand for the audio
        where token ids stand for text.
        """
        if self._key is None:
            if self._samples is None:
                raise ValueError(_LET_GO)
            self._key = _digest(self._samples)
        return self._key

    @property
    def duration_s(self) -> float:
        """Length of the clip."""
        return self.num_samples / RATE_HZ

    @property
    def wave(self) -> NDArray[np.float32]:
        """The samples; gone once encoded, because nothing needs them again.

        Raises:
            ValueError: the clip has been encoded and its samples were let go.
        """
        if self._samples is None:
            raise ValueError(_LET_GO)
        if isinstance(self._samples, bytes):
            return wave_from_pcm16(self._samples)
        return self._samples

    def set_vectors(self, vectors: Tensor) -> None:
        """Keep the encoder's result and the key, and let go of the samples."""
        self._key = self.key
        self.vectors = vectors
        self._samples = None

    def twin(self) -> AudioClip:
        """The same sound for another model, whose vectors are others.

        Raises:
            ValueError: as `wave`.
        """
        if self._samples is None:
            raise ValueError(_LET_GO)
        clip = AudioClip.__new__(AudioClip)
        clip._begin(self._samples, self.num_samples, self.key)  # digested once
        return clip

    def num_pieces(self) -> int:
        """How many runs of at most 30 s the encoder sees."""
        return len(piece_lengths(count_mel_frames(self.num_samples)))
