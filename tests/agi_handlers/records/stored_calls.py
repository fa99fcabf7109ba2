"""Call records for tests of whoever reads them, made by the writer itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agi_handlers.call_records import CallRecords, RecordsOptions, records_path
from agi_handlers.records.rows import CallRow, EventRow, Row, TurnRow
from agi_handlers.records.store import StoreOptions

T0 = 1_700_000_000.0

_FIRST = CallRow(
    "call-1",
    T0,
    uniqueid="1700000000.1",
    caller="+1 (212) 555-0187",
    extension="8901",
    campaign="sales",
    model="demo",
    leg="audiosocket",
    answered_at=T0 + 0.1,
    ended_at=T0 + 20.0,
    status="transfer",
    reason="model_asked",
    disposition="XFER",
    transfer_to="8600",
    num_turns=1,
    num_barge_ins=1,
)
_SECOND = replace(
    _FIRST,
    call_id="call-2",
    uniqueid="1700000100.2",
    started_at=T0 + 100,
    answered_at=T0 + 100,
    ended_at=T0 + 130,
    caller="3105550123",
    campaign="support",
    status="completed",
    reason="model_ended",
    disposition="",
    transfer_to="",
    vicidial_call_id="V1120000000000004711",
    lead_id="4711",
)
_RUNNING = replace(
    _SECOND,
    call_id="call-3",
    started_at=T0 + 200,
    ended_at=None,
    status="",
    lead_id="",
    vicidial_call_id="",
)
_GREETING = TurnRow(
    "call-1",
    1,
    "phrase",
    phrase="greeting",
    released_ms=0,
    played_ms=30,
    ended_ms=2000,
    reply_text="Hello.",
    heard_text="Hello.",
    heard_ms=1900,
    fate="heard",
)
_REPLY = TurnRow(
    "call-1",
    2,
    "reply",
    said_kind="speech",
    said_text="When do you close?",
    said_ms=1400,
    speech_ended_ms=4000,
    asked_ms=4200,
    released_ms=4400,
    played_ms=4450,
    ended_ms=6000,
    reply_text="We are 100% open <b>now</b>.",
    heard_text="We are",
    heard_ms=500,
    fate="interrupted",
    queue_ms=1.0,
    encode_ms=20.0,
    first_token_ms=60.0,
    first_audio_ms=120.0,
    total_ms=400.0,
    finish_reason="stop",
    completion_tokens=8,
)
ROWS: Sequence[Row] = (
    *(_FIRST, _SECOND, _RUNNING),
    *(_GREETING, _REPLY),
    replace(_REPLY, call_id="call-2", played_ms=4900, reply_text="=1+1 is two."),
    EventRow("call-1", 5000, "barge_in"),
)


def store(data_dir: Path, rows: Sequence[Row] = ROWS) -> Path:
    """Put rows into a folder's records; the records file."""
    path = records_path(data_dir)
    keeper = CallRecords(RecordsOptions(StoreOptions(data_dir), days=0))
    with keeper.running():
        for row in rows:
            if isinstance(row, CallRow):
                keeper.open_call(row)
            else:
                keeper.put(row)
    return path
