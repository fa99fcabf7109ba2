"""Who answers a call of ours: a recorded greeting and a beep, real Asterisk."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.asterisk_lab import Asterisk
from tests.end_to_end.bot_service import BotService
from tests.end_to_end.sip_caller import SipCall
from tools.caller.say_items import recording

pytestmark = [pytest.mark.asterisk, pytest.mark.slow, pytest.mark.timeout(180)]

PERSONA = """
[answering]
machine = "leave_message"
message = "Please call us back. Goodbye."
"""


@pytest.fixture
def asking_service(tmp_path: Path) -> Iterator[BotService]:
    """A service whose persona wants to know who answers."""
    (tmp_path / "personas").mkdir()
    (tmp_path / "personas/default.toml").write_text(PERSONA)
    settings = {"CAMPAIGNS_DIR": str(tmp_path / "personas")}
    with BotService.running(tmp_path, settings=settings) as service:
        yield service


async def test_a_machine_gets_its_message_and_a_person_his_greeting(
    asterisk_22: Asterisk, asking_service: BotService
) -> None:
    """One after the other: starting a service takes longer than both calls."""
    service, asterisk = asking_service, asterisk_22
    async with SipCall(asterisk.sip_port, f"at*{service.agi_port}") as call:
        await asyncio.sleep(0.5)
        call.do(recording(asterisk.recording("vm-intro")))
        spoken = await call.happened("said-end", timeout_s=15)
        call.do(recording(asterisk.recording("beep")))
        beeped = await call.happened("said-end", after_s=spoken.at_s, timeout_s=5)
        message = await call.happened("heard-start", timeout_s=20)
        assert message.at_s > beeped.at_s
        ended = await call.happened("remote-hung-up", timeout_s=20)
        assert ended.at_s - message.at_s > 1.5  # the message was heard
    found = [(e["who"], e["reason"]) for e in service.events("answered_by")]
    assert found[-1] == ("machine", "beep")
    assert service.events("call_ended")[-1]["disposition"] == "AL"

    async with SipCall(asterisk.sip_port, f"at*{service.agi_port}") as call:
        await asyncio.sleep(0.5)
        call.do(recording(asterisk.recording("hello")))
        said = await call.happened("said-end", timeout_s=10)
        greeting = await call.happened("heard-start", timeout_s=10)
        assert said.value is not None
        assert greeting.at_s > said.value
        assert call.is_up
    last = service.events("answered_by")[-1]
    assert (last["who"], last["reason"]) == ("person", "short_answer")
