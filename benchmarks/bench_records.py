"""How fast calls are found among many: history search, one call's page, figures.

    python -m benchmarks.bench_records --calls 100000

Fills a store with made-up calls of six turns each, over 60 days, and asks through the
HTTP port what an operator asks, `--repeats` times each.  The bar is 200 ms for every
search and call page.  Then retention runs: whatever is older than 30 days must be
gone, and nothing else.  Bounds: SQLite reads a page of this store in some microseconds
once it is in memory; the rest is Python and JSON, about 20 us a call shown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from agi_handlers.records.caller_key import CallerKey, load_caller_key
from agi_handlers.records.database import FILE_NAME, RecordsDatabase
from agi_handlers.records.rows import CallRow, EventRow, Row, TurnRow
from benchmarks.provenance import provenance
from rest_api.app import AppOptions, create_app
from rest_api.service_state import ServiceState

BAR_MS: Final = 200.0
_DAYS: Final = 60
_KEPT_DAYS: Final = 30
_BATCH_CALLS: Final = 500
_CAMPAIGNS: Final = ("sales", "support", "survey", "billing")
_STATUSES: Final = ("completed", "transfer", "caller_hung_up", "no_input", "failed")
_WEIGHTS: Final = (50, 25, 15, 8, 2)
_SPOKEN: Final = (
    "hello yes no maybe when do you open close tomorrow today monday price cost offer "
    "account number invoice payment card bank address street city please thank you I "
    "would like to speak with a person about my order it has not arrived yet what is "
    "the status delivery truck driver phone call back later morning evening never"
)
_WORDS: Final = tuple(_SPOKEN.split(" "))
_RARE: Final = "chrysanthemum"


def main(arguments: list[str] | None = None) -> int:
    """0 every bar is kept, 1 not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=20)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(_measure(Path(folder), given.calls, given.repeats))
    is_good = result["worst_p95_ms"] <= BAR_MS and result["retention_is_exact"]
    print(json.dumps({**result, "bar_ms": BAR_MS, "is_good": is_good}))
    return 0 if is_good else 1


async def _measure(folder: Path, num_calls: int, repeats: int) -> dict[str, Any]:
    now_at = time.time()
    path = folder / FILE_NAME
    began_s = time.perf_counter()
    _fill(path, num_calls, now_at)
    filled_s = time.perf_counter() - began_s
    app = create_app(ServiceState(), AppOptions(data_dir=folder))
    transport = httpx.ASGITransport(app)
    table: dict[str, dict[str, float]] = {}
    async with httpx.AsyncClient(transport=transport, base_url="http://b") as client:
        for name, address in _questions(num_calls).items():
            taken = []
            for _ in range(repeats):
                began_s = time.perf_counter()
                answer = await client.get(address)
                taken.append((time.perf_counter() - began_s) * 1000)
                answer.raise_for_status()
            table[name] = {
                f"p{p}": round(float(np.percentile(taken, p)), 1) for p in (50, 95, 99)
            }
            found = answer.json()["data"].get("calls")
            shown = "" if found is None else f"{len(found)} shown"
            print(f"{name:34} {table[name]['p50']:8.1f} {table[name]['p95']:8.1f} ms"
                  f"  {shown}")  # fmt: skip
    retention = _expire(path, now_at)
    return {
        "benchmark": "records",
        **provenance(),
        "sqlite": sqlite3.sqlite_version,
        "calls": num_calls,
        "rows": num_calls * 14,
        "file_mb": round(path.stat().st_size / 1e6, 1),
        "calls_written_per_s": round(num_calls / filled_s),
        "ms": table,
        "worst_p95_ms": max(
            one["p95"] for name, one in table.items() if not name.startswith("figures")
        ),
        **retention,
    }


def _questions(num_calls: int) -> dict[str, str]:
    return {
        "newest": "/calls",
        "500 a page": "/calls?limit=500",
        "campaign": "/calls?campaign=survey",
        "outcome": "/calls?status=failed",
        "campaign and outcome": "/calls?campaign=billing&status=no_input",
        "whole number": f"/calls?number={_number(num_calls // 2)}",
        "last two digits": "/calls?number=77",
        "lead": f"/calls?lead={num_calls // 3}",
        "a word of every call": "/calls?text=please",
        "a rare word": f"/calls?text={_RARE}",
        "a word nobody said": "/calls?text=zyzzyva",
        "six words": "/calls?text=account+number+invoice+payment+card+bank",
        "common words, rare outcome": "/calls?text=please&status=failed",
        "beginning of words, campaign": "/calls?text=deliv*&campaign=sales",
        "no match, no index": "/calls?disposition=NOPE&number=00",
        "one call": f"/calls/c{num_calls // 2:07}",
        "campaigns": "/calls/campaigns",
        "figures of 30 days": _figures_of(_KEPT_DAYS),
        "figures of a day": _figures_of(1),
    }


def _figures_of(days: int) -> str:
    now = int(time.time())
    span = f"since={now - days * 86_400}&until={now}"
    return f"/calls/figures?{span}&bucket_s={days * 3600}"


def _fill(path: Path, num_calls: int, now_at: float) -> None:
    database = RecordsDatabase(path)
    keys = load_caller_key(path.parent)
    dice = random.Random(7)  # made-up calls, the same each time
    try:
        for start in range(0, num_calls, _BATCH_CALLS):
            numbers = range(start, min(start + _BATCH_CALLS, num_calls))
            database.write(
                row for n in numbers for row in _call(n, num_calls, now_at, dice, keys)
            )
    finally:
        database.close()


def _call(
    number: int, num_calls: int, now_at: float, dice: random.Random, keys: CallerKey
) -> Iterator[Row]:
    age_s = (num_calls - number) / num_calls * _DAYS * 86_400
    call_id, started_at = f"c{number:07}", now_at - age_s
    (status,) = dice.choices(_STATUSES, _WEIGHTS)
    yield CallRow(
        call_id,
        started_at,
        uniqueid=f"{started_at:.0f}.{number}",
        caller=f"********{_number(number)[-2:]}",
        caller_key=keys.of(_number(number)),
        campaign=_CAMPAIGNS[number % len(_CAMPAIGNS)],
        answered_at=started_at,
        ended_at=started_at + 60,
        status=status,
        disposition="PU",
        num_turns=6,
        num_barge_ins=1,
        lead_id=str(number),
    )
    for turn in range(6):
        at_ms = turn * 9000
        rare = f" {_RARE}" if number % 20_011 == 7 and turn == 2 else ""
        yield TurnRow(
            call_id,
            turn,
            "reply",
            said_kind="speech",
            said_text=" ".join(dice.choices(_WORDS, k=9)) + rare,
            reply_text=" ".join(dice.choices(_WORDS, k=18)),
            speech_ended_ms=at_ms,
            asked_ms=at_ms + 200,
            released_ms=at_ms + 400,
            played_ms=at_ms + 420 + dice.randrange(200),
            ended_ms=at_ms + 5000,
            fate="heard",
        )
        yield EventRow(call_id, at_ms, "action", "note", "made up")
    yield EventRow(call_id, 1000, "barge_in")


def _number(number: int) -> str:
    return f"212{number:07}"


def _expire(path: Path, now_at: float) -> dict[str, Any]:
    """Delete what is too old, as the service does; whether just that is gone."""
    before_at = now_at - _KEPT_DAYS * 86_400
    with sqlite3.connect(path) as connection:
        count = "SELECT count(*) FROM calls WHERE started_at >= ?"
        (wanted,) = connection.execute(count, (before_at,)).fetchone()
    database = RecordsDatabase(path)
    began_s, longest_s = time.perf_counter(), 0.0
    try:
        while True:
            portion_s = time.perf_counter()
            num = database.delete_older(before_at)
            longest_s = max(longest_s, time.perf_counter() - portion_s)
            if not num:
                break
    finally:
        database.close()
    taken_s = time.perf_counter() - began_s
    with sqlite3.connect(path) as connection:
        left = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
            for table in ("calls", "turns", "events", "words")
        ]
    is_exact = left == [wanted, wanted * 6, wanted * 7, wanted]
    print(f"retention: {left[0]} calls left of {wanted} wanted, {taken_s:.1f} s")
    return {
        "retention_is_exact": is_exact,
        "retention_s": round(taken_s, 1),
        "longest_portion_ms": round(longest_s * 1000),
    }


if __name__ == "__main__":
    sys.exit(main())
