"""The local engine: serves many calls at once with the model in this process.

A thread works until stopped; asyncio tasks submit requests and read streams.

    submit ──▶ arrivals ─┐                        ┌─▶ deliveries ──▶ event loop
    aclose ──▶ drops ────┴▶ thread: step, step ───┘   (one wake-up per step)
                            take up, encode, prefill + decode, sample

The network's attention is replaced for good by the engine's, so a checkpoint that
was given to an engine is of no use elsewhere.

Slots of our own rather than transformers' continuous batching, which takes audio too
when vectors stand under ids past the vocabulary. Measured on a CPU at 8 calls: almost
three times its tokens a second of CPU time (benchmarks/results/engine.md); without
flash-attention's kernels it attends over all requests' keys at once. And it lacks what
calls need: P(turn over) from the prefill, callers before transcripts, a failed row that
leaves its neighbours alone, sharing of less than a page.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import weakref
from collections import deque
from dataclasses import dataclass, field
from datetime import date
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self

import torch

from model.engine.fast_paths import RunnerOptions, rounded_context, wants_steps
from model.engine.interface import EngineDescription, EngineLoad
from model.engine.kv_cache import KvCache
from model.engine.request import GenerationRequest, Session
from model.engine.runner import Runner
from model.engine.scheduler import Scheduler
from model.engine.sequence import Sequence
from model.engine.slots import SlotTable
from model.engine.stream import Delivery, TokenStream
from model.engine.worker import Worker
from model.errors import (
    ContextTooLong,
    DeviceLost,
    EngineOverloaded,
    InvalidAudio,
    InvalidRequest,
    SpeechUnavailable,
)
from model.ultravox.inputs import Dialogue

if TYPE_CHECKING:
    from model.engine.worker import Result
    from model.ultravox.checkpoint import Checkpoint
    from model.ultravox.config import TurnEndBounds
    from model.ultravox.inputs import Prompt

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How much the engine takes on.

    A slot is one dialogue's place in the KV cache: one per reply under way, and as
    many more as calls whose history should stay at hand. KV memory is slots times
    context times a token's keys and values (8B: 128 KiB, 1B: 32 KiB).
    """

    max_slots: int = 16
    # A phone call of ten minutes is about 4000 tokens, instructions included.
    max_context_tokens: int = 4096
    # Beyond this a caller would wait longer than a person takes to answer.
    max_waiting: int = 64
    # Tokens a step may read; bounds how long replies under way pause for new prompts.
    # A GPU reads about 180 for free beside an 8B model's weights, a CPU none.
    max_step_tokens: int = 512
    # Audio a step may encode beside one request's. More gives larger batches, less an
    # earlier first token to those in front. None: 4 s on a CPU, where batches gain
    # little, 120 s on a GPU, where short clips cost hardly more together than one.
    max_step_audio_s: float | None = None
    # torch's own choice if None; fewer leave cores to the rest of the machine.
    num_threads: int | None = None
    # No utterance on a phone is longer; each 30 s are 188 tokens.
    max_clip_s: float = 300.0
    # In place of what the checkpoint says of itself: published ones say nothing.
    turn_end: TurnEndBounds | None = None
    runner: RunnerOptions = field(default_factory=RunnerOptions)
    # A stream that gets nothing for so long is given up.
    chunk_timeout_s: float = 30.0
    # A step cannot be interrupted; the longest are prefills on a CPU.
    stop_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if min(self.max_slots, self.max_context_tokens, self.max_waiting) < 1:
            raise ValueError("slots, context and waiting line must be at least 1")
        if self.max_step_tokens <= self.max_slots:
            raise ValueError("max_step_tokens must exceed max_slots, or prompts starve")


class Engine:
    """Continuous batching over slots, for one checkpoint."""

    def __init__(
        self, checkpoint: Checkpoint, options: EngineOptions | None = None
    ) -> None:
        self._checkpoint = checkpoint
        self._options = options or EngineOptions()
        self._context_tokens = min(
            self._options.max_context_tokens, checkpoint.max_context_tokens
        )
        self._cache = KvCache(
            checkpoint.network.text_config,
            num_slots=self._options.max_slots,
            max_context_tokens=rounded_context(
                self._context_tokens, checkpoint.device.type
            ),
            device=checkpoint.device,
            dtype=checkpoint.dtype,
            has_spare=wants_steps(self._options.runner, checkpoint.device.type),
            layer_devices=checkpoint.layer_devices,
        )
        # Counted before the runner moves them: what every decode step reads.
        self._step_weights_bytes = _bytes_read(checkpoint.network.language_model)
        self._runner = Runner(checkpoint, self._cache, self._options.runner)
        scheduler = Scheduler(
            SlotTable(self._options.max_slots),
            max_slots=self._options.max_slots,
            max_waiting=self._options.max_waiting,
            max_step_tokens=self._options.max_step_tokens,
        )
        max_step_audio_s = self._options.max_step_audio_s
        if max_step_audio_s is None:
            max_step_audio_s = 4.0 if checkpoint.device.type == "cpu" else 120.0
        self._worker = Worker(
            scheduler, self._cache, self._runner, checkpoint.stop_ids, max_step_audio_s
        )
        self._numbers = itertools.count()
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # Guards what follows; the thread holds it only to look and to take.
        self._wakeup = threading.Condition()
        self._arrivals: deque[Sequence] = deque()  # full: submit refuses
        self._drops: deque[Sequence] = deque()  # never more than there are sequences
        # Requests that are not over, and who reads them. Held weakly: a reader who
        # forgets its stream drops the request.
        self._readers: dict[Sequence, weakref.ref[TokenStream]] = {}
        self._is_stopping = False
        self._lost: DeviceLost | None = None

    # The asyncio side.

    @property
    def description(self) -> EngineDescription:
        """What is running."""
        return EngineDescription(
            engine="local",
            model_name=self._checkpoint.name,
            weights_kind=self._checkpoint.weights_kind,
            device=named_devices(self._checkpoint),
            dtype=str(self._checkpoint.dtype).removeprefix("torch."),
            num_parameters=self._checkpoint.num_parameters,
            context_tokens=self._context_tokens,
            turn_end=self._options.turn_end or self._checkpoint.config.turn_end,
            decoding=f"{self._runner.decoding}, attention {self._runner.attention}",
            weights_version=self._checkpoint.weights_version,
        )

    @property
    def is_running(self) -> bool:
        """Whether requests are taken; false for good if the engine has died."""
        return self._thread is not None and not self._is_stopping

    async def __aenter__(self) -> Self:
        if self._thread is not None:
            raise RuntimeError("the engine is running already")
        self._loop = asyncio.get_running_loop()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with self._wakeup:
            self._is_stopping = True
            self._wakeup.notify()
        thread, self._thread = self._thread, None
        if thread is None:
            return
        await asyncio.to_thread(thread.join, self._options.stop_timeout_s)
        if thread.is_alive():
            logger.error("engine_did_not_stop")

    def new_dialogue(
        self, instructions: str | None = None, *, today: date | None = None
    ) -> Dialogue:
        """A dialogue in this model's chat format; one per call."""
        chat = self._checkpoint.chat
        return Dialogue(chat, instructions, today=today or date.today())

    def open_session(self) -> Session:
        """A call's place in the engine; close it when the call ends."""
        session = Session()
        self._sessions.add(session)
        return session

    def submit(self, request: GenerationRequest) -> TokenStream:
        """Take on a request; the reply comes through the stream.

        Raises:
            EngineOverloaded: the slots and the waiting line are full of requests at
                least as important.
            ContextTooLong: prompt and longest reply exceed the context.
            InvalidRequest: the prompt is not for this model.
            SpeechUnavailable: the engine is not running; DeviceLost: and cannot again.
        """
        self._check_prompt(request.prompt, request.max_new_tokens)
        _ = request.prompt.keys  # made by who asks, not by the thread of every call
        sequence = Sequence(next(self._numbers), request, perf_counter())
        stream = TokenStream(
            self._checkpoint.chat.decode,
            stop=request.stop,
            timeout_s=self._options.chunk_timeout_s,
            cancel=lambda: self._drop(sequence),
        )
        with self._wakeup:
            if not self.is_running:
                raise self._lost or SpeechUnavailable("the engine is not running")
            self._check_room(request)
            self._readers[sequence] = weakref.ref(stream)
            self._arrivals.append(sequence)
            self._wakeup.notify()
        return stream

    async def warm(self, prompt: Prompt) -> None:
        """Read a prompt now so that requests beginning with it start sooner.

        Raises:
            SpeechError: as `submit`, or as reading a stream.
        """
        async with self.submit(GenerationRequest(prompt, max_new_tokens=0)) as stream:
            async for _ in stream:
                pass

    def memory(self) -> dict[str, int]:
        """Bytes by what they are for."""
        return {
            "weights_bytes": self._checkpoint.weights_bytes,
            "step_weights_bytes": self._step_weights_bytes,
            "kv_bytes": self._cache.num_bytes,
            "kv_used_bytes": self._worker.num_held * self._cache.position_bytes,
            "position_bytes": self._cache.position_bytes,
            "audio_bytes": self._runner.audio_bytes(),
        }

    def load(self) -> EngineLoad:
        """How full the engine is."""
        num_running, now_s = self._worker.num_running, perf_counter()
        return EngineLoad(
            num_active=num_running,
            num_waiting=max(0, len(self._readers) - num_running),
            max_slots=self._options.max_slots,
            max_waiting=self._options.max_waiting,
            num_sessions=sum(not session.closed for session in self._sessions),
            busy_share=self._worker.load.busy_share(now_s),
            step_ms=self._worker.load.step_ms(now_s),
        )

    def _check_prompt(self, prompt: Prompt, max_new_tokens: int) -> None:
        num_tokens = len(prompt) + max_new_tokens
        if num_tokens > self._context_tokens:
            raise ContextTooLong(
                f"{len(prompt)} tokens of dialogue and up to {max_new_tokens} of reply "
                f"exceed the context of {self._context_tokens}",
                num_tokens=num_tokens,
                limit_tokens=self._context_tokens,
            )
        if int(prompt.token_ids.max()) >= self._checkpoint.vocab_size:
            raise InvalidRequest("the prompt was made for another model")
        if prompt.audio and self._checkpoint.config.audio is None:
            raise InvalidRequest("this model has no audio tower; it takes only text")
        for span in prompt.audio:
            if span.clip.duration_s > self._options.max_clip_s:
                raise InvalidAudio(
                    f"a clip of {span.clip.duration_s:.1f} s; at most "
                    f"{self._options.max_clip_s:g} s are taken"
                )

    def _check_room(self, request: GenerationRequest) -> None:
        limit = self._options.max_slots + self._options.max_waiting
        if len(self._readers) < limit:
            return
        # The thread refuses the least important one; is there any?
        if all(known.request.priority <= request.priority for known in self._readers):
            raise EngineOverloaded(
                f"{self._options.max_slots} replies are under way and "
                f"{self._options.max_waiting} requests are waiting"
            )

    def _drop(self, sequence: Sequence) -> None:
        with self._wakeup:
            if sequence in self._readers:
                self._drops.append(sequence)
                self._wakeup.notify()

    # The thread's side.

    def _work(self) -> None:
        if self._options.num_threads is not None:
            torch.set_num_threads(self._options.num_threads)  # this thread's
        try:
            while self._wait_for_work():
                self._deliver(self._take_news())
                self._deliver(self._worker.step())
        except Exception as exc:  # the thread's end: nobody else would hear of it
            # The device's fault, or ours; the worker contains the model's. Nobody is
            # left waiting.
            logger.critical("engine_died", exc_info=True)
            if isinstance(exc, DeviceLost):
                self._lost = exc
        finally:
            with self._wakeup:
                self._is_stopping = True
            error = self._lost or SpeechUnavailable("the engine has stopped")
            self._deliver([(known, Delivery(error=error)) for known in self._readers])

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; false when it is time to stop."""
        with self._wakeup:
            self._wakeup.wait_for(
                lambda: (
                    self._is_stopping
                    or self._arrivals
                    or self._drops
                    or self._worker.has_work
                )
            )
            return not self._is_stopping

    def _take_news(self) -> list[Result]:
        with self._wakeup:
            arrivals, drops = list(self._arrivals), list(self._drops)
            self._arrivals.clear()
            self._drops.clear()
            for sequence in drops:
                self._readers.pop(sequence, None)
        results = [result for new in arrivals for result in self._worker.admit(new)]
        for sequence in drops:
            self._worker.drop(sequence)
        return results

    def _deliver(self, results: list[Result]) -> None:
        """Hand results to the event loop, all in one wake-up."""
        assert self._loop is not None, "the thread is started by a loop"
        with self._wakeup:
            to_readers = [
                (reader, delivery)
                for sequence, delivery in results
                if (reader := self._readers.get(sequence)) is not None
            ]
            for sequence, delivery in results:
                if delivery.is_last:
                    self._readers.pop(sequence, None)
        if not to_readers:
            return
        try:
            self._loop.call_soon_threadsafe(_hand_out, to_readers)
        except RuntimeError:  # the loop is closed: nobody listens any more
            with self._wakeup:
                self._is_stopping = True


def named_devices(checkpoint: Checkpoint) -> str:
    """The device, or all that hold layers."""
    devices = dict.fromkeys((checkpoint.device, *checkpoint.layer_devices))
    return " + ".join(str(device) for device in devices)


def _bytes_read(language_model: Any) -> int:
    """Of the weights, in a decode step: an embedding table that is not the head as well
    is only looked up in."""
    embeddings = language_model.get_input_embeddings().weight
    head = language_model.get_output_embeddings()
    looked_up = None if head is None or head.weight is embeddings else embeddings
    return sum(
        p.numel() * p.element_size()
        for p in language_model.parameters()
        if p is not looked_up
    )


def _hand_out(to_readers: list[tuple[weakref.ref[TokenStream], Delivery]]) -> None:
    for reader, delivery in to_readers:
        stream = reader()
        if stream is not None:
            stream.deliver(delivery)
