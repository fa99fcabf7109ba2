"""Whole calls at the wire: the caller against handlers of the real AGI server."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import psutil
import pytest

from agi_handlers.agi import commands
from agi_handlers.agi.commands import ChannelState, PlaybackEnd, RecordingEnd
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.agi.protocol import AgiRequest
from agi_handlers.errors import ChannelGone
from model.audio.wav import write_wav
from tests.tools.caller.virtual_call import HOST, call, here
from tools.caller.audiosocket_wire import (
    KIND_AUDIO,
    KIND_DTMF,
    KIND_UUID,
    MessageReader,
    audio_message,
    hangup_message,
)
from tools.caller.call import CallPlan, CallReport
from tools.caller.say_items import HangUp, Item, Pause, Press, Say

TONE = (np.tile([5000, -5000], 80)).astype("<i2").tobytes()
SECOND = TONE * 50


def saying(
    *items: Item, max_s: float = 20.0, **changes: object
) -> Callable[[int], CallPlan]:
    """A plan for whatever port the bot gets."""

    def plan(port: int) -> CallPlan:
        return CallPlan(
            HOST,
            port,
            "bot",
            items=items,
            max_s=max_s,
            **changes,  # type: ignore[arg-type]
        )

    return plan


class TestCommands:
    async def test_a_bot_that_only_sets_variables_returns_to_the_dialplan(
        self,
    ) -> None:
        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            assert request.args == ("one",)
            assert await agi.execute(commands.channel_status()) is ChannelState.RING
            await agi.execute(commands.answer())
            assert await agi.execute(commands.channel_status()) is ChannelState.UP
            await agi.execute(commands.set_variable("BOT_RESULT", "done"))
            await agi.execute(commands.set_context("sales"))
            await agi.execute(commands.set_extension("100"))
            await agi.execute(commands.set_priority(1))

        report = await call(bot, saying(args=("one",)))
        assert report.ended == "returned"
        assert report.variables == {"BOT_RESULT": "done"}
        assert report.goes_on_at == {
            "context": "sales",
            "extension": "100",
            "priority": "1",
        }
        assert report.errors == ()

    async def test_a_bot_that_does_not_answer_has_refused(self) -> None:
        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            await agi.execute(commands.set_variable("BOT_STATUS", "busy"))

        report = await call(bot, saying())
        assert report.ended == "refused"
        assert report.answered_s is None

    async def test_nobody_listens(self) -> None:
        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            raise AssertionError

        def plan(port: int) -> CallPlan:
            return CallPlan(HOST, 1, "bot")

        report = await call(bot, plan)
        assert report.ended == "unreachable"
        assert "nobody listens" in report.errors[0]

    async def test_variables_and_probes_are_answered(self) -> None:
        seen: list[str | None] = []

        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            for expression in (
                "${IFMODULE(app_audiosocket.so)}",
                "${CALLERID(name)}",
                "${LEAD}",
                "${NOSUCH}",
            ):
                seen.append(await agi.execute(commands.get_full_variable(expression)))
            seen.append(await agi.execute(commands.get_variable("LEAD")))
            seen.append(await agi.execute(commands.get_variable("NOSUCH")))

        plan = saying(variables={"LEAD": "77"})
        await call(bot, plan, abilities=here(has_audiosocket=False))
        assert seen == ["0", "Jane Q Roe", "77", "", "77", None]

    async def test_an_application_that_is_not_there(self) -> None:
        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            ended = await agi.execute(commands.exec_("NoSuchThing"))
            assert ended.is_unknown_application
            no_socket = commands.exec_audiosocket(uuid4(), "127.0.0.1:1")
            assert (await agi.execute(no_socket)).is_unknown_application
            await agi.execute(commands.set_variable("BOT_RESULT", "done"))

        report = await call(bot, saying(), abilities=here(has_audiosocket=False))
        assert report.variables == {"BOT_RESULT": "done"}

    async def test_a_hangup_by_the_bot(self) -> None:
        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            await agi.execute(commands.answer())
            await agi.execute(commands.hangup())
            await agi.wait_hangup()
            with pytest.raises(ChannelGone):
                await agi.execute(commands.channel_status())
            await agi.execute(commands.set_variable("BOT_RESULT", "done"))

        report = await call(bot, saying())
        assert report.ended == "bot"
        assert report.variables == {"BOT_RESULT": "done"}

    async def test_the_caller_hangs_up(self) -> None:
        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            await agi.execute(commands.answer())
            await agi.wait_hangup()
            with pytest.raises(ChannelGone):
                await agi.execute(commands.stream_file("beep"))
            await agi.execute(commands.set_variable("BOT_STATUS", "hangup"))

        report = await call(bot, saying(Pause(1), HangUp()))
        assert report.ended == "caller"
        assert report.variables == {"BOT_STATUS": "hangup"}

    async def test_the_time_limit_hangs_up(self) -> None:
        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            await agi.execute(commands.answer())
            await agi.wait_hangup()

        report = await call(bot, saying(max_s=2.0))
        assert report.ended == "time"

    async def test_a_bot_that_keeps_the_dialogue_is_told_of(self) -> None:
        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            await agi.execute(commands.answer())
            await asyncio.Event().wait()

        report = await call(bot, saying(HangUp(), after_hangup_s=0.05))
        assert "kept the dialogue" in report.errors[0]


class TestPlayingAndRecording:
    async def test_a_prompt_is_heard_and_measured(self, tmp_path: Path) -> None:
        write_wav(tmp_path / "hello.wav", SECOND, rate_hz=8000)

        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            await agi.execute(commands.answer())
            ended = await agi.play_interruptible("hello")
            assert ended.how is PlaybackEnd.FINISHED
            assert ended.endpos_samples == 8000

        report = await call(bot, saying(), abilities=here(tmp_path))
        (sound,) = report.ear.sounds
        assert sound.end_s - sound.start_s == pytest.approx(1.0)
        assert report.greeting_ms is not None
        assert report.ear.pcm16(sound.start_s)[:16_000] == SECOND

    async def test_a_prompt_that_is_not_there(self) -> None:
        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            ended = await agi.play_interruptible("nosuch")
            assert ended.how is PlaybackEnd.FAILED

        report = await call(bot, saying())
        assert "nosuch" in report.errors[0]

    async def test_an_interrupt_stops_it_within_a_frame(self) -> None:
        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            await agi.execute(commands.answer())
            playing = asyncio.ensure_future(agi.play_interruptible("silence/60"))
            await asyncio.sleep(0)
            assert agi.request_interrupt()
            assert (await playing).how is PlaybackEnd.INTERRUPTED
            await agi.execute(commands.noop())

        report = await call(bot, saying())
        assert report.ended == "returned"
        assert report.errors == ()

    async def test_a_key_ends_a_prompt_and_a_wait(self) -> None:
        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            await agi.execute(commands.answer())
            ended = await agi.play_interruptible("silence/60")
            assert (ended.how, ended.digit) == (PlaybackEnd.DIGIT, "5")
            assert await agi.execute(commands.wait_for_digit(60_000)) == "#"
            assert await agi.execute(commands.wait_for_digit(100)) is None

        report = await call(bot, saying(Pause(1), Press("5#"), Pause(9)))
        assert report.ended == "returned"

    async def test_a_turn_is_recorded_and_answered(self, tmp_path: Path) -> None:
        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            await agi.execute(commands.answer())
            ended = await agi.execute(
                commands.record_file(
                    str(tmp_path / "turn"), "sln", timeout_ms=9000, silence_s=1
                )
            )
            assert ended.how is RecordingEnd.SILENCE
            await agi.play_interruptible("beep")
            await agi.wait_hangup()

        report = await call(bot, saying(Pause(0.1), Say("hello", SECOND)))
        recorded = (tmp_path / "turn.sln").read_bytes().lstrip(b"\0")
        assert recorded[: len(SECOND)] == SECOND
        assert report.ended == "caller"
        (turn,) = report.turns
        assert turn.response_ms is not None
        assert 1000 < turn.response_ms < 1300
        assert report.legs == ("recorded_turns",)

    async def test_a_recording_that_cannot_be_written(self) -> None:
        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            record = commands.record_file("/no/such/folder/x", "wav", timeout_ms=100)
            ended = await agi.execute(record)
            assert ended.how is RecordingEnd.WRITE_FAILED

        report = await call(bot, saying())
        assert "/no/such/folder/x.wav" in report.errors[0]


class MediaBot:
    """A bot's end of AudioSocket: collects messages, sends what it is told to."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, bytes]] = []
        self.writer: asyncio.StreamWriter | None = None
        self.arrived = asyncio.Event()
        self.ended = asyncio.Event()
        self._reader = MessageReader()

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.writer = writer
        try:
            while data := await reader.read(65_536):
                self.messages += self._reader.receive_data(data)
                self.arrived.set()
        finally:
            self.ended.set()
            writer.close()

    async def until(self, num_audio: int) -> None:
        while sum(kind == KIND_AUDIO for kind, _ in self.messages) < num_audio:
            self.arrived.clear()
            await self.arrived.wait()

    def send(self, message: bytes) -> None:
        assert self.writer is not None
        self.writer.write(message)

    def kinds(self) -> list[int]:
        return [kind for kind, _ in self.messages]


class TestAudioSocket:
    @staticmethod
    async def talk(
        media: MediaBot,
        end: bytes,
        plan: Callable[[int], CallPlan],
        *,
        result: int,
        num_audio: int = 20,
    ) -> tuple[CallReport, UUID]:
        """A call whose bot echoes a tone and ends the leg by `end`."""
        call_id = uuid4()
        server = await asyncio.start_server(media.serve, HOST, 0)
        port = server.sockets[0].getsockname()[1]

        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            await agi.execute(commands.answer())
            leg = asyncio.ensure_future(
                agi.execute(commands.exec_audiosocket(call_id, f"{HOST}:{port}"))
            )
            await media.until(num_audio)
            media.send(audio_message(TONE))
            await media.until(num_audio + 5)
            if end == b"EOF":
                assert media.writer is not None
                media.writer.close()
            else:
                media.send(end)
            assert (await leg).result == result
            await agi.execute(commands.set_variable("BOT_RESULT", "done"))

        report = await call(bot, plan)
        server.close()
        await server.wait_closed()
        return report, call_id

    @pytest.mark.parametrize("end", [hangup_message(), b"EOF"])
    async def test_the_bot_ends_it_in_order(self, end: bytes) -> None:
        media = MediaBot()
        report, call_id = await self.talk(
            media, end, saying(Say("hello", SECOND)), result=0
        )
        assert media.messages[0] == (KIND_UUID, call_id.bytes)
        assert set(media.kinds()[1:]) == {KIND_AUDIO}
        assert all(len(payload) == 320 for _, payload in media.messages[1:])
        assert report.ended == "returned"
        assert report.legs == ("audiosocket",)
        assert report.ear.cadence.num_frames == 1
        assert len(report.ear.sounds) == 1
        assert report.errors == ()

    async def test_a_message_asterisk_does_not_take_ends_it(self) -> None:
        report, _ = await self.talk(
            MediaBot(), b"\x42\x00\x00", saying(Say("hello", SECOND)), result=-1
        )
        assert "kind 0x42" in report.errors[0]
        assert report.ended == "returned"

    async def test_keys_come_in_the_leg(self) -> None:
        media = MediaBot()
        plan = saying(Pause(0.1), Press("1"), Pause(5))
        await self.talk(media, hangup_message(), plan, result=0, num_audio=30)
        assert (KIND_DTMF, b"1") in media.messages

    async def test_a_caller_who_leaves_closes_the_leg_without_a_message(self) -> None:
        media = MediaBot()
        server = await asyncio.start_server(media.serve, HOST, 0)
        port = server.sockets[0].getsockname()[1]

        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            await agi.execute(commands.answer())
            ended = await agi.execute(
                commands.exec_audiosocket(uuid4(), f"{HOST}:{port}")
            )
            assert ended.result == -1
            await agi.wait_hangup()
            await media.ended.wait()

        report = await call(bot, saying(Say("hello", SECOND), HangUp()))
        assert report.ended == "caller"
        assert 0 not in media.kinds()
        assert len(media.messages) >= 51
        server.close()
        await server.wait_closed()

    @pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1", "127.0.0.1:x", ""])
    async def test_an_address_nobody_is_at(self, address: str) -> None:
        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            await agi.execute(commands.answer())
            ended = await agi.execute(commands.exec_audiosocket(uuid4(), address))
            assert ended.result == -1

        assert (await call(bot, saying())).ended == "returned"

    async def test_a_channel_that_is_not_answered_has_no_audio(self) -> None:
        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            ended = await agi.execute(commands.exec_audiosocket(uuid4(), "127.0.0.1:1"))
            assert ended.result == -1

        assert (await call(bot, saying())).ended == "refused"


def is_running(pid: int) -> bool:
    try:
        status: str = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return False
    return status != psutil.STATUS_ZOMBIE


class TestScripts:
    async def test_programs_are_not_run_unless_allowed(self, tmp_path: Path) -> None:
        trace = tmp_path / "trace"

        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            ended = await agi.execute(
                commands.exec_("AGI", "/bin/bash", "-c", f"echo x >{trace}")
            )
            assert ended.result == 0
            status = await agi.execute(commands.get_variable("AGISTATUS"))
            assert status == "NOTFOUND"

        await call(bot, saying())
        assert not trace.exists()

    async def test_a_script_speaks_agi_on_its_standard_streams(self) -> None:
        script = (
            "while read -r line && [ ${#line} -gt 0 ];do :;done;"
            "echo SET VARIABLE FROM script;read -r answer;"
            "echo SET VARIABLE ANSWER ${answer// /_}"
        )

        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            ended = await agi.execute(commands.exec_("AGI", "/bin/bash", "-c", script))
            assert ended.result == 0
            status = await agi.execute(commands.get_variable("AGISTATUS"))
            assert status == "SUCCESS"

        report = await call(bot, saying(), abilities=here(runs_scripts=True))
        assert report.variables == {"FROM": "script", "ANSWER": "200_result=1"}

    async def test_an_eagi_script_hears_the_caller(self, tmp_path: Path) -> None:
        heard = tmp_path / "heard"
        script = f"head -c 3200 <&3 >{heard};echo SET VARIABLE EAGI heard;read -r x"

        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            await agi.execute(commands.answer())
            await agi.execute(commands.exec_("EAGI", "/bin/bash", "-c", script))

        report = await call(
            bot,
            saying(Say("hello", SECOND), Pause(60)),
            abilities=here(runs_scripts=True),
        )
        assert TONE * 5 in heard.read_bytes()
        assert report.legs == ("eagi",)

    async def test_what_a_script_left_running_ends_with_the_call(
        self, tmp_path: Path
    ) -> None:
        pid_file = tmp_path / "pid"
        script = f"sleep 600 </dev/null >/dev/null 2>&1 & echo $! >{pid_file}"

        async def bot(request: AgiRequest, agi: AgiConnection) -> None:
            await agi.execute(commands.exec_("AGI", "/bin/bash", "-c", script))

        await call(bot, saying(), abilities=here(runs_scripts=True))
        pid = int(pid_file.read_text())
        async with asyncio.timeout(5):
            while is_running(pid):  # noqa: ASYNC110 - the system tells nobody
                await asyncio.sleep(0.01)


async def test_the_journal_tells_what_happened_and_when() -> None:
    async def bot(request: AgiRequest, agi: AgiConnection) -> None:
        await agi.execute(commands.answer())
        await agi.play_interruptible("beep")
        await agi.execute(commands.verbose("hello"))
        await agi.execute(commands.exec_("SendDTMF", "12"))

    file = io.StringIO()
    report = await call(bot, saying(Say("hello", SECOND)), events=file)
    events = [json.loads(line) for line in file.getvalue().splitlines()]
    names = [event["ev"] for event in events]
    assert names[0] == "connected"
    assert {"answered", "agi-command", "heard-start", "said-start", "verbose"} <= set(
        names
    )
    assert all(set(event) >= {"t", "ev", "wall"} for event in events)
    assert report.keys_heard == "12"
