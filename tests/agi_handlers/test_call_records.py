"""The record of calls: written as they go, whatever happens to the file or us."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agi_handlers.call_records import CallRecords, RecordsOptions, records_path
from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.records.rows import CallRow, EventRow, TurnRow
from agi_handlers.records.store import StoreOptions

ROOT = Path(__file__).parent.parent.parent
ROW = CallRow("c-1", 1_700_000_000.0, caller="+1 (212) 555-0187", campaign="sales")


@contextmanager
def records(folder: Path, **options: Any) -> Iterator[CallRecords]:
    wanted = RecordsOptions(StoreOptions(folder), owner="bot:4573", retry_after_s=0.05)
    keeper = CallRecords(replace(wanted, **options))
    with keeper.running():
        yield keeper


def stored(folder: Path, table: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(records_path(folder))) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
    return [dict(row) for row in rows]


def wait_for_rows(folder: Path, table: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if stored(folder, table):
                return
        except sqlite3.Error:
            pass
        time.sleep(0.02)
    raise AssertionError(f"nothing came into {table}")


def test_a_whole_call_is_found_in_the_file(data_dir: Path) -> None:
    with records(data_dir) as keeper:
        call = keeper.open_call(ROW)
        call.answered("audiosocket")
        call.sink(TurnRow("c-1", 1, "phrase", phrase="greeting"))
        call.sink(EventRow("c-1", 900, "barge_in"))
        call.talked(1, 1)
        call.ended(CallOutcome("transfer", "model_asked", "XFER", "8600"))
    (row,) = stored(data_dir, "calls")
    assert (row["status"], row["transfer_to"]) == ("transfer", "8600")
    assert (row["leg"], row["num_barge_ins"]) == ("audiosocket", 1)
    assert row["ended_at"] >= row["answered_at"]
    assert [turn["phrase"] for turn in stored(data_dir, "turns")] == ["greeting"]
    assert [event["kind"] for event in stored(data_dir, "events")] == ["barge_in"]


def test_what_became_of_an_action_is_told_in_the_call_and_days_after(
    data_dir: Path,
) -> None:
    with records(data_dir, days=0) as keeper:
        call = keeper.open_call(ROW)
        call.answered("audiosocket")
        keeper.confirmed("c-1", "later", "status DNC: down")
        call.ended(CallOutcome("completed", "opt_out", is_opt_out=True))
    with records(data_dir, days=0) as keeper:  # another process, long after
        keeper.confirmed("c-1", "ok", "status DNC")
        keeper.confirmed("forgotten", "ok", "nobody's")
    first, second = stored(data_dir, "events")
    assert (first["kind"], first["name"], first["detail"]) == (
        *("confirmed", "later", "status DNC: down"),
    )
    assert 0 <= first["at_ms"] < 60_000
    assert (second["name"], second["call_id"]) == ("ok", "c-1")
    assert second["at_ms"] > 86_400_000  # by the time of day, after its start in 2023


def test_number_is_masked_and_still_identifies_the_caller(data_dir: Path) -> None:
    with records(data_dir) as keeper:
        keeper.open_call(ROW)
        keeper.open_call(replace(ROW, call_id="c-2", caller="12125550187"))
        keeper.open_call(replace(ROW, call_id="c-3", caller="2125550188"))
    rows = stored(data_dir, "calls")
    assert all("212" not in row["caller"] for row in rows)
    keys = [row["caller_key"] for row in rows]
    assert keys[0] == keys[1] != keys[2]


def test_number_is_kept_where_that_was_configured(data_dir: Path) -> None:
    with records(data_dir, numbers="plain") as keeper:
        keeper.open_call(ROW)
    assert stored(data_dir, "calls")[0]["caller"] == ROW.caller


def test_call_without_a_number_has_no_key(data_dir: Path) -> None:
    with records(data_dir) as keeper:
        keeper.open_call(replace(ROW, caller="unknown"))
    assert stored(data_dir, "calls")[0]["caller_key"] == ""


def test_killed_process_loses_no_finished_turn_and_its_call_is_closed(
    data_dir: Path,
) -> None:
    program = f"""
import os, signal, sys, time
from pathlib import Path
from agi_handlers.call_records import CallRecords, RecordsOptions
from agi_handlers.records.rows import CallRow, EventRow, TurnRow
from agi_handlers.records.store import StoreOptions
keeper = CallRecords(RecordsOptions(StoreOptions(Path({str(data_dir)!r})), "bot:4573"))
with keeper.running():
    call = keeper.open_call(CallRow("dead", 1000.0))
    call.sink(TurnRow("dead", 1, "reply", ended_ms=5500))
    call.sink(EventRow("dead", 5000, "barge_in"))
    print("written", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        wait_for_rows(data_dir, "events")
        process.kill()
    assert stored(data_dir, "calls")[0]["ended_at"] is None
    with records(data_dir, days=0):
        pass
    (row,) = stored(data_dir, "calls")
    assert (row["status"], row["reason"]) == ("interrupted", "process_ended")
    assert row["ended_at"] == pytest.approx(1005.5)
    assert (row["num_turns"], row["num_barge_ins"]) == (1, 1)


def test_open_calls_of_another_phone_half_are_left_alone(data_dir: Path) -> None:
    with records(data_dir, owner="other:4573") as keeper:
        keeper.open_call(ROW)
    with records(data_dir):
        pass
    assert stored(data_dir, "calls")[0]["ended_at"] is None


@pytest.mark.parametrize("content", [b"this is no database" * 500, b"\0" * 5000])
def test_corrupt_file_is_moved_aside_and_calls_go_on(
    data_dir: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    records_path(data_dir).write_bytes(content)
    with records(data_dir) as keeper:
        keeper.open_call(ROW)
    assert [row["call_id"] for row in stored(data_dir, "calls")] == ["c-1"]
    (aside,) = data_dir.glob("calls.sqlite.corrupt-*")
    assert aside.read_bytes() == content
    assert [r.levelno for r in caplog.records if r.message == "records_corrupt"] == [
        logging.CRITICAL
    ]


def test_file_that_breaks_in_mid_call_is_replaced(data_dir: Path) -> None:
    with records(data_dir) as keeper:
        call = keeper.open_call(ROW)
        wait_for_rows(data_dir, "calls")
    path = records_path(data_dir)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" * (len(whole) - 100))
    with records(data_dir) as keeper:
        call = keeper.open_call(ROW)
        call.ended(CallOutcome("completed", "model_ended"))
    assert [row["status"] for row in stored(data_dir, "calls")] == ["completed"]
    assert list(data_dir.glob("calls.sqlite.corrupt-*"))


def test_trouble_is_logged_once_and_rows_wait_until_it_is_over(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    told: list[str] = []
    path = records_path(data_dir)
    path.mkdir()  # nothing can be opened there
    keeper = CallRecords(
        RecordsOptions(StoreOptions(data_dir), retry_after_s=0.02),
        on_problem=told.append,
    )
    with keeper.running():
        keeper.open_call(ROW)
        deadline = time.monotonic() + 20
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)  # several more attempts
        path.rmdir()
        wait_for_rows(data_dir, "calls")
    problems = [r for r in caplog.records if r.message == "records_not_written"]
    assert len(problems) == len(told) == 1
    assert any(r.message == "records_written_again" for r in caplog.records)
    assert keeper.num_dropped == 0


def test_calls_under_way_go_on_after_a_trouble(data_dir: Path) -> None:
    """Their file is opened anew; it is not this process that died."""
    with records(data_dir) as keeper:
        going_on = keeper.open_call(ROW)
        wait_for_rows(data_dir, "calls")
        with closing(sqlite3.connect(records_path(data_dir))) as other:
            other.executescript(
                "CREATE TRIGGER trouble BEFORE INSERT ON events"
                " BEGIN SELECT RAISE(FAIL, 'trouble'); END"
            )
            keeper.put(EventRow("c-1", 100, "key", "*"))
            going_on.answered("audiosocket")
            time.sleep(0.2)  # several attempts, each with a new connection
            other.executescript("DROP TRIGGER trouble")
        deadline = time.monotonic() + 20
        while not stored(data_dir, "calls")[0]["leg"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert stored(data_dir, "calls")[0]["ended_at"] is None
        going_on.ended(CallOutcome("completed", "model_ended"))
    assert stored(data_dir, "calls")[0]["status"] == "completed"


def test_disk_that_takes_nothing_holds_up_no_call(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with records(data_dir) as keeper:
        keeper.open_call(ROW)
    with closing(sqlite3.connect(records_path(data_dir))) as connection:
        connection.executescript(  # from now on every write fails
            "CREATE TRIGGER full BEFORE INSERT ON turns"
            " BEGIN SELECT raise(ABORT, 'database or disk is full'); END;"
        )
    with records(data_dir, max_queued_rows=10) as keeper:
        began = time.monotonic()
        for number in range(100):
            keeper.put(TurnRow("c-1", number, "reply"))
        assert time.monotonic() - began < 60  # it returned at all
    assert keeper.num_dropped == 100
    assert [r.message for r in caplog.records].count("records_not_written") == 1


def test_file_of_a_later_version_is_not_touched(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(records_path(data_dir))) as connection:
        connection.execute("PRAGMA user_version = 99")
    with records(data_dir) as keeper:
        keeper.open_call(ROW)
    assert "version 99" in str([r.__dict__ for r in caplog.records])
    with closing(sqlite3.connect(records_path(data_dir))) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)


def test_old_records_expire_with_all_that_belongs_to_them(data_dir: Path) -> None:
    now = time.time()
    with records(data_dir, days=0) as keeper:
        for age_days in (3, 1):
            row = replace(ROW, call_id=f"{age_days}", started_at=now - age_days * 86400)
            call = keeper.open_call(row)
            call.sink(TurnRow(row.call_id, 1, "reply"))
            call.ended(CallOutcome("completed"))
    with records(data_dir, days=2) as keeper:
        keeper.put(EventRow("1", 0, "key"))
    assert [row["call_id"] for row in stored(data_dir, "calls")] == ["1"]
    assert [row["call_id"] for row in stored(data_dir, "turns")] == ["1"]


def test_records_are_readable_by_their_owner_only(data_dir: Path) -> None:
    with records(data_dir) as keeper:
        keeper.open_call(ROW)
    for name in ("calls.sqlite", "caller.key"):
        assert (data_dir / name).stat().st_mode & 0o077 == 0
