"""Asterisk for load tests: many calls of AGI and AudioSocket over loopback.

Only what the AudioSocket leg asks is answered; the caller talks in syllables of noise
for half the time.  Every frame that comes back is noted by its time.
"""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from agi_handlers.audio_leg.audiosocket_protocol import (
    FRAME_MESSAGE_BYTES,
    audio_message,
    call_id_message,
)
from model.audio.frames import FRAME_BYTES, FRAME_MS, FRAME_SAMPLES, RATE_HZ
from model.audio.pcm import pcm16_from_wave

Floats: TypeAlias = NDArray[np.float64]
_FRAME_S: Final = FRAME_MS / 1000
_NUM_GROUPS: Final = 8  # the calls are spread over the 20 ms, as in life


async def place_calls(num_calls: int, host: str, agi_port: int) -> list[LoopbackCall]:
    """Open every call's AGI dialogue, wait until all were told where audio goes."""
    loop = asyncio.get_running_loop()
    calls: list[LoopbackCall] = []
    for _ in range(num_calls):
        await loop.create_connection(lambda: _Channel(calls), host, agi_port)
    async with asyncio.timeout(120):
        while len(calls) < num_calls:  # noqa: ASYNC110 - counted now and then
            await asyncio.sleep(0.05)
    return calls


class _Channel(asyncio.Protocol):
    """AGI of one call: answers what the leg asks, and connects its audio."""

    def __init__(self, calls: list[LoopbackCall]) -> None:
        self._calls = calls
        self._transport: asyncio.Transport | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(
            b"agi_network: yes\nagi_network_script: bench\nagi_channel: Bench/1\n"
            b"agi_uniqueid: 1.1\nagi_version: 22.10.1\n\n"
        )

    def data_received(self, data: bytes) -> None:
        self._received += data
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            self._answer(line.decode())

    def _answer(self, line: str) -> None:
        assert self._transport is not None
        if line.startswith("EXEC AudioSocket"):
            call_id, address = line.split()[2].split(",")
            media = LoopbackCall(UUID(call_id), self._ended)
            self._calls.append(media)
            host, port = address.split(":")
            loop = asyncio.get_running_loop()
            media.task = loop.create_task(
                loop.create_connection(lambda: media, host, int(port))
            )
        elif line.startswith("CHANNEL STATUS"):
            self._transport.write(b"200 result=6\n")
        elif line.startswith("GET FULL VARIABLE"):
            self._transport.write(b"200 result=1 (1)\n")
        else:
            self._transport.write(b"200 result=0\n")

    def _ended(self) -> None:
        """The caller hung up, as Asterisk tells it."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"200 result=-1\n")
            self._transport.write(b"HANGUP\n")


class LoopbackCall(asyncio.Protocol):
    """Audio of one call: notes when each frame came."""

    def __init__(self, call_id: UUID, ended: Callable[[], None]) -> None:
        self.arrivals_s: array[float] = array("d")
        self.transport: asyncio.Transport | None = None
        self.task: asyncio.Task[Any] | None = None
        self.is_measuring = False
        self._call_id = call_id
        self._ended = ended
        self._num_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(call_id_message(self._call_id))

    def data_received(self, data: bytes) -> None:
        self._num_bytes += len(data)
        num_frames, self._num_bytes = divmod(self._num_bytes, FRAME_MESSAGE_BYTES)
        if self.is_measuring:
            now_s = time.monotonic()
            for _ in range(num_frames):
                self.arrivals_s.append(now_s)

    def hang_up(self) -> None:
        """End of file on the audio; AGI is told, and closes when the bot does."""
        if self.transport is not None:
            self.transport.close()
        self._ended()

    def lateness_ms(self) -> Floats:
        times = np.asarray(self.arrivals_s)
        behind = times - np.arange(len(times)) * _FRAME_S
        return (behind - behind.min()) * 1000 if len(times) else times


async def talk(calls: list[LoopbackCall], *, in_unison: bool = False) -> None:
    """A frame a call every 20 ms, the calls spread over the 20 ms in groups.

    in_unison: all callers talk at once and are silent at once; otherwise half of them
    talk at any moment.
    """
    frames = _frames()
    ahead = 0 if in_unison else len(frames) / max(1, len(calls))
    callers = [(call, round(place * ahead)) for place, call in enumerate(calls)]
    groups = [callers[first::_NUM_GROUPS] for first in range(_NUM_GROUPS)]
    begin_s, step = time.monotonic(), 0
    while True:
        group = groups[step % _NUM_GROUPS]
        frame = step // _NUM_GROUPS
        for call, frames_ahead in group:
            if call.transport is not None and not call.transport.is_closing():
                call.transport.write(frames[(frame + frames_ahead) % len(frames)])
        behind = int((time.monotonic() - begin_s) / _FRAME_S * _NUM_GROUPS) - step
        step += max(1, behind)  # a client that was held up does not burst either
        await asyncio.sleep(
            max(0.0, begin_s + step * _FRAME_S / _NUM_GROUPS - time.monotonic())
        )


def _frames() -> list[bytes]:
    speech = speechlike(4.0, level=0.2)
    return [
        audio_message(speech[at : at + FRAME_BYTES])
        for at in range(0, len(speech), FRAME_BYTES)
    ]


def speechlike(seconds: float, *, level: float) -> bytes:
    """Noise in syllables for half the time, then almost silence: pcm16."""
    num_samples = math.ceil(seconds * RATE_HZ / FRAME_SAMPLES) * FRAME_SAMPLES
    at_s = np.arange(num_samples) / RATE_HZ
    envelope = np.where(at_s < seconds / 2, np.abs(np.sin(at_s * 12)), 0.003)
    noise = np.random.default_rng(1).standard_normal(num_samples)
    wave = np.clip(noise * envelope * level, -1.0, 1.0)
    return pcm16_from_wave(wave.astype(np.float32))
