"""The records file: what older versions wrote stays, and can be found by its words."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

from agi_handlers.records.archive import CallArchive, CallQuery
from agi_handlers.records.database import MIGRATIONS, RecordsDatabase
from agi_handlers.records.rows import CallRow, TurnRow

_CALL = (
    "INSERT INTO calls VALUES (?, ?, 'o', 'u', 'c', '***1', 'k', 'e', 'sales', 'm',"
    " 'v', 'en', 'leg', 1, 2, 'completed', '', '', '', 1, 0, '', '')"
)
_TURN = (
    "INSERT INTO turns VALUES (?, 1, 'reply', '', 'speech', 9, 'do you sell roses',"
    " 1, 2, 3, 4, 5, 'we do', 6, 'we do', 'heard', 0, 0, 0, 0, 0, '', 0, 0, 0, 0, 0)"
)


def _first_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript(MIGRATIONS[0] + "; PRAGMA user_version = 1")
        for n, call_id in enumerate(("younger", "older", "oldest")):
            connection.execute(_CALL, (call_id, 100.0 - n))
            connection.execute(_TURN, (call_id,))


def _ids(path: Path, query: CallQuery) -> list[str]:
    return [call["call_id"] for call in CallArchive(path).search(query).calls]


def test_file_of_the_first_version_keeps_every_call_in_order(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    _first_version(path)
    RecordsDatabase(path).close()
    assert _ids(path, CallQuery()) == ["younger", "older", "oldest"]
    call = CallArchive(path).call("older")
    assert call is not None
    assert call["turns"][0]["said_text"] == "do you sell roses"
    assert (call["lead_id"], call["is_opt_out"], call["caller"]) == ("", False, "***1")


def test_words_of_the_first_version_are_found(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    _first_version(path)
    RecordsDatabase(path).close()
    assert _ids(path, CallQuery(text="roses")) == ["younger", "older", "oldest"]


def test_words_are_found_as_soon_as_a_turn_is_over(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    database = RecordsDatabase(path)
    turn = TurnRow("c", 1, "reply", said_text="tulips", fate="heard")
    try:
        database.write([CallRow("c", 1.0), turn])
        assert _ids(path, CallQuery(text="tulips")) == ["c"]
        later = replace(turn, turn=2, said_text="daffodils")
        database.write([CallRow("c", 1.0, status="completed"), later])
        assert _ids(path, CallQuery(text="tulips daffodils")) == ["c"]
    finally:
        database.close()


def test_words_of_a_killed_call_are_found_after_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    database = RecordsDatabase(path)
    try:
        turn = TurnRow("c", 1, "reply", said_text="tulips", released_ms=5)
        database.write([CallRow("c", 1.0, owner="us"), turn])
        assert database.close_open_calls("us") == 1
        assert _ids(path, CallQuery(text="tulips")) == ["c"]
    finally:
        database.close()


def test_a_clock_set_back_does_not_change_the_order_of_calls(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    database = RecordsDatabase(path)
    try:
        database.write([CallRow("first", 2000.0), CallRow("second", 1000.0)])
    finally:
        database.close()
    assert _ids(path, CallQuery()) == ["second", "first"]
    page = CallArchive(path).search(CallQuery(limit=1))
    assert page.next_cursor is not None
    assert _ids(path, CallQuery(cursor=page.next_cursor)) == ["first"]
