"""Delete everything kept of one caller: records, what was said, recordings.

    python -m tools.forget "+1 212 555 0187"            says what there is
    python -m tools.forget "+1 212 555 0187" --delete   deletes it, past recovery

The last ten digits of the number count.  The service may run meanwhile.  Log files and
VICIdial's own data are not touched; logs hold masked numbers only.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from pathlib import Path

import config
from agi_handlers.call_records import records_path
from agi_handlers.errors import TelephonyError
from agi_handlers.records.caller_key import load_caller_key
from agi_handlers.records.database import RecordsDatabase
from agi_handlers.records.recording_files import recording_files


def main(arguments: list[str] | None = None) -> int:
    """0 done, 1 it could not be done in full, 2 wrong arguments or settings."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.forget",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("number", help="the caller's telephone number")
    parser.add_argument("--delete", action="store_true", help="really delete")
    parser.add_argument("--data-dir", type=Path, help="default: ULTRAVOX_DATA_DIR")
    given = parser.parse_args(arguments)
    try:
        data_dir = given.data_dir or config.load().data_dir
    except config.ConfigError as exc:
        print("\n".join(exc.problems), file=sys.stderr)
        return 2
    path = records_path(data_dir)
    if not path.exists():
        print(f"forget: no records in {data_dir}", file=sys.stderr)
        return 1
    try:
        key = load_caller_key(data_dir).of(given.number)
        if not key:
            print(f"forget: {given.number!r} has no digits", file=sys.stderr)
            return 2
        database = RecordsDatabase(path)
        try:
            return _forget(database, data_dir, key, is_real=given.delete)
        finally:
            database.close()
    except (sqlite3.Error, OSError, TelephonyError) as exc:
        print(f"forget: {exc}", file=sys.stderr)
        return 1


def _forget(
    database: RecordsDatabase, data_dir: Path, key: str, *, is_real: bool
) -> int:
    there = [
        path
        for name in database.recordings_of(key)
        for path in recording_files(data_dir, name)
    ]
    calls = database.count(key)
    if not is_real:
        print(f"{calls} calls, {len(there)} recordings; --delete deletes them")
        return 0
    # recordings first: while a record stands, another attempt finds its recording
    for path in there:
        path.unlink(missing_ok=True)
    deleted = database.forget(key)
    print(f"deleted {deleted} calls, {len(there)} recordings")
    return 0


if __name__ == "__main__":
    sys.exit(main())
