"""The EAGI relay: its script run by bash, both connections, and every way to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agi_handlers.agi.commands import get_variable
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.audio_leg.eagi_leg import EagiLeg, EagiOptions, open_eagi_leg
from agi_handlers.audio_leg.file_exchange import SharedFolder
from agi_handlers.audio_leg.file_playback import FilePlaybackOptions
from agi_handlers.audio_leg.frame_wheel import FrameWheel
from agi_handlers.audio_leg.leg import (
    CallerAudio,
    CallerKey,
    LegClosed,
    LegEvent,
    PlaybackFinished,
)
from agi_handlers.audio_leg.media_port import MediaPort
from agi_handlers.errors import AudioLegUnavailable, ChannelGone
from model.audio.g711 import ulaw_decode
from tests.fakes.asterisk import Answer, FakeAsterisk, connected_agi
from tests.fakes.asterisk_shell import EagiApplication, exec_agi_without_shell

OPTIONS = EagiOptions(
    playback=FilePlaybackOptions(filler_ms=100, hangup_grace_s=0.0),
    end_timeout_s=2.0,
    judge_timeout_s=2.0,
    gap_after_ms=10_000,  # silence of our own would disturb what a test counts
)
SPEECH = bytes((0x10,)) * 8 * 600
TONE = bytes(range(1, 161)) * 2


def sound_file(command: str) -> bytes:
    """What Asterisk finds under the name in a STREAM FILE."""
    return Path(command.split()[2] + ".ulaw").read_bytes()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what a process does unseen
            await asyncio.sleep(0.001)


@dataclass
class Call:
    leg: EagiLeg
    agi: AgiConnection
    asterisk: FakeAsterisk
    app: EagiApplication
    _events: AsyncIterator[LegEvent] = field(init=False)

    def __post_init__(self) -> None:
        self._events = self.leg.events()

    @property
    def inner(self) -> FakeAsterisk:
        return self.app.inner

    async def next_speech(self) -> str:
        """The next STREAM FILE on the inner dialogue that is not silence."""
        while True:
            command = await self.inner.expect("STREAM FILE")
            if sound_file(command) != b"\xff" * 800:
                return command

    async def event(self) -> LegEvent:
        async with asyncio.timeout(5):
            return await anext(self._events)


@asynccontextmanager
async def dialogue(
    answer: Answer,
) -> AsyncIterator[tuple[AgiConnection, FakeAsterisk]]:
    agi, asterisk = await connected_agi(
        responses={"EXEC EAGI": answer}, variables={"AGISTATUS": "NOTFOUND"}
    )
    try:
        yield agi, asterisk
    finally:
        await agi.close()
        await asterisk.aclose()


@asynccontextmanager
async def open_call(
    media_port: MediaPort,
    wheel: FrameWheel,
    folder: Path,
    options: EagiOptions = OPTIONS,
) -> AsyncIterator[Call]:
    app = EagiApplication()
    files = SharedFolder(folder)
    async with dialogue(app) as (agi, asterisk):
        try:
            async with open_eagi_leg(
                agi,
                media_port,
                wheel,
                files,
                host="127.0.0.1",
                port=media_port.port,
                options=options,
            ) as leg:
                yield Call(leg, agi, asterisk, app)
        finally:
            await files.close()


async def test_the_caller_is_heard_while_something_plays(
    media_port: MediaPort, wheel: FrameWheel, tmp_path: Path
) -> None:
    async with open_call(media_port, wheel, tmp_path) as call:
        await call.inner.expect("STREAM FILE")
        heard = b""
        for cut in (TONE, TONE[:7], TONE[7:], TONE[:1]):
            call.app.send_pcm16(cut)
        while len(heard) < 640:
            event = await call.event()
            assert isinstance(event, CallerAudio)
            assert len(event.pcm16) % 2 == 0
            heard += event.pcm16
        assert heard == TONE * 2
        call.app.send_pcm16(TONE[1:])
        event = await call.event()
        assert event == CallerAudio(TONE), "half a sample waits for its other half"


async def test_speech_takes_the_place_of_silence_and_is_finished(
    media_port: MediaPort, wheel: FrameWheel, tmp_path: Path
) -> None:
    async with open_call(media_port, wheel, tmp_path) as call:
        await call.inner.expect("STREAM FILE")
        await call.leg.play(ulaw_decode(SPEECH))
        call.leg.end_of_speech()
        await call.inner.expect("GET FULL VARIABLE interrupt")
        assert sound_file(await call.next_speech()) == SPEECH
        await call.inner.respond("200 result=0 endpos=4800")
        assert await call.event() == PlaybackFinished(600)


async def test_stop_interrupts_the_speech(
    media_port: MediaPort, wheel: FrameWheel, tmp_path: Path
) -> None:
    async with open_call(media_port, wheel, tmp_path) as call:
        await call.leg.play(ulaw_decode(SPEECH * 10))
        await call.next_speech()
        assert 0 <= call.leg.heard_ms() < 6000
        assert call.leg.stop() < 6000
        await call.inner.expect("GET FULL VARIABLE interrupt")
        await call.inner.expect("STREAM FILE")


async def test_keys_are_heard_and_sent(
    media_port: MediaPort, wheel: FrameWheel, tmp_path: Path
) -> None:
    async with open_call(media_port, wheel, tmp_path) as call:
        await call.inner.expect("STREAM FILE")
        await call.inner.respond("200 result=57 endpos=160")
        assert await call.event() == CallerKey("9")
        call.inner.responses["EXEC SendDTMF"] = "200 result=0"
        assert await call.leg.send_keys("12#")
        assert "EXEC SendDTMF 12#" in call.inner.commands


async def test_silence_fills_what_does_not_come(
    media_port: MediaPort, wheel: FrameWheel, tmp_path: Path
) -> None:
    options = replace(OPTIONS, gap_after_ms=40)
    async with open_call(media_port, wheel, tmp_path, options) as call:
        event = await call.event()
        assert isinstance(event, CallerAudio)
        assert event.pcm16.strip(b"\0") == b""
        assert call.leg.num_gap_frames >= 2


async def test_end_is_orderly_and_the_outer_agi_works_again(
    media_port: MediaPort, wheel: FrameWheel, tmp_path: Path
) -> None:
    async with open_call(media_port, wheel, tmp_path) as call:
        await call.leg.play(ulaw_decode(SPEECH))
        await call.next_speech()
        await call.leg.end()
        assert await call.agi.execute(get_variable("AGISTATUS")) == "NOTFOUND"
        assert await call.event() == LegClosed("ended_by_us")
        assert not await call.leg.send_keys("1")
        await call.leg.play(ulaw_decode(SPEECH * 100))
        call.leg.end_of_speech()
        await call.leg.end()


async def test_the_caller_hangs_up(
    media_port: MediaPort, wheel: FrameWheel, tmp_path: Path
) -> None:
    async with open_call(media_port, wheel, tmp_path) as call:
        await call.leg.play(ulaw_decode(SPEECH))
        await call.next_speech()
        await call.app.hang_up()
        call.asterisk.is_hung_up = True
        assert await call.event() == LegClosed("caller_hung_up")


async def test_a_shell_that_dies_while_the_channel_is_up_is_a_lost_leg(
    media_port: MediaPort, wheel: FrameWheel, tmp_path: Path
) -> None:
    async with open_call(media_port, wheel, tmp_path) as call:
        await call.inner.expect("STREAM FILE")
        call.app.kill()
        closed = await call.event()
        assert isinstance(closed, LegClosed)
        assert closed.reason == "lost"
        assert await call.agi.execute(get_variable("X")) is None


async def test_a_folder_that_is_gone_loses_the_leg(
    media_port: MediaPort, wheel: FrameWheel, tmp_path: Path
) -> None:
    async with open_call(media_port, wheel, tmp_path / "missing") as call:
        closed = await call.event()
        assert isinstance(closed, LegClosed)
        assert closed.reason == "lost"
        assert "cannot be written" in closed.detail


async def test_asterisk_dies(
    media_port: MediaPort, wheel: FrameWheel, tmp_path: Path
) -> None:
    async with open_call(media_port, wheel, tmp_path) as call:
        await call.inner.expect("STREAM FILE")
        call.asterisk.abort()
        call.app.kill()
        assert await call.event() == LegClosed("caller_hung_up")


async def test_no_shell_makes_it_unavailable(
    media_port: MediaPort, wheel: FrameWheel, tmp_path: Path
) -> None:
    async with dialogue(exec_agi_without_shell) as (agi, _):
        with pytest.raises(AudioLegUnavailable, match="AGISTATUS=NOTFOUND"):
            async with open_eagi_leg(
                agi,
                media_port,
                wheel,
                SharedFolder(tmp_path),
                host="127.0.0.1",
                port=media_port.port,
                options=OPTIONS,
            ):
                pass


async def test_a_shell_that_cannot_connect_makes_it_unavailable(
    media_port: MediaPort, wheel: FrameWheel, tmp_path: Path
) -> None:
    app = EagiApplication()
    async with dialogue(app) as (agi, _):
        with pytest.raises(AudioLegUnavailable, match="without a connection"):
            async with open_eagi_leg(
                agi,
                media_port,
                wheel,
                SharedFolder(tmp_path),
                host="127.0.0.1",
                port=1,  # nobody listens there
                options=OPTIONS,
            ):
                pass


async def test_nothing_happening_at_all_makes_it_unavailable(
    media_port: MediaPort, wheel: FrameWheel, tmp_path: Path
) -> None:
    options = replace(OPTIONS, connect_timeout_s=0.05, end_timeout_s=0.05)
    async with dialogue("SILENCE") as (agi, _):
        with pytest.raises(AudioLegUnavailable, match="did not connect within"):
            async with open_eagi_leg(
                agi,
                media_port,
                wheel,
                SharedFolder(tmp_path),
                host="127.0.0.1",
                port=media_port.port,
                options=options,
            ):
                pass


async def test_a_caller_who_left_before_it_opened_is_gone_not_a_fault(
    media_port: MediaPort, wheel: FrameWheel, tmp_path: Path
) -> None:
    async with dialogue(exec_agi_without_shell) as (agi, asterisk):
        asterisk.is_hung_up = True
        with pytest.raises(ChannelGone):
            async with open_eagi_leg(
                agi,
                media_port,
                wheel,
                SharedFolder(tmp_path),
                host="127.0.0.1",
                port=media_port.port,
                options=OPTIONS,
            ):
                pass


async def test_cancelling_the_call_leaves_nothing_behind(
    media_port: MediaPort, wheel: FrameWheel, tmp_path: Path
) -> None:
    opened = asyncio.Event()

    async def talk() -> None:
        async with open_call(media_port, wheel, tmp_path) as call:
            await call.inner.expect("STREAM FILE")
            opened.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(talk())
    await opened.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240 - a test may wait for a disk
