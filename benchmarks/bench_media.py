"""The media plane: many calls at once, full duplex over AudioSocket on loopback.

    python -m benchmarks.bench_media [--calls 50,100,200] [--vad silero] [--seconds 10]

One process is the phone half: AGI server, media port, frame wheel, and for each call a
leg and a whole conversation whose bot never stops speaking while its ear listens.
Another plays Asterisk for every call: AGI, then 20 ms frames both ways.  Each process
has a core of its own where the machine has two; the client's own scheduling is part of
what it measures.

Lateness of a frame: its arrival at the client behind the steadiest 20 ms grid that fits
the call (the frame that was least late has none).  A frame the wheel skips makes all
later ones of that call late.  `tick` is the wheel's own lateness inside the phone half.
The ceiling: 200 calls are 20,000 socket operations a second.

--in-unison: all callers talk at the same time, and are silent at the same time.

--operators watch: each call has the tap that the console's levels come from, as in the
service; listen: and somebody listens in to every one of them.

Prints a table and, as the last line, JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
import psutil

from agi_handlers.agi.connection import AgiConnection
from agi_handlers.agi.protocol import AgiRequest
from agi_handlers.agi.server import AgiServer, AgiServerOptions
from agi_handlers.audio_leg.audiosocket_leg import AudioSocketLeg
from agi_handlers.audio_leg.batched_ears import BatchedEars
from agi_handlers.audio_leg.choose_leg import LegChooser, LegOptions
from agi_handlers.audio_leg.frame_wheel import FrameWheel, run_frame_wheel
from agi_handlers.audio_leg.leg import AudioLeg
from agi_handlers.audio_leg.media_port import MediaPortOptions, open_media_port
from agi_handlers.audio_leg.tapped_leg import TappedLeg
from agi_handlers.campaigns import Campaign
from agi_handlers.conversation.call import Call
from agi_handlers.conversation.call_parts import CallParts
from agi_handlers.conversation.turn_actions import TurnTakingOptions
from agi_handlers.conversation.turn_taking import TurnTaking
from agi_handlers.errors import TelephonyError
from agi_handlers.live_audio import LiveAudio
from benchmarks.loopback_asterisk import Floats, place_calls, speechlike, talk
from benchmarks.provenance import provenance
from model.audio.frames import FRAME_BYTES
from model.audio.pcm import Waves
from model.control_messages import pack_audio
from model.speech import Answerer, ReplyAudio, ReplyEvent, UserTurn, Utterance
from model.vad.detector import (
    DetectorName,
    DetectorStream,
    SpeechDetector,
    load_detector,
)
from model.vad.listener import CallerEar

_FRAME_S: Final = 0.020
_NOWHERE: Final = ("127.0.0.1", 9)
_SETTLE_S: Final = 2.0  # after the last call has connected, before measuring
_VADS: Final = ("none", "webrtc", "silero")
_OPERATORS: Final = ("none", "watch", "listen")
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
    names = ("vad", "operators", "loop", "seconds", "in_unison")
    parameters = {name: getattr(options, name) for name in names}
    print(
        json.dumps({"results": results, **parameters, **provenance("uvloop", "numpy")})
    )
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--calls", default="50", help="numbers of calls, comma list")
    parser.add_argument("--vad", choices=_VADS, default="silero")
    parser.add_argument("--seconds", type=float, default=10.0, help="time measured")
    parser.add_argument("--in-unison", action="store_true", help="all talk at once")
    parser.add_argument("--operators", choices=_OPERATORS, default="none")
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
    for name in ("vad", "seconds", "loop", "operators"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--calls", str(num_calls), "--agi-port", str(agi_port)]
    command += ["--core", str(core)]
    command += ["--in-unison"] * options.in_unison
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


class _EndlessSpeech:
    """A speech half whose greeting never ends."""

    def reply(self, turn: int, user: UserTurn) -> AsyncIterator[ReplyEvent]:
        return self.say(turn, "")

    async def say(self, turn: int, text: str) -> AsyncIterator[ReplyEvent]:
        speech = speechlike(5.0, level=0.1)
        while True:
            yield ReplyAudio(turn, 0, text, speech)

    async def settle(self, turn: int, heard_ms: int | None = None) -> None:
        return

    async def forget(self, turn: int) -> None:
        return

    async def identify(self, said: Utterance) -> Answerer:
        return Answerer("unsure", "")

    async def words_of(self, said: Utterance) -> str | None:
        return None


@dataclass
class _Exchange:
    """What all calls of the phone half share."""

    chooser: LegChooser
    detector: SpeechDetector | None
    ears: BatchedEars
    operators: str = "none"
    num_open: int = 0
    num_failed: int = 0
    legs: list[AudioSocketLeg] = field(default_factory=list)

    @property
    def num_frames_heard(self) -> int:
        return sum(leg.num_frames_received for leg in self.legs)

    async def talk(self, request: AgiRequest, agi: AgiConnection) -> None:
        try:
            async with self.chooser.open_leg(agi) as leg:
                assert isinstance(leg, AudioSocketLeg)
                self.num_open += 1
                self.legs.append(leg)
                await self._talk(self._tapped(leg))
        except TelephonyError as exc:  # a machine that cannot carry so many calls
            self.num_failed += 1
            print(f"call failed: {exc}", file=sys.stderr)

    def _tapped(self, leg: AudioLeg) -> AudioLeg:
        if self.operators == "none":
            return leg
        audio = LiveAudio(is_full_duplex=True)
        if self.operators == "listen":
            audio.listen(_Operator())
        return TappedLeg(leg, [audio])

    async def _talk(self, leg: AudioLeg) -> None:
        campaign = Campaign()
        parts = CallParts(
            leg=leg,
            ear=CallerEar(self.detector or _DeafDetector()),
            ears=self.ears,
            session=_EndlessSpeech(),
            phrases=campaign.phrases.as_mapping(),
            prompts={},
            target_of=campaign.target_of,
        )
        # the bot speaks on, whatever the caller says
        options = TurnTakingOptions(barge_in=False)
        await Call(parts, TurnTaking(options)).run()


class _Operator:
    """Sends what he hears on, as the line to the HTTP half does; nobody reads it."""

    def __init__(self) -> None:
        self._out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._out.setblocking(False)
        self._out.connect(_NOWHERE)

    def heard(self, stereo_pcm16: bytes) -> None:
        with suppress(OSError):
            self._out.send(pack_audio(1, stereo_pcm16))

    def ended(self) -> None:
        self._out.close()


class _DeafDetector:
    """Hears nothing, at no cost."""

    window_samples: Final = 256

    def open_stream(self) -> DetectorStream:
        return object()

    def probabilities(
        self,
        streams: Sequence[DetectorStream],
        windows: Waves,
        levels_db: Sequence[float],
    ) -> list[float]:
        return [0.0] * len(windows)


async def _phone(options: argparse.Namespace) -> dict[str, Any]:
    num_calls = int(options.calls)
    detector = None
    if options.vad != "none":
        detector = load_detector(cast("DetectorName", options.vad))
        CallerEar(detector).feed(bytes(FRAME_BYTES * 10))  # its first run loads things
    _pin(options.core)
    process = psutil.Process()
    port_options = MediaPortOptions(host="127.0.0.1", port=0)
    async with open_media_port(port_options) as media_port:
        with run_frame_wheel() as wheel:
            chooser = LegChooser(LegOptions(media="audiosocket"), media_port, wheel)
            exchange = _Exchange(chooser, detector, BatchedEars(), options.operators)
            server_options = AgiServerOptions(host="127.0.0.1", port=0)
            async with AgiServer({"bench": exchange.talk}, server_options) as server:
                gc.collect()  # as the service does when it opens
                gc.freeze()
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


async def _asterisk(options: argparse.Namespace) -> dict[str, Any]:
    _pin(options.core)
    num_calls = int(options.calls)
    calls = await place_calls(num_calls, "127.0.0.1", options.agi_port)
    talking = asyncio.create_task(talk(calls, in_unison=options.in_unison))
    await asyncio.sleep(_SETTLE_S)
    for call in calls:
        call.is_measuring = True
    await asyncio.sleep(options.seconds)
    for call in calls:
        call.is_measuring = False
    await asyncio.sleep(1.0)  # the phone half still measures
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)
    for call in calls:
        call.hang_up()
    await asyncio.sleep(0.5)
    lateness = np.concatenate([call.lateness_ms() for call in calls])
    return {
        "frames_received": len(lateness),
        "frames_expected": round(options.seconds / _FRAME_S) * num_calls,
        "late_p50_ms": _percentile(lateness, 50),
        "late_p95_ms": _percentile(lateness, 95),
        "late_p99_ms": _percentile(lateness, 99),
        "late_max_ms": _percentile(lateness, 100),
    }


if __name__ == "__main__":
    sys.exit(main())
