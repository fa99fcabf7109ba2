"""How long the caller waits: end of speech to first bot audio, at the audio socket.

    python -m benchmarks.bench_turn_latency [--speech DIR] [--turns 20] [--calls 1]
        [--lines clean,hiss:10,babble:15+0.02]

Starts the real service (phone half and speech half, scripted instant engine, espeak
voice) once for each configuration under comparison, and talks to all of them in the
same run, taking turns, over real AGI and AudioSocket or EAGI connections. The caller
says a sentence, waits for the answer, waits until it is over, says the next; every
third answer he talks over. Measured at the caller's end of the wire: last voiced sample
sent to first voiced sample heard; first voiced sample of an interruption to the last
voiced sample heard; answer to the first voiced sample of the greeting. False barge-ins
are the interruptions that the service counted beyond those that were made.

--lines: the calls are spread over them, and every configuration hears the same; each
line is a row of its own. A line is what is behind the caller (hiss, babble, hum,
street, voice), how far below his voice in dB, and the share of lost packets; all of it
goes through mu-law.

The floor is the silence the endpointing must hear before it may believe it (0.3 to
0.83 s, depending on the caller's pauses) plus the first sentence's synthesis.  Last
line: JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import uvloop

from benchmarks.provenance import provenance
from benchmarks.telephone_line import Background, find_runs, line_noise
from model.audio.frames import RATE_HZ
from model.audio.pcm import Wave, level_dbfs, pcm16_from_wave, wave_from_pcm16
from tools.caller.agi_wire import Channel
from tools.caller.call import CallPlan, CallReport, place_call
from tools.caller.channel import Abilities, folders_of
from tools.caller.journal import Journal
from tools.caller.line import TelephoneLine
from tools.caller.say_items import (
    Item,
    Say,
    WaitForQuiet,
    WaitForSound,
    recording,
    spoken,
)
from tools.caller.turns import percentile
from tools.caller.wheel import Wheel

ROOT = Path(__file__).resolve().parent.parent

SENTENCES = (
    "What are your opening hours?",
    "I would like to know where my order is, the number is four five one two.",
    "Can you tell me, please, whether you are open on Sunday?",
    "No, thank you, that is all for today.",
    "I need to move my appointment from Monday to Thursday at three.",
    "Yes.",
    "Who am I talking to?",
    "Could you repeat that a bit slower?",
)

CONFIGURATIONS: dict[str, dict[str, str]] = {
    "adaptive": {},
    "silero fixed 600 ms": {"ULTRAVOX_ENDPOINT_MS": "600"},
    "webrtc fixed 600 ms": {"ULTRAVOX_ENDPOINT_MS": "600", "ULTRAVOX_VAD": "webrtc"},
    "adaptive, EAGI relay": {"ULTRAVOX_MEDIA": "eagi"},
}


@dataclass(slots=True)
class Measures:
    """What one configuration showed, in milliseconds."""

    response: list[float] = field(default_factory=list)
    barge_in_stop: list[float] = field(default_factory=list)
    greeting: list[float] = field(default_factory=list)
    num_turns: int = 0
    num_unanswered: int = 0
    num_cut: int = 0
    num_barge_ins: int = 0
    """As the service counted them."""
    called_s: float = 0.0
    errors: list[str] = field(default_factory=list)

    def add(self, report: CallReport) -> None:
        if report.greeting_ms is not None:
            self.greeting.append(report.greeting_ms)
        self.errors += report.errors
        for turn in report.turns:
            self.num_turns += 1
            self.num_cut += turn.is_cut
            if turn.barge_in_stop_ms is not None:
                self.barge_in_stop.append(turn.barge_in_stop_ms)
            if turn.response_ms is None:
                self.num_unanswered += 1
            else:
                self.response.append(turn.response_ms)

    @property
    def false_barge_ins_a_minute(self) -> float:
        """Nobody spoke, and the bot stopped."""
        num_false = max(0, self.num_barge_ins - len(self.barge_in_stop))
        return round(60 * num_false / max(self.called_s, 1.0), 2)

    def as_row(self) -> dict[str, object]:
        return {
            "barge_ins_counted": self.num_barge_ins,
            "minutes": round(self.called_s / 60, 1),
            "false_barge_ins_a_minute": self.false_barge_ins_a_minute,
            "turns": self.num_turns,
            "unanswered": self.num_unanswered,
            "cut_percent": round(100 * self.num_cut / max(1, self.num_turns), 1),
            "response_ms": spread(self.response),
            "barge_in_stop_ms": spread(self.barge_in_stop),
            "greeting_ms": spread(self.greeting),
            "errors": self.errors,
        }


@dataclass(frozen=True, slots=True)
class LineKind:
    """What a caller's line is like."""

    name: str
    background: Background | None
    loss: float = 0.0

    @classmethod
    def parse(cls, text: str) -> LineKind:
        """clean, or KIND:DB, or either with +LOSS."""
        what, _, loss = text.partition("+")
        kind, _, snr_db = what.partition(":")
        share = float(loss or 0)
        if kind == "clean":
            return cls(text, None, share)
        return cls(text, Background(kind, float(snr_db)), share)

    def line(self, speech: Sequence[Say], seed: int) -> TelephoneLine:
        """A caller's own line of this kind."""
        if self.background is None:
            return TelephoneLine(loss=self.loss, seed=seed)
        waves = [wave_from_pcm16(one.pcm16) for one in speech]
        caller_dbfs = float(np.median([_speech_dbfs(wave) for wave in waves]))
        rng = np.random.default_rng(seed)
        noise = line_noise(rng, self.background, caller_dbfs, waves, 20 * RATE_HZ)
        return TelephoneLine(pcm16_from_wave(noise), self.loss, seed)


def _speech_dbfs(wave: Wave) -> float:
    runs = find_runs(wave) or ((0, wave.size),)
    return level_dbfs(np.concatenate([wave[start:end] for start, end in runs]))


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """p50, p95, p99 and the number of values."""
    if not values:
        return None
    row = {f"p{p}": round(percentile(values, p) or 0.0) for p in (50, 95, 99)}
    return {**row, "n": len(values)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def service(environ: dict[str, str], folder: Path) -> Iterator[int]:
    """The whole service with a scripted engine; yields its AGI port.

    Its log is `service.txt` in the folder.
    """
    ports = {name: free_port() for name in ("PORT", "AGI_PORT", "AUDIOSOCKET_PORT")}
    folder.mkdir()
    settings = {
        **{name: text for name, text in os.environ.items() if "ULTRAVOX" not in name},
        **{f"ULTRAVOX_{name}": str(port) for name, port in ports.items()},
        "ULTRAVOX_ENGINE": "scripted",
        "ULTRAVOX_DATA_DIR": str(folder),
        "ULTRAVOX_HOST": "127.0.0.1",
        "ULTRAVOX_LOG_FORMAT": "json",
        "ULTRAVOX_MAX_CALLS": "400",
        **environ,
    }
    with (folder / "service.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "fastagi_server.py"],
            cwd=ROOT,
            env=settings,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        try:
            _wait_ready(ports["PORT"], process, folder / "service.txt")
            yield ports["AGI_PORT"]
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


def _wait_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    url = f"http://127.0.0.1:{port}/health/ready"
    for _ in range(600):
        if process.poll() is not None:
            break
        with (
            suppress(urllib.error.URLError, ConnectionError),
            urllib.request.urlopen(url, timeout=2) as answer,
        ):
            if answer.status == 200:
                time.sleep(2.0)  # the phone half asks once a second
                return
        time.sleep(0.1)
    raise SystemExit(f"the service did not come up:\n{log.read_text()[-2000:]}")


def conversation(said: Sequence[Say]) -> list[Item]:
    """After the greeting: say, hear the answer out or talk over it, and so on."""
    items: list[Item] = [WaitForSound(200, 0.5), WaitForQuiet(200, 1.0)]
    for number, sentence in enumerate(said):
        items.append(sentence)
        if number % 3 == 1:  # the next one interrupts this one's answer
            items.append(WaitForSound(200, 0.9))
        else:
            items += [WaitForSound(200, 0.3), WaitForQuiet(200, 1.0)]
    return items


@dataclass(frozen=True, slots=True)
class Scene:
    """What all configurations go through alike."""

    speech: Sequence[Say]
    lines: Sequence[LineKind]
    turns: int
    calls: int
    seed: int


async def measure(
    agi_ports: dict[str, int], scene: Scene
) -> dict[tuple[str, str], Measures]:
    """Short calls of six turns, the configurations in turn; `calls` at once."""
    measures = {
        (name, kind.name): Measures() for name in agi_ports for kind in scene.lines
    }
    chance = random.Random(scene.seed)
    wheel = Wheel()
    turning = asyncio.ensure_future(wheel.run())
    # the bot is ours: its relay may run here
    abilities = Abilities(folders_of([ROOT / "sounds"]), runs_scripts=True)
    loop = asyncio.get_running_loop()
    speech, calls = scene.speech, scene.calls
    try:
        for number in range(max(1, -(-scene.turns // (6 * calls)))):
            kinds = [
                scene.lines[(number * calls + call) % len(scene.lines)]
                for call in range(calls)
            ]
            said = [chance.sample(speech, min(6, len(speech))) for _ in range(calls)]
            for name, port in agi_ports.items():
                plans = [
                    CallPlan(
                        host="127.0.0.1",
                        port=port,
                        items=conversation(said[call]),
                        about=replace(
                            Channel(), uniqueid=_uniqueid(number, call, kind.name)
                        ),
                        line=kind.line(speech, scene.seed + number * calls + call),
                        max_s=150.0,
                        linger_s=1.0,
                    )
                    for call, kind in enumerate(kinds)
                ]
                begun_s = loop.time()
                reports = await asyncio.gather(
                    *(
                        place_call(plan, abilities, Journal(loop.time, None), wheel)
                        for plan in plans
                    )
                )
                for kind, report in zip(kinds, reports, strict=True):
                    measures[name, kind.name].called_s += loop.time() - begun_s
                    measures[name, kind.name].add(report)
                print(f"{name}: round {number + 1}", file=sys.stderr)
    finally:
        turning.cancel()
        with suppress(asyncio.CancelledError):
            await turning
    return measures


def _uniqueid(number: int, call: int, line: str) -> str:
    """Names the line, so that the service's log can be told by it."""
    return f"{1_700_000_000 + number}.{call}.{line}"


def _count_barge_ins(log: Path, line: str) -> int:
    """Interruptions that the service counted in calls over this line."""
    rows = log.read_text(errors="replace").splitlines()
    return sum('"event": "barge_in"' in row and f'.{line}"' in row for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--speech", type=Path, help="folder of recorded sentences")
    parser.add_argument("--turns", type=int, default=24, help="of each configuration")
    parser.add_argument("--calls", type=int, default=1, help="at once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lines", default="clean", help="comma list; %(default)s")
    parser.add_argument(
        "--only", choices=CONFIGURATIONS, action="append", help="not all of them"
    )
    options = parser.parse_args()
    try:
        lines = [LineKind.parse(text) for text in options.lines.split(",")]
    except ValueError as exc:
        parser.error(f"--lines: {exc}")
    if options.speech:
        speech = [recording(file) for file in sorted(options.speech.glob("*.wav"))]
        if not speech:
            parser.error(f"--speech: no .wav file in {options.speech}")
    else:
        speech = [Say(text, spoken(text)) for text in SENTENCES]
    wanted = options.only or list(CONFIGURATIONS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = {
            name: stack.enter_context(service(CONFIGURATIONS[name], folder / str(n)))
            for n, name in enumerate(wanted)
        }
        scene = Scene(speech, lines, options.turns, options.calls, options.seed)
        measures = uvloop.run(measure(ports, scene))
        for (name, line), measured in measures.items():
            log = folder / str(wanted.index(name)) / "service.txt"
            measured.num_barge_ins = _count_barge_ins(log, line)
    print_table(measures)
    print(
        json.dumps(
            {
                "benchmark": "turn_latency",
                **provenance(),
                "speech": str(options.speech.name) if options.speech else "espeak",
                "calls": options.calls,
                "lines": options.lines,
                "seed": options.seed,
                "configurations": {
                    f"{name}, {line}": m.as_row()
                    for (name, line), m in measures.items()
                },
            }
        )
    )
    return 1 if any(m.errors for m in measures.values()) else 0


def print_table(measures: dict[tuple[str, str], Measures]) -> None:
    print(
        f"{'':22}{'line':>16}{'response ms':>22}{'barge-in stop ms':>22}"
        f"{'greeting ms':>14}{'cut %':>8}{'missed':>8}{'false/min':>11}"
    )
    for (name, line), m in measures.items():
        cells = [
            " / ".join(
                str(round(percentile(values, p) or 0)) if values else "-"
                for p in (50, 95)
            )
            for values in (m.response, m.barge_in_stop, m.greeting)
        ]
        print(
            f"{name:22}{line:>16}{cells[0]:>22}{cells[1]:>22}{cells[2]:>14}"
            f"{100 * m.num_cut / max(1, m.num_turns):>8.1f}{m.num_unanswered:>8}"
            f"{m.false_barge_ins_a_minute:>11.2f}"
        )


if __name__ == "__main__":
    sys.exit(main())
