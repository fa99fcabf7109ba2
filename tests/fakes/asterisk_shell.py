"""Shells that EXEC AGI and EXEC EAGI start on the Asterisk host: run for real.

The scripts the bot sends are checked by bash itself; only the channel is played.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress

from tests.fakes.asterisk import HOLD, Answer, FakeAsterisk


def shell_words(words: list[str]) -> list[str]:
    """Program and arguments as app_agi separates them; its traps are refused."""
    text = words[2]
    assert '"' not in text, "app_agi takes double quotes away"
    assert "\\" not in text, "app_agi takes backslashes away"
    assert "${" not in text, "a version with AGIEXECFULL would expand it"
    for opening, closing in ("()", "[]"):
        assert text.count(opening) == text.count(closing), "app_agi counts brackets"
    parts = text.split(",")
    assert len(parts) == 3, "a comma separates arguments"
    return parts


async def exec_agi(words: list[str]) -> str:
    """Answer to "EXEC AGI": run the script, until the program itself ends."""
    process = await asyncio.create_subprocess_exec(
        *shell_words(words), stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
    )
    await process.wait()
    return "200 result=0"


async def exec_agi_without_shell(words: list[str]) -> str:
    """Answer to "EXEC AGI" where there is no such program."""
    shell_words(words)
    return "200 result=0"


class EagiApplication:
    """The answer to "EXEC EAGI" of a `FakeAsterisk`; use as a response.

    `inner` is the dialogue inside, over the shell's standard input and output.
    """

    def __init__(self, responses: dict[str, Answer] | None = None) -> None:
        self.started = asyncio.Event()
        self._responses: dict[str, Answer] = {"STREAM FILE": HOLD, **(responses or {})}
        self._inner: FakeAsterisk | None = None
        self._process: Process | None = None
        self._audio_fd = -1
        self._is_hung_up = False

    @property
    def inner(self) -> FakeAsterisk:
        assert self._inner is not None, "EXEC EAGI has not been run"
        return self._inner

    async def __call__(self, words: list[str]) -> str:
        read_fd, self._audio_fd = os.pipe()
        starter = f'exec 3<&{read_fd} {read_fd}<&-; exec /bin/bash -c "$0"'
        try:
            self._process = await asyncio.create_subprocess_exec(
                "/bin/bash",
                "-c",
                starter,
                shell_words(words)[2],
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                pass_fds=(read_fd,),
                start_new_session=True,
            )
        finally:
            os.close(read_fd)
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._inner = FakeAsterisk(
            self._process.stdout, self._process.stdin, responses=self._responses
        )
        try:
            await self._inner.open_dialogue("", environment={"agi_enhanced": "1.0"})
            self.started.set()
            await self._process.wait()
        finally:
            os.close(self._audio_fd)
            self._audio_fd = -1
            self.kill()
            await self._process.wait()
            await self._inner.aclose()
        return "200 result=-1" if self._is_hung_up else "200 result=0"

    def send_pcm16(self, pcm16: bytes) -> None:
        """Caller audio on descriptor 3; a pipe holds 4 s of it."""
        os.write(self._audio_fd, pcm16)

    async def hang_up(self) -> None:
        """The caller leaves: -1 for what plays, a signal, and no HANGUP line."""
        assert self._process is not None
        self._is_hung_up = self.inner.is_hung_up = True
        self._process.send_signal(signal.SIGHUP)
        await self.inner.respond("200 result=-1 endpos=4000")

    def kill(self) -> None:
        """The shell and its children die, as with the whole host."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
