"""Load through a real Asterisk: SIP callers with RTP audio, all on this machine.

    python -m benchmarks.load_sip --calls 5,10,20,40 --hold 20
    python -m benchmarks.load_sip --asterisk 16 --calls 5,10,20

Asterisk 22 gives the bot its callers' audio by AudioSocket, 16 by the EAGI relay.  The
replies are scripted: callers, Asterisk and the bot share the processors, so this is
what the three bear together.  For each number of calls: response delay (end of the
caller's speech to the first voiced sample he hears), stop after an interruption, late
RTP packets (more than 20 ms behind) and lost ones, CPU of Asterisk, phone half and
callers.

Prints a table and, as the last line, JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import uvloop

from benchmarks.bench_turn_latency import spread
from benchmarks.load_callers import Callers
from benchmarks.load_calls import engine_settings, keep_busy, numbers
from benchmarks.load_phase import figures
from benchmarks.load_processes import ROOT, Fleet, Samples, running_fleet
from benchmarks.provenance import provenance
from tests.end_to_end.asterisk_lab import Asterisk
from tests.end_to_end.sip_caller import CallNotAnswered, SipCall

_LONGEST_CALL_S: Final = 60.0
_LEGS: Final = {16: "eagi", 22: "audiosocket"}


@dataclass(slots=True)
class Hold:
    """What was measured with so many calls at once."""

    num_calls: int
    calls: list[SipCall] = field(default_factory=list)
    samples: Samples = field(default_factory=Samples)
    num_refused: int = 0

    def row(self) -> dict[str, Any]:
        """As the last line has it."""
        turns = [turn for call in self.calls for turn in call.turns()]
        cadences = [call.ear.cadence for call in self.calls]
        num_packets = sum(c.num_frames for c in cadences)
        stops = [t.barge_in_stop_ms for t in turns if t.barge_in_stop_ms is not None]
        return {
            "calls_at_once": self.num_calls,
            "calls": len(self.calls),
            "refused": self.num_refused,
            "response_ms": spread([t.response_ms for t in turns if t.response_ms]),
            "unanswered_turns": sum(t.response_ms is None for t in turns),
            "barge_in_stop_ms": spread(stops),
            "late_packets_percent": round(
                100 * sum(c.num_late for c in cadences) / max(1, num_packets), 3
            ),
            "packets": num_packets,
            "lost_packets": sum(call.num_lost for call in self.calls),
            "callers_late_ms": spread([c.worst_slot_lateness_ms for c in self.calls]),
            **{
                f"{name}_cpu_percent": round(self.samples.mean(f"{name}_cpu_percent"))
                for name in ("asterisk", "phone", "speech", "callers")
            },
        }


class SipLoad:
    """Callers, an Asterisk, a bot."""

    def __init__(self, asterisk: Asterisk, fleet: Fleet, callers: Callers) -> None:
        self._asterisk = asterisk
        self._fleet = fleet
        self._callers = callers
        self._num_running = 0
        self._own = psutil.Process()
        self._switch = next(
            one
            for one in psutil.Process().children(recursive=True)
            if any(part.endswith("/sbin/asterisk") for part in one.cmdline())
        )

    async def hold(self, num_calls: int, hold_s: float) -> dict[str, Any]:
        """Keep so many calls going."""
        hold = Hold(num_calls)
        watching = asyncio.create_task(self._watch(hold))
        try:
            async with asyncio.TaskGroup() as tasks:
                keep_busy(tasks, num_calls, hold_s, lambda: self._one(hold))
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        await self._asterisk.is_empty(30.0)
        row = hold.row()
        _show(row)
        return row

    async def _one(self, hold: Hold) -> bool:
        """One call; whether it was taken."""
        items = self._callers.next().items
        call = SipCall(self._asterisk.sip_port, "bot*ultravox*default", items)
        self._num_running += 1
        try:
            async with call:
                # leaving the block hangs up on a bot that would talk for ever
                with suppress(AssertionError):
                    await call.until(lambda: not call.is_up, "end", _LONGEST_CALL_S)
        except CallNotAnswered:
            hold.num_refused += 1
            return False
        finally:
            self._num_running -= 1
        hold.calls.append(call)
        return True

    async def _watch(self, hold: Hold) -> None:
        began_s = time.monotonic()
        self._fleet.look()
        for process in (self._own, self._switch):
            process.cpu_percent()
        while True:
            await asyncio.sleep(1.0)
            looks = await asyncio.to_thread(self._fleet.look)
            hold.samples.add(time.monotonic() - began_s, self._num_running, looks)
            hold.samples.rows[-1] |= {
                "asterisk_cpu_percent": self._switch.cpu_percent(),
                "callers_cpu_percent": self._own.cpu_percent(),
            }


def _show(row: dict[str, Any]) -> None:
    print(
        f"{row['calls_at_once']:>4} at once, {row['calls']:>4} calls  "
        f"response {figures(row['response_ms'])}  "
        f"stop {figures(row['barge_in_stop_ms'])}  "
        f"packets late {row['late_packets_percent']} %, lost {row['lost_packets']}  "
        f"CPU: Asterisk {row['asterisk_cpu_percent']} %, phone half "
        f"{row['phone_cpu_percent']} %, callers {row['callers_cpu_percent']} %  "
        f"callers' own lateness {figures(row['callers_late_ms'])} ms",
        flush=True,
    )


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every number of calls asked for."""
    settings = {
        "MAX_CALLS": "1000",
        "SOUNDS_DIR": str(ROOT / "sounds"),
        "CAMPAIGNS_DIR": str(ROOT / "campaigns"),
        **engine_settings("scripted", folder),
    }
    callers = Callers(options.seed, options.speech)
    with running_fleet(folder / "fleet", 1, 1, settings) as fleet:
        await fleet.ready()
        asterisk = Asterisk.start(options.asterisk, fleet.agi_ports[0])
        try:
            load = SipLoad(asterisk, fleet, callers)
            rows = [await load.hold(num, options.hold) for num in options.calls]
        finally:
            asterisk.stop()
    return {
        "benchmark": "load_sip",
        "asterisk": options.asterisk,
        "leg": _LEGS[options.asterisk],
        "holds": rows,
        **provenance("uvloop", "numpy"),
    }


def main(arguments: list[str] | None = None) -> int:
    """0 measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load_sip",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--asterisk", type=int, choices=_LEGS, default=22, help="its major version")
    add(
        "--calls",
        type=numbers,
        default=[5, 10, 20],
        help="at once, one after the other",
    )
    add("--hold", type=float, default=20.0, help="seconds for each")
    add("--speech", type=Path, help="folder of WAVs: people's turns on the telephone")
    add("--seed", type=int, default=1)
    add("--out", type=Path, help="file for the JSON as well")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="load-sip-") as name:
        result = uvloop.run(measure(options, Path(name)))
    if options.out is not None:
        options.out.write_text(json.dumps(result) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
