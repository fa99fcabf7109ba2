"""Delete everything kept of one caller: records, what was said, recordings.

    python -m tools.forget "+1 212 555 0187"            says what there is
    python -m tools.forget "+1 212 555 0187" --delete   deletes it, past recovery

The last ten digits of the number count.  The service may run meanwhile.  Log files and
VICIdial's own data are not touched; logs hold masked numbers only.  A wish for no more
calls that VICIdial has not taken yet is kept until it has.  Where hosts share a
store, recordings lie on the host that took the call: run it on each of them with
--recordings-only first.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import config
from agi_handlers.errors import TelephonyError
from agi_handlers.records.database import FILE_NAME
from agi_handlers.records.recording_files import recording_files
from agi_handlers.records.store import (
    STORE_ERRORS,
    RecordsStore,
    StoreOptions,
    open_store,
)
from tools.records_store import store_of


def main(arguments: list[str] | None = None) -> int:
    """0 done, 1 it could not be done in full, 2 wrong arguments or settings."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.forget",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("number", help="the caller's telephone number")
    parser.add_argument("--delete", action="store_true", help="really delete")
    parser.add_argument(
        "--recordings-only", action="store_true", help="leave the records for now"
    )
    parser.add_argument("--data-dir", type=Path, help="default: ULTRAVOX_DATA_DIR")
    given = parser.parse_args(arguments)
    try:
        options = store_of(config.load(), given.data_dir)
    except config.ConfigError as exc:
        print("\n".join(exc.problems), file=sys.stderr)
        return 2
    if not options.url and not (options.data_dir / FILE_NAME).exists():
        print(f"forget: no records in {options.data_dir}", file=sys.stderr)
        return 1
    try:
        key = options.keys().of(given.number)
        if not key:
            print(f"forget: {given.number!r} has no digits", file=sys.stderr)
            return 2
        store = open_store(options)
        try:
            return _forget(store, options, key, given)
        finally:
            store.close()
    except (*STORE_ERRORS, OSError, TelephonyError) as exc:
        print(f"forget: {exc}", file=sys.stderr)
        return 1


def _forget(
    store: RecordsStore, options: StoreOptions, key: str, given: argparse.Namespace
) -> int:
    there = [
        path
        for name in store.recordings_of(key)
        for path in recording_files(options.data_dir, name)
    ]
    calls = store.count(key)
    if not given.delete:
        print(f"{calls} calls, {len(there)} recordings; --delete deletes them")
        return 0
    # recordings first: while a record stands, another attempt finds its recording
    for path in there:
        path.unlink(missing_ok=True)
    deleted = 0 if given.recordings_only else store.forget(key)
    print(f"deleted {deleted} calls, {len(there)} recordings")
    return 0


if __name__ == "__main__":
    sys.exit(main())
