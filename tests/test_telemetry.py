"""Log lines: the call's context on each, nothing forged, numbers masked."""

from __future__ import annotations

import json
import logging
import os
import time

import pytest

from telemetry import (
    JsonFormatter,
    TextFormatter,
    UnblockedHandler,
    call_context,
    fields,
    mask_number,
)


def record(event: str, **values: object) -> logging.LogRecord:
    made = logging.LogRecord("t", logging.INFO, __file__, 1, event, None, None)
    for key, value in fields(**values).items():
        setattr(made, key, value)
    return made


def test_json_line_carries_the_calls_context_and_the_events_fields() -> None:
    with call_context(call_id="abc"):
        line = json.loads(JsonFormatter().format(record("turn", turn=3)))
    assert (line["event"], line["call_id"], line["turn"]) == ("turn", "abc", 3)
    after = json.loads(JsonFormatter().format(record("turn")))
    assert "call_id" not in after


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_a_callers_name_cannot_forge_a_log_line(formatter: logging.Formatter) -> None:
    name = "Eve\n2026-01-01 ERROR forged\x1b[2J\u2028x"
    line = formatter.format(record("call_started", name=name))
    assert "\n" not in line
    assert "\x1b" not in line
    assert "\u2028" not in line


def test_endless_field_is_cut() -> None:
    assert len(TextFormatter().format(record("x", text="a" * 100_000))) < 1000


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("+1 (727) 555-1212", "+* (***) ***-**12"),
        ("7275551212", "********12"),
        ("8901", "8901"),
        ("", ""),
        ("anonymous", "anonymous"),
    ],
)
def test_telephone_numbers_are_masked_but_short_extensions_are_not(
    number: str, shown: str
) -> None:
    assert mask_number(number) == shown


def test_a_log_pipe_that_nobody_reads_stops_no_one() -> None:
    """A pipe holds 64 KiB; what is more waits, then is dropped and said so."""
    reader, writer = os.pipe()
    handler = UnblockedHandler(writer, max_unwritten=100)
    handler.setFormatter(JsonFormatter())
    for number in range(5000):
        handler.emit(record("x", number=number))
    logged = b""
    while b"log_lines_dropped" not in logged:  # reading it again frees the thread
        logged += os.read(reader, 1 << 16)
        handler.emit(record("y"))
        time.sleep(0)
    handler.close()
    os.close(writer)
    while more := os.read(reader, 1 << 16):
        logged += more
    os.close(reader)
    lines = [json.loads(line) for line in logged.decode().splitlines()]
    dropped = sum(one["lines"] for one in lines if one["event"] == "log_lines_dropped")
    numbers = [one["number"] for one in lines if one["event"] == "x"]
    assert numbers == sorted(numbers)
    assert len(numbers) + dropped >= 5000


def test_lines_are_written_before_the_end() -> None:
    reader, writer = os.pipe()
    handler = UnblockedHandler(writer)
    handler.setFormatter(JsonFormatter())
    handler.emit(record("last_words"))
    handler.close()
    os.close(writer)
    assert b"last_words" in os.read(reader, 1000)
    os.close(reader)


def test_a_log_that_has_been_closed_is_no_fault() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    handler = UnblockedHandler(writer)
    handler.setFormatter(TextFormatter())
    handler.emit(record("nobody_reads"))
    handler.close()
    os.close(writer)
