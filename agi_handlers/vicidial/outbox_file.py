"""The outbox's SQLite file: duties not yet told.  Blocking; used from one thread."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agi_handlers.errors import VicidialError
from telemetry import fields

logger = logging.getLogger(__name__)

T = TypeVar("T")
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE duties (
    number    INTEGER PRIMARY KEY AUTOINCREMENT,
    chain     TEXT NOT NULL,
    kind      TEXT NOT NULL,
    body      TEXT NOT NULL,
    created_s REAL NOT NULL,
    due_s     REAL NOT NULL,
    attempts  INTEGER NOT NULL DEFAULT 0,
    problem   TEXT NOT NULL DEFAULT '',
    given_up  INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX duties_waiting ON duties (given_up, due_s);
"""
_LOCK_WAIT_S = 0.5  # others hold it for moments; a caller may be waiting for us
_KEEP_GIVEN_UP_S = 30 * 86_400.0  # for the operator to look at


class OutboxUnusable(VicidialError):
    """The file cannot be written: locked, disk full, read-only."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A stored duty that is due."""

    number: int
    chain: str
    kind: str
    body: str
    created_s: float
    attempts: int


class OutboxFile:
    """One table; the oldest duty of a chain goes before the others of that chain."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None

    def open(self, now_s: float) -> int:
        """Open or make the file; how many duties wait in it.

        What a dead process held for itself is due at once.

        Raises:
            OutboxUnusable.
        """

        def take_over(db: sqlite3.Connection) -> int:
            db.execute(
                "UPDATE duties SET due_s = ? WHERE given_up = 0 AND due_s > ?",
                (now_s, now_s),
            )
            db.execute(
                "DELETE FROM duties WHERE given_up = 1 AND created_s < ?",
                (now_s - _KEEP_GIVEN_UP_S,),
            )
            return _count(db)

        return self._do(take_over)

    def close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def put(self, chain: str, kind: str, body: str, now_s: float, due_s: float) -> int:
        """Store a duty; on disk when this returns."""

        def insert(db: sqlite3.Connection) -> int:
            cursor = db.execute(
                "INSERT INTO duties (chain, kind, body, created_s, due_s) "
                "VALUES (?, ?, ?, ?, ?)",
                (chain, kind, body, now_s, due_s),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

        return self._do(insert)

    def remove(self, number: int) -> None:
        """It has been told."""
        self._do(
            lambda db: db.execute("DELETE FROM duties WHERE number = ?", (number,))
        )

    def postpone(self, number: int, due_s: float, problem: str) -> None:
        """Not told yet: again at `due_s`."""
        self._do(
            lambda db: db.execute(
                "UPDATE duties SET due_s = ?, problem = ?, attempts = attempts + 1 "
                "WHERE number = ?",
                (due_s, problem, number),
            )
        )

    def release(self, number: int, now_s: float) -> None:
        """Held no longer."""
        self._do(
            lambda db: db.execute(
                "UPDATE duties SET due_s = ? WHERE number = ?", (now_s, number)
            )
        )

    def give_up(self, number: int, problem: str) -> None:
        """It can never be told; kept for a month."""
        self._do(
            lambda db: db.execute(
                "UPDATE duties SET given_up = 1, problem = ? WHERE number = ?",
                (problem, number),
            )
        )

    def due(self, now_s: float, limit: int, longest_s: float) -> list[Waiting]:
        """Duties whose time has come, at most one of each chain.

        longest_s: nothing is ever put off for longer; what seems to be, was so by a
        clock that has been set back since.
        """

        def select(db: sqlite3.Connection) -> list[Waiting]:
            rows = db.execute(
                "SELECT number, chain, kind, body, created_s, attempts "
                "FROM duties AS d WHERE given_up = 0 AND (due_s <= ? OR due_s > ?) "
                "AND number = (SELECT min(number) "
                "FROM duties WHERE chain = d.chain AND given_up = 0) "
                "ORDER BY number LIMIT ?",
                (now_s, now_s + longest_s, limit),
            )
            return [Waiting(*row) for row in rows]

        return self._do(select)

    def num_waiting(self) -> int:
        return self._do(_count)

    # --- the file ---

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """In one transaction; a corrupt file is set aside, and the work done anew.

        Raises:
            OutboxUnusable.
        """
        try:
            return self._try(work)
        except sqlite3.OperationalError as exc:  # locked, full, read-only, no folder
            self.close()
            raise OutboxUnusable(f"{self._path}: {exc}") from exc
        except sqlite3.DatabaseError as exc:
            self._set_aside(exc)
        try:
            return self._try(work)
        except sqlite3.Error as exc:
            self.close()
            raise OutboxUnusable(f"{self._path}: {exc}") from exc

    def _try(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._db is None:
            self._db = _connect(self._path)
        with self._db:
            return work(self._db)

    def _set_aside(self, why: sqlite3.DatabaseError) -> None:
        self.close()
        stamp = int(self._path.stat().st_mtime) if self._path.exists() else 0
        aside = self._path.with_name(f"{self._path.name}.corrupt-{stamp}")
        try:
            self._path.replace(aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        except OSError as exc:
            raise OutboxUnusable(f"{self._path}: {exc}") from exc
        logger.error(
            "outbox_corrupt",
            extra=fields(error=str(why), kept_as=str(aside), advice="look into it"),
        )


def _connect(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # numbers and notes are in it
    except OSError as exc:
        raise sqlite3.OperationalError(str(exc)) from exc
    # used by one worker thread after another, never by two at once
    db = sqlite3.connect(path, timeout=_LOCK_WAIT_S, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")  # it is for the day the power fails
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            db.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
            )
        elif version > SCHEMA_VERSION:
            raise sqlite3.OperationalError(
                f"written by a newer version of this program (schema {version})"
            )
    except BaseException:
        db.close()
        raise
    return db


def _count(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT count(*) FROM duties WHERE given_up = 0").fetchone()
    return int(row[0])
