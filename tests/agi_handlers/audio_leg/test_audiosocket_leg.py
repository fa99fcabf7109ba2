"""The AudioSocket leg against Asterisk's two ends of a call."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import UUID

import pytest

from agi_handlers.agi.commands import get_variable
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.audio_leg.audiosocket_leg import (
    AudioSocketLeg,
    AudioSocketOptions,
    open_audiosocket_leg,
)
from agi_handlers.audio_leg.audiosocket_protocol import call_id_message
from agi_handlers.audio_leg.audiosocket_session import SessionOptions
from agi_handlers.audio_leg.frame_wheel import FrameWheel
from agi_handlers.audio_leg.leg import (
    CallerAudio,
    CallerKey,
    CallerMissing,
    LegClosed,
    LegEvent,
    PlaybackFinished,
)
from agi_handlers.audio_leg.loudness import Loudness
from agi_handlers.audio_leg.media_port import MediaPort
from agi_handlers.conversation.mouth import BotMouth
from agi_handlers.errors import AudioLegUnavailable, ChannelGone
from tests.fakes.asterisk import FakeAsterisk, FakeAudioSocket, connected_agi
from tests.fakes.audiosocket import AppBehaviour, AudioSocketApplication

SESSION = SessionOptions(connect_timeout_s=2.0, end_timeout_s=0.3)
OPTIONS = AudioSocketOptions(
    session=SESSION,
    judge_timeout_s=0.3,
    gap_after_ms=10_000,  # silence of our own would disturb what a test counts
)
TONE = bytes(range(1, 161)) * 2


@dataclass
class Call:
    """A call with its leg open, and Asterisk's side of it."""

    leg: AudioSocketLeg
    agi: AgiConnection
    asterisk: FakeAsterisk
    app: AudioSocketApplication
    media: FakeAudioSocket


@asynccontextmanager
async def dialogue(
    app: AudioSocketApplication,
) -> AsyncIterator[tuple[AgiConnection, FakeAsterisk]]:
    agi, asterisk = await connected_agi(responses={"EXEC AudioSocket": app})
    try:
        yield agi, asterisk
    finally:
        await agi.close()
        await asterisk.aclose()


@asynccontextmanager
async def open_call(
    media_port: MediaPort,
    wheel: FrameWheel,
    behaviour: AppBehaviour = "modern",
    options: AudioSocketOptions = OPTIONS,
) -> AsyncIterator[Call]:
    app = AudioSocketApplication(behaviour)
    async with (
        dialogue(app) as (agi, asterisk),
        open_audiosocket_leg(
            agi,
            media_port,
            wheel,
            address=f"127.0.0.1:{media_port.port}",
            options=options,
        ) as leg,
    ):
        yield Call(leg, agi, asterisk, app, await app.the_media())


async def rest_of(leg: AudioSocketLeg) -> list[LegEvent]:
    async with asyncio.timeout(5):
        return [event async for event in leg.events()]


async def until_closed(leg: AudioSocketLeg) -> LegClosed:
    last = (await rest_of(leg))[-1]
    assert isinstance(last, LegClosed)
    return last


# --- both directions ---


async def test_what_is_played_reaches_asterisk_in_frames_with_silence_around_it(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    speech = TONE * 5 + b"\1\2" * 10
    async with open_call(media_port, wheel) as call:
        await call.media.wait_for(lambda: len(call.media.messages) >= 2)
        await call.leg.play(speech[:333])
        await call.leg.play(speech[333:])
        call.leg.end_of_speech()
        events = call.leg.events()
        async with asyncio.timeout(5):
            assert await anext(events) == PlaybackFinished(101)
        await call.media.wait_for(
            lambda: call.media.received_pcm16.endswith(bytes(320 * 3))
        )
        assert {len(payload) for _, payload in call.media.messages} == {320}
        assert call.media.received_pcm16.strip(b"\0") == speech
    assert call.app.call_id is not None
    assert call.app.call_id.version == 4


async def test_the_caller_is_heard_in_order_with_keys(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    async with open_call(media_port, wheel) as call:
        await call.media.send_pcm16(TONE * 2)
        await call.media.send_digit("5")
        await call.media.send_pcm16(TONE)
        await call.media.send_digit("#")
        heard, keys = b"", []
        async with asyncio.timeout(5):
            async for event in call.leg.events():
                match event:
                    case CallerAudio(pcm16):
                        heard += pcm16
                    case CallerKey(key):
                        keys.append((key, len(heard) // 320))
                if len(keys) == 2:
                    break
        assert heard == TONE * 3
        assert keys == [("5", 2), ("#", 3)]
        assert call.leg.num_frames_received == 3


async def test_stop_falls_silent_and_tells_what_was_heard(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    async with open_call(media_port, wheel) as call:
        await call.leg.play(TONE * 500)
        call.leg.end_of_speech()
        await call.media.wait_for(lambda: call.media.received_pcm16.count(TONE) >= 4)
        heard_ms = call.leg.stop()
        assert call.leg.heard_ms() == 0
        await call.media.wait_for(
            lambda: call.media.received_pcm16.endswith(bytes(320 * 3))
        )
        assert call.media.received_pcm16.count(TONE) * 20 == heard_ms
        await call.leg.play(TONE * 2)
        call.leg.end_of_speech()
        async with asyncio.timeout(5):
            first = await anext(call.leg.events())
        assert first == PlaybackFinished(40), "the stopped speech is not reported"


async def test_the_bot_speaks_softly_within_a_frame_and_stops_as_fast(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    soft = Loudness()
    soft.lower(is_lowered=True)
    fading, softly = soft.apply(TONE), soft.apply(TONE)
    async with open_call(media_port, wheel) as call:
        await call.leg.play(TONE * 500)
        await call.media.wait_for(lambda: TONE * 3 in call.media.received_pcm16)
        call.leg.lower(is_lowered=True)
        await call.media.wait_for(lambda: softly * 3 in call.media.received_pcm16)
        assert call.media.received_pcm16.count(TONE + fading + softly) == 1
        call.leg.lower(is_lowered=False)
        await call.media.wait_for(lambda: call.media.received_pcm16.endswith(TONE * 3))
        call.leg.lower(is_lowered=True)
        call.leg.stop()
        await call.media.wait_for(
            lambda: call.media.received_pcm16.endswith(bytes(320 * 3))
        )
        await call.leg.play(TONE * 3)
        await call.media.wait_for(
            lambda: call.media.received_pcm16.endswith(TONE * 3 + bytes(320))
        )


async def test_speech_that_was_held_goes_on_without_a_gap_or_a_repeat(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    speech = b"".join((1000 + frame).to_bytes(2, "little") * 160 for frame in range(30))
    async with open_call(media_port, wheel) as call:
        mouth = BotMouth(call.leg)
        await mouth.play(speech)
        await mouth.end_of_speech()
        await call.media.wait_for(lambda: speech[:3200] in call.media.received_pcm16)
        mouth.hold()
        await call.media.wait_for(
            lambda: call.media.received_pcm16.endswith(bytes(320 * 5))
        )
        await mouth.go_on()
        async with asyncio.timeout(5):
            assert isinstance(await anext(call.leg.events()), PlaybackFinished)
        await call.media.wait_for(
            lambda: call.media.received_pcm16.endswith(speech[-320:] + bytes(320))
        )
        assert call.media.received_pcm16.replace(bytes(320), b"") == speech


async def test_play_waits_while_too_much_is_queued(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    options = replace(OPTIONS, max_queued_ms=1000)
    async with open_call(media_port, wheel, options=options) as call:
        playing = asyncio.create_task(call.leg.play(TONE * 500))
        await call.media.wait_for(lambda: TONE in call.media.received_pcm16)
        assert not playing.done()
        heard_ms = call.leg.stop()
        await playing
        await call.media.wait_for(
            lambda: call.media.received_pcm16.endswith(bytes(320 * 3))
        )
        # what had not been queued yet was void, not played after the stop
        assert call.media.received_pcm16.count(TONE) * 20 == heard_ms


async def test_silence_takes_the_place_of_frames_asterisk_does_not_send(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    options = replace(OPTIONS, gap_after_ms=40)
    async with open_call(media_port, wheel, options=options) as call:
        heard = b""
        async with asyncio.timeout(5):
            async for event in call.leg.events():
                assert isinstance(event, CallerAudio)
                heard += event.pcm16
                if len(heard) >= 320 * 5:
                    break
        assert heard.strip(b"\0") == b""
        assert call.leg.num_gap_frames >= 5


# --- keys towards the caller's side ---


async def test_a_caller_of_whom_nothing_comes_is_noticed(
    media_port: MediaPort, wheel: FrameWheel, caplog: pytest.LogCaptureFixture
) -> None:
    options = replace(OPTIONS, gap_after_ms=100)
    async with open_call(media_port, wheel, options=options) as call:
        async with asyncio.timeout(10):
            told_of = await _missing_within(call.leg.events(), 1.3)
    assert told_of == [CallerMissing(True)]
    told = [record.msg for record in caplog.records]
    assert told.count("caller_audio_missing") == 1


async def _missing_within(
    events: AsyncIterator[LegEvent], seconds: float
) -> list[LegEvent]:
    """What else was told within so much audio."""
    told: list[LegEvent] = []
    num_bytes = 0
    async for event in events:
        if isinstance(event, CallerAudio):
            num_bytes += len(event.pcm16)
        else:
            told.append(event)
        if num_bytes >= seconds * 16_000:
            break
    return told


async def test_keys_are_sent_between_two_runs_of_the_application(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    async with open_call(media_port, wheel) as call:
        call.asterisk.responses["EXEC SendDTMF"] = "200 result=0"
        first, first_id = call.media, call.app.call_id
        await call.leg.play(TONE * 500)
        await first.wait_for(lambda: TONE in first.received_pcm16)
        assert await call.leg.send_keys("12#")
        assert first.messages[-1] == (0, b"")
        await call.asterisk.expect("EXEC SendDTMF 12#")
        await call.asterisk.expect("EXEC AudioSocket")
        second = await call.app.the_media()
        assert call.app.call_id != first_id
        # the speech goes on, and the caller is heard again
        await second.wait_for(lambda: TONE in second.received_pcm16)
        await second.send_digit("7")
        async with asyncio.timeout(5):
            async for event in call.leg.events():
                if event == CallerKey("7"):
                    break
        heard_ms = call.leg.stop()
        await second.wait_for(lambda: second.received_pcm16.endswith(bytes(320 * 3)))
        both = first.received_pcm16 + second.received_pcm16
        assert both.count(TONE) * 20 == heard_ms


async def test_keys_that_asterisk_did_not_send_are_told_and_the_talk_goes_on(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    async with open_call(media_port, wheel) as call:
        call.asterisk.responses["EXEC SendDTMF"] = "200 result=-2"
        assert not await call.leg.send_keys("1")
        assert not await call.leg.send_keys("x")
        await call.asterisk.expect("EXEC SendDTMF 1")
        await call.asterisk.expect("EXEC AudioSocket")
        media = await call.app.the_media()
        await media.wait_for(lambda: bool(media.messages))


async def test_a_caller_who_leaves_while_keys_are_sent(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    async with open_call(media_port, wheel) as call:

        async def leaves_meanwhile(words: list[str]) -> str:
            await call.asterisk.hang_up()
            call.asterisk.responses["EXEC AudioSocket"] = "200 result=-1"
            return "200 result=-1"

        call.asterisk.responses["EXEC SendDTMF"] = leaves_meanwhile
        assert not await call.leg.send_keys("1")
        assert await until_closed(call.leg) == LegClosed("caller_hung_up")
        assert not await call.leg.send_keys("1")


async def test_the_end_comes_while_keys_are_sent(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    async with open_call(media_port, wheel) as call:
        go_on = asyncio.Event()

        async def takes_its_time(words: list[str]) -> str:
            await go_on.wait()
            return "200 result=0"

        call.asterisk.responses["EXEC SendDTMF"] = takes_its_time
        sending = asyncio.create_task(call.leg.send_keys("1"))
        await call.asterisk.expect("EXEC SendDTMF")
        await call.leg.end()
        go_on.set()
        assert await sending
        assert await until_closed(call.leg) == LegClosed("ended_by_us")
        assert await call.agi.execute(get_variable("X")) is None
    assert sum("EXEC AudioSocket" in line for line in call.asterisk.commands) == 1


# --- the end ---


@pytest.mark.parametrize("behaviour", ["modern", "old"])
async def test_end_is_orderly_and_agi_works_again(
    media_port: MediaPort, wheel: FrameWheel, behaviour: AppBehaviour
) -> None:
    async with open_call(media_port, wheel, behaviour) as call:
        await call.leg.play(TONE * 100)
        await call.leg.end()
        assert call.media.messages[-1] == (0, b"")
        assert await call.agi.execute(get_variable("X")) is None
        assert await until_closed(call.leg) == LegClosed("ended_by_us")
        await call.leg.play(TONE * 2000)  # returns at once
        call.leg.end_of_speech()
        await call.leg.end()
    assert [kind for kind, _ in call.media.messages].count(0) == 1


async def test_a_speaker_that_plays_on_does_not_block_the_loop_after_the_end(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    async with open_call(media_port, wheel) as call:

        async def speak_on_and_on() -> None:
            while True:
                await call.leg.play(TONE)

        speaking = asyncio.create_task(speak_on_and_on())
        await call.media.wait_for(lambda: TONE in call.media.received_pcm16)
        await call.leg.end()
        assert await until_closed(call.leg) == LegClosed("ended_by_us")
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)


async def test_leaving_the_block_ends_the_leg(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    async with open_call(media_port, wheel) as call:
        pass
    assert call.media.has_hangup
    assert await until_closed(call.leg) == LegClosed("ended_by_us")


async def test_an_error_inside_the_block_ends_the_leg_and_goes_through(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_call(media_port, wheel) as call:
            raise ZeroDivisionError
    assert call.media.has_hangup


async def test_cancelling_the_call_leaves_nothing_behind(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    opened = asyncio.Event()

    async def talk() -> None:
        async with open_call(media_port, wheel) as call:
            opened.set()
            async for _ in call.leg.events():
                pass

    task = asyncio.create_task(talk())
    await opened.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_caller_hangs_up(media_port: MediaPort, wheel: FrameWheel) -> None:
    async with open_call(media_port, wheel) as call:
        await call.leg.play(TONE * 100)
        playing = asyncio.create_task(call.leg.play(TONE * 2000))
        call.app.caller_leaves()
        await call.asterisk.hang_up()
        assert await until_closed(call.leg) == LegClosed("caller_hung_up")
        await playing


async def test_a_hangup_without_its_line_is_seen_by_the_channel(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    async with open_call(media_port, wheel) as call:
        call.asterisk.is_hung_up = True  # AGISIGHUP=no
        call.app.caller_leaves()
        assert await until_closed(call.leg) == LegClosed("caller_hung_up")


async def test_audio_that_ends_while_the_channel_is_up_is_a_lost_leg(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    async with open_call(media_port, wheel) as call:
        call.app.caller_leaves()
        closed = await until_closed(call.leg)
        assert closed.reason == "lost"
        assert "EOF" in closed.detail
        assert await call.agi.execute(get_variable("X")) is None


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"\xff\x00\x01\x04", "error 4"),
        (b"\x00\x00\x00", "Asterisk ended AudioSocket"),
        (b"\x10\x00\x03abc", "half a sample"),
        (b"\x10\xff\xff", "65535"),
    ],
)
async def test_faults_on_the_audio_connection_lose_the_leg(
    media_port: MediaPort, wheel: FrameWheel, data: bytes, detail: str
) -> None:
    async with open_call(media_port, wheel) as call:
        await call.media.send_bytes(data)
        closed = await until_closed(call.leg)
        assert closed.reason == "lost"
        assert detail in closed.detail


async def test_an_end_inside_a_frame_is_a_lost_leg(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    async with open_call(media_port, wheel) as call:
        await call.media.send_bytes(b"\x10\x01\x40" + bytes(100))
        call.app.caller_leaves()
        closed = await until_closed(call.leg)
        assert closed.reason == "lost"
        assert "inside a message" in closed.detail


async def test_asterisk_dies(media_port: MediaPort, wheel: FrameWheel) -> None:
    async with open_call(media_port, wheel) as call:
        call.asterisk.abort()
        assert await until_closed(call.leg) == LegClosed("caller_hung_up")


async def test_an_application_that_never_answers_does_not_hold_the_call(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    async with open_call(media_port, wheel, "stuck") as call:
        await call.leg.end()
        assert await until_closed(call.leg) == LegClosed("ended_by_us")


async def test_a_peer_that_takes_no_bytes_is_dropped_frames_for_then_given_up(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    session = replace(SESSION, send_buffer_bytes=2048)
    options = replace(OPTIONS, stalled_timeout_s=0.2, session=session)
    app = AudioSocketApplication("never_connects")
    stalled: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()

    async def connect_and_read_nothing(words: list[str]) -> str:
        call_id, address = words[2].split(",")
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", int(address.split(":")[1])))
        await loop.sock_sendall(sock, call_id_message(UUID(call_id)))
        stalled.set_result(sock)
        return "SILENCE"

    async with dialogue(app) as (agi, asterisk):
        asterisk.responses["EXEC AudioSocket"] = connect_and_read_nothing
        async with open_audiosocket_leg(
            agi,
            media_port,
            wheel,
            address=f"127.0.0.1:{media_port.port}",
            options=options,
        ) as leg:
            await leg.play(TONE * 900)
            closed = await until_closed(leg)
            assert closed.reason == "lost"
            assert "took no audio" in closed.detail
            assert leg.num_frames_dropped > 0
            # heard is what went out, not what was dropped
            assert leg.num_frames_sent + leg.num_frames_dropped > 0
    (await stalled).close()


# --- it cannot be had ---


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("absent", "no app_audiosocket"),
        ("refused", "unreachable or refused"),
    ],
)
async def test_an_exec_that_fails_at_once_is_unavailable(
    media_port: MediaPort, wheel: FrameWheel, behaviour: AppBehaviour, reason: str
) -> None:
    with pytest.raises(AudioLegUnavailable, match=reason):
        async with open_call(media_port, wheel, behaviour):
            pass


async def test_nobody_connecting_and_no_answer_is_unavailable(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    session = SessionOptions(connect_timeout_s=0.05, end_timeout_s=0.05)
    options = replace(OPTIONS, session=session)
    async with dialogue(AudioSocketApplication()) as (agi, asterisk):
        asterisk.responses["EXEC AudioSocket"] = "SILENCE"
        with pytest.raises(AudioLegUnavailable, match=r"nobody connected to 192\.0"):
            async with open_audiosocket_leg(
                agi, media_port, wheel, address="192.0.2.1:9", options=options
            ):
                pass


async def test_a_caller_who_left_before_it_opened_is_gone_not_a_fault(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    async with dialogue(AudioSocketApplication("refused")) as (agi, asterisk):
        asterisk.is_hung_up = True
        with pytest.raises(ChannelGone):
            async with open_audiosocket_leg(
                agi, media_port, wheel, address="127.0.0.1:9", options=OPTIONS
            ):
                pass


async def test_a_call_id_that_is_given_is_used(
    media_port: MediaPort, wheel: FrameWheel
) -> None:
    call_id = UUID("40325ec2-5efd-4bd3-805f-53576e581d13")
    app = AudioSocketApplication()
    async with (
        dialogue(app) as (agi, _),
        open_audiosocket_leg(
            agi,
            media_port,
            wheel,
            address=f"127.0.0.1:{media_port.port}",
            options=OPTIONS,
            call_id=call_id,
        ),
    ):
        assert app.call_id == call_id
