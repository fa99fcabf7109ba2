"""Reading call records from a database that several hosts share.

The same questions and answers as `archive.CallArchive`.  Blocking: call it from a
thread.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    cast,
    func,
    inspect,
    or_,
    select,
    text,
)
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from agi_handlers.records.archive import (
    EXPORT_PAGE_CALLS,
    MAX_DELAYS,
    MAX_PAGE_CALLS,
    SUMS,
    CallPage,
    CallQuery,
    Fields,
    NoRecords,
    RecordsUnreadable,
    SearchTooSlow,
    call_fields,
    figures_of,
    last_digits,
    make_cursor,
    read_cursor,
    search_words,
    turn_fields,
)
from agi_handlers.records.caller_key import CallerKey
from agi_handlers.records.errors import StoreUnavailable
from agi_handlers.records.shared_database import open_engine
from agi_handlers.records.shared_tables import calls, events, plain_words, turns, words

_CANCELLED: Final = "57014"  # PostgreSQL's query_canceled: statement_timeout


class SharedArchive:
    """One store, for readers."""

    def __init__(self, url: str, keys: CallerKey, timeout_s: float = 10.0) -> None:
        """`keys`: those of every host that writes there.  `timeout_s`: one question.

        Raises:
            StoreUnavailable: the URL is none, or its driver is not installed.
        """
        self._engine = open_engine(url, keeps=False)
        self._keys = keys
        self._timeout_s = timeout_s

    def search(self, query: CallQuery) -> CallPage:
        """One page; see `CallArchive.search`."""
        limit = max(1, min(query.limit, MAX_PAGE_CALLS))
        with self._connected() as connection:
            statement = select(calls).order_by(calls.c.number.desc()).limit(limit + 1)
            for condition in self._conditions(query, connection):
                statement = statement.where(condition)
            if query.cursor:
                statement = statement.where(calls.c.number < read_cursor(query.cursor))
            rows = connection.execute(statement).mappings().all()
        more = len(rows) > limit
        return CallPage(
            [call_fields(dict(row)) for row in rows[:limit]],
            make_cursor(rows[limit - 1]["number"]) if more else None,
        )

    def call(self, call_id: str) -> Fields | None:
        """A call with its turns and events; None: there is none of that id."""
        with self._connected() as connection:
            found = select(calls).where(calls.c.call_id == call_id)
            row = connection.execute(found).mappings().first()
            if row is None:
                return None
            of_turns = select(turns).where(turns.c.call_id == call_id)
            of_turns = of_turns.order_by(turns.c.asked_ms, turns.c.turn)
            of_events = select(events).where(events.c.call_id == call_id)
            of_events = of_events.order_by(events.c.at_ms, events.c.number)
            turn_rows = connection.execute(of_turns).mappings().all()
            event_rows = connection.execute(of_events).mappings().all()
        hidden = ("call_id", "number")
        return {
            **call_fields(dict(row)),
            "turns": [turn_fields(dict(turn)) for turn in turn_rows],
            "events": [
                {name: value for name, value in event.items() if name not in hidden}
                for event in event_rows
            ],
        }

    def each(self, query: CallQuery) -> Iterator[Fields]:
        """Every call that matches, whole, newest first."""
        cursor: str | None = query.cursor
        while cursor is not None:
            page = self.search(replace(query, cursor=cursor, limit=EXPORT_PAGE_CALLS))
            for found in page.calls:
                if (whole := self.call(found["call_id"])) is not None:
                    yield whole
            cursor = page.next_cursor

    def campaigns(self) -> list[str]:
        """Names of campaigns that have calls."""
        with self._connected() as connection:
            return sorted(connection.scalars(select(calls.c.campaign).distinct()))

    def figures(self, since_at: float, until_at: float, bucket_s: int) -> Fields:
        """See `CallArchive.figures`."""
        is_then = (calls.c.started_at >= since_at) & (calls.c.started_at < until_at)
        with self._connected() as connection:
            bucket = cast(func.floor(calls.c.started_at / bucket_s), Integer)
            if connection.dialect.name == "sqlite":  # it may have no floor
                bucket = cast(calls.c.started_at / bucket_s, Integer)
            chosen = select(
                bucket, calls.c.status, calls.c.num_turns, calls.c.num_barge_ins,
                calls.c.error, calls.c.is_opt_out,
            ).where(is_then)  # fmt: skip
            counts: dict[tuple[int, str], list[int]] = defaultdict(
                lambda: [0] * (1 + len(SUMS))
            )
            for at, status, num_turns, barge_ins, error, opt_out in connection.execute(
                chosen
            ):
                is_fault = bool(error) or status in ("failed", "interrupted")
                entry = counts[at, status]
                more = (1, num_turns, barge_ins, int(is_fault), int(opt_out))
                counts[at, status] = [a + b for a, b in zip(entry, more, strict=True)]
            total = sum(entry[1] for entry in counts.values())
            delay = turns.c.played_ms - turns.c.speech_ended_ms
            timed = (
                select(bucket, delay)
                .join(turns, turns.c.call_id == calls.c.call_id)
                .where(is_then & (calls.c.number % (1 + total // MAX_DELAYS) == 0))
                .where((turns.c.source == "reply") & delay.is_not(None))
            )
            delays = [(at, ms) for at, ms in connection.execute(timed)]
        rows = [(at, status, *entry) for (at, status), entry in counts.items()]
        return figures_of(rows, delays, since_at, until_at, bucket_s)

    def _conditions(
        self, query: CallQuery, connection: Connection
    ) -> Iterator[ColumnElement[bool]]:
        for column, value in (
            (calls.c.campaign, query.campaign),
            (calls.c.disposition, query.disposition),
            (calls.c.lead_id, query.lead),
        ):
            if value:
                yield column == value
        if query.status:
            yield calls.c.status == ("" if query.status == "running" else query.status)
        if query.since_at is not None:
            yield calls.c.started_at >= query.since_at
        if query.until_at is not None:
            yield calls.c.started_at < query.until_at
        if query.number:
            digits = last_digits(query.number)
            if digits is None:
                yield calls.c.caller_key == self._keys.of(query.number)
            else:
                yield calls.c.caller.endswith(digits, autoescape=True)
        if query.text:
            yield self._text_condition(query.text, connection)

    def _text_condition(
        self, sought: str, connection: Connection
    ) -> ColumnElement[bool]:
        ids = (calls.c.call_id, calls.c.uniqueid, calls.c.vicidial_call_id)
        is_id = or_(*(column == sought for column in ids))
        found = select(calls.c.number).where(is_id).limit(MAX_PAGE_CALLS)
        if numbers := list(connection.scalars(found)):
            return calls.c.number.in_(numbers)
        parts = [
            (plain_words(word).strip(), is_beginning)
            for word, is_beginning in search_words(sought)
        ]
        if not parts:
            return calls.c.number < 0  # nothing in it that could be a word
        if connection.dialect.name == "postgresql":
            asked = " & ".join(w + ":*" * is_beginning for w, is_beginning in parts)
            vector = func.to_tsvector(text("'simple'"), words.c.text)
            match = vector.op("@@")(func.to_tsquery(text("'simple'"), asked))
            return calls.c.call_id.in_(select(words.c.call_id).where(match))
        like = select(words.c.call_id)
        for word, is_beginning in parts:
            end = "" if is_beginning else " "
            like = like.where(words.c.text.contains(f" {word}{end}", autoescape=True))
        return calls.c.call_id.in_(like)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                if connection.dialect.name == "postgresql":
                    limit_ms = round(self._timeout_s * 1000)
                    connection.exec_driver_sql(
                        f"SET LOCAL statement_timeout = {limit_ms}"
                    )
                if not inspect(connection).has_table(calls.name):
                    raise NoRecords("no calls are recorded yet in the shared store")
                yield connection
        except OperationalError as exc:
            if getattr(exc.orig, "sqlstate", "") == _CANCELLED:
                raise SearchTooSlow(
                    f"no answer within {self._timeout_s:g} s; ask for a shorter time"
                ) from exc
            raise RecordsUnreadable(_short(exc)) from exc
        except (SQLAlchemyError, StoreUnavailable) as exc:
            raise RecordsUnreadable(_short(exc)) from exc


def _short(exc: Exception) -> Any:
    cause = getattr(exc, "orig", None) or exc
    return " ".join(str(cause).split())[:300]
