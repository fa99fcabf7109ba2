"""Log lines: the call's context on each, nothing forged, numbers masked."""

from __future__ import annotations

import json
import logging

import pytest

from telemetry import JsonFormatter, TextFormatter, call_context, fields, mask_number


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
