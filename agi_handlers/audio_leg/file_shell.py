"""The file shell: sound files to and from an Asterisk host without a shared folder.

`EXEC AGI "/bin/bash,-c,..."` starts a shell on the Asterisk host that connects back to
the media port and stays until that connection ends.  It writes, reads and removes files
while AGI is busy playing or recording, and removes all of its call when the connection
ends, however it ends.

::

    we                                   the shell
                                         FILES <token>    (the media port takes this)
                                         ok | no          folder usable?
    P name size  + bytes                 size written, or -1
    G name                               size + bytes, or -1
    D name                               (nothing)

Measured on 16 and 22, loopback: start 8 ms, 16 kB put 3 ms.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import string
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from uuid import uuid4

from agi_handlers.agi.commands import exec_, get_variable
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.audio_leg.file_exchange import (
    FILE_PREFIX,
    SUFFIX,
    SWEEP_AFTER_S,
    FileExchangeFailed,
)
from agi_handlers.audio_leg.media_port import MediaPort
from agi_handlers.errors import AudioLegUnavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

# EXEC splits at commas and takes double quotes and backslashes away: there are none.
# Brackets are balanced, since they are counted.  Standard output is the AGI dialogue.
# All of it runs in the background, since a connect that a firewall swallows would
# keep EXEC busy for two minutes.  A write that fails (disk full) must still take its
# bytes off the stream, and a connection that is reset must not kill the shell before
# it has removed its files.
_SCRIPT = string.Template(
    "umask 077;(trap : PIPE;exec 5<>/dev/tcp/$host/$port||exit;"
    "cd $folder&&:>$prefix.t&&rm $prefix.t&&s=ok||s=no;echo $line>&5;echo $$s>&5;"
    "while read -r -t $idle_s -u 5 c f n;do case $$c in "
    "(P) head -c $$n<&5|{ cat>$$f||cat>/dev/null;};n=$$(wc -c<$$f)||n=-1;"
    "echo $$n>&5;;"
    "(G) n=$$(wc -c<$$f)||n=-1;echo $$n>&5;[ $$n -lt 0 ]||head -c $$n $$f>&5;;"
    "(D) rm -f $$f;;"
    "esac;done;rm -f $prefix*;"
    "find . -maxdepth 1 -name '$family*$suffix' -mmin +$sweep_min -delete"
    ")</dev/null >/dev/null 2>&1 &"
)


@dataclass(frozen=True, slots=True)
class FileShellOptions:
    folder: str = "/tmp"  # noqa: S108 - on the Asterisk host, names are unguessable
    connect_timeout_s: float = 3.0  # measured 10 ms; a firewall that drops: never
    operation_timeout_s: float = 5.0
    # The shell gives up after so long without a request: the longest talk in which
    # the bot says nothing. Only a host of ours that lost power lets it come to that.
    idle_s: int = 14_400
    max_file_bytes: int = 4_000_000  # 8 minutes of mu-law: nothing of ours is longer


@asynccontextmanager
async def open_file_shell(
    agi: AgiConnection,
    media_port: MediaPort,
    *,
    host: str,
    port: int,
    options: FileShellOptions | None = None,
) -> AsyncIterator[FileShell]:
    """A file shell on the Asterisk host of this call, for the block.

    host, port: the media port as Asterisk reaches it.

    Raises:
        AudioLegUnavailable: it did not connect, or its folder cannot be used.
        ChannelGone: the caller left meanwhile.
    """
    options = options or FileShellOptions()
    prefix = f"{FILE_PREFIX}{uuid4().hex}"
    with media_port.announce_line("FILES", _ShellConnection) as (line, announcement):
        script = _script(line, host, port, prefix, options)
        await agi.execute(exec_("AGI", "/bin/bash", "-c", script, may_take_s=5.0))
        status = await agi.execute(get_variable("AGISTATUS"))
        if status not in (None, "SUCCESS"):
            raise AudioLegUnavailable(
                f"file transfer: no /bin/bash on the Asterisk host (AGISTATUS={status})"
            )
        try:
            async with asyncio.timeout(options.connect_timeout_s):
                connection = await announcement.arrived()
        except TimeoutError as exc:
            raise AudioLegUnavailable(
                f"file transfer: no connection to {host}:{port} from a shell on the "
                f"Asterisk host within {options.connect_timeout_s:g} s"
            ) from exc
        shell = FileShell(connection, prefix, options)
        try:
            await shell.check_folder()
            yield shell
        finally:
            connection.close()


def _script(
    line: str, host: str, port: int, prefix: str, options: FileShellOptions
) -> str:
    return _SCRIPT.substitute(
        host=host,
        port=port,
        folder=options.folder,
        prefix=prefix,
        line=line,
        idle_s=options.idle_s,
        family=FILE_PREFIX,
        suffix=SUFFIX,
        sweep_min=round(SWEEP_AFTER_S / 60),
    )


class FileShell:
    """Sound files on the Asterisk host; made by `open_file_shell`."""

    def __init__(
        self, connection: _ShellConnection, prefix: str, options: FileShellOptions
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._options = options
        self._num_files = 0
        self._turn = asyncio.Lock()  # one request at a time
        self._is_out_of_step = False  # a request was given up: answers don't fit now

    def new_name(self) -> str:
        self._num_files += 1
        return f"{self._prefix}-{self._num_files}"

    def path_for_asterisk(self, name: str) -> str:
        return f"{self._options.folder.rstrip('/')}/{name}"

    async def check_folder(self) -> None:
        """Raises: AudioLegUnavailable."""
        try:
            answer = await self._ask(b"", self._connection.read_line())
        except FileExchangeFailed as exc:
            raise AudioLegUnavailable(str(exc)) from exc
        if answer != b"ok":
            raise AudioLegUnavailable(
                f"file transfer: {self._options.folder} on the Asterisk host "
                "is not a folder Asterisk may write to"
            )

    async def put(self, name: str, ulaw: bytes) -> None:
        request = f"P {name}{SUFFIX} {len(ulaw)}\n".encode() + ulaw
        written = await self._ask(request, self._connection.read_number())
        if written != len(ulaw):
            raise FileExchangeFailed(
                f"the Asterisk host wrote {max(written, 0)} of {len(ulaw)} bytes to "
                f"{self._options.folder}: disk full, or not writable any more"
            )

    async def get(self, name: str) -> bytes:
        self._connection.acknowledge_at_once()
        request = f"G {name}{SUFFIX}\n".encode()
        ulaw = await self._ask(
            request, self._connection.read_file(self._options.max_file_bytes)
        )
        if ulaw is None:
            raise FileExchangeFailed("the recording is not on the Asterisk host")
        return ulaw

    async def remove(self, name: str) -> None:
        async with self._turn:
            if not self._is_out_of_step:
                self._connection.write(f"D {name}{SUFFIX}\n".encode())

    async def _ask(self, request: bytes, answer: Coroutine[Any, Any, T]) -> T:
        """Send a request and read its answer, in turn."""
        limit_s = self._options.operation_timeout_s
        try:
            async with self._turn:
                if self._is_out_of_step:
                    raise FileExchangeFailed("an earlier file request got no answer")
                self._is_out_of_step = True  # also when this task is cancelled now
                self._connection.write(request)
                async with asyncio.timeout(limit_s):
                    result = await answer
                self._is_out_of_step = False
                return result
        except TimeoutError as exc:
            raise FileExchangeFailed(
                f"the Asterisk host did not answer a file request in {limit_s:g} s"
            ) from exc
        except (EOFError, ValueError, OSError) as exc:
            raise FileExchangeFailed(f"file connection broken: {exc}") from exc
        finally:
            answer.close()


class _ShellConnection(asyncio.Protocol):
    """Bytes to and from the shell; reading as a stream."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reader = asyncio.StreamReader()

    def write(self, request: bytes) -> None:
        # bounded: one request is out at a time, and its answer is waited for
        transport = self._transport
        if request and transport is not None and not transport.is_closing():
            transport.write(request)

    def acknowledge_at_once(self) -> None:
        """The shell writes size and bytes apart: Nagle would wait 40 ms for our ACK."""
        if self._transport is not None and hasattr(socket, "TCP_QUICKACK"):
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    async def read_line(self) -> bytes:
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError("closed by the Asterisk host")
        return line.strip()

    async def read_number(self) -> int:
        return int(await self.read_line())

    async def read_file(self, max_bytes: int) -> bytes | None:
        """The bytes that follow their number; None for a negative number."""
        size = await self.read_number()
        if size < 0:
            return None
        if size > max_bytes:
            raise ValueError(f"file of {size} bytes")
        self.acknowledge_at_once()
        return await self._reader.readexactly(size)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # --- asyncio's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._reader.set_transport(transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed_data(data)

    def eof_received(self) -> None:
        self._reader.feed_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._reader.feed_eof()
        self._transport = None
