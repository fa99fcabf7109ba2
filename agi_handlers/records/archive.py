"""Reading the call records: search, one call, figures over time.

Opens the file read-only and anew for each question, so that a file moved aside or
rebuilt by the writer is never held on to.  Blocking: call it from a thread.
"""

from __future__ import annotations

import base64
import binascii
import re
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from agi_handlers.errors import TelephonyError
from agi_handlers.records.caller_key import load_caller_key

Fields: TypeAlias = dict[str, Any]

MAX_PAGE_CALLS: Final = 500
_BUSY_TIMEOUT_S: Final = 2.0
_PROGRESS_STEPS: Final = 10_000  # SQLite instructions between looks at the clock
_WHOLE_NUMBER_DIGITS: Final = 7  # shorter ones are taken for a number's last digits
# Turns looked at for percentiles; where there are more, every second, third … call's.
MAX_DELAYS: Final = 25_000
_PERCENTILES: Final = (50, 95, 99)
SUMS: Final = ("turns", "barge_ins", "faults", "opt_outs")
EXPORT_PAGE_CALLS: Final = 200
_WORD: Final = re.compile(r"[^\W_]+\*?")  # as the index divides text
_MAX_WORDS: Final = 20
_WORDS_TABLE: Final = "words JOIN calls ON calls.number = words.rowid"
_BY_ID: Final = """
    SELECT number FROM calls WHERE call_id = ? UNION
    SELECT number FROM calls WHERE uniqueid = ? UNION
    SELECT number FROM calls WHERE vicidial_call_id = ? LIMIT 500
"""


class RecordsUnreadable(TelephonyError):
    """No records can be read now; the message says why."""

    retryable = True


class NoRecords(RecordsUnreadable):
    """No call has been recorded there yet."""


class SearchTooSlow(TelephonyError):
    """The question takes too long; a shorter time span helps."""


class BadCursor(TelephonyError, ValueError):
    """Not a cursor that a page before gave."""


@dataclass(frozen=True, slots=True)
class CallQuery:
    """What to look for; what is left empty doesn't matter."""

    number: str = ""
    """A caller's whole number, or its last digits as far as records show them."""
    campaign: str = ""
    status: str = ""
    disposition: str = ""
    lead: str = ""
    """VICIdial's number of the lead."""
    text: str = ""
    """Words that bot or caller said in the call, all of them, `deliv*` for beginnings;
    or a call id, uniqueid or VICIdial's call id, whole."""
    since_at: float | None = None
    until_at: float | None = None
    limit: int = 50
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class CallPage:
    """Calls, newest first."""

    calls: Sequence[Fields]
    next_cursor: str | None


class CallArchive:
    """One records file, for readers."""

    def __init__(
        self, path: Path, timeout_s: float = 10.0, caller_secret: str = ""
    ) -> None:
        """`timeout_s` bounds one question; `caller_secret`: see `load_caller_key`."""
        self._path = path
        self._caller_secret = caller_secret
        self._timeout_s = timeout_s

    def search(self, query: CallQuery) -> CallPage:
        """One page.

        Raises:
            RecordsUnreadable: no file, or not readable.
            SearchTooSlow, BadCursor.
        """
        limit = max(1, min(query.limit, MAX_PAGE_CALLS))
        with self._connected() as connection:
            where, arguments = self._conditions(query, connection)
            if query.cursor:
                where.append("number < ?")
                arguments.append(read_cursor(query.cursor))
            is_by_words = any("words MATCH" in condition for condition in where)
            # every condition is a constant of this module; values go as arguments
            statement = (
                # by the index of words the newest come first without any sorting
                f"SELECT calls.* FROM {_WORDS_TABLE if is_by_words else 'calls'}"  # noqa: S608
                f" WHERE {' AND '.join(where) or '1'}"
                f" ORDER BY {'words.rowid' if is_by_words else 'number'} DESC LIMIT ?"
            )
            rows = connection.execute(statement, [*arguments, limit + 1]).fetchall()
        calls = [call_fields(row) for row in rows[:limit]]
        more = len(rows) > limit
        return CallPage(calls, make_cursor(rows[limit - 1]["number"]) if more else None)

    def call(self, call_id: str) -> Fields | None:
        """A call with its turns and events; None: there is none of that id."""
        with self._connected() as connection:
            row = connection.execute(
                "SELECT * FROM calls WHERE call_id = ?", (call_id,)
            ).fetchone()
            if row is None:
                return None
            turns = connection.execute(
                "SELECT * FROM turns WHERE call_id = ? ORDER BY asked_ms, turn",
                (call_id,),
            ).fetchall()
            events = connection.execute(
                "SELECT * FROM events WHERE call_id = ? ORDER BY at_ms, number",
                (call_id,),
            ).fetchall()
        return {
            **call_fields(row),
            "turns": [turn_fields(turn) for turn in turns],
            "events": [_without(event, "call_id", "number") for event in events],
        }

    def each(self, query: CallQuery) -> Iterator[Fields]:
        """Every call that matches, whole, newest first."""
        cursor: str | None = query.cursor
        while cursor is not None:
            page = self.search(_at(query, cursor))
            for found in page.calls:
                if (whole := self.call(found["call_id"])) is not None:
                    yield whole
            cursor = page.next_cursor

    def campaigns(self) -> list[str]:
        """Names of campaigns that have calls."""
        with self._connected() as connection:
            rows = connection.execute("SELECT DISTINCT campaign FROM calls ORDER BY 1")
            return [name for (name,) in rows]

    def figures(self, since_at: float, until_at: float, bucket_s: int) -> Fields:
        """Calls by status and percentiles of the response delay, bucket by bucket.

        Percentiles of very many turns are of a sample; `count` is its size.
        """
        span = (bucket_s, since_at, until_at)
        with self._connected() as connection:
            counts = connection.execute(
                "SELECT cast(started_at / ? AS INTEGER) AS bucket, status, count(*),"
                " sum(num_turns), sum(num_barge_ins), sum(error != ''"
                " OR status IN ('failed', 'interrupted')), sum(is_opt_out)"
                " FROM calls WHERE started_at >= ? AND started_at < ?"
                " GROUP BY bucket, status",
                span,
            ).fetchall()
            num_turns = sum(row[3] for row in counts)
            delays = connection.execute(
                "SELECT cast(started_at / ? AS INTEGER), played_ms - speech_ended_ms"
                " FROM calls JOIN turns USING (call_id)"
                " WHERE started_at >= ? AND started_at < ? AND number % ? = 0"
                " AND source = 'reply' AND speech_ended_ms IS NOT NULL"
                " AND played_ms IS NOT NULL",
                (*span, 1 + num_turns // MAX_DELAYS),
            ).fetchall()
        return figures_of(counts, delays, since_at, until_at, bucket_s)

    def _conditions(
        self, query: CallQuery, connection: sqlite3.Connection
    ) -> tuple[list[str], list[Any]]:
        where: list[str] = []
        arguments: list[Any] = []

        def add(condition: str, *values: Any) -> None:
            where.append(condition)
            arguments.extend(values)

        if query.campaign:
            add("campaign = ?", query.campaign)
        if query.status:
            add("status = ?", "" if query.status == "running" else query.status)
        if query.disposition:
            add("disposition = ?", query.disposition)
        if query.since_at is not None:
            add("started_at >= ?", query.since_at)
        if query.until_at is not None:
            add("started_at < ?", query.until_at)
        if query.number:
            add(*self._number_condition(query.number))
        if query.lead:
            add("lead_id = ?", query.lead)
        if query.text:
            found = connection.execute(_BY_ID, (query.text,) * 3).fetchall()
            if found:
                marks = ", ".join("?" * len(found))
                add(f"number IN ({marks})", *(number for (number,) in found))
            elif match := _word_query(query.text):
                add("words MATCH ?", match)
            else:
                add("0")  # nothing in it that could be a word
        return where, arguments

    def _number_condition(self, number: str) -> tuple[str, str]:
        digits = last_digits(number)
        if digits is not None:
            return "caller LIKE ? ESCAPE '\\'", f"%{_like(digits)}"
        try:
            keys = load_caller_key(self._path.parent, self._caller_secret)
            return "caller_key = ?", keys.of(number)
        except OSError as exc:
            raise RecordsUnreadable(f"the key for callers' numbers: {exc}") from exc

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        deadline_s = time.monotonic() + self._timeout_s
        try:
            if not self._path.exists():
                raise NoRecords(f"no calls are recorded yet in {self._path}")
            connection = sqlite3.connect(
                f"file:{quote(str(self._path))}?mode=ro",
                uri=True,
                timeout=_BUSY_TIMEOUT_S,
            )
            with closing(connection):
                connection.row_factory = sqlite3.Row
                connection.set_progress_handler(
                    lambda: time.monotonic() > deadline_s, _PROGRESS_STEPS
                )
                yield connection
        except sqlite3.Error as exc:
            if exc.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                raise SearchTooSlow(
                    f"no answer within {self._timeout_s:g} s; ask for a shorter time"
                ) from exc
            raise RecordsUnreadable(f"{self._path}: {exc}") from exc
        except OSError as exc:
            raise RecordsUnreadable(f"{self._path}: {exc}") from exc


def figures_of(
    counts: Iterable[Sequence[Any]],
    delays: Sequence[Sequence[Any]],
    since_at: float,
    until_at: float,
    bucket_s: int,
) -> Fields:
    """Figures from rows of bucket, status, number and `SUMS`; and bucket and delay."""
    by_bucket: dict[int, list[int]] = defaultdict(list)
    for bucket, delay_ms in delays:
        by_bucket[bucket].append(delay_ms)
    statuses: dict[int, dict[str, int]] = defaultdict(dict)
    sums: dict[int, list[int]] = defaultdict(lambda: [0] * len(SUMS))
    for bucket, status, number, *more in counts:
        statuses[bucket][status or "running"] = number
        sums[bucket] = [a + b for a, b in zip(sums[bucket], more, strict=True)]
    everything = [delay_ms for _, delay_ms in delays]
    first, last = (
        int(since_at // bucket_s),
        int(max(since_at, until_at) // bucket_s),
    )
    return {
        "since_at": since_at,
        "until_at": until_at,
        "bucket_s": bucket_s,
        "num_calls": sum(sum(one.values()) for one in statuses.values()),
        "response_ms": _percentiles(everything),
        "buckets": [
            {
                "at": bucket * bucket_s,
                "calls": statuses.get(bucket, {}),
                **dict(zip(SUMS, sums[bucket], strict=True)),
                "response_ms": _percentiles(by_bucket.get(bucket, [])),
            }
            for bucket in range(first, last + 1)
        ],
    }


def _at(query: CallQuery, cursor: str) -> CallQuery:
    return replace(query, cursor=cursor, limit=EXPORT_PAGE_CALLS)


def call_fields(row: Mapping[str, Any] | sqlite3.Row) -> Fields:
    """A call as readers get it."""
    call = _without(row, "number", "caller_key", "owner")
    call["is_opt_out"] = bool(call["is_opt_out"])
    call["status"] = call["status"] or "running"
    ended_at = call["ended_at"]
    call["duration_s"] = (
        None if ended_at is None else round(ended_at - call["started_at"], 1)
    )
    return call


def turn_fields(row: Mapping[str, Any] | sqlite3.Row) -> Fields:
    """A turn as readers get it."""
    turn = _without(row, "call_id")
    ended_ms, played_ms = turn["speech_ended_ms"], turn["played_ms"]
    is_known = ended_ms is not None and played_ms is not None
    turn["response_ms"] = played_ms - ended_ms if is_known else None
    return turn


def _without(row: Mapping[str, Any] | sqlite3.Row, *names: str) -> Fields:
    return {key: row[key] for key in row.keys() if key not in names}  # noqa: SIM118


def _percentiles(values: list[int]) -> Fields | None:
    """Nearest rank; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    found: Fields = {"count": len(ordered)}
    for percent in _PERCENTILES:
        rank = -(-percent * len(ordered) // 100)
        found[f"p{percent}"] = ordered[max(0, rank - 1)]
    return found


def last_digits(number: str) -> str | None:
    """What to look for at the end of a shown number; None: it is a whole number."""
    digits = "".join(c for c in number if c in "0123456789")
    return digits or number if len(digits) < _WHOLE_NUMBER_DIGITS else None


def search_words(text: str) -> list[tuple[str, bool]]:
    """The words of a search; True: what begins so is meant as well."""
    # one by one, so that "don't" looks for don and t, as the index has it
    words = _WORD.findall(text)[:_MAX_WORDS]
    return [(word.rstrip("*"), word.endswith("*")) for word in words]


def _word_query(text: str) -> str:
    """An FTS5 query: every word of the text, one with a star for what begins so."""
    return " ".join(f'"{word}"{"*" * begins}' for word, begins in search_words(text))


def _like(text: str) -> str:
    for special in ("\\", "%", "_"):
        text = text.replace(special, "\\" + special)
    return text


def make_cursor(number: int) -> str:
    """What leads to the calls before this one."""
    return base64.urlsafe_b64encode(str(number).encode()).decode()


def read_cursor(cursor: str) -> int:
    """Raises BadCursor."""
    try:
        number = int(base64.urlsafe_b64decode(cursor.encode()).decode())
    except (ValueError, binascii.Error) as exc:
        raise BadCursor("the cursor is not one a page gave") from exc
    if not 0 < number < 2**63:
        raise BadCursor("the cursor is not one a page gave")
    return number
