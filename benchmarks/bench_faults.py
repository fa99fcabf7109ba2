"""A half of the bot dies in mid-call: what the caller hears, and when.

    python -m benchmarks.bench_faults --calls 10

speech   the speech half is killed (-9) while the caller speaks, and again whenever it
         is started, so the call has to do without: end of the caller's words to the
         first sound of the bot, and to people (the dialplan has the call back)
phone    the phone half is killed while the caller speaks: kill to people

Real processes, the scripted engine, one call at a time.  `records` counts calls whose
record has an end and a status.  Prints percentiles and, as the last line,
JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import psutil
import uvloop

from benchmarks.bench_turn_latency import spread
from benchmarks.provenance import provenance
from tests.end_to_end.bot_service import BotService
from tests.faults.callers import QUESTION, Heard, heard, item, record_of

_SPEAKS_AFTER_S: Final = 3.4
"""From the call's begin: greeting of 2 s and a pause; the question takes 2 s."""


@dataclass(slots=True)
class Died:
    """What came of the calls whose half died."""

    half: str
    prompt_ms: list[float] = field(default_factory=list)
    people_ms: list[float] = field(default_factory=list)
    num_records: int = 0
    num_calls: int = 0

    def row(self) -> dict[str, Any]:
        return {
            "half": self.half,
            "calls": self.num_calls,
            "prompt_ms": spread(self.prompt_ms),
            "people_ms": spread(self.people_ms),
            "records": self.num_records,
        }


async def speech_dies(service: BotService, died: Died, chance: random.Random) -> None:
    """Killed in the caller's words, and kept dead until the call is over."""

    async def keep_dead() -> None:
        await asyncio.sleep(_SPEAKS_AFTER_S + chance.uniform(0.0, 1.0))
        while True:
            for process in service.speech_halves():
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            await asyncio.sleep(0.05)

    killing = asyncio.create_task(keep_dead())
    try:
        call = await heard(service, (*QUESTION, "wait:200,9"), linger_s=15.0)
    finally:
        killing.cancel()
        with suppress(asyncio.CancelledError):
            await killing
    _note(died, call)
    if call.report.turns:
        died.prompt_ms.append(1000 * call.wait_s)
        died.people_ms.append(1000 * (call.returned_s - call.report.turns[-1].end_s))


async def phone_dies(service: BotService, died: Died, chance: random.Random) -> None:
    """Killed once; its successor closes the record."""
    loop = asyncio.get_running_loop()
    placed_s = loop.time()
    calling = asyncio.create_task(heard(service, (*QUESTION, "wait:200,9")))
    await asyncio.sleep(_SPEAKS_AFTER_S + chance.uniform(0.0, 1.0))
    killed_s = loop.time() - placed_s
    for process in service.phone_halves():
        process.kill()
    call = await calling
    died.people_ms.append(1000 * (call.returned_s - killed_s))
    # the next phone half closes what the dead one left
    await asyncio.to_thread(service.wait_until_ready)
    _note(died, replace(call, record=await record_of(service, call.report)))


def _note(died: Died, call: Heard) -> None:
    died.num_calls += 1
    record = call.record
    if record is not None and record["ended_at"] is not None and record["status"]:
        died.num_records += 1


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both halves, one after the other."""
    chance = random.Random(options.seed)
    rows = []
    service = BotService.start(folder)
    try:
        for half, dies in (("speech", speech_dies), ("phone", phone_dies)):
            died = Died(half)
            for _ in range(options.calls):
                await asyncio.to_thread(service.wait_until_ready)
                await dies(service, died, chance)
            rows.append(died.row())
            print(rows[-1], flush=True)
    finally:
        service.stop()
    return {"benchmark": "faults", "halves": rows, **provenance("uvloop")}


def main(arguments: list[str] | None = None) -> int:
    """0 measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--calls", type=int, default=10, help="for each half")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    for text in (*QUESTION, "wait:200,9"):
        item(text)  # spoken once, before anything is timed
    with tempfile.TemporaryDirectory(prefix="bench-faults-") as name:
        result = uvloop.run(measure(options, Path(name)))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
