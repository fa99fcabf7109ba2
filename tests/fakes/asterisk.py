"""Asterisk's two ends of a call: the AGI dialogue and the AudioSocket leg.

Answers from dicts, records everything, shows the traps of the real one. A test reads
as "given these variables and responses, calling this script sets those variables".
"""

from __future__ import annotations

import asyncio
import inspect
import re
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Self, TypeAlias
from uuid import UUID

from agi_handlers.agi.connection import AgiConnection, AgiConnectionOptions
from tools.caller.agi_wire import (
    Channel,
    CommandReader,
    environment_block,
    parse_words,
)
from tools.caller.audiosocket_wire import (
    KIND_AUDIO,
    KIND_HANGUP,
    MessageReader,
    audio_message,
    dtmf_message,
    hangup_message,
    uuid_message,
)

# Answer for a command that stays in flight: the test answers it with `respond`, and
# the next command interrupts it if it is a STREAM FILE.
HOLD: Final = "HOLD"
# Answer for a command that is never answered.
SILENCE: Final = "SILENCE"

Answer: TypeAlias = str | Callable[[list[str]], str | Awaitable[str]]

_NEEDS_CHANNEL = ("ANSWER", "STREAM", "CHANNEL", "RECORD", "WAIT", "HANGUP")
_PLAIN_ANSWERS = {
    "ANSWER": "200 result=0",
    "CHANNEL STATUS": "200 result=6",
    "EXEC": "200 result=-2",
    "HANGUP": "200 result=1",
    "NOOP": "200 result=0",
    "RECORD FILE": "200 result=0 (timeout) endpos=8000",
    "SET CONTEXT": "200 result=0",
    "SET EXTENSION": "200 result=0",
    "SET PRIORITY": "200 result=0",
    "STREAM FILE": "200 result=0 endpos=8000",
    "VERBOSE": "200 result=1",
    "WAIT FOR DIGIT": "200 result=0",
}


class FakeAsterisk:
    """Asterisk on an AGI connection.

    responses: command prefix -> answer, the longest prefix wins; what is not in it is
    answered as a channel that is up would. An answer may be several lines, a function
    of the command's words, a coroutine function, HOLD or SILENCE.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        variables: Mapping[str, str] | None = None,
        responses: Mapping[str, Answer] | None = None,
    ) -> None:
        self.variables = dict(variables or {})
        self.responses: dict[str, Answer] = dict(responses or {})
        self.commands: list[str] = []
        self.segments: list[bytes] = []
        self.set_variables: dict[str, str] = {}
        self.verbose: list[str] = []
        self.is_hung_up = False
        self.failure: BaseException | None = None
        self._reader = reader
        self._writer = writer
        self._lines = CommandReader()
        self._num_expected = 0
        self._changed = asyncio.Event()
        self._held: str | None = None
        self._is_closed = False
        self._serving = asyncio.get_running_loop().create_task(self._serve())

    @classmethod
    async def dial(
        cls,
        host: str,
        port: int,
        script: str = "ultravox",
        *,
        args: Sequence[str] = (),
        channel: Channel | None = None,
        environment: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        responses: Mapping[str, Answer] | None = None,
    ) -> Self:
        """Connect as ``AGI(agi://host:port/script,args)`` does."""
        reader, writer = await asyncio.open_connection(host, port)
        asterisk = cls(reader, writer, variables=variables, responses=responses)
        await asterisk.open_dialogue(script, args, channel, environment)
        return asterisk

    async def open_dialogue(
        self,
        script: str = "ultravox",
        args: Sequence[str] = (),
        channel: Channel | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Send the environment; environment: lines that replace or join the usual."""
        url = f"agi://bot/{script}"
        await self.send_bytes(
            environment_block(
                channel or Channel(), url, script, args, overrides=environment
            )
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @property
    def problems(self) -> list[str]:
        """What a bot should not have done on the wire."""
        return self._lines.problems

    async def send_bytes(self, data: bytes) -> None:
        """Anything at all, in one write."""
        self._writer.write(data)
        with suppress(ConnectionError):
            await self._writer.drain()

    async def send_line(self, line: str) -> None:
        await self.send_bytes(line.encode() + b"\n")

    async def respond(self, line: str) -> None:
        """Answer the command that is held."""
        assert self._held is not None, "no command is held"
        self._held = None
        await self.send_line(line)

    async def hang_up(self) -> None:
        """The caller leaves: a held command ends with -1, then HANGUP."""
        self.is_hung_up = True
        if self._held is not None:
            is_playback = self._held.upper().startswith("STREAM FILE")
            await self.respond(
                "200 result=-1 endpos=4000" if is_playback else "200 result=-1"
            )
        await self.send_line("HANGUP")

    async def expect(self, prefix: str, timeout_s: float = 5.0) -> str:
        """The next command that starts so; commands before it are passed over."""
        async with asyncio.timeout(timeout_s):
            while True:
                while self._num_expected < len(self.commands):
                    command = self.commands[self._num_expected]
                    self._num_expected += 1
                    if command.upper().startswith(prefix.upper()):
                        return command
                if self._is_closed:
                    raise AssertionError(f"closed without {prefix}: {self.commands}")
                self._changed.clear()
                await self._changed.wait()

    async def wait_closed(self, timeout_s: float = 5.0) -> None:
        """Until the bot has closed the dialogue: the dialplan goes on now."""
        async with asyncio.timeout(timeout_s):
            while not self._is_closed:
                self._changed.clear()
                await self._changed.wait()

    async def send_eof(self) -> None:
        """Close our sending side, as a dying Asterisk would."""
        self._writer.write_eof()

    def abort(self) -> None:
        """Reset the connection."""
        self._writer.transport.abort()

    async def aclose(self) -> None:
        """Close; raises what went wrong in an answer function."""
        self._serving.cancel()
        with suppress(asyncio.CancelledError):
            await self._serving
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
        if self.failure is not None:
            raise self.failure

    # --- answering ---

    async def _serve(self) -> None:
        try:
            while segment := await self._reader.read(65_536):
                self.segments.append(segment)
                self._lines.receive_data(segment)
                while (line := self._lines.next_line()) is not None:
                    await self._take(line)
        except ConnectionError:
            pass  # how a bot closes with our bytes unread
        except AssertionError as exc:
            self.failure = exc
        finally:
            self._is_closed = True
            self._changed.set()

    async def _take(self, line: str) -> None:
        self.commands.append(line)
        self._changed.set()
        if self._held is not None and self._held.upper().startswith("STREAM FILE"):
            self._held = None  # a new command came: it ends without an answer
        assert self._held is None, f"{line!r} came while {self._held!r} was running"
        answer = await self._answer(line, parse_words(line))
        if answer == HOLD:
            self._held = line
        elif answer != SILENCE:
            await self.send_line(answer)
            if line.upper() == "HANGUP":
                await self.hang_up()

    async def _answer(self, line: str, words: list[str]) -> str:
        prefixes = [p for p in self.responses if line.upper().startswith(p.upper())]
        if prefixes:
            answer = self.responses[max(prefixes, key=len)]
            if not isinstance(answer, str):
                outcome = answer(words)
                answer = await outcome if inspect.isawaitable(outcome) else outcome
            return answer
        if self.is_hung_up and words and words[0].upper() in _NEEDS_CHANNEL:
            return "511 Command Not Permitted on a dead channel or intercept routine"
        return self._plain_answer(line.upper(), words)

    def _plain_answer(self, line: str, words: list[str]) -> str:
        if line.startswith("GET VARIABLE"):
            value = self.variables.get(words[2])
            return "200 result=0" if value is None else f"200 result=1 ({value})"
        if line.startswith("GET FULL VARIABLE"):
            value = re.sub(
                r"\$\{([^}]*)\}", lambda m: self.variables.get(m[1], ""), words[3]
            )
            return f"200 result=1 ({value})"
        if line.startswith("SET VARIABLE"):
            self.variables[words[2]] = self.set_variables[words[2]] = words[3]
            return "200 result=1"
        if line.startswith("VERBOSE"):
            self.verbose.append(words[1])
        for prefix, answer in _PLAIN_ANSWERS.items():
            if line.startswith(prefix):
                return answer
        return "510 Invalid or unknown command"


async def connected_agi(
    script: str = "ultravox",
    *,
    options: AgiConnectionOptions | None = None,
    environment: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    responses: Mapping[str, Answer] | None = None,
) -> tuple[AgiConnection, FakeAsterisk]:
    """A dialogue that is open, without a server: our end, and Asterisk's.

    Close both: ``await connection.close()``, ``await asterisk.aclose()``.
    """
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: AgiConnection(options), sock=ours
    )
    reader, writer = await asyncio.open_connection(sock=theirs)
    asterisk = FakeAsterisk(reader, writer, variables=variables, responses=responses)
    await asterisk.open_dialogue(script, environment=environment)
    await connection.receive_request()
    return connection, asterisk


class FakeAudioSocket:
    """Asterisk's end of an AudioSocket leg: sends what a test says, records all."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.messages: list[tuple[int, bytes]] = []
        self.is_closed = False
        self._reader = reader
        self._writer = writer
        self._changed = asyncio.Event()
        self._reading = asyncio.get_running_loop().create_task(self._read())

    @classmethod
    async def connect(cls, host: str, port: int, call_id: UUID) -> Self:
        """Connect and announce the call, as the application does."""
        reader, writer = await asyncio.open_connection(host, port)
        leg = cls(reader, writer)
        await leg.send_bytes(uuid_message(call_id))
        return leg

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.hang_up()

    async def send_bytes(self, data: bytes) -> None:
        self._writer.write(data)
        with suppress(ConnectionError):
            await self._writer.drain()

    async def send_pcm16(self, pcm16: bytes) -> None:
        """Caller audio as 20 ms messages, at once; the last may be shorter."""
        for start in range(0, len(pcm16), 320):
            await self.send_bytes(audio_message(pcm16[start : start + 320]))

    async def send_digit(self, key: str) -> None:
        await self.send_bytes(dtmf_message(key))

    async def send_hangup(self) -> None:
        """The message Asterisk never sends at a caller's hang-up, but may."""
        await self.send_bytes(hangup_message())

    @property
    def received_pcm16(self) -> bytes:
        """All audio the bot has sent so far."""
        return b"".join(p for kind, p in self.messages if kind == KIND_AUDIO)

    @property
    def has_hangup(self) -> bool:
        """The bot ended the application in order."""
        return any(kind == KIND_HANGUP for kind, _ in self.messages)

    async def wait_for(
        self, condition: Callable[[], bool], timeout_s: float = 5.0
    ) -> None:
        """Until condition holds; asked after every message and at the end."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                assert not self.is_closed, "the leg was closed first"
                self._changed.clear()
                await self._changed.wait()

    async def wait_closed(self, timeout_s: float = 5.0) -> None:
        """Until the bot has closed the leg."""
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self._reading)

    async def hang_up(self) -> None:
        """The caller leaves: end of file, no message. Also cleans up."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading

    async def _read(self) -> None:
        reader = MessageReader()
        try:
            while data := await self._reader.read(65_536):
                self.messages += reader.receive_data(data)
                self._changed.set()
        except ConnectionError:
            pass
        finally:
            self.is_closed = True
            self._changed.set()
