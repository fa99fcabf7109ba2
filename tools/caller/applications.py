"""Dialplan applications a bot runs by EXEC, as far as a caller needs them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tools.caller.activities import Activity, PlayToEnd, WaitSeconds
from tools.caller.agi_session import AgiSession
from tools.caller.agi_wire import environment_block
from tools.caller.audiosocket_leg import exec_audiosocket
from tools.caller.channel import PretendChannel
from tools.caller.dialplan_functions import split_arguments
from tools.caller.mouth import Slot
from tools.caller.sound_files import NoSuchSound

UNKNOWN_APPLICATION: Final = -2
_FAILED: Final = -1
_EAGI_FD: Final = 3


@dataclass(slots=True)
class Applications:
    """The applications of one call; ``close`` ends the programs they started."""

    channel: PretendChannel
    _groups: list[int] = field(default_factory=list)

    async def execute(self, name: str, arguments: str) -> int:
        """What the application returns, -2 where Asterisk has none of that name."""
        channel = self.channel
        match name.lower():
            case "audiosocket" if channel.abilities.has_audiosocket:
                return await exec_audiosocket(channel, arguments)
            case "agi":
                return await self._run_script(arguments, has_audio=False)
            case "eagi":
                return await self._run_script(arguments, has_audio=True)
            case "answer":
                channel.answer()
            case "noop" | "verbose" | "ringing" | "progress":
                pass
            case "wait":
                return await self._run(WaitSeconds(float(arguments or "1")))
            case "playback":
                return await self._playback(arguments)
            case "senddtmf":
                channel.keys_heard += arguments
                channel.journal.event("dtmf-heard", keys=arguments)
            case "set":
                variable, _, value = arguments.partition("=")
                channel.set_variable(variable, value)
            case "goto":
                parts = arguments.split(",")
                places = ("context", "extension", "priority")[-len(parts) :]
                channel.goes_on_at.update(zip(places, parts, strict=True))
            case "hangup":
                channel.hang_up("bot")
                return _FAILED
            case "dial":
                channel.variables["DIALSTATUS"] = "CHANUNAVAIL"
            case _:
                return UNKNOWN_APPLICATION
        return 0

    async def _run(self, activity: Activity) -> int:
        response = await self.channel.run(activity)
        assert response is not None, "applications are not interrupted"
        return int(response.removeprefix("200 result=").split()[0])

    async def _playback(self, arguments: str) -> int:
        for name in arguments.split(",")[0].split("&"):
            try:
                pcm16 = self.channel.abilities.sounds.read(name)
            except NoSuchSound as exc:
                self.channel.journal.error(f"EXEC Playback: {exc}")
                continue
            self.channel.answer()
            if await self._run(PlayToEnd(pcm16)) != 0:
                return _FAILED
        return 0

    # --- local scripts ---

    async def _run_script(self, arguments: str, *, has_audio: bool) -> int:
        """AGI and EAGI with a program on this host; sets AGISTATUS."""
        channel = self.channel
        program, *args = split_arguments(arguments)
        if not channel.abilities.runs_scripts or shutil.which(program) != program:
            channel.journal.event("script-not-run", program=program)
            channel.variables["AGISTATUS"] = "NOTFOUND"
            return 0
        channel.journal.event("script-started", program=program)
        if has_audio:
            await self._run_eagi(program, args)
        else:
            await self._run_agi(program, args, None)
        status = "HANGUP" if channel.hung_up.is_set() else "SUCCESS"
        channel.variables["AGISTATUS"] = status
        channel.journal.event("script-ended", status=status)
        return _FAILED if channel.hung_up.is_set() else 0

    async def _run_eagi(self, program: str, args: list[str]) -> None:
        read_end, write_end = os.pipe()
        flags = fcntl.fcntl(write_end, fcntl.F_GETFL)
        fcntl.fcntl(write_end, fcntl.F_SETFL, flags | os.O_NONBLOCK)

        def give(slot: Slot) -> None:
            # A full pipe drops audio, as Asterisk's does.
            if slot.pcm16 is not None:
                with suppress(BlockingIOError, BrokenPipeError):
                    os.write(write_end, slot.pcm16)

        self.channel.eagi_listener = give
        try:
            await self._run_agi(program, args, read_end)
        finally:
            self.channel.eagi_listener = None
            os.close(write_end)

    async def _run_agi(
        self, program: str, args: list[str], audio_fd: int | None
    ) -> None:
        command = [program, *args]
        if audio_fd is not None:
            # bash, as other shells know only descriptors of one digit
            renumber = f'exec "$@" {_EAGI_FD}<&{audio_fd} {audio_fd}<&-'
            command = ["/bin/bash", "-c", renumber, "bash", *command]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=() if audio_fd is None else (audio_fd,),
                start_new_session=True,  # what it starts in turn is found by its group
            )
        finally:
            if audio_fd is not None:
                os.close(audio_fd)
        self._groups.append(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        environment = environment_block(
            self.channel.about,
            program,
            "",
            args,
            enhanced=audio_fd is not None,
            is_fast=False,
        )
        session = AgiSession(
            self.channel,
            process.stdout,
            process.stdin,
            self.execute,
            signal_hangup=lambda: _signal(process, signal.SIGHUP),
        )
        try:
            await session.run(environment)
        finally:
            process.stdin.close()
            _signal(process, signal.SIGHUP)
            if audio_fd is not None and session.num_commands:
                self.channel.legs_used.append("eagi")
        await process.wait()

    def close(self) -> None:
        """End every program of this call that still runs."""
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._groups.clear()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """To the script alone: what it left running in the background goes on."""
    # Popen.send_signal would reap the process behind the event loop's back.
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
