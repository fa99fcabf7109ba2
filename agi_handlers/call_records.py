"""The record of every call, written while the call goes.

    CallNotes, CallRecord ─ rows ─▶ bounded queue ─▶ writer thread ─▶ the store

Nothing here can hold up a call: a full queue drops rows, a full disk or a broken file
is logged once and counted, and the calls go on.  A corrupt file is moved aside and a
new one begun.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal
from weakref import WeakValueDictionary

from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.process_identity import is_running, own_identity
from agi_handlers.records.caller_key import CallerKey
from agi_handlers.records.database import (
    FILE_NAME,
    RecordsTooNew,
    is_corrupt,
    set_aside,
)
from agi_handlers.records.rows import (
    CallRow,
    Confirmation,
    Disclosure,
    Result,
    Row,
    Sink,
    discard,
)
from agi_handlers.records.store import (
    STORE_ERRORS,
    RecordsStore,
    StoreOptions,
    open_store,
)
from telemetry import ERRORS, fields, mask_number

logger = logging.getLogger(__name__)

_MAX_BATCH_ROWS = 500  # one transaction; keeps a forget or a backup from waiting


@dataclass(frozen=True, slots=True)
class RecordsOptions:
    """Where records go and what of a caller they show."""

    store: StoreOptions
    owner: str = ""
    """Which phone half this is: calls that a process of that name left unfinished are
    closed when it is gone."""
    numbers: Literal["masked", "plain"] = "masked"
    """Logs mask numbers as well; a call is found by its number either way."""
    days: float = 365.0
    """Older records are deleted; 0 keeps them for good."""
    max_queued_rows: int = 10_000
    """About 15 rows a call and minute: minutes of a stuck disk at 200 calls.  When
    it is full, rows are dropped and counted, and a log line says so."""
    retry_after_s: float = 5.0
    """Pause after a failed write; rows that come meanwhile wait in the queue."""
    expiry_interval_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class VicidialIds:
    """Whose call it is in VICIdial's words; empty: not known."""

    vicidial_call_id: str = ""
    lead_id: str = ""
    list_id: str = ""
    vicidial_campaign: str = ""
    in_group: str = ""
    agent_user: str = ""


class CallRecord:
    """One call's row, from its start to its end."""

    def __init__(self, row: CallRow, sink: Sink) -> None:
        self._row = row
        self._began_s = time.monotonic()
        self.sink = sink
        self._sink_row()

    @property
    def call_id(self) -> str:
        return self._row.call_id

    @property
    def caller(self) -> str:
        """The number as the record shows it."""
        return self._row.caller

    @property
    def lead_id(self) -> str:
        """VICIdial's; empty: not known."""
        return self._row.lead_id

    def answered(self, leg: str) -> None:
        """Audio flows."""
        self._row = replace(self._row, leg=leg, answered_at=self.now_at())
        self._sink_row()

    def recorded(self, path: str) -> None:
        """A recording is being made."""
        self._row = replace(self._row, recording=path)
        self._sink_row()

    def identified(self, ids: VicidialIds) -> None:
        """VICIdial has said whose call it is; may come again with more."""
        changed = replace(self._row, **asdict(ids))
        if changed != self._row:
            self._row = changed
            self._sink_row()

    def disclosed(self, disclosure: Disclosure) -> None:
        """What became of the words that say who calls."""
        self._row = replace(self._row, disclosure=disclosure)

    def talked(self, num_turns: int, num_barge_ins: int) -> None:
        """The conversation is over."""
        self._row = replace(self._row, num_turns=num_turns, num_barge_ins=num_barge_ins)

    def ended(self, outcome: CallOutcome, error: str = "") -> None:
        """The last thing that is written."""
        self._row = replace(
            self._row,
            ended_at=self.now_at(),
            status=outcome.status,
            reason=outcome.reason,
            disposition=outcome.disposition,
            transfer_to=outcome.transfer_to,
            error=error,
            is_opt_out=outcome.is_opt_out,
            callback=outcome.callback,
            notes="\n".join(outcome.notes),
        )
        self._sink_row()

    def now_at(self) -> float:
        """By the call's own clock: the host's may be set in the middle of it."""
        return self._row.started_at + time.monotonic() - self._began_s

    def _sink_row(self) -> None:
        self.sink(self._row)


class CallRecords:
    """The writer: takes rows from the calls, never makes them wait."""

    def __init__(
        self, options: RecordsOptions, on_problem: Callable[[str], None] | None = None
    ) -> None:
        """`on_problem` hears of each new trouble, from the writer's thread."""
        self._options = options
        self._owner = f"{options.owner}/{own_identity()}"
        self._on_problem = on_problem or (lambda _: None)
        self._rows: queue.Queue[Row | None] = queue.Queue(options.max_queued_rows)
        self._calls: WeakValueDictionary[str, CallRecord] = WeakValueDictionary()
        self._wake = threading.Event()  # set: the end has come, stop pausing
        self._keys: CallerKey | None = None
        self._database: RecordsStore | None = None
        self._expired_at_s = -math.inf
        self._is_full = False
        self._problem = ""
        self.num_dropped = 0

    def open_call(self, row: CallRow) -> CallRecord:
        """Begin a call's record; `row.caller` is the number as it came."""
        key = self._keys.of(row.caller) if self._keys is not None else ""
        plain = self._options.numbers == "plain"
        shown = row.caller if plain else mask_number(row.caller)
        row = replace(row, caller=shown, caller_key=key, owner=self._owner)
        record = CallRecord(row, self.put)
        self._calls[row.call_id] = record
        return record

    def confirmed(self, call_id: str, result: Result, detail: str) -> None:
        """What became of something a call asked for; long after its end as well."""
        record = self._calls.get(call_id)
        at = record.now_at() if record is not None else time.time()
        self.put(Confirmation(call_id, at, result, detail))

    def put(self, row: Row) -> None:
        """Hand a row to the writer; from any thread, never waits."""
        try:
            self._rows.put_nowait(row)
        except queue.Full:
            self._drop(1)
            if not self._is_full:
                self._is_full = True
                logger.error("records_queue_full")

    @contextmanager
    def running(self) -> Iterator[None]:
        """The writer's thread; on leaving, what is queued is written."""
        try:
            self._keys = self._options.store.keys()
        except OSError as exc:
            self._note_problem(f"the key for callers' numbers: {exc}")
        thread = threading.Thread(target=self._run, name="records")
        thread.start()
        try:
            yield
        finally:
            self._wake.set()
            # the writer takes rows, so a full queue has room soon
            self._rows.put(None)
            thread.join()

    # --- the writer's thread ---

    def _run(self) -> None:
        try:
            self._open()
            self._expire()
            while True:
                batch, is_last = self._next_batch()
                if batch:
                    self._write(batch, is_last=is_last)
                if is_last:
                    return
                self._expire()
        finally:
            self._close()
            if self.num_dropped:
                logger.error("records_lost", extra=fields(rows=self.num_dropped))

    def _next_batch(self) -> tuple[list[Row], bool]:
        """What is queued, waited for; True: nothing comes after it."""
        batch: list[Row] = []
        while len(batch) < _MAX_BATCH_ROWS:
            try:
                row = self._rows.get(
                    block=not batch, timeout=self._options.expiry_interval_s
                )
            except queue.Empty:
                break
            if row is None:
                return batch, True
            batch.append(row)
        self._is_full = False
        return batch, False

    def _write(self, batch: list[Row], *, is_last: bool) -> None:
        """Until it is written, or no end of trouble is in sight and it is the end."""
        while True:
            if self._database is None:
                self._open()
            if self._database is not None:
                try:
                    self._database.write(batch)
                except STORE_ERRORS as exc:
                    self._fail(exc)
                else:
                    self._note_well()
                    return
            if is_last or self._wake.is_set():
                self._drop(len(batch))
                return
            self._wake.wait(self._options.retry_after_s)

    def _open(self) -> None:
        store = self._options.store
        for _ in range(2):
            try:
                self._database = open_store(store)
                self._close_calls_of_the_dead(self._database)
            except RecordsTooNew as exc:
                self._note_problem(str(exc))
                return
            except STORE_ERRORS as exc:
                self._close()
                if not is_corrupt(exc):
                    self._note_problem(f"{store.name}: {exc}")
                    return
                if not self._set_aside(exc):
                    return
            except OSError as exc:
                self._note_problem(f"{store.name}: {exc}")
                return
            else:
                return

    def _close_calls_of_the_dead(self, database: RecordsStore) -> None:
        """Calls of processes of our name that no longer run have ended."""
        num = 0
        for owner in database.open_owners():
            name, _, process = owner.partition("/")
            if name == self._options.owner and not is_running(process):
                num += database.close_open_calls(owner)
        if num:
            logger.warning("calls_interrupted", extra=fields(calls=num))

    def _set_aside(self, error: Exception) -> bool:
        path = records_path(self._options.store.data_dir)
        try:
            aside = set_aside(path)
        except OSError as exc:
            self._note_problem(f"{path} is corrupt and cannot be moved: {exc}")
            return False
        ERRORS.labels(kind="records_corrupt").inc()
        logger.critical(
            "records_corrupt",
            extra=fields(
                error=str(error), moved_to=str(aside), note="a new file was begun"
            ),
        )
        self._on_problem(f"call records were corrupt; moved to {aside.name}")
        return True

    def _fail(self, error: Exception) -> None:
        self._close()  # a new attempt begins with a new connection
        if is_corrupt(error):
            self._set_aside(error)
        else:
            self._note_problem(f"{self._options.store.name}: {error}")

    def _expire(self) -> None:
        now_s = time.monotonic()
        due = now_s >= self._expired_at_s + self._options.expiry_interval_s
        if not self._options.days or not due or self._database is None:
            return
        before_at = time.time() - self._options.days * 86_400
        try:
            self._close_calls_of_the_dead(self._database)
            num = self._database.delete_older(before_at)
        except STORE_ERRORS as exc:
            self._fail(exc)
            return
        # a full portion: there is more, go on with the next batch
        self._expired_at_s = now_s if num < 1000 else -math.inf
        if num:
            logger.info("records_expired", extra=fields(calls=num))

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            try:
                database.close()
            except STORE_ERRORS as exc:
                self._note_problem(f"{self._options.store.name}: {exc}")

    def _drop(self, num: int) -> None:
        self.num_dropped += num
        ERRORS.labels(kind="records_dropped").inc(num)

    def _note_problem(self, problem: str) -> None:
        """Log a trouble when it begins, not at every attempt."""
        if problem == self._problem:
            return
        self._problem = problem
        ERRORS.labels(kind="records").inc()
        logger.error("records_not_written", extra=fields(error=problem))
        self._on_problem(f"call records are not written: {problem}")

    def _note_well(self) -> None:
        if self._problem:
            self._problem = ""
            dropped = fields(dropped_rows=self.num_dropped)
            logger.info("records_written_again", extra=dropped)


def unrecorded(row: CallRow) -> CallRecord:
    """A call's record where none are kept."""
    return CallRecord(row, discard)


def records_path(data_dir: Path) -> Path:
    """Where the records of an installation are."""
    return data_dir / FILE_NAME
