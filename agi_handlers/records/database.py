"""The call records' SQLite file: its schema, and how rows get into it.

One connection, one thread.  WAL with `synchronous=NORMAL`: what was committed survives
the death of the process; a power cut may take the last seconds.  Readers (the HTTP
half, the tools) open it read-only at any time.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import astuple, fields
from pathlib import Path
from typing import Final

from agi_handlers.errors import TelephonyError
from agi_handlers.records.rows import CallRow, Confirmation, EventRow, Row, TurnRow

FILE_NAME: Final = "calls.sqlite"
_BUSY_TIMEOUT_S: Final = 5.0  # longer than a forget or a checkpoint takes

# Each entry brings the file from the version before to its own, in one transaction.
# Entries are never changed once released; a new column is a new entry.
MIGRATIONS: Final = (
    """
    CREATE TABLE calls (
        call_id TEXT PRIMARY KEY,
        started_at REAL NOT NULL,
        owner TEXT NOT NULL,
        uniqueid TEXT NOT NULL,
        channel TEXT NOT NULL,
        caller TEXT NOT NULL,
        caller_key TEXT NOT NULL,
        extension TEXT NOT NULL,
        campaign TEXT NOT NULL,
        model TEXT NOT NULL,
        voice TEXT NOT NULL,
        language TEXT NOT NULL,
        leg TEXT NOT NULL,
        answered_at REAL,
        ended_at REAL,
        status TEXT NOT NULL,
        reason TEXT NOT NULL,
        disposition TEXT NOT NULL,
        transfer_to TEXT NOT NULL,
        num_turns INTEGER NOT NULL,
        num_barge_ins INTEGER NOT NULL,
        error TEXT NOT NULL,
        recording TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX calls_by_time ON calls (started_at, call_id);
    CREATE INDEX calls_by_caller ON calls (caller_key, started_at);
    CREATE INDEX calls_by_uniqueid ON calls (uniqueid);
    CREATE TABLE turns (
        call_id TEXT NOT NULL,
        turn INTEGER NOT NULL,
        source TEXT NOT NULL,
        phrase TEXT NOT NULL,
        said_kind TEXT NOT NULL,
        said_ms INTEGER NOT NULL,
        said_text TEXT NOT NULL,
        speech_ended_ms INTEGER,
        asked_ms INTEGER NOT NULL,
        released_ms INTEGER,
        played_ms INTEGER,
        ended_ms INTEGER,
        reply_text TEXT NOT NULL,
        heard_ms INTEGER NOT NULL,
        heard_text TEXT NOT NULL,
        fate TEXT NOT NULL,
        queue_ms REAL NOT NULL,
        encode_ms REAL NOT NULL,
        first_token_ms REAL NOT NULL,
        first_audio_ms REAL NOT NULL,
        total_ms REAL NOT NULL,
        finish_reason TEXT NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        audio_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        end_of_turn_probability REAL,
        PRIMARY KEY (call_id, turn)
    ) WITHOUT ROWID;
    CREATE TABLE events (
        number INTEGER PRIMARY KEY,
        call_id TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        detail TEXT NOT NULL,
        turn INTEGER
    );
    CREATE INDEX events_by_call ON events (call_id);
    """,
    # A number for each call: its place in time, whatever the clock did, and in the
    # index of words; who VICIdial says the
    # call is; what ran it; what the caller was told and what he agreed to.
    """
    CREATE TABLE numbered_calls (
        number INTEGER PRIMARY KEY,
        call_id TEXT NOT NULL UNIQUE,
        started_at REAL NOT NULL,
        owner TEXT NOT NULL,
        uniqueid TEXT NOT NULL,
        channel TEXT NOT NULL,
        caller TEXT NOT NULL,
        caller_key TEXT NOT NULL,
        extension TEXT NOT NULL,
        campaign TEXT NOT NULL,
        model TEXT NOT NULL,
        voice TEXT NOT NULL,
        language TEXT NOT NULL,
        leg TEXT NOT NULL,
        answered_at REAL,
        ended_at REAL,
        status TEXT NOT NULL,
        reason TEXT NOT NULL,
        disposition TEXT NOT NULL,
        transfer_to TEXT NOT NULL,
        num_turns INTEGER NOT NULL,
        num_barge_ins INTEGER NOT NULL,
        error TEXT NOT NULL,
        recording TEXT NOT NULL,
        persona_version TEXT NOT NULL DEFAULT '',
        model_version TEXT NOT NULL DEFAULT '',
        voice_version TEXT NOT NULL DEFAULT '',
        vicidial_call_id TEXT NOT NULL DEFAULT '',
        lead_id TEXT NOT NULL DEFAULT '',
        list_id TEXT NOT NULL DEFAULT '',
        vicidial_campaign TEXT NOT NULL DEFAULT '',
        in_group TEXT NOT NULL DEFAULT '',
        agent_user TEXT NOT NULL DEFAULT '',
        disclosure TEXT NOT NULL DEFAULT '',
        is_opt_out INTEGER NOT NULL DEFAULT 0,
        callback TEXT NOT NULL DEFAULT '',
        notes TEXT NOT NULL DEFAULT ''
    );
    INSERT INTO numbered_calls (
        call_id, started_at, owner, uniqueid, channel, caller, caller_key, extension,
        campaign, model, voice, language, leg, answered_at, ended_at, status, reason,
        disposition, transfer_to, num_turns, num_barge_ins, error, recording
    ) SELECT
        call_id, started_at, owner, uniqueid, channel, caller, caller_key, extension,
        campaign, model, voice, language, leg, answered_at, ended_at, status, reason,
        disposition, transfer_to, num_turns, num_barge_ins, error, recording
        FROM calls ORDER BY started_at, call_id;
    DROP TABLE calls;
    ALTER TABLE numbered_calls RENAME TO calls;
    CREATE INDEX calls_by_time ON calls (started_at);
    CREATE INDEX calls_by_caller ON calls (caller_key);
    CREATE INDEX calls_by_uniqueid ON calls (uniqueid);
    CREATE INDEX calls_by_campaign ON calls (campaign);
    CREATE INDEX calls_by_status ON calls (status);
    CREATE INDEX calls_by_disposition ON calls (disposition);
    CREATE INDEX calls_by_lead ON calls (lead_id);
    CREATE INDEX calls_by_vicidial_call ON calls (vicidial_call_id);
    CREATE VIRTUAL TABLE words USING fts5 (
        text, tokenize = "unicode61 remove_diacritics 2", detail = none
    );
    INSERT INTO words (rowid, text) SELECT number, (
        SELECT group_concat(said_text || ' ' || reply_text, ' ') FROM turns
        WHERE turns.call_id = calls.call_id AND source = 'reply') FROM calls;
    """,
)

_INDEX_WORDS: Final = """
    INSERT OR REPLACE INTO words (rowid, text) SELECT number, (
        SELECT group_concat(said_text || ' ' || reply_text, ' ') FROM turns
        WHERE turns.call_id = calls.call_id AND source = 'reply')
    FROM calls WHERE call_id = ?
"""
_FORGET_WORDS: Final = (
    "DELETE FROM words WHERE rowid = (SELECT number FROM calls WHERE call_id = ?)"
)


class RecordsTooNew(TelephonyError):
    """The file was written by a later version of this program."""


def _statement(kind: type[Row], table: str, *keys: str) -> str:
    """Insert a row, or bring the one of the same keys up to date."""
    names = [field.name for field in fields(kind)]
    marks = ", ".join("?" * len(names))
    # the names are our own dataclasses' fields, never anybody's input
    statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608
    if keys:
        changes = ", ".join(f"{n} = excluded.{n}" for n in names if n not in keys)
        statement += f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes}"
    return statement


_WRITE: Final = {
    CallRow: _statement(CallRow, "calls", "call_id"),
    TurnRow: _statement(TurnRow, "turns", "call_id", "turn"),
    EventRow: _statement(EventRow, "events"),
    # of a call that was deleted meanwhile nothing is kept
    Confirmation: """
        INSERT INTO events (call_id, at_ms, kind, name, detail)
        SELECT call_id, CAST(max(0, new.at - coalesce(answered_at, started_at)) * 1000
            AS INTEGER), 'confirmed', new.result, new.detail
        FROM calls JOIN (
            SELECT ? AS id, ? AS at, ? AS result, ? AS detail) AS new ON call_id = id
    """,
}


class RecordsDatabase:
    """An open records file, of the newest schema."""

    def __init__(self, path: Path) -> None:
        """Open or make it.

        Raises:
            sqlite3.Error: it cannot be used; `is_corrupt` says whether a new one may.
            OSError: its folder cannot be made.
            RecordsTooNew: not ours to touch.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(
            path, timeout=_BUSY_TIMEOUT_S, isolation_level=None
        )
        try:
            path.chmod(0o600)  # what was said on the telephone is nobody else's
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._check()
            self._migrate(path)
        except BaseException:
            self._connection.close()
            raise

    def _check(self) -> None:
        # a large file is not read through at every start: its structure only
        first = self._connection.execute("PRAGMA schema_version").fetchone()
        assert first is not None
        self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()

    def _migrate(self, path: Path) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise RecordsTooNew(
                f"{path} has version {version}, this program knows {len(MIGRATIONS)}"
            )
        for number in range(version, len(MIGRATIONS)):
            script = f"BEGIN IMMEDIATE; {MIGRATIONS[number]}; "
            script += f"PRAGMA user_version = {number + 1}; COMMIT;"
            try:
                self._connection.executescript(script)
            except BaseException:
                self._roll_back()
                raise

    def write(self, rows: Iterable[Row]) -> None:
        """All of them or none.

        Raises:
            sqlite3.Error: disk full, read-only, corrupt.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            told = set()
            for row in rows:
                self._connection.execute(_WRITE[type(row)], astuple(row))
                if isinstance(row, TurnRow) and row.fate:
                    told.add((row.call_id,))
            self._connection.executemany(_INDEX_WORDS, told)
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def open_owners(self) -> list[str]:
        """Who has calls that have not ended."""
        rows = self._connection.execute(
            "SELECT DISTINCT owner FROM calls WHERE ended_at IS NULL"
        )
        return [str(row[0]) for row in rows]

    def close_open_calls(self, owner: str) -> int:
        """End the calls that this phone half left open when it died; how many.

        Each gets the time of the last thing known of it.
        """
        with self._transaction():
            left = self._connection.execute(
                "SELECT call_id FROM calls WHERE owner = ? AND ended_at IS NULL",
                (owner,),
            ).fetchall()
            self._connection.executemany(_INDEX_WORDS, left)
            changed = self._connection.executemany(
                """
                UPDATE calls SET status = 'interrupted', reason = 'process_ended',
                  num_turns = (SELECT count(*) FROM turns
                    WHERE turns.call_id = calls.call_id AND source = 'reply'),
                  num_barge_ins = (SELECT count(*) FROM events
                    WHERE events.call_id = calls.call_id AND kind = 'barge_in'),
                  ended_at = coalesce(answered_at, started_at) + coalesce((
                    SELECT max(at_ms) FROM (
                      SELECT max(coalesce(ended_ms, played_ms, released_ms)) AS at_ms
                        FROM turns WHERE turns.call_id = calls.call_id
                      UNION ALL SELECT max(at_ms)
                        FROM events WHERE events.call_id = calls.call_id
                          AND kind != 'confirmed')
                  ), 0) / 1000.0
                WHERE call_id = ?
                """,
                left,
            )
        return max(0, changed.rowcount)  # -1 after none at all

    def delete_older(self, than_at: float, limit: int = 1000) -> int:
        """Delete calls that started before; at most `limit`, how many."""
        return self._delete(
            "SELECT call_id FROM calls WHERE started_at < ? AND ended_at IS NOT NULL"
            " ORDER BY started_at LIMIT ?",
            (than_at, limit),
        )

    def recordings_of(self, caller_key: str) -> list[str]:
        """Paths of one caller's recordings, below the data folder."""
        rows = self._connection.execute(
            "SELECT recording FROM calls WHERE caller_key = ? AND recording != ''",
            (caller_key,),
        )
        return [path for (path,) in rows]

    def count(self, caller_key: str) -> int:
        """How many calls are known of a caller."""
        (number,) = self._connection.execute(
            "SELECT count(*) FROM calls WHERE caller_key = ?", (caller_key,)
        ).fetchone()
        return int(number)

    def forget(self, caller_key: str) -> int:
        """Delete everything of one caller's calls, past recovery; how many calls."""
        self._connection.execute("PRAGMA secure_delete=ON")
        num = self._delete(
            "SELECT call_id FROM calls WHERE caller_key = ?", (caller_key,)
        )
        # the index only marks words as gone until its parts are merged
        self._connection.execute("INSERT INTO words (words) VALUES ('optimize')")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return num

    def _delete(self, which: str, arguments: tuple[object, ...]) -> int:
        with self._transaction():
            ids = self._connection.execute(which, arguments).fetchall()
            self._connection.executemany(_FORGET_WORDS, ids)
            for table in ("turns", "events", "calls"):
                self._connection.executemany(
                    f"DELETE FROM {table} WHERE call_id = ?",  # noqa: S608
                    ids,
                )
        return len(ids)

    def close(self) -> None:
        """Fold the log into the file and let go of it."""
        self._connection.close()

    def _transaction(self) -> _Transaction:
        return _Transaction(self._connection)

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


class _Transaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *rest: object) -> None:
        if self._connection.in_transaction:
            self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


def is_corrupt(error: Exception) -> bool:
    """The file's contents are at fault, not the disk and not a lock."""
    return (
        error.sqlite_errorcode & 0xFF
        in (
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_NOTADB,
        )
        if hasattr(error, "sqlite_errorcode")
        else False
    )


def set_aside(path: Path) -> Path:
    """Move a corrupt file out of the way, its log with it; where it is now.

    Raises:
        OSError: it cannot be moved.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.corrupt-{stamp}-{number}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        log = path.with_name(path.name + suffix)
        if log.exists():
            log.rename(aside.with_name(aside.name + suffix))
    return aside
