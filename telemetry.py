"""What the operator sees: log lines with a call's context, and every metric.

A log line is an event name and fields: `logger.info("call_ended", extra=fields(...))`.
The fields of the call it belongs to are added from a context variable.  Telephone
numbers are masked by `mask_number` before they reach a log; what was said never does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final, Literal

from prometheus_client import Counter, Gauge, Histogram

_call_fields: ContextVar[Mapping[str, object]] = ContextVar(
    "call_fields",
    default={},  # noqa: B039 - never mutated, only replaced
)
_FIELDS = "voicebot_fields"
# Control characters would let a caller's name forge a log line or move a cursor.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_MAX_FIELD_CHARS = 500  # a field longer than this is somebody's accident or attack
_MAX_UNWRITTEN_LINES: Final = 10_000
_LAST_LINES_S: Final = 2.0  # at the end of the process, for what is not written yet


def fields(**values: object) -> dict[str, object]:
    """`extra=` for a log call: the event's own fields."""
    return {_FIELDS: values}


@contextmanager
def call_context(**values: object) -> Iterator[None]:
    """Add fields to every log line of this task and the tasks it starts."""
    token = _call_fields.set({**_call_fields.get(), **values})
    try:
        yield
    finally:
        _call_fields.reset(token)


def mask_number(number: str) -> str:
    """A telephone number with all but its last two digits hidden."""
    digits = sum(c.isdigit() for c in number)
    if digits < 5:
        return number
    shown = 0
    out = []
    for char in reversed(number):
        if char.isdigit():
            shown += 1
            out.append(char if shown <= 2 else "*")
        else:
            out.append(char)
    return "".join(reversed(out))


def clean(value: object) -> object:
    """A field's value fit for one log line: no control characters, bounded."""
    if isinstance(value, str):
        text = _CONTROL.sub("?", value)
        return text if len(text) <= _MAX_FIELD_CHARS else text[:_MAX_FIELD_CHARS] + "…"
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return clean(str(value))


def _record_fields(record: logging.LogRecord) -> dict[str, object]:
    merged = {**_call_fields.get(), **getattr(record, _FIELDS, {})}
    return {key: clean(value) for key, value in merged.items()}


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "logger": record.name,
            "event": clean(record.getMessage()),
            **_record_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """Time, level, event, then key=value; for people at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        parts = [
            f"{stamp}.{int(record.msecs):03d}",
            f"{record.levelname:<7}",
            str(clean(record.getMessage())),
        ]
        for key, value in _record_fields(record).items():
            text = str(value)
            parts.append(f"{key}={json.dumps(text) if ' ' in text else text}")
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class UnblockedHandler(logging.Handler):
    """Writes lines from a thread of its own.

    A log pipe that nobody reads, or a disk that hangs, stops the thread, never a call:
    lines wait, and from `max_unwritten` on they are dropped and counted.
    """

    def __init__(self, fd: int, max_unwritten: int = _MAX_UNWRITTEN_LINES) -> None:
        super().__init__()
        # Not sys.stderr: a blocked thread that holds its lock aborts the process's end.
        self._fd = fd
        self._lines: queue.Queue[str | None] = queue.Queue(max_unwritten)
        self._num_dropped = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line; the call's fields are only known here, in its own task."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._num_dropped += 1
            LOG_LINES_DROPPED.inc()
        except Exception:  # noqa: BLE001 - as every handler: a bad line is no fault
            self.handleError(record)

    def close(self) -> None:
        """Write what waits, briefly; logging calls this at the end."""
        if self._thread.is_alive():
            with suppress(queue.Full):
                self._lines.put(None, timeout=_LAST_LINES_S)
                self._thread.join(_LAST_LINES_S)
        super().close()

    def _run(self) -> None:
        num_reported = 0
        while (line := self._lines.get()) is not None:
            num_dropped = self._num_dropped
            if num_dropped > num_reported:
                line += "\n" + self._dropped(num_dropped - num_reported)
                num_reported = num_dropped
            rest = (line + "\n").encode(errors="replace")
            with suppress(OSError):  # the reader has gone
                while rest:
                    rest = rest[os.write(self._fd, rest) :]

    def _dropped(self, num_lines: int) -> str:
        about = {_FIELDS: {"lines": num_lines}, "levelname": "WARNING"}
        return self.format(
            logging.makeLogRecord(
                {"name": __name__, "msg": "log_lines_dropped", **about}
            )
        )


def set_up_logging(
    level: str = "INFO", log_format: Literal["text", "json"] = "text"
) -> None:
    """Send the process's log to standard error in one form; called once."""
    out = UnblockedHandler(sys.stderr.fileno())
    out.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [out]
    root.setLevel(level)
    # their INFO is a line for every request; ours are a dozen a call
    for noisy in ("httpx", "httpcore", "websockets", "uvicorn.access", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


# Metrics: one list, unit suffixes, buckets around the quality bars.

_TURN_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.5, 2.0, 4.0, 8.0)
_FAST_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)

CALLS = Counter("voicebot_calls_total", "Calls by how they ended", ["outcome"])
CALLS_NOW = Gauge("voicebot_calls_in_progress", "Calls in progress")
CALLS_ALLOWED = Gauge("voicebot_max_calls", "Calls at once that are let in")
CALLS_REFUSED = Counter(
    "voicebot_calls_refused_total", "Calls not taken, by reason", ["reason"]
)
TURNS = Counter("voicebot_turns_total", "Caller turns answered, by result", ["result"])
RESPONSE_DELAY = Histogram(
    "voicebot_response_delay_seconds",
    "End of the caller's speech to the first frame of the reply",
    buckets=_TURN_BUCKETS,
)
BARGE_IN_STOP = Histogram(
    "voicebot_barge_in_stop_seconds",
    "Caller's first voiced sample to the bot's last frame",
    buckets=_FAST_BUCKETS,
)
ANSWERED_BY = Counter(
    "voicebot_answered_by_total",
    "Calls of ours by who answered, as far as it was known, and how it was known",
    ["who", "reason"],
)
TTS_FALLBACKS = Counter(
    "voicebot_tts_fallbacks_total", "Texts another voice had to speak than was chosen"
)
BARGE_INS = Counter("voicebot_barge_ins_total", "Times a caller interrupted the bot")
BARGE_INS_UNDONE = Counter(
    "voicebot_barge_ins_undone_total",
    "Times the bot went on with what it had stopped saying: a cough, a noise",
)
ECHOES = Counter(
    "voicebot_echoes_total", "Times the bot's own echo was kept from interrupting it"
)
FRAMES_LATE = Counter(
    "voicebot_frames_late_total", "Audio frames sent more than 10 ms after their time"
)
FRAME_LATENESS = Histogram(
    "voicebot_frame_lateness_seconds",
    "How late a 20 ms tick of the audio wheel ran",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5),
)
FIRST_TOKEN = Histogram(
    "voicebot_first_token_seconds",
    "Request at the engine to its first token",
    buckets=_FAST_BUCKETS,
)
FIRST_AUDIO = Histogram(
    "voicebot_first_audio_seconds",
    "Request at the speech half to the first sample of the reply",
    buckets=_TURN_BUCKETS,
)
REPLY_TOKENS = Counter("voicebot_reply_tokens_total", "Tokens generated")
RESTARTS = Counter(
    "voicebot_restarts_total", "Halves replaced because they failed", ["half", "reason"]
)
ERRORS = Counter("voicebot_errors_total", "Faults by kind", ["kind"])
LOG_LINES_DROPPED = Counter(
    "voicebot_log_lines_dropped_total", "Log lines lost because nobody read them"
)
VICIDIAL = Counter(
    "voicebot_vicidial_total",
    "What VICIdial was told, by what became of it: ok, later, failed",
    ["duty", "result"],
)
# With labels, so that a process without an engine shows none of them.
ENGINE_REQUESTS = Gauge(
    "voicebot_engine_requests", "Replies running and waiting", ["state"]
)
KV_BYTES = Gauge("voicebot_kv_bytes", "Memory for dialogues, all and used", ["state"])
SESSIONS_NOW = Gauge("voicebot_sessions", "Dialogues open at the speech half")
TASKS = Gauge("voicebot_tasks", "Asyncio tasks of the process's event loop")


def count_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """From now on the metric is of this loop."""
    TASKS.set_function(lambda: len(asyncio.all_tasks(loop)))
