"""What thousands of calls leave behind: memory, descriptors, threads, processes, files,
tasks, dialogues and what the model keeps of them.

    python -m benchmarks.bench_leaks --calls 10000

Starts the service and calls it over and over, `--at-once` calls at a time, each hung up
at a random moment of its first second or two: while it is answered, greeted, listened
to, answered again.  Looked at when nothing runs: after a warm-up and after each tenth
of the calls.  Nothing may have grown; the bar for memory is 2 % of what it was.

The warm-up is thirty calls on each line.  A heap grows to the most that ever was in use
at once, and chance decides how many of the lines are in the same expensive moment: with
few lines memory stands still after few calls, with many it takes more of them to have
seen their worst.

engines: scripted (no model), tiny (random weights: KV slots and audio vectors as well).
Prints a table and, as the last line, JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
import uvloop

from benchmarks.load_calls import engine_settings
from benchmarks.load_processes import ROOT, Fleet, running_fleet
from benchmarks.provenance import provenance
from tools.caller.agi_wire import Channel
from tools.caller.call import CallPlan, place_call
from tools.caller.channel import Abilities, folders_of
from tools.caller.journal import Journal
from tools.caller.say_items import Item, parse_item
from tools.caller.wheel import Wheel

_SHORTEST_S: Final = 0.05
_LONGEST_S: Final = 2.5
_WARM_UP_CALLS_PER_LINE: Final = 30
_COUNTED: Final = (
    "voicebot_tasks",
    "voicebot_sessions",
    "voicebot_kv_bytes",
    "voicebot_calls_in_progress",
    "voicebot_engine_requests",
)
_QUIET_S: Final = 8.0
"""After the last call: a session, a transcript or a voice may still be ending."""


class Callers:
    """Impatient people."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self._fleet = fleet
        self._random = random.Random(seed)
        self._wheel = Wheel()
        self._abilities = Abilities(folders_of([ROOT / "sounds"]))
        self._items: Sequence[Item] = (
            parse_item("@0.3"),
            parse_item("say:Yes."),
            parse_item("+9"),
        )
        self._num_placed = 0
        self.ended: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    async def place(self, num_calls: int, at_once: int) -> None:
        """That many calls, over when all have ended."""
        left = iter(range(num_calls))
        turning = asyncio.create_task(self._wheel.run())
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(at_once):
                    tasks.create_task(self._line(left))
        finally:
            turning.cancel()
            with suppress(asyncio.CancelledError):
                await turning
            self._wheel.lateness_s.clear()

    async def _line(self, left: Any) -> None:
        for _ in left:
            await self._one()

    async def _one(self) -> None:
        self._num_placed += 1
        loop = asyncio.get_running_loop()
        plan = CallPlan(
            host="127.0.0.1",
            port=self._fleet.agi_ports[0],
            script="ultravox?campaign=default",
            items=self._items,
            about=Channel(uniqueid=f"{int(time.time())}.{self._num_placed}"),
            max_s=self._random.uniform(_SHORTEST_S, _LONGEST_S),
        )
        report = await place_call(
            plan, self._abilities, Journal(loop.time), self._wheel
        )
        self.ended[report.ended] += 1
        self.errors.update(report.errors)


def look(fleet: Fleet) -> dict[str, Any]:
    """What every process of the service holds, by its part; and what it counts."""
    found: dict[str, Any] = {}
    root = psutil.Process(fleet.phones[0].pid)
    for process in (root, *root.children(recursive=True)):
        name = _part(process)
        row = found.setdefault(
            name, {"processes": 0, "rss_mb": 0.0, "descriptors": 0, "threads": 0}
        )
        row["processes"] += 1
        row["rss_mb"] += process.memory_info().rss / (1 << 20)
        row["descriptors"] += process.num_fds()
        row["threads"] += process.num_threads()
    for row in found.values():
        row["rss_mb"] = round(row["rss_mb"], 1)
    return {
        "parts": found,
        "counts": _counts(fleet),
        "memory": json.loads(_get(fleet, "memory")),
        "exchange_files": sum(
            path.is_file() for path in fleet.folder.glob("*/exchange/**/*")
        ),
    }


def _part(process: psutil.Process) -> str:
    words = " ".join(process.cmdline())
    for mark, name in (
        ("--phone-half", "phone half"),
        ("fastagi_server", "supervisor"),
        ("ultravox_api_server", "speech half"),
        ("worker", "voices"),
    ):
        if mark in words:
            return name
    return "other"


def _counts(fleet: Fleet) -> dict[str, float]:
    """What the halves count themselves, as ``metric{labels}``: tasks, dialogues, KV."""
    found = {}
    for line in _get(fleet, "metrics").splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith(_COUNTED):
            found[name.removeprefix("voicebot_")] = float(value)
    return found


def _get(fleet: Fleet, path: str) -> str:
    url = f"http://127.0.0.1:{fleet.http_ports[0]}/{path}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    settings = {
        "MAX_CALLS": str(2 * options.at_once),
        "SOUNDS_DIR": str(ROOT / "sounds"),
        "CAMPAIGNS_DIR": str(ROOT / "campaigns"),
        "LOG_LEVEL": "WARNING",
        **engine_settings(options.engine, folder),
    }
    portions = [options.warm_up or 1] + [options.calls // 10] * 9
    portions.append(options.calls - sum(portions[1:]))
    samples: list[dict[str, Any]] = []
    with running_fleet(folder / "fleet", 1, 1, settings) as fleet:
        await fleet.ready()
        callers = Callers(fleet, options.seed)
        num_calls = 0
        for portion in portions:
            began_s = time.monotonic()
            await callers.place(portion, options.at_once)
            per_s = portion / (time.monotonic() - began_s)
            await asyncio.sleep(_QUIET_S)
            num_calls += portion
            sample = await asyncio.to_thread(look, fleet)
            samples.append(
                {"calls": num_calls, "calls_per_s": round(per_s, 1), **sample}
            )
            _show(samples[-1])
    return {
        "benchmark": "leaks",
        "engine": options.engine,
        "at_once": options.at_once,
        "warm_up_calls": portions[0],
        "ended": dict(callers.ended),
        "errors": dict(callers.errors),
        "growth": _growth(samples[0], samples[-1]),
        "counts_that_grew": {
            name: value - samples[0]["counts"].get(name, 0.0)
            for name, value in samples[-1]["counts"].items()
            if value > samples[0]["counts"].get(name, 0.0)
        },
        "samples": samples,
        **provenance("uvloop"),
    }


def _growth(first: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    """From the first look to the last, part by part."""
    return {
        name: {
            "rss_percent": round(
                100 * (row["rss_mb"] / first["parts"][name]["rss_mb"] - 1), 2
            ),
            **{
                key: row[key] - first["parts"][name][key]
                for key in ("processes", "descriptors", "threads")
            },
        }
        for name, row in last["parts"].items()
    }


def _show(sample: Mapping[str, Any]) -> None:
    parts = "  ".join(
        f"{name}: {row['rss_mb']} MB, {row['descriptors']} fds, "
        f"{row['threads']} threads"
        for name, row in sorted(sample["parts"].items())
    )
    print(
        f"{sample['calls']:>6} calls ({sample['calls_per_s']:>5}/s)  {parts}  "
        f"files {sample['exchange_files']}  {sample['counts']}",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> int:
    """0 measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_leaks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--engine", choices=("scripted", "tiny"), default="scripted")
    add("--calls", type=int, default=1000, help="after the warm-up")
    add("--at-once", type=int, default=24)
    add("--warm-up", type=int, help="calls; thirty on each line if not said")
    add("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.warm_up is None:
        options.warm_up = _WARM_UP_CALLS_PER_LINE * options.at_once
    with tempfile.TemporaryDirectory(prefix="bench-leaks-") as name:
        result = uvloop.run(measure(options, Path(name)))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
