"""The network is late, loses, stalls and breaks: between dialer, phone and speech half.

caller ── audio line ──▶ phone half ── speech line ──▶ speech half
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from tests.end_to_end.bot_service import BotService
from tests.fakes.fault_proxy import FaultProxy
from tests.faults.callers import QUESTION, Heard, heard
from tests.free_port import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

# Hears a second of the reply and leaves.
_SATISFIED = (*QUESTION, "wait:200,1.0", "bye")
_BUFFER_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the lines begin; each test has its own proxies there."""

    audio: int
    speech: int


@dataclass(frozen=True, slots=True)
class Lines:
    audio: FaultProxy
    speech: FaultProxy


@pytest.fixture(scope="module")
def ports() -> Ports:
    return Ports(free_port(), free_port())


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BotService]:
    """Here for its speech half."""
    with BotService.running(tmp_path_factory.mktemp("speech")) as service:
        yield service


@pytest.fixture(scope="module")
def bot(
    speech: BotService, ports: Ports, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BotService]:
    settings = {
        "API_URL": f"http://127.0.0.1:{ports.speech}",
        "AUDIOSOCKET_ADVERTISE": f"127.0.0.1:{ports.audio}",
        "FIRST_AUDIO_TIMEOUT_S": "6",
    }
    service = BotService.start(tmp_path_factory.mktemp("bot"), settings=settings)
    try:
        yield service
    finally:
        service.stop()


@pytest.fixture
async def lines(
    bot: BotService, speech: BotService, ports: Ports
) -> AsyncIterator[Lines]:
    audio = FaultProxy(
        ("127.0.0.1", bot.audio_port), ports.audio, buffer_bytes=_BUFFER_BYTES
    )
    to_speech = FaultProxy(("127.0.0.1", speech.http_port), ports.speech)
    async with audio, to_speech:
        await bot.becomes("ready")
        yield Lines(audio, to_speech)


async def _call(bot: BotService) -> asyncio.Task[Heard]:
    """A call whose caller is about to speak."""
    call = asyncio.create_task(heard(bot, _SATISFIED, linger_s=15.0))
    await asyncio.sleep(2.2)
    return call


def _make_bad(line: FaultProxy) -> None:
    line.delay_s, line.jitter_s, line.loss = 0.05, 0.1, 0.02


@pytest.mark.parametrize("which", ["audio", "speech"])
async def test_late_and_lossy(bot: BotService, lines: Lines, which: str) -> None:
    call = await _call(bot)
    _make_bad(getattr(lines, which))
    heard = await call
    assert heard.status == "hangup", heard.report
    assert heard.wait_s < 4
    assert heard.report.errors == ()


@pytest.mark.parametrize("fault", ["cut", "reset", "half_close"])
async def test_speech_line_breaks_and_comes_back(
    bot: BotService, lines: Lines, fault: str
) -> None:
    """The dialogue moves to a new connection; the caller doesn't notice."""
    call = await _call(bot)
    before = lines.speech.num_connections
    getattr(lines.speech, fault)()
    heard = await call
    assert heard.status == "hangup", heard.report
    assert heard.wait_s < 4
    assert lines.speech.num_connections > before


async def test_speech_line_stalls(bot: BotService, lines: Lines) -> None:
    """Nothing is closed, nothing comes: a filler, then people."""
    says = QUESTION
    call = asyncio.create_task(heard(bot, says, linger_s=15.0))
    await asyncio.sleep(2.2)
    lines.speech.stall()
    stalled = await call
    assert stalled.status == "failed"
    assert not stalled.is_well_ended
    assert stalled.wait_s < 4
    assert stalled.longest_wait_s < 10
    lines.speech.go_on()
    await bot.becomes("ready")


@pytest.mark.parametrize("fault", ["cut", "reset", "half_close"])
async def test_audio_line_breaks(bot: BotService, lines: Lines, fault: str) -> None:
    """There is no way to the caller's ear left but the dialplan."""
    call = await _call(bot)
    getattr(lines.audio, fault)()
    broken = await call
    assert (broken.status, broken.is_well_ended) == ("failed", False)
    assert broken.report.variables["BOT_REASON"] == "audio_leg_lost"
    assert broken.returned_s < 5
    assert broken.record is not None
    assert broken.record["reason"] == "audio_leg_lost"


async def test_audio_line_stalls(bot: BotService, lines: Lines) -> None:
    """A dialer that takes no audio and sends none: the line is not held for ever.

    It doesn't answer its EXEC either: what frees its channel is its own absolute
    timeout, or the stall's end.
    """
    call = asyncio.create_task(heard(bot, QUESTION, max_s=25.0))
    await asyncio.sleep(2.2)
    lines.audio.stall()
    stalled = await call
    assert not stalled.is_well_ended
    assert stalled.record is not None
    assert stalled.record["reason"] == "audio_leg_lost"
    assert stalled.record["ended_at"] - stalled.record["started_at"] < 20


async def test_a_stall_that_passes_is_forgiven(bot: BotService, lines: Lines) -> None:
    call = await _call(bot)
    lines.audio.stall()
    await asyncio.sleep(1.0)
    lines.audio.go_on()
    heard = await call
    assert heard.status == "hangup", heard.report
