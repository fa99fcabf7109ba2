"""What is found in the call records, and what is said when nothing can be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agi_handlers.records.archive import (
    BadCursor,
    CallArchive,
    CallQuery,
    RecordsUnreadable,
    SearchTooSlow,
)
from agi_handlers.records.rows import CallRow, TurnRow
from tests.agi_handlers.records.stored_calls import T0, store


def _found(data_dir: Path, query: CallQuery) -> list[str]:
    page = CallArchive(store(data_dir)).search(query)
    return [call["call_id"] for call in page.calls]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (CallQuery(), ["call-3", "call-2", "call-1"]),
        (CallQuery(number="212-555-0187"), ["call-1"]),
        (CallQuery(number="1 212 555 0187"), ["call-1"]),
        (CallQuery(number="212-555-9999"), []),
        (CallQuery(number="87"), ["call-1"]),
        (CallQuery(campaign="support"), ["call-3", "call-2"]),
        (CallQuery(status="running"), ["call-3"]),
        (CallQuery(status="transfer"), ["call-1"]),
        (CallQuery(disposition="XFER"), ["call-1"]),
        (CallQuery(text="open"), ["call-1"]),
        (CallQuery(text="OPEN"), ["call-1"]),
        (CallQuery(text="100%"), ["call-1"]),
        (CallQuery(text="you close"), ["call-2", "call-1"]),
        (CallQuery(text="clos* wh*"), ["call-2", "call-1"]),
        (CallQuery(text="clos"), []),
        (CallQuery(text="OPEN", campaign="support"), []),
        (CallQuery(text="%"), []),
        (CallQuery(text='"open" OR *'), []),
        (CallQuery(lead="4711"), ["call-2"]),
        (CallQuery(lead="47"), []),
        (CallQuery(text="V1120000000000004711"), ["call-2"]),
        (CallQuery(text="call-2"), ["call-2"]),
        (CallQuery(text="1700000000.1"), ["call-1"]),
        (CallQuery(text="' OR 1=1 --"), []),
        (CallQuery(since_at=T0 + 50, until_at=T0 + 150), ["call-2"]),
    ],
)
def test_search_finds_just_what_fits(
    data_dir: Path, query: CallQuery, wanted: list[str]
) -> None:
    assert _found(data_dir, query) == wanted


def test_pages_hold_every_call_once_though_new_ones_come_meanwhile(
    data_dir: Path,
) -> None:
    # several of the same moment: the id decides
    rows = [CallRow(f"c{n:02}", T0 + n // 4) for n in range(20)]
    archive = CallArchive(store(data_dir, rows))
    seen, cursor = [], ""
    for _ in range(20):
        page = archive.search(CallQuery(limit=3, cursor=cursor))
        seen += [call["call_id"] for call in page.calls]
        store(data_dir, [CallRow(f"new{len(seen)}", T0 + 999)])
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    assert seen == [f"c{n:02}" for n in range(19, -1, -1)]


@pytest.mark.parametrize("cursor", ["x", "####", "bm9wZQ==", "é", "LTE=", "OTk" * 20])
def test_foreign_cursor_is_refused(data_dir: Path, cursor: str) -> None:
    with pytest.raises(BadCursor):
        CallArchive(store(data_dir)).search(CallQuery(cursor=cursor))


def test_a_call_comes_with_turns_and_events_and_without_the_callers_key(
    data_dir: Path,
) -> None:
    call = CallArchive(store(data_dir)).call("call-1")
    assert call is not None
    assert [turn["turn"] for turn in call["turns"]] == [1, 2]
    assert [turn["response_ms"] for turn in call["turns"]] == [None, 450]
    assert call["events"][0]["kind"] == "barge_in"
    assert call["duration_s"] == 20.0
    assert "caller_key" not in call
    assert "212" not in call["caller"]


def test_unknown_call_is_none(data_dir: Path) -> None:
    assert CallArchive(store(data_dir)).call("nope") is None


def test_figures_count_calls_and_rank_delays(data_dir: Path) -> None:
    turns = [
        TurnRow("d", n, "reply", speech_ended_ms=0, played_ms=n) for n in range(1, 101)
    ]
    path = store(data_dir, [CallRow("d", T0, status="completed"), *turns])
    figures = CallArchive(path).figures(T0 - 3600, T0 + 3600, 3600)
    assert figures["num_calls"] == 1
    assert figures["response_ms"] == {"count": 100, "p50": 50, "p95": 95, "p99": 99}
    filled = [bucket for bucket in figures["buckets"] if bucket["calls"]]
    assert [bucket["calls"] for bucket in filled] == [{"completed": 1}]
    assert len(figures["buckets"]) == 3


def test_no_file_yet_is_one_clear_line(data_dir: Path) -> None:
    with pytest.raises(RecordsUnreadable, match="no calls are recorded yet"):
        CallArchive(data_dir / "calls.sqlite").search(CallQuery())


def test_broken_file_is_unreadable_not_a_crash(data_dir: Path) -> None:
    path = data_dir / "calls.sqlite"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(RecordsUnreadable):
        CallArchive(path).search(CallQuery())


def test_question_without_end_is_given_up(data_dir: Path) -> None:
    turns = [
        TurnRow("d", n, "reply", speech_ended_ms=0, played_ms=n) for n in range(3000)
    ]
    path = store(data_dir, [CallRow("d", T0), *turns])
    with pytest.raises(SearchTooSlow):
        CallArchive(path, timeout_s=-1.0).figures(T0, T0 + 60, 60)


def test_export_walks_all_pages(data_dir: Path) -> None:
    rows = [CallRow(f"c{n:03}", T0 + n) for n in range(450)]
    archive = CallArchive(store(data_dir, rows))
    query = replace(CallQuery(), since_at=T0 + 10)
    assert sum(1 for _ in archive.each(query)) == 440
