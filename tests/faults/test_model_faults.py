"""The model server misbehaves, through the real speech half: what callers notice.

All the faults happen to calls of one service at the same time, beside a call that has
none: it must not notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.end_to_end.bot_service import BotService
from tests.fakes.model_server import FAULTS, FaultyModel
from tests.faults.callers import QUESTION, Heard, faulty_campaigns, heard

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a caller may count on."""

    within_s: float
    """From the end of his words to the next thing he hears, or to people."""
    codes: frozenset[str] = frozenset()
    """BOT_REASON of a call that went to people; none: it was well until he hung up."""


_LATE: Final = frozenset({"unavailable", "no_reply_in_time"})
_FAILED: Final = frozenset({"generation_failed"})
# A filler is due 1.8 s after the end of speech is known; machines here are busy.
_FILLER_S: Final = 4.0
_REPLY_S: Final = 3.0

EXPECTED: Final = {
    "default": Expected(_REPLY_S),
    "slow": Expected(_FILLER_S),
    "silent": Expected(_FILLER_S, _LATE),
    "trickle": Expected(_FILLER_S, _LATE),
    "empty": Expected(_REPLY_S),
    "endless": Expected(_REPLY_S),
    "endless_word": Expected(_REPLY_S),
    "out_of_memory": Expected(_REPLY_S, _FAILED),
    "out_of_memory_midway": Expected(_REPLY_S, _FAILED),
    "breaks_off": Expected(_REPLY_S, _FAILED),
    "html": Expected(_REPLY_S, frozenset({"unavailable"})),
    "nonsense": Expected(_REPLY_S, _FAILED),
}
# Who is well served hears a second of the reply and hangs up; the others stay.
_SATISFIED: Final = (*QUESTION, "wait:200,1.0", "bye")


@pytest.fixture
async def model() -> AsyncIterator[FaultyModel]:
    async with FaultyModel() as model:
        yield model


@pytest.fixture
async def service(tmp_path: Path, model: FaultyModel) -> AsyncIterator[BotService]:
    settings = {
        "ENGINE": "openai",
        "ENGINE_URL": model.url,
        "CAMPAIGNS_DIR": str(faulty_campaigns(tmp_path / "faulty")),
        "FIRST_AUDIO_TIMEOUT_S": "4",
        "MAX_NEW_TOKENS": "40",
    }
    service = BotService.start(tmp_path, settings=settings)
    try:
        await asyncio.to_thread(service.wait_until_ready)
        yield service
    finally:
        await asyncio.to_thread(service.stop)


def _says(fault: str) -> tuple[str, ...]:
    return QUESTION if EXPECTED[fault].codes else _SATISFIED


def _problems(fault: str, call: Heard) -> list[str]:
    """What the caller, or whoever reads the record, has to complain of."""
    expected = EXPECTED[fault]
    reason = call.report.variables.get("BOT_REASON", "")
    found = list(call.report.errors)
    if call.wait_s > expected.within_s:
        found.append(f"waited {call.wait_s:.1f} s")
    if call.status != ("failed" if expected.codes else "hangup"):
        found.append(f"ended with {call.status}, {reason}")
    if call.is_well_ended == bool(expected.codes):
        found.append(f"BOT_RESULT does not go with {call.status}")
    if expected.codes and reason not in expected.codes:
        found.append(f"reason {reason}")
    if call.record is None or not call.record["status"]:
        found.append("has no whole record")
    elif reason not in str([call.record["reason"], *call.record["events"]]):
        found.append("the record does not say what went wrong")
    return [f"{fault}: {problem}" for problem in found]


async def test_each_caller_hears_something_or_reaches_people_in_time(
    service: BotService, model: FaultyModel
) -> None:
    assert EXPECTED.keys() == FAULTS.keys()
    calls = await asyncio.gather(
        *(
            heard(service, _says(fault), campaign=fault, linger_s=15.0)
            for fault in FAULTS
        )
    )
    problems = [
        problem
        for fault, call in zip(FAULTS, calls, strict=True)
        for problem in _problems(fault, call)
    ]
    assert not problems, "\n".join([*problems, service.log()[-4000:]])
    # what nobody waits for any more is given up at the model server as well
    assert model.num_abandoned["silent"] == model.num_requests["silent"]
    assert model.num_abandoned["endless"] == model.num_requests["endless"]
    # and the service is as well as before
    after = await heard(service, _SATISFIED)
    assert _problems("default", after) == []


async def test_an_endless_reply_can_be_interrupted(
    service: BotService, model: FaultyModel
) -> None:
    says = (*QUESTION, "wait:200,1.5", "say:Stop, please.", "quiet:200,0.3", "bye")
    call = await heard(service, says, campaign="endless")
    interrupted = call.report.turns[-1]
    assert interrupted.barge_in_stop_ms is not None, call.report.turns
    assert call.report.ended == "caller"
