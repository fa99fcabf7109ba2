"""When a call is not taken, what is said of it, and what a demo says it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from agi_handlers.campaigns import Campaign, Phrases, load_campaigns
from agi_handlers.dialplan_variables import BotStatus
from agi_handlers.phone import Phone
from agi_handlers.vicidial.lead import NO_LEAD
from config import load
from model.speech import SpeechStatus, WeightsKind

ROOT = Path(__file__).resolve().parents[2]


def _phone(status: SpeechStatus, *, is_draining: bool = False) -> Phone:
    return Phone(
        settings=load({"ULTRAVOX_MAX_CALLS": "2"}),
        speech=cast("Any", None),
        legs=cast("Any", None),
        detector=cast("Any", None),
        prompts={},
        campaigns={},
        speech_status=status,
        is_draining=is_draining,
    )


_READY = SpeechStatus(True, "m", "demo", max_sessions=3, num_sessions=2)
_BUSY = SpeechStatus(True, "m", "demo", max_sessions=3, num_sessions=3)
_DOWN = SpeechStatus(False, "m", "demo", detail="loading")


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (_READY, None),
        # The model's time is taken, although lines are free: none is slowed for it.
        (_BUSY, (BotStatus.BUSY, "speech_busy")),
        (_DOWN, (BotStatus.NOT_READY, "speech_not_ready")),
    ],
)
def test_the_models_own_room_decides(
    status: SpeechStatus, refusal: tuple[BotStatus, str] | None
) -> None:
    assert _phone(status).why_not() == refusal


def test_lines_and_drains_come_before_the_model() -> None:
    phone = _phone(_BUSY)
    with phone.line(), phone.line():
        assert phone.why_not() == (BotStatus.BUSY, "all_lines_busy")
    assert phone.why_not() == (BotStatus.BUSY, "speech_busy")
    draining = _phone(_READY, is_draining=True)
    assert draining.why_not() == (BotStatus.DRAINING, "draining")


@pytest.mark.parametrize("weights", ["demo", "random", "published"])
def test_what_answers_for_want_of_a_model_says_so(weights: WeightsKind) -> None:
    phone = _phone(SpeechStatus(True, "m", weights))
    usual = Campaign(phrases=Phrases(greeting="Hello."))
    by_itself = load_campaigns(ROOT / "campaigns")["demo"]
    notice = "" if weights == "published" else "This is a demonstration. "
    assert phone.phrases_of(usual)["greeting"] == f"{notice}Hello."
    assert phone.phrases_of(by_itself)["greeting"] == by_itself.phrases.greeting
    assert phone.phrases_of(by_itself.for_lead(NO_LEAD)) == phone.phrases_of(by_itself)
