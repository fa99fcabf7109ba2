"""The service is hurt in every way: each caller still ends up with people."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.end_to_end.asterisk_lab import Asterisk
from tests.end_to_end.bot_service import BotService
from tests.end_to_end.conftest import Measured
from tests.end_to_end.sip_caller import SipCall
from tools.caller.say_items import recording

pytestmark = [pytest.mark.asterisk, pytest.mark.slow, pytest.mark.timeout(240)]

PEOPLE_HZ = 440


async def _is_talking(call: SipCall) -> None:
    await call.happened("heard-start", timeout_s=20)


async def test_killed_in_mid_call(
    asterisk: Asterisk, own_service: BotService, measured: Measured
) -> None:
    async with SipCall(asterisk.sip_port, f"at*{own_service.agi_port}") as call:
        await _is_talking(call)
        killed_s = call.at_s
        own_service.kill()
        tone = await call.heard_tone(PEOPLE_HZ, timeout_s=20)
        measured("people after a kill of the phone half", tone.at_s - killed_s)
    await asterisk.is_empty()


async def test_port_closed_after_a_kill(
    asterisk: Asterisk, own_service: BotService
) -> None:
    own_service.kill()
    async with SipCall(asterisk.sip_port, f"at*{own_service.agi_port}") as call:
        await call.heard_tone(PEOPLE_HZ, timeout_s=10)


async def test_frozen_before_the_call(
    asterisk: Asterisk, own_service: BotService
) -> None:
    own_service.freeze()
    async with SipCall(asterisk.sip_port, f"at*{own_service.agi_port}") as call:
        await call.heard_tone(PEOPLE_HZ, timeout_s=10)
    await asterisk.is_empty()


async def test_frozen_in_mid_call(asterisk: Asterisk, own_service: BotService) -> None:
    async with SipCall(asterisk.sip_port, f"at*{own_service.agi_port}*8") as call:
        await _is_talking(call)
        own_service.freeze()
        await call.heard_tone(PEOPLE_HZ, timeout_s=30)
    await asterisk.is_empty()


async def _keep_killing_the_speech_half(service: BotService) -> None:
    while True:
        for process in service.speech_halves():
            process.kill()
        await asyncio.sleep(0.1)


async def test_speech_half_that_dies_and_stays_dead_in_mid_call(
    asterisk: Asterisk, own_service: BotService, measured: Measured
) -> None:
    async with SipCall(asterisk.sip_port, f"at*{own_service.agi_port}") as call:
        await _is_talking(call)
        killing = asyncio.create_task(_keep_killing_the_speech_half(own_service))
        try:
            call.do(recording(asterisk.recording("vm-calldiffnum")))
            said = await call.happened("said-end")
            told = await call.happened("heard-start", after_s=said.at_s, timeout_s=15)
            measured("word after words to a dead speech half", told.at_s - said.at_s)
            tone = await call.heard_tone(PEOPLE_HZ, timeout_s=30)
            measured("people after words to a dead speech half", tone.at_s - said.at_s)
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
    await asterisk.is_empty()


async def test_a_single_death_of_the_speech_half_leaves_no_caller_in_silence(
    asterisk: Asterisk, own_service: BotService
) -> None:
    """It may be back in time for the reply; otherwise people are."""
    async with SipCall(asterisk.sip_port, f"at*{own_service.agi_port}") as call:
        await call.happened("heard-end", timeout_s=20)
        for process in own_service.speech_halves():
            process.kill()
        call.do(recording(asterisk.recording("vm-calldiffnum")))
        said = await call.happened("said-end")
        await call.happened("heard-start", after_s=said.at_s, timeout_s=15)
    await asterisk.is_empty()


async def test_speech_half_comes_back_after_a_kill(
    asterisk_22: Asterisk, own_service: BotService
) -> None:
    for process in own_service.speech_halves():
        process.kill()
    await own_service.logged("sidecar_ended", timeout_s=20)
    own_service.wait_until_ready()
    async with SipCall(asterisk_22.sip_port, f"at*{own_service.agi_port}") as call:
        await _is_talking(call)


async def test_no_speech_half_at_all(asterisk: Asterisk, tmp_path: Path) -> None:
    """It answers health checks all the same, and says that it is not ready."""
    service = BotService.start(tmp_path, settings={"API_URL": "http://127.0.0.1:9"})
    try:
        await service.becomes("not_ready")
        async with SipCall(asterisk.sip_port, f"at*{service.agi_port}") as call:
            await call.heard_tone(PEOPLE_HZ)
    finally:
        service.stop()


async def test_draining_refuses_new_calls_and_ends_running_ones_well(
    asterisk_22: Asterisk, own_service: BotService
) -> None:
    to = f"at*{own_service.agi_port}"
    async with SipCall(asterisk_22.sip_port, to) as running:
        await _is_talking(running)
        own_service.ask_to_stop()
        await own_service.logged("draining")
        async with SipCall(asterisk_22.sip_port, to) as late:
            await late.heard_tone(PEOPLE_HZ)
        assert running.is_up
        await running.happened("heard-end", timeout_s=30)
    assert own_service.stop() == 0


async def test_asterisk_killed_in_mid_call(
    asterisk: Asterisk, own_service: BotService
) -> None:
    """The bot lets go of the call and serves the next one."""
    own = Asterisk.start(asterisk.version, own_service.agi_port)
    try:
        async with SipCall(own.sip_port, f"at*{own_service.agi_port}") as call:
            await _is_talking(call)
            await asyncio.to_thread(own.kill_and_restart)
            ended = await own_service.logged("call_ended")
            assert ended["status"] in ("caller_hung_up", "failed")
        await own_service.has_let_go()
        async with SipCall(own.sip_port, f"at*{own_service.agi_port}") as call:
            await _is_talking(call)
    finally:
        own.stop()


async def test_full_house_sends_the_next_caller_to_people(
    asterisk_22: Asterisk, tmp_path: Path
) -> None:
    service = BotService.start(tmp_path, settings={"MAX_CALLS": "1"})
    try:
        service.wait_until_ready()
        to = f"at*{service.agi_port}"
        async with SipCall(asterisk_22.sip_port, to) as first:
            await _is_talking(first)
            async with SipCall(asterisk_22.sip_port, to) as second:
                await second.heard_tone(PEOPLE_HZ)
            assert first.is_up
    finally:
        service.stop()
