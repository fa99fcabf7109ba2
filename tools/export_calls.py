"""Write call records out, as JSON Lines (whole calls) or CSV (one line a call or turn).

    python -m tools.export_calls --since 2026-01-01 --format csv --out calls.csv

Reads the records below ULTRAVOX_DATA_DIR or at ULTRAVOX_RECORDS_URL, or the file named;
the service may run meanwhile.  CSV cells that a spreadsheet would take for a formula
get a leading '.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TextIO

import config
from agi_handlers.errors import TelephonyError
from agi_handlers.records.archive import CallArchive, CallQuery
from agi_handlers.records.store import Archive, open_archive
from tools.records_store import store_of

# What spreadsheets take for the start of a formula, or skip before one.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_LONGEST_S: Final = 600.0  # one page of a large store on a slow disk
_TIMES: Final = ("started_at", "answered_at", "ended_at")
_CALL_COLUMNS: Final = (
    "call_id", "started_at", "answered_at", "ended_at", "duration_s", "caller",
    "extension", "campaign", "status", "reason", "disposition", "transfer_to",
    "num_turns", "num_barge_ins", "leg", "model", "voice", "language", "uniqueid",
    "channel", "error", "recording", "persona_version", "model_version",
    "voice_version", "vicidial_call_id", "lead_id", "list_id", "vicidial_campaign",
    "in_group", "agent_user", "disclosure", "is_opt_out", "callback", "notes",
)  # fmt: skip
_TURN_COLUMNS: Final = (
    "turn", "source", "phrase", "said_kind", "said_ms", "said_text",
    "speech_ended_ms", "asked_ms", "released_ms", "played_ms", "ended_ms",
    "response_ms", "reply_text", "heard_ms", "heard_text", "fate", "queue_ms",
    "encode_ms", "first_token_ms", "first_audio_ms", "total_ms", "finish_reason",
    "prompt_tokens", "audio_tokens", "cached_tokens", "completion_tokens",
    "end_of_turn_probability",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """0 written, 1 not, 2 wrong arguments or settings."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.export_calls",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--file", type=Path, help="the records file")
    parser.add_argument(
        "--format",
        choices=("jsonl", "csv", "csv-turns"),
        default="jsonl",
        help="jsonl: a whole call a line; csv: a call a line; csv-turns: a turn a line",
    )
    parser.add_argument("--out", type=Path, help="file to write; default: the screen")
    parser.add_argument("--since", type=_moment, help="2026-01-31 or with T12:00")
    parser.add_argument("--until", type=_moment, help="not after this")
    parser.add_argument("--campaign", default="")
    parser.add_argument("--status", default="", help="e.g. transfer, failed")
    parser.add_argument("--number", default="", help="one caller's")
    parser.add_argument("--lead", default="", help="one VICIdial lead's")
    given = parser.parse_args(arguments)
    try:
        archive = _archive(given.file)
    except config.ConfigError as exc:
        print("\n".join(exc.problems), file=sys.stderr)
        return 2
    except (TelephonyError, OSError) as exc:
        print(f"export_calls: {exc}", file=sys.stderr)
        return 1
    query = CallQuery(
        number=given.number,
        lead=given.lead,
        campaign=given.campaign,
        status=given.status,
        since_at=given.since,
        until_at=given.until,
    )
    try:
        calls = archive.each(query)
        with (
            given.out.open("w", newline="")
            if given.out
            else nullcontext(sys.stdout) as out
        ):
            number = write_calls(calls, out, given.format)
    except (TelephonyError, OSError) as exc:
        print(f"export_calls: {exc}", file=sys.stderr)
        return 1
    print(f"{number} calls", file=sys.stderr)
    return 0


def _archive(file: Path | None) -> Archive:
    """Raises ConfigError, TelephonyError, OSError."""
    if file is not None:
        return CallArchive(file, _LONGEST_S)
    return open_archive(store_of(config.load()), _LONGEST_S)


def write_calls(calls: Iterable[dict[str, Any]], out: TextIO, form: str) -> int:
    """Write them; how many."""
    number = 0
    if form == "jsonl":
        for call in calls:
            out.write(json.dumps(call, ensure_ascii=False) + "\n")
            number += 1
        return number
    with_turns = form == "csv-turns"
    writer = csv.writer(out)
    header = [*_CALL_COLUMNS, *(_TURN_COLUMNS if with_turns else ())]
    writer.writerow(header)
    for call in calls:
        number += 1
        for row in _rows(call, with_turns=with_turns):
            writer.writerow([cell(row.get(name), name) for name in header])
    return number


def _rows(call: dict[str, Any], *, with_turns: bool) -> Iterator[dict[str, Any]]:
    if not with_turns:
        yield call
        return
    for turn in call["turns"]:
        yield {**call, **turn}


def cell(value: object, name: str = "") -> str:
    """A value as a CSV cell that no spreadsheet executes."""
    if value is None:
        return ""
    if isinstance(value, float) and name in _TIMES:
        moment = datetime.fromtimestamp(value).astimezone()
        return moment.isoformat(timespec="seconds")
    if isinstance(value, int | float):
        return str(value)
    text = str(value)
    return "'" + text if text.startswith(_FORMULA_STARTS) else text


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is no date") from exc


if __name__ == "__main__":
    sys.exit(main())
