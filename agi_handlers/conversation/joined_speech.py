"""Parts of one turn that a pause had parted, made one again; pure."""

from __future__ import annotations

from typing import Final

from model.speech import Utterance

_SILENCE_MS: Final = 200  # between two parts: a short pause, as it was
_MAX_S: Final = 30  # one encoder window; a longer turn keeps its newest part


def join(first: Utterance | None, second: Utterance | None) -> Utterance:
    """Two parts of one turn, with a short silence between; one of them is there."""
    if first is None or second is None:
        only = first or second
        assert only is not None
        return only
    assert first.rate_hz == second.rate_hz
    bytes_per_ms = 2 * second.rate_hz // 1000
    joined = first.pcm16 + bytes(_SILENCE_MS * bytes_per_ms) + second.pcm16
    most = _MAX_S * 1000 * bytes_per_ms
    return Utterance(
        joined[-most:] if len(joined) > most else joined,
        second.rate_hz,
        first.started_ms,
        second.ended_ms,
    )
