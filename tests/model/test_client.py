"""The client of the speech half: fail-over, time-outs, lost lines, back-pressure."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from model.client import FailoverSession, RemoteSpeechService, SpeechClientOptions
from model.engine.request import GenerationRequest
from model.engine.scripted import ScriptedEngine, ScriptedOptions
from model.engine.stream import TokenStream
from model.errors import (
    ContextTooLong,
    InvalidAudio,
    InvalidRequest,
    SpeechOverloaded,
    SpeechUnavailable,
    SynthesisFailed,
)
from model.live_messages import (
    Cancel,
    ClientMessage,
    Forget,
    LiveError,
    Past,
    Ready,
    Say,
    ServerMessage,
    Settle,
    Start,
    UserTurnSent,
)
from model.live_wire import ClientMessages, encode_server
from model.service import ServiceOptions
from model.speech import (
    ReplyAudio,
    ReplyDone,
    ReplyEvent,
    ReplyText,
    SessionOptions,
    Transcript,
    TurnEnd,
    TypedTurn,
    Utterance,
)
from rest_api.app import AppOptions
from rest_api.auth import KeyRing
from rest_api.service_state import ServiceState
from tests.rest_api.serving import serving, starting_app, until

OPTIONS = SessionOptions("call-1", "Be brief.")
QUICK = SpeechClientOptions(
    connect_timeout_s=2.0, first_event_timeout_s=0.3, inter_event_timeout_s=0.3
)
PATIENT = SpeechClientOptions(connect_timeout_s=20.0)  # on a busy machine too
HI = TypedTurn("Hi")


class Peer:
    """The other end of a line: reads and writes protocol messages by hand."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self._decoder = ClientMessages()

    async def hear(self) -> ClientMessage:
        while True:
            message = self._decoder.receive(await self.connection.recv())
            if message is not None:
                return message

    async def say(self, *messages: ServerMessage) -> None:
        for message in messages:
            for wire in encode_server(message):
                await self.connection.send(wire)

    async def get_ready(self) -> None:
        assert isinstance(await self.hear(), Start)
        await self.say(Ready("fake", "scripted", 8000))


@asynccontextmanager
async def peer(play: Callable[[Peer], Awaitable[None]]) -> AsyncIterator[str]:
    """A sidecar that does what the test says; yields its address."""

    async def accept(connection: ServerConnection) -> None:
        await play(Peer(connection))
        await connection.wait_closed()

    async with serve(accept, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def opened(
    *urls: str, options: SpeechClientOptions | None = None, api_key: str = ""
) -> AsyncIterator[FailoverSession]:
    async with (
        RemoteSpeechService(urls, api_key, options) as speech,
        speech.open_session(OPTIONS) as session,
    ):
        yield session


async def hear(session: FailoverSession, turn: int = 0) -> list[ReplyEvent]:
    async with aclosing(session.reply(turn, HI)) as events:
        return [event async for event in events]


def nobody_there() -> str:
    """An address on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


class TestOpening:
    async def test_the_first_address_that_answers_is_used(self) -> None:
        async with serving() as url, opened(nobody_there(), url) as session:
            assert await hear(session)

    async def test_addresses_are_used_in_turn(self) -> None:
        names: list[str] = []

        def named(name: str) -> Callable[[Peer], Awaitable[None]]:
            async def play(line: Peer) -> None:
                names.append(name)
                await line.get_ready()

            return play

        async with (
            peer(named("a")) as one,
            peer(named("b")) as other,
            RemoteSpeechService([one, other], "", PATIENT) as speech,
        ):
            for _ in range(4):
                async with speech.open_session(OPTIONS):
                    pass
        assert names == ["a", "b", "a", "b"]

    async def test_one_that_failed_is_tried_last_for_a_while(self) -> None:
        tried: list[int] = []

        async def broken(line: Peer) -> None:
            tried.append(1)
            await line.connection.close()

        async with (
            peer(broken) as bad,
            serving() as good,
            RemoteSpeechService([bad, good], "", PATIENT) as speech,
        ):
            for _ in range(4):
                async with speech.open_session(OPTIONS) as session:
                    assert await hear(session)
        assert len(tried) == 1

    async def test_no_address_answers(self) -> None:
        with pytest.raises(SpeechUnavailable, match="127"):
            async with opened(nobody_there(), nobody_there()):
                pytest.fail("nobody is there")

    async def test_one_that_accepts_and_says_nothing_is_given_up(self) -> None:
        async def silent(line: Peer) -> None:
            await line.hear()

        options = SpeechClientOptions(connect_timeout_s=0.2)
        async with peer(silent) as url:
            with pytest.raises(SpeechUnavailable):
                async with opened(url, options=options):
                    pytest.fail("it never said ready")

    async def test_a_port_that_speaks_no_http_is_given_up(self) -> None:
        async def accept(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            await reader.read()
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(SpeechUnavailable):
                async with opened(f"http://127.0.0.1:{port}"):
                    pytest.fail("that was no sidecar")

    async def test_a_service_that_is_starting_is_unavailable(self) -> None:
        async with starting_app(ServiceState(phase="loading it")) as url:
            with pytest.raises(SpeechUnavailable, match="loading it"):
                async with opened(url):
                    pytest.fail("it is not ready")

    async def test_full_everywhere_is_overload_even_if_one_is_down(self) -> None:
        full = ServiceOptions(max_sessions=0)
        async with serving(service=full) as url:
            with pytest.raises(SpeechOverloaded):
                async with opened(url, nobody_there()):
                    pytest.fail("there was no room")

    async def test_a_full_one_is_passed_over(self) -> None:
        full = ServiceOptions(max_sessions=0)
        async with (
            serving(service=full) as busy,
            serving() as free,
            opened(busy, free) as session,
        ):
            assert await hear(session)

    async def test_options_that_make_no_sense_are_not_tried_elsewhere(self) -> None:
        options = SessionOptions("c", "", voice="nobody")
        async with serving() as url, RemoteSpeechService([url, url]) as speech:
            with pytest.raises(InvalidRequest, match="voice"):
                async with speech.open_session(options):
                    pytest.fail("there is no such voice")

    async def test_a_wrong_key_is_said_to_be_wrong(self) -> None:
        key = "k" * 20
        keys = AppOptions(keys=KeyRing.parse(f"phone:{key}"))
        foreign = {"X-Forwarded-For": "203.0.113.9"}
        async with serving(app=keys) as url:
            for shown, works in ((key, True), ("x" * 20, False)):
                async with RemoteSpeechService([url], shown) as speech:
                    speech._headers.update(foreign)
                    if works:
                        async with speech.open_session(OPTIONS):
                            continue
                    with pytest.raises(SpeechUnavailable, match="key was refused"):
                        async with speech.open_session(OPTIONS):
                            pytest.fail("the key is wrong")

    @pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host", "http://"])
    def test_what_is_no_address_is_refused_at_once(self, url: str) -> None:
        with pytest.raises(ValueError, match="http"):
            RemoteSpeechService([url])

    def test_no_address_at_all_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            RemoteSpeechService([])


class TestTurns:
    async def test_an_utterance_crosses_the_wire(self) -> None:
        said = Utterance(bytes(range(256)) * 10, 8000, 120, 280)
        heard: list[ClientMessage] = []

        async def play(line: Peer) -> None:
            await line.get_ready()
            heard.append(await line.hear())
            await line.say(ReplyDone(4, "ok", "stop"))

        async with (
            peer(play) as url,
            opened(url) as session,
            aclosing(session.reply(4, said)) as events,
        ):
            assert [event async for event in events] == [ReplyDone(4, "ok", "stop")]
        assert heard == [UserTurnSent(4, said)]

    async def test_streams_of_two_turns_are_told_apart(self) -> None:
        async def play(line: Peer) -> None:
            await line.get_ready()
            await line.hear()
            await line.hear()
            await line.say(
                ReplyText(2, "two"),
                ReplyText(1, "one"),
                ReplyAudio(2, 0, "two", b"\2\2"),
                ReplyAudio(1, 0, "one", b"\1\1"),
                ReplyDone(2, "two", "stop"),
                ReplyDone(1, "one", "stop"),
            )

        async with (
            peer(play) as url,
            opened(url) as session,
            aclosing(session.reply(1, HI)) as one,
            aclosing(session.say(2, "two")) as two,
        ):
            first = asyncio.create_task(anext(one))
            await asyncio.sleep(0)  # turn 1 is asked before turn 2
            second = [event async for event in two]
            rest = [await first, *[event async for event in one]]
        assert {event.turn for event in second} == {2}
        assert [type(event) for event in rest] == [ReplyText, ReplyAudio, ReplyDone]
        assert {event.turn for event in rest} == {1}

    async def test_closing_the_iterator_cancels_at_the_server(self) -> None:
        engine = ScriptedEngine(ScriptedOptions(("word " * 500,), token_interval_ms=5))
        async with serving(engine=engine) as url, opened(url) as session:
            async with aclosing(session.reply(0, HI)) as events:
                await anext(events)
                assert engine.load().num_active == 1
            await until(lambda: not engine.load().num_active)
            assert await hear_say(session, 1, "Still here.")

    async def test_what_comes_late_for_a_cancelled_turn_is_dropped(self) -> None:
        async def play(line: Peer) -> None:
            await line.get_ready()
            await line.hear()
            await line.say(ReplyText(0, "a"))
            assert isinstance(await line.hear(), Cancel)
            await line.say(ReplyText(0, "late"), ReplyDone(0, "late", "stop"))
            assert isinstance(await line.hear(), Say)
            await line.say(ReplyText(1, "new"), ReplyDone(1, "new", "stop"))

        async with peer(play) as url, opened(url) as session:
            async with aclosing(session.reply(0, HI)) as events:
                await anext(events)
            assert await hear_say(session, 1, "new") == [
                ReplyText(1, "new"),
                ReplyDone(1, "new", "stop"),
            ]

    async def test_settle_and_forget_arrive_in_order(self) -> None:
        heard: list[ClientMessage] = []

        async def play(line: Peer) -> None:
            await line.get_ready()
            while len(heard) < 5:
                heard.append(await line.hear())
                if isinstance(heard[-1], UserTurnSent):
                    await line.say(ReplyDone(heard[-1].turn, "", "stop"))

        async with peer(play) as url, opened(url) as session:
            await hear(session, 1)
            await session.settle(1, 1200)
            await hear(session, 2)
            await session.forget(2)
            await session.settle(9)
            await until(lambda: len(heard) == 5)
        assert heard[1] == Settle(1, 1200)
        assert heard[3:] == [Forget(2), Settle(9, None)]

    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            ("engine_overloaded", SpeechOverloaded),
            ("unavailable", SpeechUnavailable),
            ("context_too_long", ContextTooLong),
            ("synthesis_failed", SynthesisFailed),
            ("invalid_audio", InvalidAudio),
        ],
    )
    async def test_a_turns_error_is_raised_typed_and_ends_only_that_turn(
        self, code: str, kind: type[Exception]
    ) -> None:
        async def play(line: Peer) -> None:
            await line.get_ready()
            await line.hear()
            await line.say(ReplyText(0, "so far"), LiveError(0, code, "because"))
            await line.hear()
            await line.say(ReplyDone(1, "", "stop"))

        async with peer(play) as url, opened(url) as session:
            async with aclosing(session.reply(0, HI)) as events:
                assert await anext(events) == ReplyText(0, "so far")
                with pytest.raises(kind, match="because"):
                    await anext(events)
            assert await hear(session, 1) == [ReplyDone(1, "", "stop")]

    async def test_an_error_of_the_dialogue_ends_all_of_it(self) -> None:
        async def play(line: Peer) -> None:
            await line.get_ready()
            await line.hear()
            await line.say(LiveError(None, "unavailable", "stopping"))

        async with peer(play) as url, opened(url) as session:
            with pytest.raises(SpeechUnavailable, match="stopping"):
                await hear(session)
            with pytest.raises(SpeechUnavailable, match="stopping"):
                await hear(session, 1)

    @pytest.mark.parametrize(
        "user",
        [Utterance(b"", 8000), Utterance(b"\0", 8000), Utterance(b"\0" * 3, 8000)],
    )
    async def test_what_the_server_would_refuse_is_refused_here(
        self, user: Utterance
    ) -> None:
        async with serving() as url, opened(url) as session:
            with pytest.raises(InvalidAudio):
                await anext(session.reply(0, user))
            assert await hear(session, 1)

    async def test_turn_numbers_must_rise(self) -> None:
        async with serving() as url, opened(url) as session:
            await hear(session, 1)
            with pytest.raises(ValueError, match="turn 1 after turn 1"):
                await hear(session, 1)


async def hear_say(session: FailoverSession, turn: int, text: str) -> list[ReplyEvent]:
    async with aclosing(session.say(turn, text)) as events:
        return [event async for event in events]


class TestTrouble:
    async def test_silence_before_the_first_event_is_unavailability(self) -> None:
        script = ScriptedOptions(("Never.",), first_token_ms=60_000)
        engine = ScriptedEngine(script)
        async with serving(engine=engine) as url, opened(url, options=QUICK) as session:
            with pytest.raises(SpeechUnavailable, match="nothing came"):
                await hear(session)
            # and the server is told to stop
            await until(lambda: not engine.load().num_active)

    async def test_silence_in_mid_reply_is_unavailability(self) -> None:
        async def play(line: Peer) -> None:
            await line.get_ready()
            await line.hear()
            await line.say(ReplyText(0, "a"))

        async with (
            peer(play) as url,
            opened(url, options=QUICK) as session,
            aclosing(session.reply(0, HI)) as events,
        ):
            assert await anext(events) == ReplyText(0, "a")
            with pytest.raises(SpeechUnavailable, match="nothing came"):
                await anext(events)

    @pytest.mark.parametrize("how", ["close", "abort", "nonsense"])
    async def test_a_line_that_breaks_ends_every_stream_at_once(self, how: str) -> None:
        async def play(line: Peer) -> None:
            await line.get_ready()
            await line.hear()
            await line.say(ReplyText(0, "a"))
            if how == "close":
                await line.connection.close()
            elif how == "abort":
                line.connection.transport.abort()
            else:
                await line.connection.send("nonsense")

        async with peer(play) as url, opened(url) as session:
            async with aclosing(session.reply(0, HI)) as events:
                assert await anext(events) == ReplyText(0, "a")
                with pytest.raises(SpeechUnavailable):
                    await anext(events)
            # telling is pointless now, and no error
            await session.settle(0)
            await session.forget(0)
            with pytest.raises(SpeechUnavailable):
                await hear(session, 1)

    async def test_one_that_keeps_going_away_is_given_up(self) -> None:
        num_lines = 0

        async def play(line: Peer) -> None:
            nonlocal num_lines
            num_lines += 1
            await line.get_ready()
            await line.connection.close()

        async with peer(play) as url, opened(url) as session:
            with pytest.raises(SpeechUnavailable):
                await hear(session)
        assert num_lines <= 3

    async def test_an_error_inside_the_session_comes_out_as_it_is(self) -> None:
        async with serving() as url, RemoteSpeechService([url]) as speech:
            with pytest.raises(ZeroDivisionError):
                async with speech.open_session(OPTIONS):
                    raise ZeroDivisionError

    async def test_audio_that_nobody_takes_is_not_read_on(self) -> None:
        sent = 0
        chunk = ReplyAudio(0, 0, "", bytes(64_000))

        async def play(line: Peer) -> None:
            nonlocal sent
            await line.get_ready()
            await line.hear()
            for _ in range(1000):
                await line.say(chunk)
                sent += 1
            await line.say(ReplyDone(0, "", "stop"))

        options = SpeechClientOptions(max_buffered_bytes=64_000)
        async with (
            peer(play) as url,
            opened(url, options=options) as session,
            aclosing(session.reply(0, HI)) as events,
        ):
            received = [await anext(events)]
            before = -1
            while before != sent:  # until the network's own buffers are full
                before = sent
                await asyncio.sleep(0.1)
            assert sent < 1000
            received += [event async for event in events]
        assert len(received) == 1001


class TestStatus:
    async def test_it_is_what_health_says(self) -> None:
        async with serving() as url, RemoteSpeechService([url]) as speech:
            status = await speech.status()
        assert status.is_ready
        assert status.model == "scripted replies"
        assert status.weights == "scripted"
        assert (status.num_sessions, status.max_sessions) == (0, 40)

    async def test_a_start_in_progress_is_not_ready(self) -> None:
        state = ServiceState(model_wanted="org/model", phase="loading it")
        async with starting_app(state) as url, RemoteSpeechService([url]) as speech:
            status = await speech.status()
        assert not status.is_ready
        assert status.detail == "loading it"

    async def test_it_never_raises(self) -> None:
        async def accept(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            await reader.readuntil(b"\r\n\r\n")
            body = b'{"hello": "I am something else"}'
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            for url in (nobody_there(), f"http://127.0.0.1:{port}"):
                async with RemoteSpeechService([url]) as speech:
                    status = await speech.status()
                assert not status.is_ready
                assert url in status.detail

    async def test_one_with_room_speaks_for_all(self) -> None:
        async with (
            serving(service=ServiceOptions(max_sessions=1)) as busy,
            serving() as free,
            opened(busy) as session,
        ):
            assert await hear(session)
            async with RemoteSpeechService([busy, free]) as speech:
                status = await speech.status()
            assert status.has_room
            assert status.max_sessions == 40
            async with RemoteSpeechService([nobody_there(), busy]) as speech:
                status = await speech.status()
            assert status.is_ready
            assert not status.has_room

    async def test_the_next_address_is_asked(self) -> None:
        async with (
            serving() as url,
            RemoteSpeechService([nobody_there(), url]) as speech,
        ):
            assert (await speech.status()).is_ready


class TestTranscripts:
    WANTED = replace(OPTIONS, transcribe=True)
    SPOKEN = Utterance(bytes(320), 8000)

    @staticmethod
    async def _answer(line: Peer) -> int:
        await line.get_ready()
        asked = await line.hear()
        assert isinstance(asked, UserTurnSent)
        await line.say(
            ReplyText(asked.turn, "Yes."), ReplyDone(asked.turn, "Yes.", "stop")
        )
        return asked.turn

    async def _hear(self, url: str) -> list[ReplyEvent]:
        async with (
            RemoteSpeechService([url], "", QUICK) as speech,
            speech.open_session(self.WANTED) as session,
            aclosing(session.reply(0, self.SPOKEN)) as events,
        ):
            return [event async for event in events]

    async def test_one_comes_behind_the_reply_however_late(self) -> None:
        async def play(line: Peer) -> None:
            turn = await self._answer(line)
            await asyncio.sleep(2 * QUICK.inter_event_timeout_s)
            await line.say(Transcript(turn, "are you open"))

        async with peer(play) as url:
            heard = await self._hear(url)
        assert heard[-1] == Transcript(0, "are you open")
        assert isinstance(heard[-2], ReplyDone)

    async def test_a_line_lost_before_it_leaves_the_reply_whole(self) -> None:
        async def play(line: Peer) -> None:
            await self._answer(line)
            await line.connection.close()

        async with peer(play) as url:
            heard = await self._hear(url)
        assert isinstance(heard[-1], ReplyDone)

    async def test_an_engine_that_has_no_ears_sends_an_empty_one(self) -> None:
        async with serving() as url:
            heard = await self._hear(url)
        assert heard[-1] == Transcript(0, "")

    async def test_a_typed_turn_has_none(self) -> None:
        async with (
            serving() as url,
            RemoteSpeechService([url]) as speech,
            speech.open_session(self.WANTED) as session,
        ):
            heard = await hear(session)
        assert isinstance(heard[-1], ReplyDone)


def test_the_phone_half_gets_no_torch() -> None:
    heavy = {"torch", "transformers", "scipy"}
    program = "import sys, json, model.client; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    modules: list[Any] = json.loads(done.stdout)
    assert not heavy & {str(module).split(".")[0] for module in modules}


class TestFailover:
    """A sidecar dies in mid-call: the next one goes on where it stopped."""

    async def test_a_hint_that_the_turn_is_over_is_no_beginning_of_the_reply(
        self,
    ) -> None:
        hint = TurnEnd(0, 0.5)

        async def first(line: Peer) -> None:
            await line.get_ready()
            assert isinstance(await line.hear(), UserTurnSent)
            await line.say(hint)
            line.connection.transport.abort()

        async def second(line: Peer) -> None:
            await line.get_ready()
            assert isinstance(await line.hear(), UserTurnSent)
            await line.say(hint, ReplyDone(0, "Yes.", "stop"))

        async with peer(first) as one, peer(second) as two, opened(one, two) as session:
            assert await hear(session) == [hint, hint, ReplyDone(0, "Yes.", "stop")]

    async def test_the_next_one_is_told_what_was_said_and_heard(self) -> None:
        said = Utterance(b"\1\2" * 100, 8000)
        told: list[ClientMessage] = []

        async def first(line: Peer) -> None:
            await line.get_ready()
            assert isinstance(await line.hear(), Say)
            await line.say(
                ReplyAudio(0, 0, "Welcome.", bytes(1600)),
                ReplyDone(0, "Welcome.", "stop"),
            )
            assert isinstance(await line.hear(), Settle)
            assert isinstance(await line.hear(), UserTurnSent)
            await line.say(
                ReplyAudio(1, 0, "One two three four.", bytes(1600)),
                ReplyAudio(1, 1, "Five.", bytes(1600)),
                ReplyDone(1, "One two three four. Five.", "stop"),
            )
            assert isinstance(await line.hear(), Settle)
            assert isinstance(await line.hear(), UserTurnSent)
            line.connection.transport.abort()

        async def second(line: Peer) -> None:
            await line.get_ready()
            for _ in range(3):
                told.append(await line.hear())
            await line.say(ReplyText(2, "Here."), ReplyDone(2, "Here.", "stop"))

        async with peer(first) as one, peer(second) as two, opened(one, two) as session:
            await hear_say(session, 0, "Welcome.")
            await session.settle(0)
            async with aclosing(session.reply(1, said)) as events:
                assert [event async for event in events]
            await session.settle(1, 50)  # of 100 ms: two of the four words
            assert await hear(session, 2) == [
                ReplyText(2, "Here."),
                ReplyDone(2, "Here.", "stop"),
            ]
        assert told == [
            Past(None, "Welcome."),
            Past(Utterance(said.pcm16, 8000), "One two"),
            UserTurnSent(2, HI),
        ]

    async def test_the_dialogue_goes_on_with_its_history(self) -> None:
        engines = [ScriptedEngine(), Listening()]
        async with (
            serving(engine=engines[0]) as one,
            serving(engine=engines[1]) as two,
            opened(one, two) as session,
        ):
            await hear(session, 0)
            await session.settle(0)
            assert session._current is not None
            session._current._connection.transport.abort()
            assert await hear(session, 1)
        assert engines[1].dialogues == [  # type: ignore[attr-defined]
            ["Be brief.", "Hi", "You said: Hi", "Hi"]
        ]

    async def test_a_reply_that_had_begun_is_not_begun_again(self) -> None:
        async def first(line: Peer) -> None:
            await line.get_ready()
            await line.hear()
            await line.say(ReplyText(0, "Half a"))
            line.connection.transport.abort()

        async with peer(first) as one, serving() as two, opened(one, two) as session:
            async with aclosing(session.reply(0, HI)) as events:
                assert await anext(events) == ReplyText(0, "Half a")
                with pytest.raises(SpeechUnavailable):
                    await anext(events)
            await session.forget(0)
            assert await hear(session, 1)

    async def test_one_that_is_silent_is_left_for_another(self) -> None:
        async def mute(line: Peer) -> None:
            await line.get_ready()

        async with (
            peer(mute) as one,
            serving() as two,
            opened(one, two, options=QUICK) as session,
        ):
            assert await hear(session)

    async def test_the_only_one_is_not_asked_twice_when_it_is_silent(self) -> None:
        asked: list[ClientMessage] = []

        async def mute(line: Peer) -> None:
            await line.get_ready()
            asked.append(await line.hear())

        async with peer(mute) as url, opened(url, options=QUICK) as session:
            with pytest.raises(SpeechUnavailable, match="nothing came"):
                await hear(session)
        assert len(asked) == 1

    async def test_the_only_one_may_have_been_started_again(self) -> None:
        async with serving() as url, opened(url) as session:
            await hear(session, 0)
            assert session._current is not None
            session._current._connection.transport.abort()
            assert await hear(session, 1)


class Listening(ScriptedEngine):
    """Remembers the texts of every request's dialogue."""

    def __init__(self) -> None:
        super().__init__()
        self.dialogues: list[list[str]] = []

    def submit(self, request: GenerationRequest) -> TokenStream:
        self.dialogues.append([message.text for message in request.prompt.messages])
        return super().submit(request)
