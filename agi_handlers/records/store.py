"""Which store an installation keeps its call records in: a file, or a shared database.

The shared one needs SQLAlchemy, which is imported only where it is used.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from agi_handlers.records.archive import CallArchive, CallPage, CallQuery, Fields
from agi_handlers.records.caller_key import CallerKey, load_caller_key
from agi_handlers.records.database import FILE_NAME, RecordsDatabase
from agi_handlers.records.errors import StoreUnavailable
from agi_handlers.records.rows import Row

STORE_ERRORS: Final = (sqlite3.Error, StoreUnavailable)
"""What a store raises when it cannot be used now."""


class RecordsStore(Protocol):
    """Where rows are written; see `RecordsDatabase`."""

    def write(self, rows: Iterable[Row]) -> None: ...
    def open_owners(self) -> list[str]: ...
    def close_open_calls(self, owner: str) -> int: ...
    def delete_older(self, than_at: float, limit: int = 1000) -> int: ...
    def recordings_of(self, caller_key: str) -> list[str]: ...
    def count(self, caller_key: str) -> int: ...
    def forget(self, caller_key: str) -> int: ...
    def close(self) -> None: ...


class Archive(Protocol):
    """Where calls are looked up; see `CallArchive`."""

    def search(self, query: CallQuery) -> CallPage: ...
    def call(self, call_id: str) -> Fields | None: ...
    def each(self, query: CallQuery) -> Iterator[Fields]: ...
    def campaigns(self) -> list[str]: ...
    def figures(self, since_at: float, until_at: float, bucket_s: int) -> Fields: ...


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """The settings that say where records are."""

    data_dir: Path
    url: str = field(default="", repr=False)
    """SQLAlchemy's, with a password in it; empty: a file below `data_dir`."""
    caller_secret: str = field(default="", repr=False)
    """See `load_caller_key`."""

    @property
    def name(self) -> str:
        """For messages; shows no password."""
        return "the shared store" if self.url else str(self.data_dir / FILE_NAME)

    def keys(self) -> CallerKey:
        """Raises OSError."""
        return load_caller_key(self.data_dir, self.caller_secret)


def open_store(options: StoreOptions) -> RecordsStore:
    """For writing.

    Raises:
        sqlite3.Error, StoreUnavailable, OSError: it cannot be used now.
        RecordsTooNew: not ours to touch.
    """
    if not options.url:
        return RecordsDatabase(options.data_dir / FILE_NAME)
    from agi_handlers.records.shared_database import SharedDatabase

    return SharedDatabase(options.url)


def open_archive(options: StoreOptions, timeout_s: float = 10.0) -> Archive:
    """For reading; `timeout_s` bounds one question.

    Raises:
        StoreUnavailable, OSError: the URL or the key for numbers cannot be used.
    """
    if not options.url:
        path = options.data_dir / FILE_NAME
        return CallArchive(path, timeout_s, options.caller_secret)
    from agi_handlers.records.shared_archive import SharedArchive

    return SharedArchive(options.url, options.keys(), timeout_s)
