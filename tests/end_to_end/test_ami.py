"""Barge-in in recorded turns: Asterisk's manager tells that the caller talks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.asterisk_lab import Asterisk
from tests.end_to_end.bot_service import CAMPAIGNS, BotService
from tests.end_to_end.conftest import Measured
from tests.end_to_end.sip_caller import SipCall
from tools.caller.say_items import recording

pytestmark = [pytest.mark.asterisk, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def listening_service(tmp_path: Path, asterisk: Asterisk) -> Iterator[BotService]:
    """A service that reads this Asterisk's manager, and one that never answers."""
    addresses = f"127.0.0.1:{asterisk.ami_port},127.0.0.1:1"
    settings = {
        "AMI_ADDRESSES": addresses,
        "AMI_USER": "bot",
        "AMI_PASSWORD": "listens",
        "MEDIA": "recorded_turns",
        "CAMPAIGNS_DIR": str(tmp_path / "personas"),
    }
    (tmp_path / "personas").mkdir()
    greeting = CAMPAIGNS["talkative"]["greeting"]
    persona = f'[phrases]\ngreeting = "{greeting}"\n'
    (tmp_path / "personas/default.toml").write_text(persona)
    with BotService.running(tmp_path, settings=settings) as service:
        yield service


async def _until_told(service: BotService, event: str, num: int = 1) -> None:
    async with asyncio.timeout(20):
        while len(service.events(event)) < num:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


async def test_talking_over_recorded_turns_silences_the_bot_and_is_answered(
    asterisk: Asterisk, listening_service: BotService, measured: Measured
) -> None:
    service = listening_service
    await _until_told(service, "ami_connected")
    async with SipCall(asterisk.sip_port, f"at*{service.agi_port}") as call:
        begun = await call.happened("heard-start", timeout_s=30)
        await asyncio.sleep(2.0)
        assert call.ear.is_hearing, "the greeting ended by itself"
        call.do(recording(asterisk.recording("vm-calldiffnum")))
        said = await call.happened("said-start", after_s=begun.at_s)
        stopped = await call.happened("heard-end", after_s=said.at_s - 0.5, timeout_s=5)
        assert said.value is not None
        measured("stop time, recorded_turns by TALK_DETECT", stopped.at_s - said.value)
        ended = await call.happened("said-end", after_s=said.at_s)
        await call.happened("heard-start", after_s=ended.at_s, timeout_s=20)
        assert call.is_up


async def test_a_manager_that_goes_away_hurts_no_call_and_is_found_again(
    asterisk: Asterisk, listening_service: BotService
) -> None:
    if asterisk.version == 16:
        pytest.skip("Asterisk 16 has no command that ends a manager's session")
    service = listening_service
    await _until_told(service, "ami_connected")
    async with SipCall(asterisk.sip_port, f"at*{service.agi_port}") as call:
        await call.happened("heard-start", timeout_s=30)
        for line in asterisk.cli("manager show connected").splitlines():
            if line.split()[:1] == ["bot"]:
                asterisk.cli(f"manager kick session {line.split()[4]}")
        await _until_told(service, "ami_connected", 2)
        assert call.ear.is_hearing
        assert call.is_up
