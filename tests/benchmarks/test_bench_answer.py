"""The benchmark of who answered: its made calls, and its scores."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.answers import SHORT, Spoken, Voices, make_calls
from benchmarks.bench_answer import run_call, summary, written
from model.vad.detector import load_detector


def _voices() -> Voices:
    """Hum that pauses, in place of voices: nothing has to be spoken for it."""
    voices = Voices.__new__(Voices)
    at_s = np.arange(4000) / 8000
    wave = (0.1 * np.sin(2 * np.pi * 150 * at_s)).astype(np.float32)
    voices.spoken = [Spoken("hum", text, wave) for text in SHORT]
    voices.human = []
    return voices


@pytest.mark.slow
def test_every_kind_that_the_voices_allow_is_made_with_its_truth() -> None:
    calls = list(make_calls(_voices(), 1, seed=3))
    truths = {call.kind: call.truth for call in calls}
    assert truths["short answer"] == "person"
    assert truths["answering fax"] == "fax"
    assert truths["network tones"] == "no_service"
    assert truths["nobody speaks"] == "unsure"
    assert "greeting and beep" not in truths  # nobody here can say one
    assert all(len(call.pcm16) == 32 * 16_000 for call in calls)
    again = list(make_calls(_voices(), 1, seed=3))
    assert [call.pcm16 for call in again] == [call.pcm16 for call in calls]


def test_scores_are_counted() -> None:
    detector = load_detector("webrtc")
    wanted = ("answering fax", "network tones", "nobody speaks")
    calls = [c for c in make_calls(_voices(), 1, seed=3) if c.kind in wanted]
    report = summary([run_call(call, detector, written) for call in calls])
    assert report["num_machines"] == 2
    assert report["num_people"] == 0
    assert report["persons_lost_pct"] == 0.0
    assert set(report["verdicts"]) == set(wanted)
