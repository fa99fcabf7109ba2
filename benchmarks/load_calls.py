"""The whole service under load: ramp, hold, burst, soak; kills if asked.

    python -m benchmarks.load_calls --engine scripted --calls 40 --hold 30 --burst 200
    python -m benchmarks.load_calls --engine demo --calls 4 --hold 60
    python -m benchmarks.load_calls --calls 10,20,40,80 --out calls.json
    python -m benchmarks.load_calls --phones 2 --speeches 2 --kill phone,speech

Starts the service's own processes and calls them as Asterisk does (`tools.caller`),
with callers who talk, interrupt, leave suddenly, press keys and want a person, with
synthetic voices and, with --speech, recordings of people.

phases:
  ramp    calls grow to --calls within --ramp seconds
  hold    every call that ends is followed by another, for --hold seconds; with --kill
          a half is killed a third and two thirds into it; one for each number of calls
  burst   --burst calls within one second, on top of nothing

Reported for each phase: response delay (end of the caller's speech to the first voiced
sample of the reply), stop after an interruption, greeting, late frames at the caller
(more than 20 ms behind), lateness of the phone half's audio wheel (its event loop's
lag), CPU and memory of each half, calls refused and by which word, errors.  A call that
a bot does not take goes to the next one, as the dialplan's ULTRAVOX_AGI_2 has it;
`came_to`: who had the caller in the end: the bot, people by the bot's own doing, people
because the bot broke off in mid-call (the dialplan goes on), or nobody.  `own_late`
is how late this process itself was: with it in the tens of milliseconds the machine is
too small for both sides, and the bot's figures are worse than it is.

engines: scripted (instant, no model: the media plane), tiny (random weights), demo (the
bundled checkpoint).  Prints a table and, as the last line, JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.bench_turn_latency import spread
from benchmarks.load_callers import SHARES, Callers
from benchmarks.load_processes import ROOT, Fleet, Samples, quantile, running_fleet
from benchmarks.provenance import provenance
from tools.caller.agi_wire import Channel
from tools.caller.call import CallPlan, CallReport, place_call
from tools.caller.channel import Abilities, folders_of
from tools.caller.journal import Journal
from tools.caller.wheel import Wheel

_LONGEST_CALL_S: Final = 60.0


@dataclass(slots=True)
class Phase:
    """What was measured in one."""

    name: str
    reports: list[CallReport] = field(default_factory=list)
    samples: Samples = field(default_factory=Samples)
    seconds: float = 0.0
    ticks: list[tuple[float, float]] = field(default_factory=list)
    own_late_s: list[float] = field(default_factory=list)
    num_at_once: int = 0
    """Calls that were to be going on at once; 0: as many as came."""
    num_passed_on: int = 0
    """Not taken by the first bot, offered to the next."""

    def row(self) -> dict[str, Any]:
        """As the last line has it."""
        reports, turns = self.reports, [t for r in self.reports for t in r.turns]
        answered = [r for r in reports if r.answered_s is not None]
        cadences = [r.ear.cadence for r in answered]
        late_ms = [1000 * late for c in cadences for late in c.lateness_s]
        num_frames = sum(c.num_frames for c in cadences)
        mean_calls = self.samples.mean("calls")
        costs = {
            f"{half}_{what}": round(figure, 1)
            for half in ("phone", "speech")
            for what, figure in (
                ("cpu_percent", self.samples.mean(f"{half}_cpu_percent")),
                ("rss_mb_peak", self.samples.peak(f"{half}_rss_mb")),
            )
        }
        return {
            "phase": self.name,
            "calls_at_once": self.num_at_once,
            "seconds": round(self.seconds, 1),
            "calls": len(reports),
            "answered": len(answered),
            "passed_on": self.num_passed_on,
            "came_to": dict(Counter(came_to(r) for r in reports)),
            "mean_at_once": round(mean_calls, 1),
            "response_ms": spread([t.response_ms for t in turns if t.response_ms]),
            "unanswered_turns": sum(t.response_ms is None for t in turns),
            "barge_in_stop_ms": spread(
                [t.barge_in_stop_ms for t in turns if t.barge_in_stop_ms is not None]
            ),
            "greeting_ms": spread(
                [r.greeting_ms for r in answered if r.greeting_ms is not None]
            ),
            "frame_late_ms": spread(late_ms),
            "late_frames_percent": round(
                100 * sum(c.num_late for c in cadences) / max(1, num_frames), 3
            ),
            "wheel_late_ms_at_most": {
                f"p{round(100 * share)}": 1000 * quantile(self.ticks, share)
                for share in (0.5, 0.95, 0.99)
            },
            "own_late_ms": spread([1000 * late for late in self.own_late_s]),
            **costs,
            "phone_cpu_percent_per_call": round(
                self.samples.mean("phone_cpu_percent") / max(1.0, mean_calls), 2
            ),
            "ended": dict(Counter(r.ended for r in reports)),
            "status": dict(Counter(r.variables.get("BOT_STATUS", "") for r in reports)),
            "reasons": dict(
                Counter(
                    r.variables.get("BOT_REASON", "")
                    for r in reports
                    if r.variables.get("BOT_STATUS") in ("busy", "failed", "not_ready")
                )
            ),
            "errors": dict(Counter(error for r in reports for error in r.errors)),
            "samples": self.samples.rows,
        }


class Load:
    """Callers against a fleet."""

    def __init__(self, fleet: Fleet, callers: Callers) -> None:
        self._fleet = fleet
        self._callers = callers
        self._wheel = Wheel()
        self._abilities = Abilities(folders_of([ROOT / "sounds"]))
        self._num_placed = 0
        self._num_running = 0

    async def run(
        self, name: str, work: Callable[[Phase], Awaitable[None]]
    ) -> dict[str, Any]:
        """One phase, watched."""
        phase = Phase(name)
        began_s = time.monotonic()
        ticks_before = await asyncio.to_thread(self._fleet.wheel_lateness)
        self._wheel.lateness_s.clear()
        turning = asyncio.create_task(self._wheel.run())
        watching = asyncio.create_task(self._watch(phase))
        try:
            await work(phase)
        finally:
            for task in (turning, watching):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        phase.seconds = time.monotonic() - began_s
        phase.own_late_s = list(self._wheel.lateness_s)
        await asyncio.sleep(5.5)  # the next heartbeat brings the last figures
        ticks = await asyncio.to_thread(self._fleet.wheel_lateness)
        phase.ticks = [
            (bound, number - ticks_before.get(bound, 0.0))
            for bound, number in sorted(ticks.items())
        ]
        row = phase.row()
        _show(row)
        return row

    async def ramp(self, phase: Phase, num_calls: int, ramp_s: float) -> None:
        """Calls begin evenly over the time; over when all have ended."""
        await self._spread_out(phase, num_calls, ramp_s)

    async def burst(self, phase: Phase, num_calls: int) -> None:
        """All within one second."""
        await self._spread_out(phase, num_calls, 1.0)

    async def _spread_out(self, phase: Phase, num_calls: int, over_s: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(num_calls):
                tasks.create_task(self._one(phase))
                await asyncio.sleep(over_s / num_calls)

    async def hold(
        self, phase: Phase, num_calls: int, hold_s: float, kills: Sequence[str]
    ) -> None:
        """Keep so many calls going."""
        phase.num_at_once = num_calls
        async with asyncio.TaskGroup() as tasks:
            keep_busy(tasks, num_calls, hold_s, lambda: self._one(phase))
            for number, half in enumerate(kills, start=1):
                await asyncio.sleep(hold_s / (len(kills) + 1))
                print(f"killed: a {half} half, {number}", file=sys.stderr)
                if half == "phone":
                    self._fleet.kill_a_phone_half()
                else:
                    self._fleet.kill_a_speech_half()

    async def _one(self, phase: Phase) -> bool:
        """One call; whether it was taken."""
        self._num_placed += 1
        number = self._num_placed
        ports = self._fleet.agi_ports
        loop = asyncio.get_running_loop()
        items = self._callers.next().items
        self._num_running += 1
        try:
            for attempt in range(len(ports)):
                plan = CallPlan(
                    host="127.0.0.1",
                    port=ports[(number + attempt) % len(ports)],
                    script=f"ultravox?campaign={self._callers.campaign}",
                    items=items,
                    about=Channel(uniqueid=f"{int(time.time())}.{number}"),
                    max_s=_LONGEST_CALL_S,
                )
                report = await place_call(
                    plan, self._abilities, Journal(loop.time), self._wheel
                )
                if report.ended not in ("refused", "unreachable"):
                    break
                phase.num_passed_on += attempt + 1 < len(ports)
        finally:
            self._num_running -= 1
        phase.reports.append(report)
        return report.answered_s is not None

    async def _watch(self, phase: Phase) -> None:
        began_s = time.monotonic()
        self._fleet.look()
        while True:
            await asyncio.sleep(1.0)
            looks = await asyncio.to_thread(self._fleet.look)
            phase.samples.add(time.monotonic() - began_s, self._num_running, looks)


def keep_busy(
    tasks: asyncio.TaskGroup,
    num_lines: int,
    hold_s: float,
    call: Callable[[], Awaitable[bool]],
) -> None:
    """So many lines, each calling anew for so long; `call`: whether it was taken."""
    ends_s = time.monotonic() + hold_s

    async def line(number: int) -> None:
        await asyncio.sleep(number * min(0.25, hold_s / 4 / num_lines))
        while time.monotonic() < ends_s:
            if not await call():
                await asyncio.sleep(0.5)  # refused: a dialer pauses as well

    for number in range(num_lines):
        tasks.create_task(line(number))


def came_to(report: CallReport) -> str:
    """Who had the caller in the end."""
    if report.ended in ("caller", "bot"):
        return "bot"
    if report.variables.get("BOT_STATUS"):
        return "people"
    if report.ended in ("returned", "refused", "unreachable"):
        return "people, the bot broke off or was away"
    return "nobody"


def numbers(text: str) -> list[int]:
    """A comma list of the command line."""
    return [int(number) for number in text.split(",")]


def figures(spread_out: dict[str, float] | None) -> str:
    """p50/p95/p99, for a line of the table."""
    if spread_out is None:
        return "-"
    return "/".join(f"{spread_out[key]}" for key in ("p50", "p95", "p99"))


def _show(row: dict[str, Any]) -> None:
    print(
        f"{row['phase']:<6} {row['calls']:>4} calls ({row['mean_at_once']:>5} at once) "
        f"answered {row['answered']:>4}  response {figures(row['response_ms'])}  "
        f"stop {figures(row['barge_in_stop_ms'])}  frames late "
        f"{row['late_frames_percent']} %, {figures(row['frame_late_ms'])} ms  "
        f"phone {row['phone_cpu_percent']} % {row['phone_rss_mb_peak']} MB  "
        f"speech {row['speech_cpu_percent']} % {row['speech_rss_mb_peak']} MB  "
        f"own late {figures(row['own_late_ms'])}  errors {sum(row['errors'].values())}",
        flush=True,
    )


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every phase asked for."""
    settings = {
        "MAX_CALLS": str(options.max_calls),
        "SOUNDS_DIR": str(ROOT / "sounds"),
        "CAMPAIGNS_DIR": str(ROOT / "campaigns"),
        **engine_settings(options.engine, folder),
    }
    campaign = "demo" if options.engine == "demo" else "default"
    callers = Callers(options.seed, options.speech, campaign)
    kills = [half for half in options.kill.split(",") if half]
    most = max(options.calls)
    with running_fleet(
        folder / "fleet", options.phones, options.speeches, settings
    ) as fleet:
        await fleet.ready()
        load = Load(fleet, callers)
        rows = []
        if options.ramp:
            over_s = options.ramp
            rows.append(await load.run("ramp", lambda p: load.ramp(p, most, over_s)))
        for num in options.calls if options.hold else ():
            work = partial(load.hold, num_calls=num, hold_s=options.hold, kills=kills)
            rows.append(await load.run("hold", work))
        if options.burst:
            work = partial(load.burst, num_calls=options.burst)
            rows.append(await load.run("burst", work))
        interrupted = fleet.log_lines("calls_interrupted")
    return {
        "benchmark": "load_calls",
        "engine": options.engine,
        "phone_halves": options.phones,
        "speech_halves": options.speeches,
        "max_calls": options.max_calls,
        "kills": kills,
        "starts_that_found_calls_interrupted": interrupted,
        "callers": SHARES,
        "human_recordings": callers.num_human,
        "phases": rows,
        **provenance("uvloop", "numpy"),
    }


def engine_settings(engine: str, folder: Path) -> dict[str, str]:
    """The settings that make the service use it."""
    if engine == "scripted":
        return {"ENGINE": "scripted"}
    if engine == "demo":
        return {"ENGINE": "local", "DEVICE": "cpu"}
    from tools.make_tiny_checkpoint import main as make_tiny

    make_tiny([str(folder / "tiny")])
    return {"ENGINE": "local", "DEVICE": "cpu", "MODEL": str(folder / "tiny")}


def main(arguments: list[str] | None = None) -> int:
    """0 measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load_calls",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--engine", choices=("scripted", "tiny", "demo"), default="scripted")
    add(
        "--calls",
        type=numbers,
        default=[20],
        help="at once: one hold for each number; the ramp goes to the largest",
    )
    add("--ramp", type=float, default=5.0, help="seconds; 0: none")
    add("--hold", type=float, default=20.0, help="seconds; an hour is a soak; 0: none")
    add("--burst", type=int, default=0, help="calls in one second; 0: none")
    add("--max-calls", type=int, default=200, help="ULTRAVOX_MAX_CALLS of a phone half")
    add("--phones", type=int, default=1, help="phone halves")
    add("--speeches", type=int, default=1, help="speech halves")
    add("--kill", default="", help="in hold: phone, speech, or both with a comma")
    add("--speech", type=Path, help="folder of WAVs: people's turns on the telephone")
    add("--seed", type=int, default=1)
    add("--out", type=Path, help="file for the JSON as well")
    options = parser.parse_args(arguments)
    if "speech" in options.kill and options.speeches < 2 and options.phones < 2:
        parser.error("--kill speech needs --speeches 2")
    with tempfile.TemporaryDirectory(prefix="load-calls-") as name:
        result = uvloop.run(measure(options, Path(name)))
    if options.out is not None:
        options.out.write_text(json.dumps(result) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
