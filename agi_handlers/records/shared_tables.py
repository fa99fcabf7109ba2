"""The tables of a store that several hosts share, for SQLAlchemy.

The same rows as in the file of one host (`database`), and beside them each call's words
as plain lower-case text, for databases without an index of words.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import fields
from typing import Any, Final, get_type_hints

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.types import TypeEngine

from agi_handlers.records.rows import CallRow, EventRow, Row, TurnRow

SCHEMA_VERSION: Final = 1
_NUMBER: Final = BigInteger().with_variant(Integer(), "sqlite")
# MySQL's TEXT ends at 64 kB; the words of a long call do not.
_TEXT: Final = Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")
# What is looked up has a length: MySQL indexes no TEXT.
_LENGTHS: Final = {
    "call_id": 64, "caller_key": 64, "owner": 200, "uniqueid": 150, "campaign": 64,
    "status": 32, "disposition": 32, "lead_id": 32, "vicidial_call_id": 64,
    "kind": 32, "source": 16,
}  # fmt: skip
_WORD: Final = re.compile(r"[^\W_]+")

metadata: Final = MetaData()


def _columns(kind: type[Row], *keys: str) -> list[Column[Any]]:
    hints = get_type_hints(kind)
    return [
        Column(
            field.name,
            _type_of(field.name, hints[field.name]),
            primary_key=field.name in keys,
            nullable="None" in str(hints[field.name]),
        )
        for field in fields(kind)
    ]


def _type_of(name: str, hint: object) -> TypeEngine[Any]:
    found: TypeEngine[Any]
    text = str(hint)
    if hint is bool:
        found = Boolean()
    elif "float" in text:
        found = Float(53)
    elif "int" in text and "Literal" not in text:
        found = BigInteger()
    else:
        found = String(_LENGTHS[name]) if name in _LENGTHS else _TEXT
    return found


calls: Final = Table(
    "calls",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    *_columns(CallRow),
    Index("calls_by_id", "call_id", unique=True),
    *(
        Index(f"calls_by_{name}", name)
        for name in (
            *("started_at", "caller_key", "uniqueid", "campaign", "status"),
            *("disposition", "lead_id", "vicidial_call_id"),
        )
    ),
)
turns: Final = Table("turns", metadata, *_columns(TurnRow, "call_id", "turn"))
events: Final = Table(
    "events",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    *_columns(EventRow),
    Index("events_by_call", "call_id"),
)
words: Final = Table(
    "words",
    metadata,
    Column("call_id", String(_LENGTHS["call_id"]), primary_key=True),
    Column("text", _TEXT, nullable=False),
)
version: Final = Table(
    "records_version", metadata, Column("version", Integer, primary_key=True)
)
TABLES: Final = {CallRow: calls, TurnRow: turns, EventRow: events}


def plain_words(text: str) -> str:
    """Words in lower case without accents, a space before and after each."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    kept = "".join(c for c in decomposed if not unicodedata.combining(c))
    return f" {' '.join(_WORD.findall(kept))} "
