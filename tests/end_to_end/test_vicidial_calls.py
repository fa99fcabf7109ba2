"""VICIdial's actions on real Asterisk channels, with the service's real reports.

VICIdial is played: where it would queue an AMI Redirect or Hangup, the lab's Asterisk
does the same by its console.  What is seen here is what Asterisk makes of a channel
that is taken away while the bot still holds its AGI.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.end_to_end.asterisk_lab import Asterisk
from tests.end_to_end.bot_service import BotService
from tests.end_to_end.conftest import Measured
from tests.end_to_end.sip_caller import SipCall
from tests.fakes.vicidial import FakeVicidial
from tools.caller.say_items import Press

pytestmark = [pytest.mark.asterisk, pytest.mark.slow, pytest.mark.timeout(180)]

V = "V1221015300000001001"
NUMBER = "7275551212"
IN_GROUP_HZ = 620
CAMPAIGN = """
[phrases]
greeting = "Hello {first_name}."
transferring = "One moment."
opted_out = "Goodbye."

[rules]
opt_out_key = "9"

[transfer]
default = "SALESLINE"
"""


@pytest.fixture
async def vicidial() -> AsyncIterator[FakeVicidial]:
    async with FakeVicidial() as fake:
        fake.db.add_line("7001")
        fake.db.add_lead(1001, NUMBER, first_name="Maria")
        fake.db.give_call(V, 1001)
        yield fake


@pytest.fixture(autouse=True)
async def _one_call_at_a_time(asterisk: Asterisk) -> AsyncIterator[None]:
    """VICIdial's actions reach the only channel there is."""
    await asterisk.is_empty()
    yield
    await asterisk.is_empty()


@pytest.fixture
async def bot(tmp_path: Path, vicidial: FakeVicidial) -> AsyncIterator[BotService]:
    folder = tmp_path / "personas"
    folder.mkdir()
    (folder / "default.toml").write_text(CAMPAIGN)
    service = BotService.start(
        tmp_path,
        settings={
            "CAMPAIGNS_DIR": str(folder),
            "VICIDIAL_URL": vicidial.url,
            "VICIDIAL_USER": "botapi",
            "VICIDIAL_PASSWORD": "Secret-Pass_1",
            "VICIDIAL_AGENT_USER": "7001",
            "MAX_CALLS": "1",
        },
    )
    try:
        await asyncio.to_thread(service.wait_until_ready)
        yield service
    finally:
        await asyncio.to_thread(service.stop)


def call_of(asterisk: Asterisk, bot: BotService) -> SipCall:
    return SipCall(asterisk.sip_port, f"vicidial*{bot.agi_port}*60*{V}*x")


def soon(asterisk: Asterisk, command: str) -> None:
    """A little after its answer, VICIdial's action reaches the only channel."""

    def act() -> None:
        (channel,) = asterisk.channels()
        asterisk.cli(command.format(channel))

    # in a thread: the caller goes on sending
    loop = asyncio.get_running_loop()
    loop.call_later(0.2, lambda: loop.run_in_executor(None, act))


async def press(call: SipCall, key: str) -> None:
    """A key once the bot has begun to speak."""
    await call.happened("heard-start", timeout_s=20)
    call.do(Press(key))


async def test_frozen_in_mid_talk(
    asterisk: Asterisk, bot: BotService, measured: Measured
) -> None:
    """Here the dialplan cannot rescue the caller while the AGI socket is open."""
    async with call_of(asterisk, bot) as call:
        await call.happened("heard-end", timeout_s=20)
        bot.freeze()
        frozen_s = call.at_s
        tone = await call.heard_tone(IN_GROUP_HZ, timeout_s=15)
        measured("people after a freeze, VICIdial's dialplan", tone.at_s - frozen_s)
    await bot.becomes("ready")


async def test_redirect_takes_the_caller_from_the_bot_to_the_in_group(
    asterisk: Asterisk, bot: BotService, vicidial: FakeVicidial
) -> None:
    asterisk.cli("module load res_clioriginate.so")  # it has the command
    queued = "channel redirect {} lab,ingroup,1"
    vicidial.db.on_redirect = lambda call_id, where: soon(asterisk, queued)
    since = asterisk.log_position()
    async with call_of(asterisk, bot) as call:
        await press(call, "0")
        await call.heard_tone(IN_GROUP_HZ)
        ended = await bot.logged("call_ended")
        assert call.is_up
    assert ended["status"] == "transfer"
    assert vicidial.db.log[V].status == "XFER"
    # the dialplan behind the AGI line did not go on as well
    assert "in-group script:" not in asterisk.log(since)


async def test_redirect_that_never_comes_is_made_by_the_dialplan(
    asterisk: Asterisk, bot: BotService, vicidial: FakeVicidial
) -> None:
    """Until then the bot's only line is busy: call n + 1 goes to people at once."""
    vicidial.db.has_strict_sql = True
    since = asterisk.log_position()
    async with call_of(asterisk, bot) as call:
        await press(call, "0")
        await vicidial.asked("ra_call_control")
        async with call_of(asterisk, bot) as one_too_many:
            await one_too_many.heard_tone(IN_GROUP_HZ, timeout_s=8)
        refused = await asterisk.logged("does not take the call: busy", since)
        assert "all_lines_busy" in refused
        await call.heard_tone(IN_GROUP_HZ, timeout_s=30)
    scripts = re.findall("in-group script: .*", asterisk.log(since))
    assert len(scripts) == 2
    for script in scripts:
        assert "CLOSER-----LB-----SALESLINE" in script
        assert V in script
    assert len(vicidial.forms("ra_call_control")) == 1


async def test_hang_up_by_vicidial_ends_the_call_in_order(
    asterisk: Asterisk, bot: BotService, vicidial: FakeVicidial
) -> None:
    queued = "channel request hangup {}"
    vicidial.db.on_hang_up = lambda call_id: soon(asterisk, queued)
    since = asterisk.log_position()
    async with call_of(asterisk, bot) as call:
        await press(call, "9")
        await call.ended()
    ended = await bot.logged("call_ended")
    assert (ended["status"], ended["disposition"]) == ("completed", "DNC")
    assert vicidial.db.dnc == {(NUMBER, "SYSTEM_INTERNAL")}
    call_log = await asterisk.logged(r"\[h@ultravox-vicidial:1\] AGI", since)
    assert "call_log" in call_log
    assert not bot.events("vicidial_did_not_hang_up")


async def test_caller_who_hangs_up_is_reported_before_call_log(
    asterisk: Asterisk, bot: BotService, vicidial: FakeVicidial
) -> None:
    """VICIdial's call_log closes the call only after the bot has let go."""
    since = asterisk.log_position()
    async with call_of(asterisk, bot) as call:
        await call.happened("heard-start", timeout_s=20)
        vicidial.fault = "silent"
        vicidial.faulty_functions = frozenset(("ra_call_control",))
        await call.hang_up()
        await vicidial.asked("ra_call_control")
        assert "[h@ultravox-vicidial:1]" not in asterisk.log(since)
    await asterisk.logged(r"\[h@ultravox-vicidial:1\] AGI", since)
    vicidial.fault = ""
    await vicidial.asked("update_lead", timeout_s=30)
    assert vicidial.db.log[V].status == "PU"
