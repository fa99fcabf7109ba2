"""Real calls: a SIP caller with recorded human speech, Asterisk, the service.

The replies are scripted, everything else is real: ports, audio legs, voice activity
detection, turn-taking, speech synthesis. The ways to the caller's audio are named by
Asterisk's version and the leg that must have been chosen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from model.audio.frames import RATE_HZ
from model.audio.pcm import pcm16_from_wave
from tests.end_to_end.asterisk_lab import Asterisk
from tests.end_to_end.bot_service import BotService
from tests.end_to_end.conftest import Measured
from tests.end_to_end.sip_caller import CallEvent, SipCall
from tools.caller.say_items import Press, Say, recording

pytestmark = [pytest.mark.asterisk, pytest.mark.slow, pytest.mark.timeout(180)]

PEOPLE_HZ = 440
# Human recordings of one to three seconds, each a complete thing to say.
UTTERANCES = ("telephone-number", "vm-calldiffnum", "vm-tempremoved")


@dataclass(frozen=True, slots=True)
class Way:
    """How a call's audio goes."""

    asterisk: Asterisk
    leg: str
    script: str
    is_full_duplex: bool

    def call(self, campaign: str = "default", echo_db: float | None = None) -> SipCall:
        extension = f"bot*{self.script}*{campaign}"
        return SipCall(self.asterisk.sip_port, extension, echo_db=echo_db)

    def utterances(self) -> list[Say]:
        return [recording(self.asterisk.recording(name)) for name in UTTERANCES]


WAYS = {
    "22-audiosocket": (22, "audiosocket", "ultravox", True),
    "16-eagi": (16, "eagi", "ultravox", True),
    "16-recorded_turns": (16, "recorded_turns", "recorded_turns", False),
    "22-recorded_turns": (22, "recorded_turns", "recorded_turns", False),
}


@pytest.fixture(scope="session", params=WAYS)
def way(
    request: pytest.FixtureRequest,
    start_asterisk: Callable[[int], Asterisk],
    service: BotService,
) -> Way:
    version, leg, script, is_full_duplex = WAYS[request.param]
    return Way(start_asterisk(version), leg, script, is_full_duplex)


@pytest.fixture(scope="session", params=[name for name in WAYS if WAYS[name][3]])
def duplex_way(
    request: pytest.FixtureRequest,
    start_asterisk: Callable[[int], Asterisk],
    service: BotService,
) -> Way:
    version, leg, script, is_full_duplex = WAYS[request.param]
    return Way(start_asterisk(version), leg, script, is_full_duplex)


async def _bot_spoke(call: SipCall, after_s: float = 0.0) -> CallEvent:
    """The bot has said something to its end; the end of that."""
    started = await call.happened("heard-start", after_s=after_s, timeout_s=20)
    return await call.happened("heard-end", after_s=started.at_s, timeout_s=30)


async def _ask(call: SipCall, utterance: Say) -> float:
    """Say something and hear the reply to its end; seconds from voice to voice."""
    begun_s = call.at_s
    call.do(utterance)
    said = await call.happened("said-end", after_s=begun_s, timeout_s=15)
    assert said.value is not None  # the end of the voice in the recording
    reply = await call.happened("heard-start", after_s=said.value, timeout_s=20)
    await call.happened("heard-end", after_s=reply.at_s, timeout_s=30)
    return reply.at_s - said.value


async def test_greeting_is_heard_on_the_expected_leg(
    way: Way, service: BotService
) -> None:
    num_before = len(service.events("leg_chosen"))
    async with way.call() as call:
        await _bot_spoke(call)
    await way.asterisk.is_empty()
    chosen = service.events("leg_chosen")[num_before:]
    assert [entry["leg"] for entry in chosen] == [way.leg]


async def test_a_reply_is_heard_after_each_utterance(
    way: Way, measured: Measured
) -> None:
    async with way.call() as call:
        await _bot_spoke(call)
        for utterance in way.utterances():
            delay_s = await _ask(call, utterance)
            measured(f"reply delay, {way.leg}", delay_s)
            await asyncio.sleep(0.5)  # people take a breath
        assert call.is_up
        assert call.num_lost == 0


def _cough() -> Say:
    """A third of a second of noise that bursts out and dies away."""
    rng = np.random.default_rng(5)
    decay = np.exp(-np.arange(RATE_HZ // 3) / (0.08 * RATE_HZ))
    burst = np.cumsum(rng.standard_normal(decay.size) - 0.02) % 2 - 1
    return Say("cough", pcm16_from_wave((0.5 * decay * burst).astype(np.float32)))


async def test_talking_over_the_bot_silences_it_but_no_cough_and_no_echo(
    duplex_way: Way, measured: Measured
) -> None:
    utterance = duplex_way.utterances()[1]
    async with duplex_way.call("talkative", echo_db=-18.0) as call:
        await call.happened("heard-start", timeout_s=20)
        await asyncio.sleep(0.5)
        call.do(_cough())
        await asyncio.sleep(2.0)
        assert call.ear.is_hearing, "a cough or the bot's echo stopped it"
        begun_s = call.at_s
        call.do(utterance)
        said = await call.happened("said-start", after_s=begun_s)
        # Long before the greeting would end by itself, and while the caller talks.
        stopped = await call.happened("heard-end", after_s=said.at_s - 0.5, timeout_s=5)
        assert said.value is not None  # the beginning of the voice in the recording
        measured(f"stop time, {duplex_way.leg}", stopped.at_s - said.value)
        assert stopped.at_s < said.at_s + 2.0
        ended = await call.happened("said-end", after_s=said.at_s)
        await call.happened("heard-start", after_s=ended.at_s, timeout_s=20)


async def test_key_zero_leads_to_people(way: Way) -> None:
    async with way.call() as call:
        await _bot_spoke(call)
        call.do(Press("0"))
        await call.heard_tone(PEOPLE_HZ, timeout_s=20)


async def test_a_caller_who_hangs_up_leaves_nothing_behind(
    way: Way, service: BotService
) -> None:
    num_sockets = service.num_sockets()
    async with way.call() as call:
        await call.happened("heard-start", timeout_s=20)
    await way.asterisk.is_empty()
    await service.is_clean(num_sockets)
    assert way.asterisk.sound_files_left() == []


async def test_a_caller_who_hangs_up_while_the_bot_thinks_leaves_nothing_behind(
    way: Way, service: BotService
) -> None:
    num_sockets = service.num_sockets()
    async with way.call() as call:
        await _bot_spoke(call)
        call.do(way.utterances()[0])
        await call.happened("said-end", timeout_s=15)
    await way.asterisk.is_empty()
    await service.is_clean(num_sockets)


async def test_the_line_test_says_back_what_it_hears(
    duplex_way: Way,
) -> None:
    async with SipCall(duplex_way.asterisk.sip_port, "bot*echo*default") as call:
        await _bot_spoke(call)
        utterance = duplex_way.utterances()[2]
        await _ask(call, utterance)
        echoed_s = call.ear.sounds[-1].end_s - call.ear.sounds[-1].start_s
        assert echoed_s == pytest.approx(len(utterance.pcm16) / 16000, abs=1.0)


async def test_a_chan_sip_caller_is_served_too(
    asterisk_16: Asterisk, service: BotService
) -> None:
    async with SipCall(asterisk_16.chan_sip_port, "bot") as call:
        await _bot_spoke(call)
        await _ask(call, recording(asterisk_16.recording(UTTERANCES[0])))


async def test_ten_calls_at_once_are_all_answered_and_replied_to(
    asterisk_22: Asterisk, service: BotService
) -> None:
    utterance = recording(asterisk_22.recording(UTTERANCES[1]))

    async def one(number: int) -> None:
        await asyncio.sleep(0.2 * number)
        async with SipCall(asterisk_22.sip_port, "bot", number=str(7000 + number)) as c:
            await _bot_spoke(c)
            await _ask(c, utterance)

    async with asyncio.TaskGroup() as calls:
        for number in range(10):
            calls.create_task(one(number))
    await asterisk_22.is_empty()
