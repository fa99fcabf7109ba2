"""The media plane: many calls at once, full duplex over AudioSocket on loopback.

    python -m benchmarks.bench_media [--calls 50,100,200] [--vad none] [--seconds 10]

One process is the phone half: AGI server, media port, frame wheel, a leg a call that
always speaks, and, if asked for, an ear that listens.  Another plays Asterisk for every
call: AGI, then 20 ms frames both ways.  Each process has a core of its own where the
machine has two; the client's own scheduling is part of what it measures.

Lateness of a frame: its arrival at the client behind the steadiest 20 ms grid that fits
the call (the frame that was least late has none).  A frame the wheel skips makes all
later ones of that call late.  `tick` is the wheel's own lateness inside the phone half.
The ceiling: 200 calls are 20,000 socket operations a second.

Prints a table and, as the last line, JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

import numpy as np
import psutil
from numpy.typing import NDArray

from agi_handlers.agi.connection import AgiConnection
from agi_handlers.agi.protocol import AgiRequest
from agi_handlers.agi.server import AgiServer, AgiServerOptions
from agi_handlers.audio_leg.audiosocket_protocol import (
    FRAME_MESSAGE_BYTES,
    audio_message,
    call_id_message,
)
from agi_handlers.audio_leg.choose_leg import LegChooser, LegOptions
from agi_handlers.audio_leg.frame_wheel import FrameWheel, run_frame_wheel
from agi_handlers.audio_leg.leg import AudioLeg, CallerAudio, LegEvent
from agi_handlers.audio_leg.media_port import MediaPortOptions, open_media_port
from agi_handlers.errors import TelephonyError
from benchmarks.provenance import provenance
from model.audio.frames import FRAME_BYTES, FRAME_SAMPLES, RATE_HZ
from model.audio.pcm import pcm16_from_wave
from model.vad.detector import DetectorName, SpeechDetector, load_detector
from model.vad.listener import CallerEar, feed_together

_FRAME_S: Final = 0.020
_SETTLE_S: Final = 2.0  # after the last call has connected, before measuring
Floats: TypeAlias = NDArray[np.float64]
_VADS: Final = ("none", "webrtc", "silero", "silero_batched")
_LOOPS: Final = ("uvloop", "asyncio")


def main() -> int:
    """Measure each number of calls in fresh processes."""
    options = _arguments()
    if options.role == "phone":
        return _run(options.loop, _phone(options))
    if options.role == "asterisk":
        return _run(options.loop, _asterisk(options))
    print(
        f"{'calls':>5} {'CPU %':>6} {'% a call':>8} {'KiB a call':>10} "
        f"{'late p50':>8} {'p95':>6} {'p99':>6} {'max ms':>7} "
        f"{'tick p99':>8} {'skipped':>7}"
    )
    results = []
    for num_calls in map(int, options.calls.split(",")):
        result = _measure(num_calls, options)
        results.append(result)
        print(
            f"{num_calls:>5} {result['cpu_percent']:>6} "
            f"{result['cpu_percent_per_call']:>8} {result['memory_kib_per_call']:>10} "
            f"{result['late_p50_ms']:>8} {result['late_p95_ms']:>6} "
            f"{result['late_p99_ms']:>6} {result['late_max_ms']:>7} "
            f"{result['tick_late_p99_ms']:>8} {result['frames_skipped']:>7}",
            flush=True,
        )
    parameters = {"vad": options.vad, "loop": options.loop, "seconds": options.seconds}
    print(
        json.dumps({"results": results, **parameters, **provenance("uvloop", "numpy")})
    )
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--calls", default="50", help="numbers of calls, comma list")
    parser.add_argument("--vad", choices=_VADS, default="none")
    parser.add_argument("--seconds", type=float, default=10.0, help="time measured")
    parser.add_argument("--loop", choices=_LOOPS, default="uvloop")
    parser.add_argument("--role", choices=["all", "phone", "asterisk"], default="all")
    parser.add_argument("--agi-port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, default=-1, help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(num_calls: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run both processes once; the phone half says its port, then its result."""
    cores = sorted(os.sched_getaffinity(0))
    phone = _start("phone", num_calls, options, cores[0])
    try:
        assert phone.stdout is not None
        port = int(phone.stdout.readline())
        asterisk = _start("asterisk", num_calls, options, cores[-1], agi_port=port)
        heard, _ = asterisk.communicate(timeout=60 + options.seconds * 2)
        served, _ = phone.communicate(timeout=60)
    finally:
        phone.kill()
        phone.wait()
    if asterisk.returncode or phone.returncode:
        raise SystemExit(f"failed with {num_calls} calls; see the messages above")
    return {"calls": num_calls, **json.loads(heard), **json.loads(served)}


def _start(
    role: str,
    num_calls: int,
    options: argparse.Namespace,
    core: int,
    agi_port: int = 0,
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.bench_media", "--role", role]
    for name in ("vad", "seconds", "loop"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--calls", str(num_calls), "--agi-port", str(agi_port)]
    command += ["--core", str(core)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _run(loop: str, role: Coroutine[Any, Any, dict[str, Any]]) -> int:
    if loop == "uvloop":
        import uvloop

        result = uvloop.run(role)
    else:
        result = asyncio.run(role)
    print(json.dumps(result), flush=True)
    return 0


def _pin(core: int) -> None:
    if core >= 0:
        os.sched_setaffinity(0, {core})


def _percentile(values: Sequence[float] | Floats, percent: float) -> float:
    return round(float(np.percentile(values, percent)), 2) if len(values) else 0.0


# --- the phone half ---


class _TickProbe:
    """Rides on the wheel and notes when its frames were due and came."""

    def __init__(self) -> None:
        self.times_s: array[float] = array("d")
        self.num_frames: array[int] = array("l")

    def on_frame_time(self, num_frames: int) -> None:
        self.times_s.append(time.monotonic())
        self.num_frames.append(num_frames)

    def lateness_ms(self) -> list[float]:
        times = np.asarray(self.times_s)
        # the last frame of a tick is the one that was due then
        behind = times - (np.cumsum(np.asarray(self.num_frames)) - 1) * _FRAME_S
        return (
            [float(ms) for ms in (behind - behind.min()) * 1000] if len(times) else []
        )


class _Hall:
    """All ears together: one run of the network for what came in 5 ms."""

    def __init__(self, wheel: FrameWheel) -> None:
        self._waiting: dict[CallerEar, bytes] = {}
        for _ in range(wheel.options.num_phases):
            wheel.add(self)

    def hear(self, ear: CallerEar, pcm16: bytes) -> None:
        self._waiting[ear] = self._waiting.get(ear, b"") + pcm16

    def on_frame_time(self, num_frames: int) -> None:
        waiting, self._waiting = self._waiting, {}
        if waiting:
            feed_together(list(waiting), list(waiting.values()))


@dataclass
class _Exchange:
    """What all calls of the phone half share."""

    chooser: LegChooser
    detector: SpeechDetector | None
    hall: _Hall | None
    num_open: int = 0
    num_failed: int = 0
    num_frames_heard: int = 0

    async def talk(self, request: AgiRequest, agi: AgiConnection) -> None:
        try:
            await self._talk(agi)
        except TelephonyError as exc:  # a machine that cannot carry so many calls
            self.num_failed += 1
            print(f"call failed: {exc}", file=sys.stderr)

    async def _talk(self, agi: AgiConnection) -> None:
        async with self.chooser.open_leg(agi) as leg:
            self.num_open += 1
            speaking = asyncio.create_task(_speak(leg))
            try:
                await self._listen(leg.events())
            finally:
                speaking.cancel()
                await asyncio.gather(speaking, return_exceptions=True)

    async def _listen(self, events: Any) -> None:
        ear = CallerEar(self.detector) if self.detector is not None else None
        event: LegEvent
        async for event in events:
            if isinstance(event, CallerAudio):
                self.num_frames_heard += len(event.pcm16) // FRAME_BYTES
                if ear is not None and self.hall is not None:
                    self.hall.hear(ear, event.pcm16)
                elif ear is not None:
                    ear.feed(event.pcm16)


async def _speak(leg: AudioLeg) -> None:
    speech = _speechlike(5.0, level=0.1)
    while True:
        await leg.play(speech)


async def _phone(options: argparse.Namespace) -> dict[str, Any]:
    num_calls = int(options.calls)
    detector = None
    if options.vad != "none":
        name = cast("DetectorName", options.vad.removesuffix("_batched"))
        detector = load_detector(name)
        CallerEar(detector).feed(bytes(FRAME_BYTES * 10))  # its first run loads things
    _pin(options.core)
    process = psutil.Process()
    port_options = MediaPortOptions(host="127.0.0.1", port=0)
    async with open_media_port(port_options) as media_port:
        with run_frame_wheel() as wheel:
            chooser = LegChooser(LegOptions(media="audiosocket"), media_port, wheel)
            hall = _Hall(wheel) if options.vad == "silero_batched" else None
            exchange = _Exchange(chooser, detector, hall)
            server_options = AgiServerOptions(host="127.0.0.1", port=0)
            async with AgiServer({"bench": exchange.talk}, server_options) as server:
                memory_before = process.memory_info().rss
                print(server.port, flush=True)
                await _until(
                    lambda: exchange.num_open + exchange.num_failed == num_calls
                )
                result = await _watch_phone(exchange, wheel, process, options.seconds)
                memory = process.memory_info().rss - memory_before
                await _until(lambda: server.num_calls == 0)
    result["calls_failed"] = exchange.num_failed
    result["memory_kib_per_call"] = round(memory / 1024 / num_calls, 1)
    result["cpu_percent_per_call"] = round(result["cpu_percent"] / num_calls, 3)
    return result


async def _watch_phone(
    exchange: _Exchange, wheel: FrameWheel, process: psutil.Process, seconds: float
) -> dict[str, Any]:
    await asyncio.sleep(_SETTLE_S)
    probes = [_TickProbe() for _ in range(wheel.options.num_phases)]
    for probe in probes:
        wheel.add(probe)
    skipped_before = wheel.stats.num_skipped_frames
    heard_before = exchange.num_frames_heard
    cpu_before, began_s = sum(process.cpu_times()[:2]), time.monotonic()
    await asyncio.sleep(seconds)
    elapsed_s = time.monotonic() - began_s
    cpu_s = sum(process.cpu_times()[:2]) - cpu_before
    for probe in probes:
        wheel.remove(probe)
    lateness = [ms for probe in probes for ms in probe.lateness_ms()]
    return {
        "cpu_percent": round(100 * cpu_s / elapsed_s, 1),
        "tick_late_p50_ms": _percentile(lateness, 50),
        "tick_late_p99_ms": _percentile(lateness, 99),
        "frames_skipped": wheel.stats.num_skipped_frames - skipped_before,
        "frames_heard_per_s": round(
            (exchange.num_frames_heard - heard_before) / elapsed_s
        ),
    }


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110 - counts of other tasks, seen now and then
            await asyncio.sleep(0.05)


# --- Asterisk ---


class _Channel(asyncio.Protocol):
    """AGI of one call: answers what the leg asks, and connects its audio."""

    def __init__(self, calls: list[_Media]) -> None:
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
            media = _Media(UUID(call_id), self._ended)
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


class _Media(asyncio.Protocol):
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
        if self.transport is not None:
            self.transport.close()
        self._ended()

    def lateness_ms(self) -> Floats:
        times = np.asarray(self.arrivals_s)
        behind = times - np.arange(len(times)) * _FRAME_S
        return (behind - behind.min()) * 1000 if len(times) else times


async def _asterisk(options: argparse.Namespace) -> dict[str, Any]:
    _pin(options.core)
    loop = asyncio.get_running_loop()
    calls: list[_Media] = []
    channels = []
    num_calls = int(options.calls)
    for _ in range(num_calls):
        transport, _ = await loop.create_connection(
            lambda: _Channel(calls), "127.0.0.1", options.agi_port
        )
        channels.append(transport)
    await _until(lambda: len(calls) == num_calls)
    sending = asyncio.create_task(_send(calls))
    await asyncio.sleep(_SETTLE_S)
    for call in calls:
        call.is_measuring = True
    await asyncio.sleep(options.seconds)
    for call in calls:
        call.is_measuring = False
    await asyncio.sleep(1.0)  # the phone half still measures
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    for call in calls:
        call.hang_up()
    await asyncio.sleep(0.5)
    for transport in channels:
        transport.close()
    lateness = np.concatenate([call.lateness_ms() for call in calls])
    return {
        "frames_received": len(lateness),
        "frames_expected": round(options.seconds / _FRAME_S) * num_calls,
        "late_p50_ms": _percentile(lateness, 50),
        "late_p95_ms": _percentile(lateness, 95),
        "late_p99_ms": _percentile(lateness, 99),
        "late_max_ms": _percentile(lateness, 100),
    }


async def _send(calls: list[_Media]) -> None:
    """A frame a call every 20 ms, the calls spread over the 20 ms in eight groups."""
    frames = _frames()
    groups = [calls[first::8] for first in range(8)]
    begin_s, step = time.monotonic(), 0
    while True:
        group = groups[step % 8]
        message = frames[step // 8 % len(frames)]
        for call in group:
            if call.transport is not None and not call.transport.is_closing():
                call.transport.write(message)
        behind = int((time.monotonic() - begin_s) / _FRAME_S * 8) - step
        step += max(1, behind)  # a client that was held up does not burst either
        await asyncio.sleep(max(0.0, begin_s + step * _FRAME_S / 8 - time.monotonic()))


def _frames() -> list[bytes]:
    speech = _speechlike(4.0, level=0.2)
    return [
        audio_message(speech[at : at + FRAME_BYTES])
        for at in range(0, len(speech), FRAME_BYTES)
    ]


def _speechlike(seconds: float, *, level: float) -> bytes:
    """Noise in syllables for half the time, then almost silence: pcm16."""
    num_samples = math.ceil(seconds * RATE_HZ / FRAME_SAMPLES) * FRAME_SAMPLES
    at_s = np.arange(num_samples) / RATE_HZ
    envelope = np.where(at_s < seconds / 2, np.abs(np.sin(at_s * 12)), 0.003)
    noise = np.random.default_rng(1).standard_normal(num_samples)
    wave = np.clip(noise * envelope * level, -1.0, 1.0)
    return pcm16_from_wave(wave.astype(np.float32))


if __name__ == "__main__":
    sys.exit(main())
