"""Spans of calls and turns, by the in-memory exporter and over the wire."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agi_handlers.call_records import unrecorded
from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.records.rows import CallRow, EventRow, Row, TurnRow, discard
from agi_handlers.turn_traces import TracesUnavailable, TurnTraces, otlp_traces

CALL = CallRow("c1", started_at=1000.0, campaign="sales", caller="5551234567")
TURN = TurnRow(
    *("c1", 2, "reply"),
    said_kind="speech",
    said_text="my name is Ada",
    speech_ended_ms=3000,
    asked_ms=3100,
    released_ms=3400,
    first_token_ms=50.0,
    first_audio_ms=120.0,
    played_ms=3450,
    ended_ms=5000,
    reply_text="Hello Ada",
    fate="heard",
)


def spans_of(*rows: Row) -> list[ReadableSpan]:
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    passed_on: list[Row] = []
    sink = TurnTraces(provider.get_tracer("x")).follow(CALL, passed_on.append)
    for row in rows:
        sink(row)
    provider.shutdown()
    assert passed_on == list(rows)
    return list(memory.get_finished_spans())


def test_turn_is_a_span_below_its_call_with_its_stages() -> None:
    answered = replace(CALL, answered_at=1001.0)
    ended = replace(answered, ended_at=1010.0, status="completed", num_turns=2)
    turn, call = spans_of(
        answered, replace(TURN, fate=""), TURN, EventRow("c1", 4000, "barge_in"), ended
    )
    assert (turn.name, call.name) == ("turn", "call")
    assert turn.parent is not None
    assert call.context is not None
    assert turn.parent.span_id == call.context.span_id
    assert (call.start_time, call.end_time) == (1000 * 10**9, 1010 * 10**9)
    assert (turn.start_time, turn.end_time) == (1004 * 10**9, 1006 * 10**9)
    assert turn.attributes is not None
    assert turn.attributes["voicebot.response_ms"] == 450
    at_ms = {e.name: e.timestamp // 10**6 - 1_001_000 for e in turn.events}
    assert at_ms == {
        "speech ended": 3000,
        "asked": 3100,
        "first token": 3150,
        "first audio": 3220,
        "released": 3400,
        "played": 3450,
    }
    assert [event.name for event in call.events] == ["barge_in"]


def test_row_written_again_makes_no_second_span() -> None:
    later = replace(TURN, said_text="my name is Eda")
    ended = replace(CALL, ended_at=1010.0)
    assert [span.name for span in spans_of(TURN, later, ended)] == ["turn", "call"]


def test_nothing_said_and_no_number_is_in_a_span() -> None:
    ended = replace(CALL, ended_at=1010.0, status="failed", error="SpeechLost: gone")
    told = "".join(span.to_json() for span in spans_of(TURN, ended))
    assert "Ada" not in told
    assert "5551234567" not in told
    assert "SpeechLost" in told


def test_call_that_never_talked_is_a_span() -> None:
    record = unrecorded(CALL)
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    record.sink = TurnTraces(provider.get_tracer("x")).follow(CALL, discard)
    record.ended(CallOutcome("refused", "busy"))
    (span,) = memory.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["voicebot.reason"] == "busy"


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Takes what an OTLP exporter posts."""
    bodies: list[bytes] = []

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Take) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", bodies
        finally:
            server.shutdown()
            thread.join()


def test_spans_reach_a_collector_before_the_process_ends() -> None:
    with collector() as (url, bodies):
        with otlp_traces(url, "bot:4573") as traces:
            traces.follow(CALL, discard)(replace(CALL, ended_at=1010.0))
        assert bodies
    assert b"ultravox-bot" in b"".join(bodies)


def test_without_the_packages_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with (
        pytest.raises(TracesUnavailable, match="pip install"),
        otlp_traces("http://127.0.0.1:9/v1/traces", "x"),
    ):
        pass
