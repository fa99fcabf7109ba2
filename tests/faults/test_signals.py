"""Each process is killed, stopped, told to end and to reload, at each stage of a call.

Four calls are at four stages when the signal comes:

    thinking   |greeting|  |caller's words|.......^
    speaking   |greeting|  |caller's words|  |reply^
    listening            |greeting|  |caller's wor^
    greeting                             |greetin^
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.end_to_end.bot_service import BotService
from tests.fakes.model_server import FaultyModel
from tests.faults.callers import QUESTION, Heard, faulty_campaigns, heard, item

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

_SIGNAL_AT_S: Final = 6.0
_DRAIN_S: Final = 5
# Stage -> seconds after the first call, and the persona.
_STAGES: Final = {
    "thinking": (0.0, "slow"),
    "speaking": (0.0, "endless"),
    "listening": (3.2, "default"),
    "greeting": (5.0, "default"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A signal to one of the processes and what callers may count on."""

    process: str
    signal: signal.Signals
    may_fail: bool
    """Calls may end with people; else each goes on until its caller hangs up."""
    longest_wait_s: float
    """Nobody hears nothing for longer."""


# What is frozen shows by its silence only.  A phone half is watched, and killed for
# it; for a speech half there is a filler, the time-out of a reply, and people.
CASES: Final = {
    "supervisor": (
        Case("supervisor", signal.SIGKILL, may_fail=True, longest_wait_s=4.0),
        Case("supervisor", signal.SIGTERM, may_fail=True, longest_wait_s=6.0),
        Case("supervisor", signal.SIGHUP, may_fail=False, longest_wait_s=4.0),
    ),
    "phone": (
        Case("phone", signal.SIGKILL, may_fail=True, longest_wait_s=4.0),
        Case("phone", signal.SIGSTOP, may_fail=True, longest_wait_s=8.0),
    ),
    "speech": (
        Case("speech", signal.SIGKILL, may_fail=True, longest_wait_s=6.0),
        Case("speech", signal.SIGTERM, may_fail=True, longest_wait_s=6.0),
        Case("speech", signal.SIGHUP, may_fail=False, longest_wait_s=4.0),
        Case("speech", signal.SIGSTOP, may_fail=True, longest_wait_s=10.0),
    ),
}
_DEADLY: Final = (signal.SIGKILL, signal.SIGSTOP)


@pytest.fixture
async def model() -> AsyncIterator[FaultyModel]:
    async with FaultyModel() as model:
        yield model


async def _call(service: BotService, stage: str) -> Heard:
    after_s, persona = _STAGES[stage]
    await asyncio.sleep(after_s)
    # fillers and trouble are heard out; whoever is well served leaves after a while
    says = (*QUESTION, "wait:200,6", "bye")
    return await heard(service, says, campaign=persona, linger_s=15.0)


def _send(service: BotService, case: Case) -> None:
    if case.process == "supervisor":
        os.kill(service.pid, case.signal)
        return
    is_phone = case.process == "phone"
    for process in service.phone_halves() if is_phone else service.speech_halves():
        process.send_signal(case.signal)


def _loses_calls(case: Case) -> bool:
    """The process that holds the calls can't say anything any more."""
    return case.process != "speech" and case.signal in _DEADLY


def _problems(case: Case, stage: str, call: Heard) -> list[str]:
    found = list(call.report.errors)
    if call.longest_wait_s > case.longest_wait_s:
        found.append(f"nothing heard for {call.longest_wait_s:.1f} s")
    if call.status == "hangup":
        pass  # served until he left
    elif not case.may_fail:
        found.append(f"ended with {call.status}")
    elif call.is_well_ended:
        found.append(f"nobody takes the caller of a call that ended {call.status}")
    if _loses_calls(case):
        if call.status:
            found.append(f"a dead process has set {call.status}")
    elif call.record is None or call.record["ended_at"] is None:
        found.append("has no whole record")
    return [f"{case.process} {case.signal.name}, {stage}: {one}" for one in found]


async def _hurt(case: Case, folder: Path, model: FaultyModel) -> list[str]:
    settings = {
        "ENGINE": "openai",
        "ENGINE_URL": model.url,
        "CAMPAIGNS_DIR": str(faulty_campaigns(folder / "faulty")),
        "DRAIN_S": str(_DRAIN_S),
        "FIRST_AUDIO_TIMEOUT_S": "6",
    }
    service = BotService.start(folder, settings=settings)
    try:
        await asyncio.to_thread(service.wait_until_ready)
        calls = [asyncio.create_task(_call(service, stage)) for stage in _STAGES]
        await asyncio.sleep(_SIGNAL_AT_S)
        _send(service, case)
        found = [
            problem
            for stage, call in zip(_STAGES, await asyncio.gather(*calls), strict=True)
            for problem in _problems(case, stage, call)
        ]
        if _loses_calls(case):
            found += await _records_afterwards(service, case, folder, settings)
        if found:
            found.append(service.log()[-3000:])
        return found
    finally:
        await asyncio.to_thread(service.stop)


async def _records_afterwards(
    service: BotService, case: Case, folder: Path, settings: dict[str, str]
) -> list[str]:
    """The next phone half closes the calls that the dead one had."""
    if case.process == "phone":  # the supervisor has started it already
        closed = [await service.logged("calls_interrupted", timeout_s=20)]
        await service.becomes("ready")
    else:
        await asyncio.to_thread(service.kill)
        again = BotService.start(folder, service.agi_port, settings)
        try:
            await asyncio.to_thread(again.wait_until_ready)
            closed = again.events("calls_interrupted")
        finally:
            await asyncio.to_thread(again.stop)
    if [entry["calls"] for entry in closed] == [len(_STAGES)]:
        return []
    return [f"after a death, calls closed: {closed}"]


@pytest.mark.parametrize("process", CASES)
async def test_nobody_is_left_in_silence(
    process: str, tmp_path: Path, model: FaultyModel
) -> None:
    for text in (*QUESTION, "wait:200,6", "bye"):
        item(text)
    cases = CASES[process]
    folders = [tmp_path / case.signal.name for case in cases]
    for folder in folders:
        folder.mkdir()
    hurts = (_hurt(*one, model) for one in zip(cases, folders, strict=True))
    problems = [one for found in await asyncio.gather(*hurts) for one in found]
    assert not problems, "\n".join(problems)
