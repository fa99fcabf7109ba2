"""Synthesiser processes kept running, and requests spread over them.

A process does one request at a time, so the next free one takes the next request.  One
that dies or hangs is replaced; its request is tried once more elsewhere.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from model.errors import SynthesisFailed
from model.tts import wire
from model.tts.errors import SynthesisOverloaded, SynthesizerUnavailable
from model.tts.synthesizer import MAX_TEXT_CHARS, SynthesizerStatus
from model.tts.voice import Voice
from model.tts.worker_process import WorkerLost, WorkerOptions, WorkerProcess

logger = logging.getLogger(__name__)

_MAX_KNOWN_VOICES = 1000  # languages, variants and speeds come from outside


@dataclass(frozen=True, slots=True)
class PoolOptions:
    num_workers: int = 2
    """Two espeak processes serve 100 sentences at once with the first audio of half of
    them after 0.2 s; for piper take as many as there are cores to spare."""
    max_waiting: int = 256
    """Requests waiting for a process.  At 10 ms each, more would wait seconds."""
    wait_timeout_s: float = 5.0
    """For a process; a caller has heard a filler by then."""
    max_restart_delay_s: float = 5.0
    """Between attempts when a process keeps failing, doubling from 0.1 s."""
    worker: WorkerOptions = field(default_factory=WorkerOptions)


class WorkerPool:
    """A SpeechSynthesizer made of processes; use `open` and `aclose`."""

    def __init__(
        self, backend: str, command: tuple[str, ...], options: PoolOptions | None = None
    ) -> None:
        self._backend = backend
        self._command = command
        self._options = options or PoolOptions()
        self._idle: asyncio.Queue[WorkerProcess | None] = asyncio.Queue(
            # One place a process and a wake-up a waiter: never full.
            maxsize=self._options.num_workers + self._options.max_waiting
        )
        self._workers: set[WorkerProcess] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._request_ids = itertools.count(1)
        self._num_waiting = 0
        self._num_requests = 0
        self._num_retries = 0
        self._num_failures = 0
        self._num_replaced = 0
        self._version = ""
        self._known_voices: set[Voice] = set()
        self._is_closing = False

    @property
    def backend(self) -> str:
        return self._backend

    async def open(self) -> None:
        """Start the processes; returns when all are ready.

        Raises:
            SynthesizerUnavailable: one cannot start.
        """
        starts = [self._start() for _ in range(self._options.num_workers)]
        try:
            started = await asyncio.gather(*starts, return_exceptions=True)
            for failure in started:
                if isinstance(failure, BaseException):
                    raise failure
        except BaseException:
            await self.aclose()
            raise
        self._version = next(iter(self._workers)).version
        self._keepers = [
            asyncio.create_task(self._keep(worker)) for worker in self._workers
        ]

    async def aclose(self) -> None:
        self._is_closing = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for worker in tuple(self._workers):  # whose keeper was cancelled too early
            await self._end(worker)
        for _ in range(self._num_waiting):
            self._idle.put_nowait(None)

    def synthesize(
        self, text: str, voice: Voice, *, rate_hz: int = 8000
    ) -> AsyncGenerator[bytes, None]:
        """See SpeechSynthesizer."""
        request = wire.Speak(next(self._request_ids), text, voice, rate_hz)
        return self._synthesize(request)

    async def check_voice(self, voice: Voice) -> None:
        """Say a syllable with it, once; raises what `synthesize` does."""
        if voice in self._known_voices:
            return
        async with aclosing(self.synthesize("a", voice)) as chunks:
            async for _ in chunks:
                pass
        if len(self._known_voices) < _MAX_KNOWN_VOICES:
            self._known_voices.add(voice)

    def status(self) -> SynthesizerStatus:
        return SynthesizerStatus(
            backend=self._backend,
            version=self._version,
            num_workers=len(self._workers),
            num_busy=sum(worker.is_busy for worker in self._workers),
            num_waiting=self._num_waiting,
            num_requests=self._num_requests,
            num_retries=self._num_retries,
            num_failures=self._num_failures,
            num_replaced=self._num_replaced,
        )

    async def _synthesize(self, request: wire.Speak) -> AsyncGenerator[bytes, None]:
        if len(request.text) > MAX_TEXT_CHARS:
            raise SynthesisFailed(
                f"the text is longer than {MAX_TEXT_CHARS} characters"
            )
        self._num_requests += 1
        num_sent = 0
        for is_retry in (False, True):
            worker = await self._free_worker()
            speech = worker.begin(request)
            # A retry says the same again; what was already delivered is left out.
            num_skipped = 0
            try:
                while (chunk := await speech.next_chunk()) is not None:
                    skip = min(len(chunk), num_sent - num_skipped)
                    num_skipped += skip
                    if skip < len(chunk):
                        num_sent += len(chunk) - skip
                        num_skipped = num_sent
                        yield chunk[skip:]
                return
            except WorkerLost as exc:
                if is_retry or self._is_closing:
                    self._num_failures += 1
                    raise SynthesisFailed(str(exc)) from exc
                self._num_retries += 1
            except SynthesisFailed:
                self._num_failures += 1
                raise
            finally:
                worker.abandon(speech)

    async def _free_worker(self) -> WorkerProcess:
        """Wait for a process that is up and does nothing."""
        if self._num_waiting >= self._options.max_waiting:
            raise SynthesisOverloaded(f"{self._num_waiting} texts are waiting already")
        self._num_waiting += 1
        try:
            async with asyncio.timeout(self._options.wait_timeout_s):
                while not self._is_closing:
                    worker = await self._idle.get()
                    if worker is not None and not worker.is_lost:
                        return worker
        except TimeoutError as exc:
            if not self._workers:
                raise SynthesisFailed("no synthesiser process is running") from exc
            raise SynthesisOverloaded("all synthesiser processes are busy") from exc
        finally:
            self._num_waiting -= 1
        raise SynthesisFailed("the synthesiser is closed")

    def _offer(self, worker: WorkerProcess) -> None:
        """`worker` has nothing to do; those that died while idle make room."""
        idle = [self._idle.get_nowait() for _ in range(self._idle.qsize())]
        for other in idle:
            if other is not None and not other.is_lost:
                self._idle.put_nowait(other)
        self._idle.put_nowait(worker)

    async def _keep(self, worker: WorkerProcess) -> None:
        """Serve one process, and the one that replaces it, until cancelled."""
        while True:
            try:
                await worker.run(self._offer)
            finally:
                await self._end(worker)
            self._num_replaced += 1
            logger.warning("synthesizer_process_lost", extra={"pid": worker.pid})
            worker = await self._start_again()

    async def _start_again(self) -> WorkerProcess:
        delay_s = 0.1
        while True:
            try:
                return await self._start()
            except SynthesizerUnavailable as exc:
                logger.error("synthesizer_restart_failed", extra={"reason": str(exc)})
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, self._options.max_restart_delay_s)

    async def _start(self) -> WorkerProcess:
        worker = await WorkerProcess.start(self._command, self._options.worker)
        self._workers.add(worker)
        return worker

    async def _end(self, worker: WorkerProcess) -> None:
        await worker.end()
        self._workers.discard(worker)
