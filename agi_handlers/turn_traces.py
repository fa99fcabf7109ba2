"""OpenTelemetry: a span a call, below it a span a turn, with the turn's stages.

    call ───────────────────────────────────────────────
      turn 1 (greeting) ────
      turn 2  speech ended · asked · first token · first audio · released · played ──

Made from the rows of the call's record, so both tell the same.  What was said is in no
span, nor is a telephone number.  The packages are an optional extra:

    .venv/bin/pip install -r requirements-otel.txt
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agi_handlers.records.rows import CallRow, EventRow, Row, Sink, TurnRow
from telemetry import fields

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

logger = logging.getLogger(__name__)

_FLUSH_MS = 2000  # at the end of the process, for the spans that wait


class TracesUnavailable(Exception):
    """Traces are wanted, and their packages are not installed."""


class TurnTraces:
    """Makes the spans of calls with a tracer."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def follow(self, call: CallRow, rows: Sink) -> Sink:
        """A sink that hands rows on, and makes a span of each finished turn."""
        followed = _FollowedCall(self._tracer, call)

        def take(row: Row) -> None:
            rows(row)
            followed.take(row)

        return take


class _FollowedCall:
    def __init__(self, tracer: Tracer, call: CallRow) -> None:
        # not at the top of the module: the extra may not be installed
        from opentelemetry import trace

        self._tracer = tracer
        self._answered_at = call.started_at
        self._last_at = call.started_at
        self._done: set[int] = set()
        self._span: Span = tracer.start_span("call", start_time=_ns(call.started_at))
        self._context: Context = trace.set_span_in_context(self._span)
        self._span.set_attributes(
            {
                "voicebot.call_id": call.call_id,
                "voicebot.campaign": call.campaign,
                "voicebot.model": call.model,
                "voicebot.language": call.language,
                "voicebot.uniqueid": call.uniqueid,
            }
        )

    def take(self, row: Row) -> None:
        match row:
            case CallRow():
                self._take_call(row)
            case TurnRow() if row.fate and row.turn not in self._done:
                self._done.add(row.turn)
                self._take_turn(row)
            case EventRow():
                self._span.add_event(
                    f"{row.kind} {row.name}".strip(), timestamp=self._at_ns(row.at_ms)
                )
            case _:
                pass

    def _take_call(self, row: CallRow) -> None:
        self._answered_at = row.answered_at or self._answered_at
        if row.ended_at is None:
            return
        self._span.set_attributes(
            {
                "voicebot.leg": row.leg,
                "voicebot.status": row.status,
                "voicebot.reason": row.reason,
                "voicebot.disposition": row.disposition,
                "voicebot.turns": row.num_turns,
                "voicebot.barge_ins": row.num_barge_ins,
            }
        )
        if row.error:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, row.error))
        self._span.end(end_time=_ns(row.ended_at))

    def _take_turn(self, row: TurnRow) -> None:
        starts_ms = row.asked_ms if row.speech_ended_ms is None else row.speech_ended_ms
        starts_ms = min(starts_ms, row.asked_ms)  # asked before the end was sure
        ends_ms = max(starts_ms, row.asked_ms, row.ended_ms or 0, row.played_ms or 0)
        span = self._tracer.start_span(
            "turn", context=self._context, start_time=self._at_ns(starts_ms)
        )
        span.set_attributes(
            {
                "voicebot.turn": row.turn,
                "voicebot.source": row.source,
                "voicebot.phrase": row.phrase,
                "voicebot.fate": row.fate,
                "voicebot.said_ms": row.said_ms,
                "voicebot.heard_ms": row.heard_ms,
                "voicebot.queue_ms": row.queue_ms,
                "voicebot.encode_ms": row.encode_ms,
                "voicebot.prompt_tokens": row.prompt_tokens,
                "voicebot.cached_tokens": row.cached_tokens,
                "voicebot.completion_tokens": row.completion_tokens,
            }
        )
        if row.speech_ended_ms is not None and row.played_ms is not None:
            span.set_attribute(
                "voicebot.response_ms", row.played_ms - row.speech_ended_ms
            )
        for name, at_ms in _stages(row):
            span.add_event(name, timestamp=self._at_ns(at_ms))
        span.end(end_time=self._at_ns(ends_ms))

    def _at_ns(self, at_ms: float) -> int:
        return _ns(self._answered_at + at_ms / 1000)


def _stages(row: TurnRow) -> Iterator[tuple[str, float]]:
    """The moments of a turn that are known, in milliseconds since the answer."""
    if row.speech_ended_ms is not None:
        yield "speech ended", row.speech_ended_ms
    yield "asked", row.asked_ms
    if row.first_token_ms:
        yield "first token", row.asked_ms + row.first_token_ms
    if row.first_audio_ms:
        yield "first audio", row.asked_ms + row.first_audio_ms
    if row.released_ms is not None:
        yield "released", row.released_ms
    if row.played_ms is not None:
        yield "played", row.played_ms


def _ns(at_s: float) -> int:
    return round(at_s * 1e9)


@contextmanager
def otlp_traces(url: str, name: str) -> Iterator[TurnTraces]:
    """Spans go to an OTLP/HTTP endpoint, from a thread, for as long as the block lasts.

    Raises:
        TracesUnavailable: the packages are not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        raise TracesUnavailable(
            f"ULTRAVOX_OTLP_URL needs: pip install -r requirements-otel.txt ({exc})"
        ) from exc
    resource = Resource.create({"service.name": "ultravox-bot", "host.name": name})
    provider = TracerProvider(resource=resource)
    exporter = OTLPSpanExporter(endpoint=url, timeout=5)
    # a collector that is down costs spans, never a call: the queue is bounded
    provider.add_span_processor(BatchSpanProcessor(exporter))
    logger.info("traces", extra=fields(url=url))
    try:
        yield TurnTraces(provider.get_tracer("voicebot"))
    finally:
        provider.force_flush(_FLUSH_MS)
        provider.shutdown()
