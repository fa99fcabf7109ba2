"""The listener: dispatch, bulkheads, refusals, draining, closing."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

import telemetry
from agi_handlers.agi import commands
from agi_handlers.agi.connection import AgiConnection, AgiConnectionOptions
from agi_handlers.agi.protocol import AgiRequest
from agi_handlers.agi.server import (
    Admit,
    AgiServer,
    AgiServerOptions,
    Handler,
    Refusal,
)
from agi_handlers.errors import AudioLegLost, CallEnded, ListenFailed
from tests.fakes.asterisk import HOLD, SILENCE, FakeAsterisk

HOST = "127.0.0.1"
SHORT_S = 0.05


async def done(request: AgiRequest, connection: AgiConnection) -> None:
    """A handler that ends a call in order."""
    await connection.execute(commands.set_variable("BOT_RESULT", "done"))


async def until_hangup(request: AgiRequest, connection: AgiConnection) -> None:
    await connection.execute(commands.noop())
    await connection.wait_hangup()


async def for_ever(request: AgiRequest, connection: AgiConnection) -> None:
    await connection.execute(commands.noop())
    await asyncio.Event().wait()


def raising(error: BaseException) -> Handler:
    async def handler(request: AgiRequest, connection: AgiConnection) -> None:
        raise error

    return handler


@asynccontextmanager
async def serving(
    handler: Handler = done,
    *,
    admit: Admit | None = None,
    fallback: Handler | None = None,
    **options: object,
) -> AsyncIterator[AgiServer]:
    """A server whose script "bot" is handler."""
    merged = AgiServerOptions(host=HOST, port=0, **options)  # type: ignore[arg-type]
    async with AgiServer(
        {"bot": handler}, merged, admit=admit, fallback=fallback
    ) as server:
        yield server


async def place(server: AgiServer, script: str = "bot") -> FakeAsterisk:
    """A call that has come back to the dialplan."""
    asterisk = await FakeAsterisk.dial(HOST, server.port, script)
    await asterisk.wait_closed()
    await asterisk.aclose()
    return asterisk


class TestDispatch:
    async def test_the_script_name_chooses_the_handler(self) -> None:
        requests: list[AgiRequest] = []

        async def bot(request: AgiRequest, connection: AgiConnection) -> None:
            requests.append(request)
            assert request is connection.request

        async with serving(bot) as server:
            asterisk = await FakeAsterisk.dial(
                HOST, server.port, "bot?campaign=a%20b", args=["one", "two"]
            )
            await asterisk.wait_closed()
            await asterisk.aclose()
        assert requests[0].query == {"campaign": "a b"}
        assert requests[0].args == ("one", "two")

    async def test_an_orderly_call_sets_only_what_the_handler_sets(self) -> None:
        async with serving() as server:
            asterisk = await place(server)
        assert asterisk.set_variables == {"BOT_RESULT": "done"}
        assert asterisk.verbose == []

    async def test_an_unknown_script_tells_the_dialplan_and_closes(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving() as server:
            asterisk = await place(server, "b,o\tt")
        assert asterisk.set_variables["BOT_STATUS"] == "unknown_script"
        assert "no AGI script named" in asterisk.set_variables["BOT_REASON"]
        assert "," not in asterisk.set_variables["BOT_REASON"]
        assert "unknown_script" in asterisk.verbose[0]
        refused = [r for r in caplog.records if r.message == "agi_call_refused"]
        assert len(refused) == 1

    async def test_a_fallback_takes_every_other_script(self) -> None:
        async with serving(fallback=done) as server:
            asterisk = await place(server, "anything")
        assert asterisk.set_variables == {"BOT_RESULT": "done"}


class TestBulkhead:
    async def test_a_crash_tells_the_dialplan_why(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving(raising(ZeroDivisionError("1/0"))) as server:
            asterisk = await place(server)
            assert server.num_calls == 0
        assert asterisk.set_variables["BOT_STATUS"] == "failed"
        assert asterisk.set_variables["BOT_REASON"] == "ZeroDivisionError: 1/0"
        assert "BOT_RESULT" not in asterisk.set_variables
        assert "ZeroDivisionError" in asterisk.verbose[0]
        (record,) = [r for r in caplog.records if r.message == "agi_handler_failed"]
        assert record.exc_info

    async def test_a_telephony_fault_is_one_line_without_a_trace(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving(raising(AudioLegLost("nobody connected"))) as server:
            asterisk = await place(server)
        assert asterisk.set_variables["BOT_STATUS"] == "failed"
        (record,) = [r for r in caplog.records if r.message == "agi_handler_failed"]
        assert not record.exc_info

    async def test_errors_of_a_task_group_are_named_by_their_cause(self) -> None:
        async def bot(request: AgiRequest, connection: AgiConnection) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(raising(KeyError("turn"))(request, connection))  # type: ignore[arg-type]
                group.create_task(for_ever(request, connection))

        async with serving(bot) as server:
            asterisk = await place(server)
        assert asterisk.set_variables["BOT_REASON"].startswith("KeyError")

    async def test_a_call_that_ended_is_no_fault(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving(raising(CallEnded("caller_hung_up"))) as server:
            asterisk = await place(server)
        assert asterisk.set_variables == {}
        assert not [r for r in caplog.records if r.levelno >= logging.WARNING]

    async def test_a_caller_who_left_in_mid_command_is_no_fault(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def bot(request: AgiRequest, connection: AgiConnection) -> None:
            await connection.wait_hangup()
            await connection.execute(commands.channel_status())

        async with serving(bot) as server:
            asterisk = await FakeAsterisk.dial(HOST, server.port, "bot")
            await asterisk.hang_up()
            await asterisk.wait_closed()
            await asterisk.aclose()
        assert asterisk.set_variables["BOT_STATUS"] == "hangup"
        assert not [r for r in caplog.records if r.levelno >= logging.WARNING]

    async def test_one_crash_does_not_touch_the_other_calls(self) -> None:
        async def bot(request: AgiRequest, connection: AgiConnection) -> None:
            if request.args == ("crash",):
                raise ZeroDivisionError
            await until_hangup(request, connection)

        async with serving(bot) as server:
            good = await FakeAsterisk.dial(HOST, server.port, "bot")
            await good.expect("NOOP")
            bad = await FakeAsterisk.dial(HOST, server.port, "bot", args=["crash"])
            await bad.wait_closed()
            assert server.num_calls == 1
            await good.hang_up()
            await good.wait_closed()
            await good.aclose()
            await bad.aclose()
        assert good.set_variables == {}

    async def test_a_peer_that_does_not_answer_the_farewell_is_closed(self) -> None:
        async with serving(raising(ZeroDivisionError()), farewell_s=SHORT_S) as server:
            asterisk = await FakeAsterisk.dial(
                HOST, server.port, "bot", responses={"SET VARIABLE": SILENCE}
            )
            await asterisk.wait_closed()
            await asterisk.aclose()

    async def test_the_farewell_after_a_command_that_still_runs(self) -> None:
        """EXEC goes on at Asterisk when its handler died: the socket is closed."""

        async def bot(request: AgiRequest, connection: AgiConnection) -> None:
            async with asyncio.timeout(SHORT_S):
                await connection.execute(commands.exec_("Wait", "60"))

        async with serving(bot, farewell_s=SHORT_S) as server:
            asterisk = await FakeAsterisk.dial(
                HOST, server.port, "bot", responses={"EXEC": HOLD}
            )
            await asterisk.wait_closed()
            await asterisk.aclose()
        assert asterisk.set_variables == {}

    @pytest.mark.parametrize(
        "junk",
        [
            b"",
            b"agi_network: yes\nagi_req",
            b"GET / HTTP/1.0\r\n\r\n",
            b"\x00" * 70_000,
            b"agi_network: yes\n" + b"agi_arg_1: x\n" * 300,
        ],
    )
    async def test_junk_is_closed_and_calls_go_on(self, junk: bytes) -> None:
        async with serving() as server:
            reader, writer = await asyncio.open_connection(HOST, server.port)
            writer.write(junk)
            writer.write_eof()
            with suppress(ConnectionResetError):  # closed with our bytes unread
                assert await reader.read() == b""
            writer.close()
            asterisk = await place(server)
        assert asterisk.set_variables == {"BOT_RESULT": "done"}

    async def test_silent_connections_are_closed(self) -> None:
        options = AgiConnectionOptions(environment_timeout_s=SHORT_S)
        async with serving(connection=options) as server:
            reader, writer = await asyncio.open_connection(HOST, server.port)
            assert await reader.read() == b""
            writer.close()


class TestWatchdogs:
    async def test_a_handler_that_outlives_the_hangup_is_ended(self) -> None:
        async with serving(for_ever, after_hangup_s=SHORT_S) as server:
            asterisk = await FakeAsterisk.dial(HOST, server.port, "bot")
            await asterisk.expect("NOOP")
            await asterisk.hang_up()
            await asterisk.wait_closed()
            await asterisk.aclose()
        assert asterisk.set_variables["BOT_REASON"] == "handler overdue"

    async def test_a_handler_that_outlives_every_call_is_ended(self) -> None:
        async with serving(for_ever, max_call_s=SHORT_S) as server:
            asterisk = await place(server)
        assert asterisk.set_variables["BOT_STATUS"] == "failed"

    async def test_a_hangup_before_the_handler_started_counts(self) -> None:
        async with serving(for_ever, after_hangup_s=SHORT_S) as server:
            reader, writer = await asyncio.open_connection(HOST, server.port)
            asterisk = FakeAsterisk(reader, writer)
            await asterisk.send_bytes(b"agi_network: yes\nHANGUP\n")
            await asterisk.send_bytes(b"agi_network_script: bot\n\n")
            await asterisk.wait_closed()
            await asterisk.aclose()

    async def test_time_is_given_to_report_after_the_hangup(self) -> None:
        async def bot(request: AgiRequest, connection: AgiConnection) -> None:
            await connection.wait_hangup()
            await connection.execute(commands.set_variable("BOT_STATUS", "hangup"))
            await done(request, connection)

        async with serving(bot) as server:
            asterisk = await FakeAsterisk.dial(HOST, server.port, "bot")
            await asterisk.hang_up()
            await asterisk.wait_closed()
            await asterisk.aclose()
        assert asterisk.set_variables["BOT_RESULT"] == "done"

    async def test_a_timeout_of_the_handler_itself_is_its_own_fault(self) -> None:
        async with serving(raising(TimeoutError("model"))) as server:
            asterisk = await place(server)
        assert asterisk.set_variables["BOT_REASON"] == "TimeoutError: model"


class TestAdmission:
    async def test_a_refused_call_falls_through_with_its_reason(self) -> None:
        def full(request: AgiRequest) -> Refusal | None:
            return Refusal("busy", "40 calls, no more")

        async with serving(admit=full) as server:
            asterisk = await place(server)
        assert asterisk.set_variables == {
            "BOT_STATUS": "busy",
            "BOT_REASON": "40 calls; no more",
        }
        assert not [c for c in asterisk.commands if c.startswith("ANSWER")]

    async def test_admission_sees_the_request(self) -> None:
        def only_health(request: AgiRequest) -> Refusal | None:
            return None if request.script == "health" else Refusal("busy", "")

        async with serving(admit=only_health, fallback=done) as server:
            asterisk = await place(server, "health")
            refused = await place(server)
        assert asterisk.set_variables == {"BOT_RESULT": "done"}
        assert refused.set_variables["BOT_STATUS"] == "busy"

    async def test_too_many_connections_are_closed_unread(self) -> None:
        async with serving(until_hangup, max_connections=1) as server:
            first = await FakeAsterisk.dial(HOST, server.port, "bot")
            await first.expect("NOOP")
            second = await FakeAsterisk.dial(HOST, server.port, "bot")
            await second.wait_closed()
            assert second.commands == []
            await first.aclose()
            await second.aclose()

    @pytest.mark.parametrize(
        ("allowed", "is_served"),
        [
            ((), True),
            (("127.0.0.1",), True),
            (("10.0.0.0/8", "127.0.0.0/8"), True),
            (("10.0.0.0/8",), False),
        ],
    )
    async def test_only_allowed_dialers_are_served(
        self, allowed: tuple[str, ...], is_served: bool
    ) -> None:
        async with serving(allowed_peers=allowed) as server:
            asterisk = await FakeAsterisk.dial(HOST, server.port, "bot")
            await asterisk.wait_closed()
            await asterisk.aclose()
        assert ("BOT_RESULT" in asterisk.set_variables) is is_served

    def test_an_allowed_peer_that_is_no_address_is_an_error_at_once(self) -> None:
        with pytest.raises(ValueError, match="dialer1"):
            AgiServer({}, AgiServerOptions(allowed_peers=("dialer1",)))


class TestStartAndEnd:
    async def test_a_port_in_use_is_one_clear_line(self) -> None:
        async with serving() as server:
            second = AgiServer({}, AgiServerOptions(host=HOST, port=server.port))
            with pytest.raises(ListenFailed) as caught:
                await second.start()
            assert str(caught.value) == (
                f"AGI port {HOST}:{server.port} is in use by another process"
            )
            await second.close()

    async def test_an_address_that_is_not_ours_is_one_clear_line(self) -> None:
        server = AgiServer({}, AgiServerOptions(host="192.0.2.1", port=0))
        with pytest.raises(ListenFailed, match=r"192\.0\.2\.1"):
            await server.start()

    async def test_draining_refuses_new_calls_and_waits_for_the_old(self) -> None:
        async with serving(until_hangup) as server:
            old = await FakeAsterisk.dial(HOST, server.port, "bot")
            await old.expect("NOOP")
            assert not await server.drain(SHORT_S)
            new = await place(server)
            assert new.set_variables["BOT_STATUS"] == "draining"
            draining = asyncio.create_task(server.drain(5))
            await old.hang_up()
            assert await draining
            assert server.num_calls == 0
            await old.aclose()

    async def test_draining_an_idle_server_is_done_at_once(self) -> None:
        async with serving() as server:
            assert await server.drain(0.5)

    async def test_closing_ends_running_calls_and_frees_the_port(self) -> None:
        async with serving(for_ever) as server:
            port = server.port
            asterisk = await FakeAsterisk.dial(HOST, port, "bot")
            await asterisk.expect("NOOP")
            waiting, writer = await asyncio.open_connection(HOST, port)
            await server.close()
            await asterisk.wait_closed()
            assert await waiting.read() == b""
            writer.close()
            await asterisk.aclose()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, port)

    async def test_closing_twice_is_fine(self) -> None:
        async with serving() as server:
            await server.close()

    async def test_a_burst_of_calls_is_served(self) -> None:
        """asyncio's own backlog of 100 was overrun by 400 connects at once."""
        async with serving(until_hangup) as server:
            sockets = [socket.socket() for _ in range(400)]
            connected = select.poll()
            for sock in sockets:
                sock.setblocking(False)
                sock.connect_ex((HOST, server.port))
                connected.register(sock, select.POLLOUT)
            # The loop does not run here: all must fit into the backlog.
            assert len(connected.poll(0)) == 400
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(20):
                for sock in sockets:
                    await loop.sock_sendall(
                        sock, b"agi_network: yes\nagi_network_script: bot\n\n"
                    )
                for sock in sockets:
                    assert await loop.sock_recv(sock, 100) == b"NOOP\n"
            assert server.num_calls == 400
            for sock in sockets:
                sock.close()

    async def test_call_fields_are_on_the_log_lines_of_a_call(
        self,
    ) -> None:
        formatter = telemetry.JsonFormatter()
        lines: list[str] = []

        async def bot(request: AgiRequest, connection: AgiConnection) -> None:
            record = logging.LogRecord("x", logging.INFO, "", 0, "event", (), None)
            lines.append(formatter.format(record))

        async with serving(bot) as server:
            await place(server)
        assert '"uniqueid": "1795329931.0"' in lines[0]
