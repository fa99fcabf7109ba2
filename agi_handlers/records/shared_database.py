"""Call records in a database that several hosts share: PostgreSQL, MySQL or MariaDB.

Through SQLAlchemy, which with the database's driver is an optional requirement.  The
same methods as `database.RecordsDatabase`; used by one thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final

import sqlalchemy
from sqlalchemy import Connection, Engine, Table, delete, func, insert, select, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.sql import Executable

from agi_handlers.records.database import RecordsTooNew
from agi_handlers.records.errors import StoreUnavailable
from agi_handlers.records.rows import Confirmation, EventRow, Row, TurnRow
from agi_handlers.records.shared_tables import (
    SCHEMA_VERSION,
    TABLES,
    calls,
    events,
    metadata,
    plain_words,
    turns,
    version,
    words,
)

_CONNECT_TIMEOUT_S: Final = 5
_KEYS: Final = {calls: ("call_id",), turns: ("call_id", "turn"), words: ("call_id",)}


def open_engine(url: str, *, keeps: bool = True) -> Engine:
    """A way to the database; connects when it is used, and keeps the connection or not.

    Raises:
        StoreUnavailable: the URL is none, or its driver is not installed.
    """
    try:
        parsed = sqlalchemy.make_url(url)
        backend = parsed.get_backend_name()
        if backend not in ("postgresql", "mysql", "mariadb", "sqlite"):
            raise StoreUnavailable(f"{backend} is not supported")
        arguments: dict[str, object] = {}
        if backend != "sqlite":
            arguments["connect_timeout"] = _CONNECT_TIMEOUT_S
        pool: dict[str, Any] = (
            {"pool_pre_ping": True} if keeps else {"poolclass": NullPool}
        )
        return sqlalchemy.create_engine(
            parsed, connect_args=arguments, hide_parameters=True, **pool
        )
    except (SQLAlchemyError, ImportError) as exc:
        raise StoreUnavailable(str(exc)) from exc


class SharedDatabase:
    """An open store of the newest schema."""

    def __init__(self, url: str) -> None:
        """Open it, and make its tables where there are none.

        Raises:
            StoreUnavailable: it cannot be used now.
            RecordsTooNew: not ours to touch.
        """
        self._engine = open_engine(url)
        try:
            with _translated():
                self._prepare()
        except BaseException:
            self._engine.dispose()
            raise

    def _prepare(self) -> None:
        try:
            metadata.create_all(self._engine)
        except DatabaseError:  # another host made them at the same moment
            metadata.create_all(self._engine)
        with self._engine.begin() as connection:
            found = connection.execute(select(func.max(version.c.version))).scalar()
            if found is None:
                connection.execute(_upsert(connection, version, (), SCHEMA_VERSION))
            elif found > SCHEMA_VERSION:
                raise RecordsTooNew(
                    f"the store has version {found}, this program knows "
                    f"{SCHEMA_VERSION}"
                )
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(
                    "CREATE INDEX IF NOT EXISTS words_by_text ON words"
                    " USING gin (to_tsvector('simple', text))"
                )

    def write(self, rows: Iterable[Row]) -> None:
        """All of them or none.

        Raises:
            StoreUnavailable: it cannot be done now.
        """
        with _translated(), self._engine.begin() as connection:
            told = set()
            for row in rows:
                if isinstance(row, Confirmation):
                    _confirm(connection, row)
                    continue
                table = TABLES[type(row)]
                values = asdict(row)
                if isinstance(row, EventRow):
                    connection.execute(insert(table), values)
                else:
                    _put(connection, table, values)
                if isinstance(row, TurnRow) and row.fate:
                    told.add(row.call_id)
            for call_id in sorted(told):
                _index_words(connection, call_id)

    def open_owners(self) -> list[str]:
        """Who has calls that have not ended."""
        owners = select(calls.c.owner).where(calls.c.ended_at.is_(None)).distinct()
        with _translated(), self._engine.begin() as connection:
            return list(connection.scalars(owners))

    def close_open_calls(self, owner: str) -> int:
        """End the calls this phone half left open when it died; how many."""
        with _translated(), self._engine.begin() as connection:
            is_open = (calls.c.owner == owner) & calls.c.ended_at.is_(None)
            found = connection.execute(select(calls).where(is_open)).mappings().all()
            for call in found:
                _interrupt(connection, dict(call))
        return len(found)

    def delete_older(self, than_at: float, limit: int = 1000) -> int:
        """Delete calls that started before; at most `limit`, how many."""
        is_old = (calls.c.started_at < than_at) & calls.c.ended_at.is_not(None)
        which = select(calls.c.call_id).where(is_old).order_by(calls.c.started_at)
        with _translated(), self._engine.begin() as connection:
            return _delete(connection, which.limit(limit))

    def recordings_of(self, caller_key: str) -> list[str]:
        """Paths of one caller's recordings, below the data folder of their host."""
        is_his = (calls.c.caller_key == caller_key) & (calls.c.recording != "")
        with _translated(), self._engine.begin() as connection:
            return list(connection.scalars(select(calls.c.recording).where(is_his)))

    def count(self, caller_key: str) -> int:
        """How many calls are known of a caller."""
        number = select(func.count()).where(calls.c.caller_key == caller_key)
        with _translated(), self._engine.begin() as connection:
            return int(connection.scalar(number) or 0)

    def forget(self, caller_key: str) -> int:
        """Delete everything of one caller's calls; how many calls.

        The database's own log and backups may hold it for a while.
        """
        which = select(calls.c.call_id).where(calls.c.caller_key == caller_key)
        with _translated(), self._engine.begin() as connection:
            return _delete(connection, which)

    def close(self) -> None:
        """Let go of the connection."""
        self._engine.dispose()


def _put(connection: Connection, table: Table, values: dict[str, Any]) -> None:
    connection.execute(_upsert(connection, table, _KEYS[table]), values)


def _upsert(
    connection: Connection, table: Table, keys: Sequence[str], fixed: int | None = None
) -> Executable:
    """Insert, or bring the row of the same keys up to date; `fixed`: the one value."""
    names = [c.name for c in table.columns if c.name not in (*keys, "number")]
    given = {} if fixed is None else {names[0]: fixed}
    match connection.dialect.name:
        case "postgresql" | "sqlite" as name:
            maker = postgresql.insert if name == "postgresql" else sqlite.insert
            statement = maker(table).values(**given) if given else maker(table)
            if not keys:
                return statement.on_conflict_do_nothing()
            new = {n: statement.excluded[n] for n in names}
            return statement.on_conflict_do_update(index_elements=list(keys), set_=new)
        case _:
            made = mysql.insert(table).values(**given) if given else mysql.insert(table)
            inserted = {n: made.inserted[n] for n in names}
            return made.on_duplicate_key_update(inserted)


def _confirm(connection: Connection, row: Confirmation) -> None:
    """An event of the call; of one that was deleted meanwhile nothing is kept."""
    began = func.coalesce(calls.c.answered_at, calls.c.started_at)
    began_at = connection.scalar(select(began).where(calls.c.call_id == row.call_id))
    if began_at is not None:
        at_ms = int(max(0.0, row.at - began_at) * 1000)
        event = EventRow(row.call_id, at_ms, "confirmed", row.result, row.detail)
        connection.execute(insert(events), asdict(event))


def _index_words(connection: Connection, call_id: str) -> None:
    said = select(turns.c.said_text, turns.c.reply_text).where(
        (turns.c.call_id == call_id) & (turns.c.source == "reply")
    )
    text = " ".join(f"{a} {b}" for a, b in connection.execute(said))
    _put(connection, words, {"call_id": call_id, "text": plain_words(text)})


def _interrupt(connection: Connection, call: dict[str, Any]) -> None:
    """Give a call the end that the last thing known of it had."""
    call_id = call["call_id"]
    of_turns, of_events = turns.c.call_id == call_id, events.c.call_id == call_id
    moments = [
        *connection.execute(
            select(
                func.max(turns.c.ended_ms),
                func.max(turns.c.played_ms),
                func.max(turns.c.released_ms),
            ).where(of_turns)
        ).one(),
        connection.scalar(
            select(func.max(events.c.at_ms)).where(
                of_events & (events.c.kind != "confirmed")
            )
        ),
    ]
    last_ms = max((moment for moment in moments if moment is not None), default=0)
    began_at = call["answered_at"] or call["started_at"]
    is_reply = of_turns & (turns.c.source == "reply")
    is_barge_in = of_events & (events.c.kind == "barge_in")
    changes = {
        "status": "interrupted",
        "reason": "process_ended",
        "num_turns": connection.scalar(select(func.count()).where(is_reply)),
        "num_barge_ins": connection.scalar(select(func.count()).where(is_barge_in)),
        "ended_at": began_at + last_ms / 1000,
    }
    connection.execute(update(calls).where(calls.c.call_id == call_id).values(changes))
    _index_words(connection, call_id)


def _delete(connection: Connection, which: Executable) -> int:
    ids = list(connection.scalars(which))
    for table in (words, turns, events, calls):
        connection.execute(delete(table).where(table.c.call_id.in_(ids)))
    return len(ids)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as exc:
        raise StoreUnavailable(_short(exc)) from exc


def _short(exc: SQLAlchemyError) -> str:
    """Without the statement and what stood in it: it goes into a log."""
    cause = getattr(exc, "orig", None) or exc
    return " ".join(str(cause).split())[:300]
