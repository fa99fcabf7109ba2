"""What is logged and counted of each reply."""

from __future__ import annotations

import logging

from model.speech import ReplyDone
from telemetry import RESPONSE_DELAY, TURNS, fields

logger = logging.getLogger(__name__)


def reply_started(turn: int, delay_s: float) -> int:
    """Its first sound, so long after the caller's last; returns milliseconds."""
    RESPONSE_DELAY.observe(delay_s)
    delay_ms = round(delay_s * 1000)
    logger.info("reply_started", extra=fields(turn=turn, response_delay_ms=delay_ms))
    return delay_ms


def reply_done(turn: int, done: ReplyDone) -> None:
    """All of it was computed."""
    TURNS.labels(result="answered").inc()
    timings, usage = done.timings, done.usage
    logger.info(
        "turn",
        extra=fields(
            turn=turn,
            finish=done.finish_reason,
            queue_ms=round(timings.queue_ms),
            encode_ms=round(timings.encode_ms),
            first_token_ms=round(timings.first_token_ms),
            first_audio_ms=round(timings.first_audio_ms),
            tokens=usage.completion_tokens,
            audio_tokens=usage.audio_tokens,
        ),
    )
