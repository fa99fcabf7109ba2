"""The telephone line between a caller and the bot: what it adds, and what it loses.

Pure: 20 ms in, 20 ms out. Whatever the caller says is sent with the noise around him
and through mu-law; a lost packet is heard as silence.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import cycle
from typing import Final

import numpy as np

from model.audio.frames import FRAME_BYTES, SILENCE_FRAME
from model.audio.g711 import ulaw_decode, ulaw_encode

_LOUDEST: Final = 32_767


class TelephoneLine:
    """One caller's line.

    noise: 8 kHz pcm16 that is heard all the time, over and over; loss: the share of
    packets that don't arrive.

    Raises:
        ValueError: less than one frame of noise, or a share outside of 0 to 1.
    """

    def __init__(self, noise: bytes = b"", loss: float = 0.0, seed: int = 1) -> None:
        if not 0.0 <= loss <= 1.0:
            raise ValueError("need 0 <= loss <= 1")
        if noise and len(noise) < FRAME_BYTES:
            raise ValueError("need at least 20 ms of noise")
        whole = len(noise) // FRAME_BYTES * FRAME_BYTES
        frames = np.frombuffer(noise[:whole], dtype="<i2").reshape(-1, FRAME_BYTES // 2)
        self._noise: Iterator[np.ndarray[tuple[int], np.dtype[np.int16]]] = cycle(
            frames if len(frames) else [np.zeros(FRAME_BYTES // 2, dtype="<i2")]
        )
        self._loss = loss
        self._chance = random.Random(seed)

    def carry(self, pcm16: bytes) -> bytes:
        """The caller's next frame, as it arrives."""
        heard = np.frombuffer(pcm16, dtype="<i2").astype(np.int32) + next(self._noise)
        if self._chance.random() < self._loss:
            return SILENCE_FRAME
        loudest = np.clip(heard, -_LOUDEST, _LOUDEST).astype("<i2").tobytes()
        return ulaw_decode(ulaw_encode(loudest))
