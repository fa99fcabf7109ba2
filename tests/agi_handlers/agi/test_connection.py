"""What the adapter adds to the protocol: waiting, time limits, interrupts, closing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

import pytest

from agi_handlers.agi import commands
from agi_handlers.agi.commands import ChannelState, PlaybackEnd
from agi_handlers.agi.connection import AgiConnection, AgiConnectionOptions
from agi_handlers.agi.protocol import AgiLimits
from agi_handlers.errors import (
    AgiCommandRefused,
    AgiConnectionLost,
    AgiProtocolError,
    AgiTimeout,
    ChannelGone,
)
from tests.fakes.asterisk import HOLD, SILENCE, Answer, FakeAsterisk, connected_agi

Dialogue: TypeAlias = tuple[AgiConnection, FakeAsterisk]
# Long enough for a busy machine, short enough for a test that must run into it.
SHORT_S = 0.05


@asynccontextmanager
async def dialogue(
    options: AgiConnectionOptions | None = None, **responses: Answer
) -> AsyncIterator[Dialogue]:
    """An open dialogue; responses: command -> answer, _ for blanks in the command."""
    named = {name.replace("_", " "): answer for name, answer in responses.items()}
    connection, asterisk = await connected_agi(options=options, responses=named)
    try:
        yield connection, asterisk
    finally:
        await connection.close()
        await asterisk.aclose()


async def started(awaitable: Awaitable[object]) -> asyncio.Task[object]:
    """A task that has run up to its first wait."""
    task = asyncio.ensure_future(awaitable)
    await asyncio.sleep(0)
    assert isinstance(task, asyncio.Task)
    return task


class SeenTransport(AgiConnection):
    """A connection whose transport a test may look at."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.seen = transport
        super().connection_made(transport)


class TestExecute:
    async def test_returns_what_the_response_means(self) -> None:
        async with dialogue(CHANNEL_STATUS="200 result=4") as (connection, _):
            state = await connection.execute(commands.channel_status())
            assert state is ChannelState.RING

    async def test_each_command_is_one_segment_sent_after_the_last_response(
        self,
    ) -> None:
        async with dialogue() as (connection, asterisk):
            for _ in range(20):
                await connection.execute(commands.noop())
            await connection.execute(commands.set_variable("A", "x" * 1900))
            assert asterisk.segments[:20] == [b"NOOP\n"] * 20
            assert len(asterisk.segments) == 21
            assert asterisk.problems == []

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            ("510 Invalid or unknown command", AgiCommandRefused),
            ("520 Invalid command syntax.", AgiCommandRefused),
            ("511 Command Not Permitted on a dead channel", ChannelGone),
            ("200 result=nonsense", AgiProtocolError),
        ],
    )
    async def test_refusals_are_typed(
        self, answer: str, error: type[Exception]
    ) -> None:
        async with dialogue(CHANNEL_STATUS=answer) as (connection, _):
            with pytest.raises(error):
                await connection.execute(commands.channel_status())
            await connection.execute(commands.noop())

    async def test_a_refusal_names_the_command_without_its_arguments(self) -> None:
        async with dialogue(SET_VARIABLE="510 Invalid") as (connection, _):
            with pytest.raises(AgiCommandRefused, match="SET VARIABLE") as caught:
                await connection.execute(commands.set_variable("A", "secret"))
            assert "secret" not in str(caught.value)
            assert caught.value.code == 510

    async def test_two_callers_take_turns(self) -> None:
        async with dialogue() as (connection, asterisk):
            await asyncio.gather(
                *(connection.execute(commands.noop()) for _ in range(10))
            )
            assert asterisk.commands == ["NOOP"] * 10

    async def test_a_peer_that_does_not_answer_is_given_up(self) -> None:
        async with dialogue(NOOP=SILENCE) as (connection, _):
            with pytest.raises(AgiTimeout, match=r"NOOP: no response in 0\.05 s"):
                await connection.execute(commands.noop(), timeout_s=SHORT_S)

    async def test_the_default_limit_comes_from_the_options(self) -> None:
        options = AgiConnectionOptions(response_timeout_s=SHORT_S)
        async with dialogue(options, NOOP=SILENCE) as (connection, _):
            with pytest.raises(AgiTimeout):
                await connection.execute(commands.noop())

    async def test_a_late_response_is_not_taken_for_the_next_one(self) -> None:
        async with dialogue(CHANNEL_STATUS=HOLD) as (connection, asterisk):
            with pytest.raises(AgiTimeout):
                await connection.execute(commands.channel_status(), timeout_s=SHORT_S)
            following = await started(connection.execute(commands.get_variable("A")))
            await asterisk.respond("200 result=6")
            assert await following is None

    async def test_a_command_waits_in_vain_behind_a_long_one(self) -> None:
        async with dialogue(EXEC=HOLD) as (connection, asterisk):
            long = await started(connection.execute(commands.exec_("Wait", "60")))
            with pytest.raises(AgiTimeout):
                await connection.execute(commands.noop(), timeout_s=SHORT_S)
            await asterisk.respond("200 result=0")
            await long
            assert asterisk.commands == ["EXEC Wait 60"]

    async def test_cancellation_passes_through_and_the_next_command_works(
        self,
    ) -> None:
        async with dialogue(EXEC=HOLD) as (connection, asterisk):
            task = await started(connection.execute(commands.exec_("Wait", "60")))
            await asterisk.expect("EXEC")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            following = await started(connection.execute(commands.noop()))
            await asterisk.respond("200 result=-1")
            await following
            assert asterisk.commands[-1] == "NOOP"

    async def test_eof_ends_a_waiting_command(self) -> None:
        async with dialogue(NOOP=HOLD) as (connection, asterisk):
            task = await started(connection.execute(commands.noop()))
            await asterisk.expect("NOOP")
            await asterisk.send_eof()
            with pytest.raises(AgiConnectionLost, match="NOOP"):
                await task
            with pytest.raises(AgiConnectionLost):
                await connection.execute(commands.noop())
            assert connection.closed

    async def test_a_reset_ends_a_waiting_command(self) -> None:
        async with dialogue(NOOP=HOLD) as (connection, asterisk):
            task = await started(connection.execute(commands.noop()))
            await asterisk.expect("NOOP")
            asterisk.abort()
            with pytest.raises(AgiConnectionLost):
                await task

    async def test_garbage_beyond_the_limit_ends_the_dialogue(self) -> None:
        options = AgiConnectionOptions(limits=AgiLimits(max_line_bytes=2000))
        async with dialogue(options, NOOP=HOLD) as (connection, asterisk):
            task = await started(connection.execute(commands.noop()))
            await asterisk.send_bytes(b"x" * 3000)
            with pytest.raises(AgiConnectionLost) as caught:
                await task
            assert isinstance(caught.value.__cause__, AgiProtocolError)
            await asterisk.wait_closed()

    async def test_interim_and_stray_lines_do_not_disturb(self) -> None:
        answer = "100 result=0 Trying...\nwhat is this\n200 result=0 Gosub complete"
        async with dialogue(EXEC_Gosub=answer) as (connection, _):
            ended = await connection.execute(commands.exec_("Gosub", "a"))
            assert ended.result == 0


class TestHangup:
    async def test_hangup_wakes_who_waits_for_it(self) -> None:
        async with dialogue() as (connection, asterisk):
            waiting = await started(connection.wait_hangup())
            assert not waiting.done()
            await asterisk.hang_up()
            await waiting
            assert connection.hung_up
            await connection.wait_hangup()

    async def test_variables_can_be_set_after_it(self) -> None:
        async with dialogue() as (connection, asterisk):
            await asterisk.hang_up()
            await connection.wait_hangup()
            await connection.execute(commands.set_variable("BOT_STATUS", "hangup"))
            assert asterisk.set_variables == {"BOT_STATUS": "hangup"}
            with pytest.raises(ChannelGone):
                await connection.execute(commands.channel_status())

    async def test_hangup_during_a_command_does_not_answer_it(self) -> None:
        async with dialogue(EXEC=HOLD) as (connection, asterisk):
            task = asyncio.create_task(connection.execute(commands.exec_("Wait", "9")))
            await asterisk.expect("EXEC")
            await asterisk.send_line("HANGUP")
            await connection.wait_hangup()
            assert not task.done()
            await asterisk.respond("200 result=-1")
            assert (await task).result == -1

    async def test_a_closed_socket_is_a_hangup_too(self) -> None:
        async with dialogue() as (connection, asterisk):
            await asterisk.send_eof()
            await connection.wait_hangup()
            assert connection.hung_up
            assert connection.closed

    async def test_a_callback_is_told_once(self) -> None:
        async with dialogue() as (connection, asterisk):
            calls: list[str] = []
            connection.on_hangup = lambda: calls.append("hangup")
            await asterisk.send_line("HANGUP")
            await asterisk.send_line("HANGUP")
            await asterisk.send_eof()
            await asterisk.wait_closed()
            assert calls == ["hangup"]


class TestPlayback:
    async def test_to_its_end_with_time(self) -> None:
        async with dialogue() as (connection, _):
            ended = await connection.play_interruptible("hello")
            assert ended.how is PlaybackEnd.FINISHED
            assert ended.endpos_samples == 8000
            assert ended.played_ms is not None

    async def test_an_interrupt_from_another_task_ends_it(self) -> None:
        async with dialogue(STREAM_FILE=HOLD) as (connection, asterisk):
            playing = asyncio.create_task(connection.play_interruptible("hello"))
            await asterisk.expect("STREAM FILE")
            assert await connection.interrupt()
            ended = await playing
            assert ended.how is PlaybackEnd.INTERRUPTED
            assert ended.endpos_samples is None
            assert ended.played_ms is not None
            assert asterisk.commands[1].startswith("GET FULL VARIABLE interrupt")
            await connection.execute(commands.noop())
            assert asterisk.problems == []

    async def test_interrupting_twice_sends_one_marker(self) -> None:
        async with dialogue(STREAM_FILE=HOLD) as (connection, asterisk):
            playing = asyncio.create_task(connection.play_interruptible("hello"))
            await asterisk.expect("STREAM FILE")
            assert connection.request_interrupt()
            assert connection.request_interrupt()
            assert (await playing).how is PlaybackEnd.INTERRUPTED
            assert len(asterisk.commands) == 2

    async def test_markers_differ(self) -> None:
        async with dialogue(STREAM_FILE=HOLD) as (connection, asterisk):
            for _ in range(2):
                playing = asyncio.create_task(connection.play_interruptible("hello"))
                await asterisk.expect("STREAM FILE")
                await connection.interrupt()
                await playing
            assert asterisk.commands[1] != asterisk.commands[3]

    async def test_nothing_to_interrupt(self) -> None:
        async with dialogue(EXEC=HOLD) as (connection, asterisk):
            assert not await connection.interrupt()
            running = asyncio.create_task(
                connection.execute(commands.exec_("Wait", "9"))
            )
            await asterisk.expect("EXEC")
            assert not await connection.interrupt()
            await asterisk.respond("200 result=0")
            await running
            assert asterisk.commands == ["EXEC Wait 9"]

    async def test_the_playback_had_just_ended(self) -> None:
        """The race: its own response is already on the way when the marker goes."""

        async def late(words: list[str]) -> str:
            return f"200 result=0 endpos=7000\n200 result=1 ({words[3]})"

        async with dialogue(STREAM_FILE=HOLD, GET_FULL_VARIABLE=late) as (
            connection,
            asterisk,
        ):
            playing = asyncio.create_task(connection.play_interruptible("hello"))
            await asterisk.expect("STREAM FILE")
            assert await connection.interrupt()
            ended = await playing
            assert ended.how is PlaybackEnd.FINISHED
            assert ended.endpos_samples == 7000

    async def test_a_marker_that_stayed_unseen_is_sent_again(self) -> None:
        """As when it reached Asterisk in one segment with STREAM FILE."""
        hidden: list[str] = []

        def see_the_second(words: list[str]) -> str:
            hidden.append(words[3])
            if len(hidden) == 1:
                return SILENCE
            return "\n".join(f"200 result=1 ({marker})" for marker in hidden)

        options = AgiConnectionOptions(interrupt_retry_s=SHORT_S)
        async with dialogue(
            options, STREAM_FILE=HOLD, GET_FULL_VARIABLE=see_the_second
        ) as (connection, asterisk):
            playing = asyncio.create_task(connection.play_interruptible("hello"))
            await asterisk.expect("STREAM FILE")
            assert await connection.interrupt()
            assert (await playing).how is PlaybackEnd.INTERRUPTED
            assert len(hidden) == 2

    async def test_a_network_slower_than_the_retry_is_no_endless_loop(self) -> None:
        """Each marker is answered after the next one was sent, until the waits grow."""
        tasks: list[asyncio.Task[None]] = []

        async def answer_late(asterisk: FakeAsterisk, marker: str) -> None:
            await asyncio.sleep(3 * SHORT_S)
            await asterisk.send_line(f"200 result=1 ({marker})")

        def receive(words: list[str]) -> str:
            tasks.append(asyncio.create_task(answer_late(asterisk, words[3])))
            return SILENCE

        options = AgiConnectionOptions(interrupt_retry_s=SHORT_S)
        async with dialogue(options, STREAM_FILE=HOLD, GET_FULL_VARIABLE=receive) as (
            connection,
            asterisk,
        ):
            playing = asyncio.create_task(connection.play_interruptible("hello"))
            await asterisk.expect("STREAM FILE")
            assert await connection.interrupt()
            assert (await playing).how is PlaybackEnd.INTERRUPTED
            await asyncio.gather(*tasks)

    async def test_an_interrupt_right_behind_the_playback_is_a_segment_of_its_own(
        self,
    ) -> None:
        async with dialogue(STREAM_FILE=HOLD) as (connection, asterisk):
            playing = await started(connection.play_interruptible("hello"))
            assert connection.request_interrupt()
            assert connection.request_interrupt()
            await playing
            assert len(asterisk.segments) == 2
            assert asterisk.problems == []

    async def test_a_playback_shorter_than_that_is_not_interrupted(self) -> None:
        options = AgiConnectionOptions(interrupt_after_s=60)
        async with dialogue(options) as (connection, asterisk):
            playing = await started(connection.play_interruptible("hello"))
            assert connection.request_interrupt()
            ended = await playing
            assert getattr(ended, "how", None) is PlaybackEnd.FINISHED
            await connection.execute(commands.noop())
            assert asterisk.commands[1:] == ["NOOP"]

    async def test_an_interrupt_nobody_answers_is_given_up(self) -> None:
        async with dialogue(STREAM_FILE=HOLD, GET_FULL_VARIABLE=SILENCE) as (
            connection,
            asterisk,
        ):
            playing = asyncio.create_task(connection.play_interruptible("hello"))
            await asterisk.expect("STREAM FILE")
            with pytest.raises(AgiTimeout):
                await connection.interrupt(timeout_s=SHORT_S)
            playing.cancel()
            with suppress(asyncio.CancelledError):
                await playing

    async def test_cancelling_the_player_stops_the_sound(self) -> None:
        async with dialogue(STREAM_FILE=HOLD) as (connection, asterisk):
            playing = asyncio.create_task(connection.play_interruptible("hello"))
            await asterisk.expect("STREAM FILE")
            playing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await playing
            await asterisk.expect("GET FULL VARIABLE interrupt")
            await connection.execute(commands.noop())
            assert asterisk.problems == []

    async def test_a_dead_channel_at_the_moment_of_the_interrupt(self) -> None:
        async def gone(words: list[str]) -> str:
            return f"511 Command Not Permitted\nHANGUP\n200 result=1 ({words[3]})"

        async with dialogue(STREAM_FILE=HOLD, GET_FULL_VARIABLE=gone) as (
            connection,
            asterisk,
        ):
            playing = asyncio.create_task(connection.play_interruptible("hello"))
            await asterisk.expect("STREAM FILE")
            await connection.interrupt()
            with pytest.raises(ChannelGone):
                await playing
            assert connection.hung_up

    async def test_eof_while_interrupting(self) -> None:
        async with dialogue(STREAM_FILE=HOLD, GET_FULL_VARIABLE=SILENCE) as (
            connection,
            asterisk,
        ):
            playing = asyncio.create_task(connection.play_interruptible("hello"))
            await asterisk.expect("STREAM FILE")
            connection.request_interrupt()
            await asterisk.send_eof()
            with pytest.raises(AgiConnectionLost):
                await playing


class TestOpeningAndClosing:
    @staticmethod
    @asynccontextmanager
    async def listening(
        use: Callable[[AgiConnection], Awaitable[None]],
        options: AgiConnectionOptions | None = None,
    ) -> AsyncIterator[int]:
        """A port whose one connection is handed to use."""
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []

        def accept(connection: AgiConnection) -> None:
            tasks.append(loop.create_task(run(connection)))

        async def run(connection: AgiConnection) -> None:
            try:
                await use(connection)
            finally:
                await connection.close()

        server = await loop.create_server(
            lambda: AgiConnection(options, on_connected=accept), "127.0.0.1", 0
        )
        try:
            yield server.sockets[0].getsockname()[1]
            async with asyncio.timeout(5):
                await asyncio.gather(*tasks)
        finally:
            server.close()
            await server.wait_closed()

    async def test_half_an_environment_then_eof_is_refused(self) -> None:
        """A port scan froze the whole event loop of another library."""

        async def use(connection: AgiConnection) -> None:
            with pytest.raises(AgiProtocolError, match=r"127\.0\.0\.1"):
                await connection.receive_request()

        async with self.listening(use) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"agi_network: yes\nagi_req")
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    async def test_a_port_probe_is_no_error_of_anybody(self) -> None:
        async def use(connection: AgiConnection) -> None:
            with pytest.raises(AgiConnectionLost):
                await connection.receive_request()

        async with self.listening(use) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()

    async def test_a_silent_peer_is_given_up(self) -> None:
        async def use(connection: AgiConnection) -> None:
            with pytest.raises(AgiTimeout):
                await connection.receive_request()

        options = AgiConnectionOptions(environment_timeout_s=SHORT_S)
        async with self.listening(use, options) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    async def test_both_ends_have_addresses(self) -> None:
        """Ours is where a dialer that reached us can send its audio to."""
        seen: list[str] = []

        async def use(connection: AgiConnection) -> None:
            seen.extend((connection.local_host, connection.peer_host))

        async with self.listening(use) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0)
            writer.close()
            await writer.wait_closed()
        assert seen == ["127.0.0.1", "127.0.0.1"]

    async def test_small_commands_are_not_held_back(self) -> None:
        """Without TCP_NODELAY each one would wait for the last one's ACK."""
        async with self.listening(AgiConnection.wait_hangup) as port:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(
                SeenTransport, "127.0.0.1", port
            )
            sock = connection.seen.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            await connection.close()

    async def test_closing_tells_the_dialplan_and_can_be_repeated(self) -> None:
        async with dialogue() as (connection, asterisk):
            await connection.close()
            await asterisk.wait_closed()
            await connection.close()
            assert connection.closed
            with pytest.raises(AgiConnectionLost):
                await connection.execute(commands.noop())

    async def test_closing_does_not_wait_for_a_peer_that_takes_no_bytes(self) -> None:
        ours, theirs = socket.socketpair()
        options = AgiConnectionOptions(close_timeout_s=SHORT_S)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: SeenTransport(options), sock=ours
        )
        connection.seen.write(b"x" * 5_000_000)
        await connection.close()
        assert connection.closed
        theirs.close()

    async def test_closing_ends_a_waiting_command(self) -> None:
        async with dialogue(EXEC=HOLD) as (connection, asterisk):
            task = asyncio.create_task(connection.execute(commands.exec_("Wait", "9")))
            await asterisk.expect("EXEC")
            await connection.close()
            with pytest.raises(AgiConnectionLost):
                await task
