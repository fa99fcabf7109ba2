"""The recorded-turns leg: one AGI command at a time, played by a fake Asterisk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agi_handlers.agi.commands import get_variable
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.audio_leg.file_exchange import SharedFolder
from agi_handlers.audio_leg.file_playback import FilePlaybackOptions
from agi_handlers.audio_leg.leg import (
    CallerAudio,
    CallerKey,
    CallerPaused,
    LegClosed,
    LegEvent,
    PlaybackFinished,
)
from agi_handlers.audio_leg.recorded_turns_leg import (
    RecordedTurnsLeg,
    RecordedTurnsOptions,
    open_recorded_turns_leg,
)
from agi_handlers.audio_leg.speech_pieces import PieceOptions
from model.audio.g711 import ulaw_decode
from tests.fakes.asterisk import HOLD, FakeAsterisk, connected_agi

OPTIONS = RecordedTurnsOptions(
    playback=FilePlaybackOptions(filler_ms=100, hangup_grace_s=0.05),
    end_timeout_s=0.5,
    max_recording_ms=4000,
)
LOUD = 0x10  # a mu-law octet far from silence


def ulaw(duration_ms: int, octet: int = LOUD) -> bytes:
    return bytes((octet,)) * 8 * duration_ms


def pcm16(duration_ms: int) -> bytes:
    return ulaw_decode(ulaw(duration_ms))


def sound_file(name: str) -> bytes:
    """What Asterisk finds under a name."""
    return Path(name + ".ulaw").read_bytes()


@dataclass
class Call:
    """A call, its leg, and what Asterisk is doing for it."""

    leg: RecordedTurnsLeg
    agi: AgiConnection
    asterisk: FakeAsterisk
    folder: Path
    _events: AsyncIterator[LegEvent] = field(init=False)

    def __post_init__(self) -> None:
        self._events = self.leg.events()

    async def next_playback(self) -> tuple[bytes, int]:
        """The next STREAM FILE that is not the silence: (mu-law, offset in samples)."""
        while True:
            command = await self.asterisk.expect("STREAM FILE")
            words = command.split()
            octets = sound_file(words[2])
            if octets != ulaw(OPTIONS.playback.filler_ms, 0xFF):
                assert words[3] == "0123456789*#"
                return octets, int(words[4]) if len(words) > 4 else 0

    async def next_silence(self) -> None:
        command = await self.asterisk.expect("STREAM FILE")
        octets = sound_file(command.split()[2])
        assert octets == ulaw(OPTIONS.playback.filler_ms, 0xFF)

    async def next_recording(self) -> Path:
        command = await self.asterisk.expect("RECORD FILE")
        words = command.split()
        assert words[3:] == ["ulaw", "0123456789*#", "4000", "s=1"]
        return Path(words[2] + ".ulaw")

    async def record(self, duration_ms: int, how: str, octet: int = LOUD) -> None:
        """The next recording ends, with this much in it."""
        path = await self.next_recording()
        path.write_bytes(ulaw(duration_ms, octet))
        await self.asterisk.respond(f"200 {how} endpos={duration_ms * 8}")

    async def event(self) -> LegEvent:
        async with asyncio.timeout(5):
            return await anext(self._events)


SILENCE_ENDED_IT = "result=2000 (timeout)"
TIME_ENDED_IT = "result=0 (timeout)"


@asynccontextmanager
async def open_call(
    folder: Path, options: RecordedTurnsOptions = OPTIONS
) -> AsyncIterator[Call]:
    agi, asterisk = await connected_agi(
        responses={"STREAM FILE": HOLD, "RECORD FILE": HOLD}
    )
    files = SharedFolder(folder)
    try:
        async with open_recorded_turns_leg(agi, files, options) as leg:
            yield Call(leg, agi, asterisk, folder)
    finally:
        await files.close()
        await agi.close()
        await asterisk.aclose()


def files_in(folder: Path) -> int:
    return len(list(folder.iterdir()))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what a task does unseen
            await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def no_file_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert files_in(tmp_path) == 0


# --- speaking ---


async def test_silence_is_played_until_there_is_something_to_say(
    tmp_path: Path,
) -> None:
    async with open_call(tmp_path) as call:
        await call.next_silence()
        await call.asterisk.respond("200 result=0 endpos=800")
        await call.next_silence()
        await call.leg.play(pcm16(300))
        call.leg.end_of_speech()
        # the silence gave way to an interrupt, without waiting for its end
        await call.asterisk.expect("GET FULL VARIABLE interrupt")
        octets, offset = await call.next_playback()
        assert (octets, offset) == (ulaw(300), 0)
        await call.asterisk.respond("200 result=0 endpos=2400")
        assert await call.event() == PlaybackFinished(300)


async def test_the_first_piece_plays_before_the_speech_is_complete(
    tmp_path: Path,
) -> None:
    async with open_call(tmp_path) as call:
        await call.leg.play(pcm16(480))
        await call.leg.play(pcm16(40))
        octets, _ = await call.next_playback()
        assert octets == ulaw(520)
        await call.leg.play(pcm16(100))
        call.leg.end_of_speech()
        # the next file is prepared while this one plays
        await until(lambda: files_in(tmp_path) == 3)
        await call.asterisk.respond("200 result=0 endpos=4160")
        octets, _ = await call.next_playback()
        assert octets == ulaw(100)
        await call.asterisk.respond("200 result=0 endpos=800")
        assert await call.event() == PlaybackFinished(620)


async def test_an_end_that_comes_after_the_last_piece_is_reported_after_it(
    tmp_path: Path,
) -> None:
    async with open_call(tmp_path) as call:
        await call.leg.play(pcm16(600))
        await call.next_playback()
        call.leg.end_of_speech()
        await call.asterisk.respond("200 result=0 endpos=4800")
        assert await call.event() == PlaybackFinished(600)


async def test_stop_interrupts_and_drops_what_was_prepared(tmp_path: Path) -> None:
    options = replace(
        OPTIONS,
        playback=replace(
            OPTIONS.playback, pieces=PieceOptions(max_piece_ms=500, first_piece_ms=100)
        ),
    )
    async with open_call(tmp_path, options) as call:
        await call.leg.play(pcm16(3000))
        call.leg.end_of_speech()
        await call.next_playback()
        await asyncio.sleep(0.15)  # the clock of what is heard is real
        position_ms = call.leg.heard_ms()
        heard_ms = call.leg.stop()
        assert 100 <= position_ms <= heard_ms <= 500
        assert call.leg.heard_ms() == 0
        await call.asterisk.expect("GET FULL VARIABLE interrupt")
        await call.next_silence()
        await call.leg.play(pcm16(200))
        call.leg.end_of_speech()
        octets, _ = await call.next_playback()
        assert octets == ulaw(200)
        await call.asterisk.respond("200 result=0 endpos=1600")
        assert await call.event() == PlaybackFinished(200)


async def test_stop_before_anything_was_heard(tmp_path: Path) -> None:
    async with open_call(tmp_path) as call:
        await call.next_silence()
        await call.leg.play(pcm16(2000))
        assert call.leg.stop() == 0
        call.leg.end_of_speech()
        assert await call.event() == PlaybackFinished(0)


async def test_play_waits_while_too_much_is_queued(tmp_path: Path) -> None:
    options = replace(OPTIONS, playback=replace(OPTIONS.playback, max_queued_ms=2000))
    async with open_call(tmp_path, options) as call:
        playing = asyncio.create_task(call.leg.play(pcm16(60_000)))
        await call.next_playback()
        assert not playing.done()
        call.leg.stop()
        await playing
        await call.next_silence()


async def test_a_key_is_reported_and_the_speech_goes_on_from_there(
    tmp_path: Path,
) -> None:
    async with open_call(tmp_path) as call:
        await call.leg.play(pcm16(2000))
        call.leg.end_of_speech()
        await call.next_playback()
        await call.asterisk.respond("200 result=53 endpos=4000")
        assert await call.event() == CallerKey("5")
        assert await call.next_playback() == (ulaw(2000), 4000)
        assert 500 <= call.leg.heard_ms() < 1000
        await call.asterisk.respond("200 result=35 endpos=8000")
        assert await call.event() == CallerKey("#")
        assert await call.next_playback() == (ulaw(2000), 8000)
        await call.asterisk.respond("200 result=0 endpos=16000")
        assert await call.event() == PlaybackFinished(2000)


async def test_a_stop_on_a_key_leaves_the_rest_unsaid(tmp_path: Path) -> None:
    async with open_call(tmp_path) as call:
        await call.leg.play(pcm16(2000))
        await call.next_playback()

        async def stop_on_key() -> int:
            assert await call.event() == CallerKey("1")
            return call.leg.stop()

        stopping = asyncio.create_task(stop_on_key())
        await call.asterisk.respond("200 result=49 endpos=4000")
        assert await stopping == 500
        await call.next_silence()


async def test_keys_are_heard_while_the_bot_thinks(tmp_path: Path) -> None:
    async with open_call(tmp_path) as call:
        await call.next_silence()
        await call.asterisk.respond("200 result=42 endpos=160")
        assert await call.event() == CallerKey("*")


# --- listening ---


async def test_what_the_caller_said_is_delivered_and_then_the_pause(
    tmp_path: Path,
) -> None:
    async with open_call(tmp_path) as call:
        call.leg.listen()
        await call.record(2500, SILENCE_ENDED_IT)
        assert await call.event() == CallerAudio(pcm16(2500))
        assert await call.event() == CallerPaused()
        await call.next_silence()
        await until(lambda: files_in(tmp_path) == 1)


async def test_recording_begins_anew_while_the_caller_says_nothing(
    tmp_path: Path,
) -> None:
    async with open_call(tmp_path) as call:
        call.leg.listen()
        for _ in range(3):
            await call.record(1020, SILENCE_ENDED_IT, octet=0xFF)
            event = await call.event()
            assert event == CallerAudio(ulaw_decode(ulaw(1020, 0xFF)))
        await call.record(1900, SILENCE_ENDED_IT)
        assert await call.event() == CallerAudio(pcm16(1900))
        assert await call.event() == CallerPaused()


async def test_a_long_recording_is_followed_by_the_next_without_a_pause(
    tmp_path: Path,
) -> None:
    async with open_call(tmp_path) as call:
        call.leg.listen()
        await call.record(4000, TIME_ENDED_IT)
        # the next one runs before the last has been read
        path = await call.next_recording()
        assert await call.event() == CallerAudio(pcm16(4000))
        path.write_bytes(ulaw(1020, 0xFF))
        await call.asterisk.respond("200 result=2980 (timeout) endpos=8160")
        assert await call.event() == CallerAudio(ulaw_decode(ulaw(1020, 0xFF)))
        assert await call.event() == CallerPaused()


async def test_keys_end_a_recording_but_not_the_listening(tmp_path: Path) -> None:
    async with open_call(tmp_path) as call:
        call.leg.listen()
        await call.record(300, "result=49 (dtmf)", octet=0xFF)
        assert await call.event() == CallerAudio(ulaw_decode(ulaw(300, 0xFF)))
        assert await call.event() == CallerKey("1")
        await call.record(1020, SILENCE_ENDED_IT, octet=0xFF)
        await call.record(0, SILENCE_ENDED_IT)


async def test_speech_that_comes_during_a_recording_waits_for_its_end(
    tmp_path: Path,
) -> None:
    async with open_call(tmp_path) as call:
        call.leg.listen()
        path = await call.next_recording()
        await call.leg.play(pcm16(200))
        call.leg.end_of_speech()
        path.write_bytes(ulaw(1020, 0xFF))
        await call.asterisk.respond("200 result=2980 (timeout) endpos=8160")
        octets, _ = await call.next_playback()
        assert octets == ulaw(200)
        await call.asterisk.respond("200 result=0 endpos=1600")
        assert await call.event() == CallerAudio(ulaw_decode(ulaw(1020, 0xFF)))
        assert await call.event() == PlaybackFinished(200)
        await call.next_silence()  # not listening again until told to


async def test_listening_asked_for_during_speech_begins_after_it(
    tmp_path: Path,
) -> None:
    async with open_call(tmp_path) as call:
        await call.leg.play(pcm16(200))
        call.leg.end_of_speech()
        call.leg.listen()
        await call.next_playback()
        await call.asterisk.respond("200 result=0 endpos=1600")
        await call.next_recording()
        await call.asterisk.respond("200 result=2980 (timeout) endpos=0")


# --- keys towards the caller's side ---


async def test_keys_are_sent_between_commands(tmp_path: Path) -> None:
    async with open_call(tmp_path) as call:
        call.asterisk.responses["EXEC SendDTMF"] = "200 result=0"
        await call.next_silence()
        assert await call.leg.send_keys("12#")
        assert "EXEC SendDTMF 12#" in call.asterisk.commands


@pytest.mark.parametrize("keys", ["", "12x", "1,200", "1" * 65])
async def test_what_is_no_key_is_not_sent(tmp_path: Path, keys: str) -> None:
    async with open_call(tmp_path) as call:
        assert not await call.leg.send_keys(keys)
    assert not [line for line in call.asterisk.commands if "SendDTMF" in line]


async def test_keys_that_were_not_sent_before_the_end_are_refused(
    tmp_path: Path,
) -> None:
    async with open_call(tmp_path) as call:
        call.leg.listen()
        path = await call.next_recording()
        sending = asyncio.create_task(call.leg.send_keys("1"))
        await asyncio.sleep(0)
        path.write_bytes(b"")
        await call.asterisk.respond("200 result=-1 (hangup) endpos=0")
        await call.asterisk.hang_up()
        assert not await sending
        assert not await call.leg.send_keys("1")


# --- the end ---


async def test_end_is_orderly_and_agi_works_again(tmp_path: Path) -> None:
    async with open_call(tmp_path) as call:
        await call.leg.play(pcm16(5000))
        await call.next_playback()
        await call.leg.end()
        assert await call.event() == LegClosed("ended_by_us")
        assert await call.agi.execute(get_variable("X")) is None
        await call.leg.play(pcm16(60_000))
        call.leg.end_of_speech()
        await call.leg.end()


async def test_end_waits_for_a_recording_that_cannot_be_stopped(
    tmp_path: Path,
) -> None:
    async with open_call(tmp_path) as call:
        call.leg.listen()
        path = await call.next_recording()
        ending = asyncio.create_task(call.leg.end())
        await asyncio.sleep(0)
        assert not ending.done()
        path.write_bytes(ulaw(1020))
        await call.asterisk.respond("200 result=2980 (timeout) endpos=8160")
        await ending
        assert await call.event() == CallerAudio(pcm16(1020))
        assert await call.event() == LegClosed("ended_by_us")


async def test_the_caller_hangs_up_during_playback(tmp_path: Path) -> None:
    async with open_call(tmp_path) as call:
        await call.leg.play(pcm16(5000))
        await call.next_playback()
        await call.asterisk.hang_up()
        assert await call.event() == LegClosed("caller_hung_up")


async def test_the_caller_hangs_up_during_playback_without_a_hangup_line(
    tmp_path: Path,
) -> None:
    async with open_call(tmp_path) as call:
        await call.leg.play(pcm16(5000))
        await call.next_playback()
        call.asterisk.is_hung_up = True  # AGISIGHUP=no
        await call.asterisk.respond("200 result=-1 endpos=4000")
        assert await call.event() == LegClosed("caller_hung_up")


async def test_the_callers_last_words_are_delivered_after_a_hangup(
    tmp_path: Path,
) -> None:
    async with open_call(tmp_path) as call:
        call.leg.listen()
        path = await call.next_recording()
        path.write_bytes(ulaw(700))
        await call.asterisk.respond("200 result=-1 (hangup) endpos=5600")
        await call.asterisk.hang_up()
        assert await call.event() == CallerAudio(pcm16(700))
        assert await call.event() == LegClosed("caller_hung_up")


async def test_asterisk_dies(tmp_path: Path) -> None:
    async with open_call(tmp_path) as call:
        await call.next_silence()
        call.asterisk.abort()
        assert await call.event() == LegClosed("caller_hung_up")


async def test_a_file_asterisk_cannot_play_loses_the_leg(tmp_path: Path) -> None:
    async with open_call(tmp_path) as call:
        await call.leg.play(pcm16(600))
        await call.next_playback()
        await call.asterisk.respond("200 result=-1 endpos=0")
        closed = await call.event()
        assert closed == LegClosed("lost", "Asterisk cannot play our sound file")


async def test_a_recording_asterisk_cannot_write_loses_the_leg(
    tmp_path: Path,
) -> None:
    async with open_call(tmp_path) as call:
        call.leg.listen()
        await call.next_recording()
        await call.asterisk.respond("200 result=-1 (writefile)")
        closed = await call.event()
        assert isinstance(closed, LegClosed)
        assert closed.reason == "lost"
        assert "cannot write our recording" in closed.detail


async def test_a_recording_that_is_not_there_loses_the_leg(tmp_path: Path) -> None:
    async with open_call(tmp_path) as call:
        call.leg.listen()
        await call.next_recording()
        await call.asterisk.respond("200 result=2980 (timeout) endpos=8160")
        await call.next_recording()
        await call.asterisk.respond("200 result=2980 (timeout) endpos=0")
        closed = await call.event()
        assert isinstance(closed, LegClosed)
        assert closed.reason == "lost"
        assert "recording cannot be read" in closed.detail


async def test_a_folder_that_is_gone_loses_the_leg(tmp_path: Path) -> None:
    async with open_call(tmp_path / "missing") as call:
        closed = await call.event()
        assert isinstance(closed, LegClosed)
        assert closed.reason == "lost"
        assert "cannot be written" in closed.detail


async def test_cancelling_the_call_leaves_nothing_behind(tmp_path: Path) -> None:
    opened = asyncio.Event()

    async def talk() -> None:
        async with open_call(tmp_path) as call:
            await call.leg.play(pcm16(5000))
            await call.next_playback()
            opened.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(talk())
    await opened.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
