"""Calls that a model answers: nothing is scripted between the caller's ear and mouth.

First a tiny random one, whose replies mean nothing but are its own; then the shipped
demo model, which understands.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from numpy.typing import NDArray

from model.audio.pcm import wave_from_pcm16
from model.training.logmel import log_mel
from model.training.telephone import to_model_rate
from model.tts.voice import Voice
from tests.end_to_end.asterisk_lab import ROOT, Asterisk
from tests.end_to_end.bot_service import BotService
from tests.end_to_end.conftest import Measured
from tests.end_to_end.sip_caller import SipCall
from tools.caller.say_items import parse_item, recording, spoken
from tools.make_tiny_checkpoint import write_tiny_checkpoint

pytestmark = [pytest.mark.asterisk, pytest.mark.slow, pytest.mark.timeout(240)]

PEOPLE_HZ = 440  # the lab's human queue


async def test_a_local_model_hears_the_caller_and_answers(
    asterisk_22: Asterisk, tmp_path: Path
) -> None:
    write_tiny_checkpoint(tmp_path / "model")
    service = BotService.start(
        tmp_path, settings={"ENGINE": "local", "MODEL": str(tmp_path / "model")}
    )
    try:
        service.wait_until_ready()
        async with SipCall(asterisk_22.sip_port, f"at*{service.agi_port}") as call:
            greeting = await call.happened("heard-end", timeout_s=30)
            call.do(recording(asterisk_22.recording("vm-calldiffnum")))
            said = await call.happened("said-end", after_s=greeting.at_s)
            reply = await call.happened("heard-start", after_s=said.at_s, timeout_s=30)
            await call.happened("heard-end", after_s=reply.at_s, timeout_s=60)
        assert "random" in service.health()
    finally:
        service.stop()


# -- the shipped demo model: what is said has a meaning, and so has the reply ----------

HOURS = "We are open Monday to Friday from nine to five."
OTHERS = (
    "We are at twelve River Street.",
    "I can not see your balance. Shall I connect you to a person?",
    "Sorry, I did not understand. I can help with appointments, orders and hours.",
    "On Saturday we are open from ten to two.",
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BotService]:
    """The service as it is out of the box."""
    folder = tmp_path_factory.mktemp("demo")
    settings = {"ENGINE": "local", "CAMPAIGNS_DIR": str(ROOT / "campaigns")}
    with BotService.running(folder, settings=settings) as service:
        yield service


def _asked(service: BotService, path: str) -> dict[str, Any]:
    with urlopen(f"http://127.0.0.1:{service.http_port}/{path}", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)["data"]
    return found


async def _record(service: BotService, number: str) -> dict[str, Any]:
    """What was kept of the ended call from that number."""
    deadline = time.monotonic() + 20
    while True:
        calls = _asked(service, "calls")["calls"]
        mine = [c for c in calls if c["caller"].endswith(number[-2:])]
        if mine and mine[0]["status"]:
            found: dict[str, Any] = _asked(service, f"calls/{mine[0]['call_id']}")
            return dict(found["call"])
        assert time.monotonic() < deadline, f"no record of {number} in {calls}"
        await asyncio.sleep(0.2)


def _likeness(heard: bytes, text: str) -> float:
    """How much a recording sounds like the bot saying a text: 1 is the same."""
    ours, theirs = _spectrum(heard), _spectrum(spoken(text, Voice()))
    best = -1.0
    for shift in range(-20, 21):  # 10 ms each
        a, b = ours[max(shift, 0) :], theirs[max(-shift, 0) :]
        frames = max(len(a), len(b))
        a, b = (np.pad(x, ((0, frames - len(x)), (0, 0))) for x in (a, b))
        norm = float(np.linalg.norm(a) * np.linalg.norm(b))
        best = max(best, float((a * b).sum()) / norm)
    return best


def _spectrum(pcm16: bytes) -> NDArray[np.float32]:
    """Log-mel (F, 80) of 8 kHz speech without its ends' silence, mean removed."""
    wave = wave_from_pcm16(pcm16)
    loud = np.flatnonzero(np.abs(wave) > 0.02)
    mel = log_mel(to_model_rate(wave[loud[0] : loud[-1]]))
    return np.asarray(mel - mel.mean(0), np.float32)


class Talk:
    """A caller who says sentences and hears each answer to its end."""

    def __init__(self, call: SipCall, measured: Measured) -> None:
        self.call, self.measured = call, measured

    async def greeted(self) -> None:
        begun = await self.call.happened("heard-start", timeout_s=30)
        await self.call.happened("heard-end", after_s=begun.at_s, timeout_s=30)

    async def say(self, text: str) -> float:
        """Say it and hear the answer to its end; when that began."""
        call = self.call
        begun_s = call.at_s
        call.do(parse_item(f"say:{text}"))
        said = await call.happened("said-end", after_s=begun_s, timeout_s=20)
        assert said.value is not None  # the end of the voice
        reply = await call.happened("heard-start", after_s=said.value, timeout_s=30)
        await call.happened("heard-end", after_s=reply.at_s, timeout_s=60)
        self.measured("reply delay, demo model", reply.at_s - said.value)
        return reply.at_s


@asynccontextmanager
async def _greeted(
    asterisk: Asterisk,
    demo: BotService,
    number: str,
    measured: Measured,
    campaign: str = "demo",
) -> AsyncIterator[Talk]:
    """A call from that number that has heard the greeting."""
    to = f"at*{demo.agi_port}***{campaign}"
    async with SipCall(asterisk.sip_port, to, number=number) as call:
        talk = Talk(call, measured)
        await talk.greeted()
        yield talk


async def test_the_demo_says_what_it_is(demo: BotService) -> None:
    assert "demo" in demo.health()
    greeting = (ROOT / "campaigns" / "demo.toml").read_text()
    assert "demo" in greeting.partition("greeting = ")[2].partition("\n")[0]


async def test_who_asks_for_the_hours_hears_the_hours(
    asterisk_22: Asterisk, demo: BotService, measured: Measured
) -> None:
    """Also where the dialplan names no campaign: the first call of a new user."""
    number, campaign = "2125550161", "default"
    async with _greeted(asterisk_22, demo, number, measured, campaign) as talk:
        begun_s = await talk.say("what are your opening hours")
        heard = talk.call.ear.pcm16(begun_s - 0.1)
    record = await _record(demo, number)
    assert HOURS in [turn["reply_text"] for turn in record["turns"]]
    likeness = {text: _likeness(heard, text) for text in (HOURS, *OTHERS)}
    assert max(likeness, key=lambda text: likeness[text]) == HOURS, likeness


async def test_who_is_called_too_often_is_left_alone(
    asterisk_22: Asterisk, demo: BotService, measured: Measured
) -> None:
    number = "2125550162"
    async with _greeted(asterisk_22, demo, number, measured) as talk:
        talk.call.do(parse_item("say:please stop calling me"))
        await talk.call.ended(timeout_s=60)
    record = await _record(demo, number)
    assert "dnc" in json.dumps(record)


async def test_who_wants_a_person_gets_one(
    asterisk_22: Asterisk, demo: BotService, measured: Measured
) -> None:
    number = "2125550163"
    async with _greeted(asterisk_22, demo, number, measured) as talk:
        talk.call.do(parse_item("say:i want to speak to a person"))
        await talk.call.heard_tone(PEOPLE_HZ, timeout_s=40)
    assert (await _record(demo, number))["status"] == "transfer"


async def test_a_corrected_digit_is_read_back(
    asterisk_22: Asterisk, demo: BotService, measured: Measured
) -> None:
    number = "2125550164"
    async with _greeted(asterisk_22, demo, number, measured) as talk:
        await talk.say("my order number is one two three four")
        await talk.say("no it's one two three five")
    turns = (await _record(demo, number))["turns"]
    assert [turn["reply_text"] for turn in turns][-2:] == [
        "I will have order one two three four checked. Anything else?",
        "Is one two three five your order number?",
    ]
