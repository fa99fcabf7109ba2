"""Asterisk's side of one AGI dialogue: reads commands, does them on the channel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from tools.caller.activities import Activity, PlayFile, RecordFile, WaitForDigit
from tools.caller.agi_wire import CommandReader, parse_words
from tools.caller.channel import PretendChannel
from tools.caller.sound_files import NoSuchSound, recorded

Words: TypeAlias = list[str]
# Runs a dialplan application; its result.
Execute: TypeAlias = Callable[[str, str], Awaitable[int]]

_UNKNOWN: Final = "510 Invalid or unknown command"
_DEAD: Final = "511 Command Not Permitted on a dead channel or intercept routine"
# A recording that long is no test of the folder any more: it is how the bot listens.
_LEG_BYTES: Final = 16 * 500
_USAGE: Final = (
    "520-Invalid command syntax.  Proper usage follows:\n"
    " Usage: {command}\n"
    "520 End of proper usage."
)


class AgiSession:
    """One dialogue over a pair of streams, until the bot closes it.

    signal_hangup: how a local script learns of a hang-up; FastAGI gets a line.
    """

    def __init__(
        self,
        channel: PretendChannel,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        execute: Execute,
        *,
        signal_hangup: Callable[[], None] | None = None,
    ) -> None:
        self._channel = channel
        self._reader = reader
        self._writer = writer
        self._execute = execute
        self._signal_hangup = signal_hangup
        self._lines = CommandReader()
        self._woken = asyncio.Event()
        self._is_eof = False
        self._is_busy = False
        self.num_commands = 0
        self._has_told_hangup = False

    async def run(self, environment: bytes) -> None:
        """Open the dialogue and answer commands until the bot closes it."""
        await self._write(environment)
        receiving = asyncio.ensure_future(self._receive())
        try:
            while True:
                await self._tell_hangup()
                line = self._lines.next_line()
                for problem in self._lines.problems:
                    self._channel.journal.error(f"AGI: {problem}")
                if line is not None:
                    await self._answer(line)
                elif self._is_eof:
                    return
                else:
                    await self._wait()
        finally:
            receiving.cancel()
            with suppress(asyncio.CancelledError):
                await receiving

    async def _receive(self) -> None:
        try:
            while segment := await self._reader.read(65_536):
                is_late = self._channel.is_behind()
                self._lines.receive_data(segment, is_late=is_late)
                self._wake()
        except ConnectionError as exc:
            self._channel.journal.event("agi-reset", reason=str(exc))
        self._is_eof = True
        self._wake()

    def _wake(self) -> None:
        """As when the descriptor becomes readable: also ends a playback."""
        self._woken.set()
        if self._is_busy:
            self._channel.interrupt()

    async def _wait(self) -> None:
        """Until bytes come, or the caller leaves."""
        self._woken.clear()
        waits = [asyncio.ensure_future(self._woken.wait())]
        if not self._has_told_hangup:
            waits.append(asyncio.ensure_future(self._channel.hung_up.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _tell_hangup(self) -> None:
        if self._channel.hung_up.is_set() and not self._has_told_hangup:
            self._has_told_hangup = True
            if self._signal_hangup is not None:
                self._signal_hangup()
                return
            self._channel.journal.event("agi-hangup-line")
            await self._write(b"HANGUP\n")

    async def _write(self, data: bytes) -> None:
        if self._writer.is_closing():  # uvloop's transport refuses to be written to
            return
        self._writer.write(data)
        with suppress(ConnectionError):
            await self._writer.drain()

    # --- commands ---

    async def _answer(self, line: str) -> None:
        self.num_commands += 1
        self._channel.journal.event("agi-command", line=line)
        response = await self._respond(line)
        if response is None:
            self._channel.journal.event("agi-interrupted")
            return
        self._channel.journal.event("agi-response", line=response)
        await self._write(response.encode() + b"\n")

    async def _respond(self, line: str) -> str | None:
        words = parse_words(line)
        for length in (3, 2, 1):
            name = " ".join(words[:length]).upper()
            command = _COMMANDS.get(name) if len(words) >= length else None
            if command is None:
                continue
            respond, works_when_dead = command
            if self._channel.hung_up.is_set() and not works_when_dead:
                return _DEAD
            try:
                return await respond(self, words[length:])
            except (IndexError, ValueError):
                return _USAGE.format(command=name)
        if words:
            self._channel.journal.error(f"AGI: unknown command {words[0]}")
        return _UNKNOWN

    async def _run(self, activity: Activity) -> str | None:
        # Bytes that came before it began end it at once, as Asterisk polls first.
        if activity.is_interruptible and (self._lines.is_awake or self._is_eof):
            return activity.on_interrupt()
        self._is_busy = True
        try:
            return await self._channel.run(activity)
        finally:
            self._is_busy = False

    async def _answer_channel(self, words: Words) -> str:
        self._channel.answer()
        return "200 result=0"

    async def _channel_status(self, words: Words) -> str:
        return f"200 result={self._channel.state}"

    async def _noop(self, words: Words) -> str:
        return "200 result=0"

    async def _verbose(self, words: Words) -> str:
        self._channel.journal.event("verbose", text=words[0])
        return "200 result=1"

    async def _hangup(self, words: Words) -> str:
        self._channel.hang_up("bot")
        return "200 result=1"

    async def _get_variable(self, words: Words) -> str:
        value = self._channel.get_variable(words[0])
        return "200 result=0" if value is None else f"200 result=1 ({value})"

    async def _get_full_variable(self, words: Words) -> str:
        return f"200 result=1 ({self._channel.evaluate(words[0])})"

    async def _set_variable(self, words: Words) -> str:
        self._channel.set_variable(words[0], words[1])
        return "200 result=1"

    async def _set_context(self, words: Words) -> str:
        return self._go_on_at("context", words[0])

    async def _set_extension(self, words: Words) -> str:
        return self._go_on_at("extension", words[0])

    async def _set_priority(self, words: Words) -> str:
        return self._go_on_at("priority", words[0])

    def _go_on_at(self, what: str, value: str) -> str:
        self._channel.goes_on_at[what] = value
        return "200 result=0"

    async def _stream_file(self, words: Words) -> str | None:
        name, keys = words[0], words[1]
        offset_samples = int(words[2]) if len(words) > 2 else 0
        try:
            pcm16 = self._channel.abilities.sounds.read(name)
        except NoSuchSound as exc:
            self._channel.journal.error(f"STREAM FILE: {exc}")
            return "200 result=-1 endpos=0"
        return await self._run(PlayFile(pcm16, keys, offset_samples))

    async def _wait_for_digit(self, words: Words) -> str | None:
        return await self._run(WaitForDigit(int(words[0])))

    async def _record_file(self, words: Words) -> str | None:
        name, file_format, keys = words[:3]
        timeout_ms = int(words[3])
        path = Path(f"{name}.{file_format}")
        silence = [int(w[2:]) for w in words[4:] if w.startswith("s=")]
        channel = self._channel

        def save(pcm16: bytes) -> int:
            encoded = recorded(pcm16, file_format)
            if encoded is None:
                raise OSError("no such format")
            path.write_bytes(encoded[0])
            if len(pcm16) > _LEG_BYTES and "recorded_turns" not in channel.legs_used:
                channel.legs_used.append("recorded_turns")
            return encoded[1]

        try:
            save(b"")
        except OSError as exc:
            self._channel.journal.error(f"RECORD FILE {path}: {exc}")
            return "200 result=-1 (writefile)"
        silence_s = silence[0] if silence else 0
        return await self._run(RecordFile(save, keys, timeout_ms, silence_s))

    async def _exec(self, words: Words) -> str:
        arguments = words[1] if len(words) > 1 else ""
        return f"200 result={await self._execute(words[0], arguments)}"


_Respond: TypeAlias = Callable[[AgiSession, Words], Awaitable[str | None]]
# Whether a command still works after a hang-up: "Runs Dead" of Asterisk's own list.
_COMMANDS: Final[dict[str, tuple[_Respond, bool]]] = {
    "ANSWER": (AgiSession._answer_channel, False),
    "CHANNEL STATUS": (AgiSession._channel_status, False),
    "EXEC": (AgiSession._exec, True),
    "GET FULL VARIABLE": (AgiSession._get_full_variable, True),
    "GET VARIABLE": (AgiSession._get_variable, True),
    "HANGUP": (AgiSession._hangup, False),
    "NOOP": (AgiSession._noop, True),
    "RECORD FILE": (AgiSession._record_file, False),
    "SET CONTEXT": (AgiSession._set_context, False),
    "SET EXTENSION": (AgiSession._set_extension, False),
    "SET PRIORITY": (AgiSession._set_priority, False),
    "SET VARIABLE": (AgiSession._set_variable, True),
    "STREAM FILE": (AgiSession._stream_file, False),
    "VERBOSE": (AgiSession._verbose, True),
    "WAIT FOR DIGIT": (AgiSession._wait_for_digit, False),
}
