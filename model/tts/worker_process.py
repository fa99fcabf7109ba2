"""One synthesiser process as the service sees it: start, one request at a time, end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model.errors import SynthesisFailed
from model.tts import wire
from model.tts.errors import SynthesizerUnavailable, VoiceUnknown

_ROOT: Final = Path(__file__).resolve().parents[2]
_READ_BYTES: Final = 65536
_MAX_CHUNKS: Final = 4096
_END_TIMEOUT_S: Final = 1.0
# One thread each: the processes are the parallelism.
_ENVIRONMENT: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class WorkerLost(Exception):
    """The process died, hung or talked nonsense; the request may be tried elsewhere."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    start_timeout_s: float = 20.0
    """Importing numpy takes 0.3 s; on a cold and busy disk many times that."""
    silence_timeout_s: float = 3.0
    """espeak sends audio every few ms; so long without any, it hangs, however busy the
    machine is."""
    request_timeout_s: float = 20.0
    """For a whole request, however lively: no piece of text takes that long."""


class Speech:
    """One request's audio as it comes from the process."""

    def __init__(self, request: wire.Speak) -> None:
        self.request = request
        # The process is never made to wait for a slow listener: what it may send is
        # bounded by the longest text and by its own limit on speech.
        self._chunks: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(
            maxsize=_MAX_CHUNKS + 1  # full: it sends without end and counts as lost
        )

    def put_audio(self, pcm16: bytes) -> None:
        if self._chunks.qsize() >= _MAX_CHUNKS:
            raise wire.WireError("more audio than any text has")
        self._chunks.put_nowait(pcm16)

    def put_end(self, cause: Exception | None) -> None:
        self._chunks.put_nowait(cause)

    async def next_chunk(self) -> bytes | None:
        """The next audio; None at the end.

        Raises:
            WorkerLost, SynthesisFailed, VoiceUnknown.
        """
        chunk = await self._chunks.get()
        if isinstance(chunk, Exception):
            raise chunk
        return chunk


class WorkerProcess:
    """A running process: made by `start`, served by `run` until it ends, then `end`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        options: WorkerOptions,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._options = options
        self._messages = wire.MessageReader()
        self._speech: Speech | None = None
        self._watchdog: asyncio.Timeout | None = None
        self._give_up_at = 0.0
        self._on_idle: Callable[[WorkerProcess], None] = _nothing
        self.version = ""
        self.is_lost = False

    @classmethod
    async def start(
        cls, command: tuple[str, ...], options: WorkerOptions
    ) -> WorkerProcess:
        """Start `python -m` `command` and wait until it is ready.

        Raises:
            SynthesizerUnavailable: it cannot start, or says that something is missing.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                reader, writer = await asyncio.open_connection(sock=ours)
            except BaseException:
                ours.close()
                raise
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", *command),
                    stdin=theirs.fileno(),
                    stdout=asyncio.subprocess.DEVNULL,
                    cwd=_ROOT,
                    env={**os.environ, **_ENVIRONMENT},
                )
            except OSError as exc:
                writer.transport.abort()
                message = f"cannot start {command[0]}: {exc}"
                raise SynthesizerUnavailable(message) from exc
            except BaseException:
                writer.transport.abort()
                raise
        worker = cls(process, reader, writer, options)
        try:
            await worker._wait_until_ready(command[0])
        except BaseException:
            await worker.end()
            raise
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_busy(self) -> bool:
        return self._speech is not None

    def begin(self, request: wire.Speak) -> Speech:
        """Hand over a request; the process must not be busy or lost."""
        assert self._speech is None
        assert not self.is_lost
        speech = self._speech = Speech(request)
        self._give_up_at = self._now() + self._options.request_timeout_s
        self._expect_progress()
        self._writer.write(wire.encode(request))
        return speech

    def abandon(self, speech: Speech) -> None:
        """Nobody listens any more: stop synthesising (no effect once it is done)."""
        if self._speech is speech:
            self._writer.write(wire.encode(wire.Cancel(speech.request.request_id)))

    async def run(self, on_idle: Callable[[WorkerProcess], None]) -> None:
        """Take in what the process sends until it ends, hangs or talks nonsense.

        `on_idle` is called now and whenever a request is over, heard out or not.
        """
        cause = "ended"
        self._on_idle = on_idle
        try:
            async with asyncio.timeout(None) as self._watchdog:
                on_idle(self)
                while data := await self._reader.read(_READ_BYTES):
                    for message in self._messages.receive_data(data):
                        self._take(message)
        except TimeoutError:
            cause = "hung"
            self.kill()
        except (wire.WireError, OSError) as exc:
            cause = f"failed: {exc}"
            self.kill()
        finally:
            self._lose(WorkerLost(f"synthesiser process {self.pid} {cause}"))

    async def end(self) -> None:
        """Close its socket, which ends it; kill it if that is not enough.

        May be called again where it was cancelled.
        """
        self._lose(WorkerLost("the synthesiser is closing"))
        self._writer.transport.abort()  # what is unsent is of no use any more
        with contextlib.suppress(OSError):  # it was reset: closed is closed
            # Shielded: a cancelled wait would spoil every later one (asyncio.streams).
            await asyncio.shield(self._writer.wait_closed())
        try:
            async with asyncio.timeout(_END_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()  # SIGKILL: also ends a stopped process

    async def _wait_until_ready(self, name: str) -> None:
        try:
            async with asyncio.timeout(self._options.start_timeout_s):
                while data := await self._reader.read(_READ_BYTES):
                    for message in self._messages.receive_data(data):
                        match message:
                            case wire.Ready(version=version):
                                self.version = version
                                return
                            case wire.Failed(message=reason):
                                raise SynthesizerUnavailable(reason)
        except (TimeoutError, OSError, wire.WireError) as exc:
            self.kill()
            raise SynthesizerUnavailable(f"{name} does not get ready: {exc!r}") from exc
        raise SynthesizerUnavailable(f"{name} ended before it was ready")

    def _take(self, message: wire.Message) -> None:
        speech = self._speech
        if speech is None or message.request_id != speech.request.request_id:
            raise wire.WireError(f"a message for no request: {type(message).__name__}")
        match message:
            case wire.Audio(pcm16=pcm16):
                speech.put_audio(pcm16)
                self._expect_progress()
            case wire.Done():
                self._finish(None)
            case wire.Failed(reason="voice_unknown", message=text):
                self._finish(VoiceUnknown(text))
            case wire.Failed(message=text):
                self._finish(SynthesisFailed(text))
            case _:
                raise wire.WireError(f"{type(message).__name__} from a process")

    def _finish(self, end: Exception | None) -> None:
        speech, self._speech = self._speech, None
        assert speech is not None
        speech.put_end(end)
        if self._watchdog is not None:
            self._watchdog.reschedule(None)
        self._on_idle(self)

    def _expect_progress(self) -> None:
        if self._watchdog is not None:
            silent_until = self._now() + self._options.silence_timeout_s
            self._watchdog.reschedule(min(silent_until, self._give_up_at))

    def _lose(self, cause: WorkerLost) -> None:
        self.is_lost = True
        if self._speech is not None:
            speech, self._speech = self._speech, None
            speech.put_end(cause)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _nothing(_worker: WorkerProcess) -> None:
    """Until `run` is told whom to call."""
