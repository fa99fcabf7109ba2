"""The whole service under load: ramp, hold, burst, soak; kills if asked.

    python -m benchmarks.load_calls --engine scripted --calls 40 --hold 30 --burst 200
    python -m benchmarks.load_calls --engine demo --calls 4 --hold 60
    python -m benchmarks.load_calls --calls 10,20,40,80 --out calls.json
    python -m benchmarks.load_calls --calls 40 --ramp 0 --hold 0 --soak 240
    python -m benchmarks.load_calls --phones 2 --speeches 2 --kill phone,speech

Starts the service's own processes and calls them as Asterisk does (`tools.caller`),
with callers who talk, interrupt, leave suddenly, press keys and want a person, with
synthetic voices and, with --speech, recordings of people.

phases:
  ramp    calls grow to --calls within --ramp seconds
  hold    every call that ends is followed by another, for --hold seconds; with --kill
          a half is killed a third and two thirds into it; one for each number of calls
  burst   --burst calls within one second, on top of nothing
  soak    as hold, with the most calls, for --soak minutes, each minute reported by
          itself (`minutes`) and the last held against the first (`drift`)

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
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.load_callers import SHARES, Callers
from benchmarks.load_phase import Phase, show
from benchmarks.load_processes import ROOT, Fleet, running_fleet
from benchmarks.load_soak import MINUTE_S, Mark
from benchmarks.provenance import provenance
from tools.caller.agi_wire import Channel
from tools.caller.call import CallPlan, place_call
from tools.caller.channel import Abilities, folders_of
from tools.caller.journal import Journal
from tools.caller.wheel import Wheel

_LONGEST_CALL_S: Final = 60.0


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
        phase.seconds = time.monotonic() - phase.began_s
        phase.own_late_s = list(self._wheel.lateness_s)
        await asyncio.sleep(5.5)  # the next heartbeat brings the last figures
        ticks = await asyncio.to_thread(self._fleet.wheel_lateness)
        phase.ticks = [
            (bound, number - ticks_before.get(bound, 0.0))
            for bound, number in sorted(ticks.items())
        ]
        row = phase.row()
        show(row)
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

    async def soak(self, phase: Phase, num_calls: int, num_minutes: int) -> None:
        """Keep so many calls going, and look once a minute."""
        phase.num_at_once = num_calls
        async with asyncio.TaskGroup() as tasks:
            keep_busy(
                tasks, num_calls, num_minutes * MINUTE_S, lambda: self._one(phase)
            )
            phase.marks.append(await self._mark(phase))
            for number in range(1, num_minutes + 1):
                wakes_s = phase.began_s + number * MINUTE_S
                await asyncio.sleep(wakes_s - time.monotonic())
                phase.marks.append(await self._mark(phase))

    async def _mark(self, phase: Phase) -> Mark:
        ticks = await asyncio.to_thread(self._fleet.wheel_lateness)
        at_s = time.monotonic() - phase.began_s
        return Mark(at_s, ticks, len(self._wheel.lateness_s))

    async def _one(self, phase: Phase) -> bool:
        """One call; whether it was taken."""
        self._num_placed += 1
        number = self._num_placed
        ports = self._fleet.agi_ports
        loop = asyncio.get_running_loop()
        caller = self._callers.next()
        phase.kinds[caller.kind] += 1
        self._num_running += 1
        try:
            for attempt in range(len(ports)):
                plan = CallPlan(
                    host="127.0.0.1",
                    port=ports[(number + attempt) % len(ports)],
                    script=f"ultravox?campaign={self._callers.campaign}",
                    items=caller.items,
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
        phase.add(report)
        return report.answered_s is not None

    async def _watch(self, phase: Phase) -> None:
        self._fleet.look()
        while True:
            await asyncio.sleep(1.0)
            looks = await asyncio.to_thread(self._fleet.look)
            at_s = time.monotonic() - phase.began_s
            phase.samples.add(at_s, self._num_running, looks)


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


def numbers(text: str) -> list[int]:
    """A comma list of the command line."""
    return [int(number) for number in text.split(",")]


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
        if options.soak:
            work = partial(load.soak, num_calls=most, num_minutes=options.soak)
            rows.append(await load.run("soak", work))
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
    add("--hold", type=float, default=20.0, help="seconds; 0: none")
    add("--burst", type=int, default=0, help="calls in one second; 0: none")
    add("--soak", type=int, default=0, help="minutes; 0: none")
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
