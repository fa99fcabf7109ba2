"""What the engine's thread does: take up requests, step, say what came of it.

No thread, no lock, no event loop in here: `Engine` adds those. Everything a step can
break on is contained here. If a batch fails, its rows are run one by one, so that
only the request at fault fails; the others' tokens are the same as if nothing had
happened, because running a row again writes the same keys and values.
"""

from __future__ import annotations

import logging
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias

from model.engine.faults import is_device_lost, make_room
from model.engine.load_meter import LoadMeter
from model.engine.request import FinishReason, Priority, Timings, Usage
from model.engine.stream import Delivery
from model.errors import DeviceLost, EngineOverloaded, GenerationFailed

if TYPE_CHECKING:
    from collections.abc import Sequence as Many

    from model.engine.kv_cache import KvCache
    from model.engine.runner import Outcome, Runner
    from model.engine.scheduler import Piece, Scheduler, Step
    from model.engine.sequence import Sequence
    from model.ultravox.clip import AudioClip

logger = logging.getLogger(__name__)

Result: TypeAlias = "tuple[Sequence, Delivery]"


class Worker:
    """Scheduler, cache and model together."""

    def __init__(
        self,
        scheduler: Scheduler,
        cache: KvCache,
        runner: Runner,
        stop_ids: frozenset[int],
        max_step_audio_s: float,
    ) -> None:
        self._scheduler = scheduler
        self._cache = cache
        self._runner = runner
        self._stop_ids = stop_ids
        self._max_step_audio_s = max_step_audio_s
        self.load = LoadMeter()

    @property
    def has_work(self) -> bool:
        """Whether another step would do something."""
        return bool(self._scheduler.waiting or self._scheduler.running)

    @property
    def num_running(self) -> int:
        """Sequences that have a slot."""
        return len(self._scheduler.running)

    @property
    def num_held(self) -> int:
        """Positions that slots hold, of running sequences and of earlier ones."""
        return self._scheduler.slots.num_held

    def admit(self, sequence: Sequence) -> list[Result]:
        """Put a request in line; someone less important may be refused for it."""
        refused = self._scheduler.admit(sequence)
        if refused is None:
            return []
        error = EngineOverloaded("the waiting line is full of more important requests")
        return [(refused, Delivery(error=error))]

    def drop(self, sequence: Sequence) -> None:
        """Forget a request; its slot is free at once."""
        self._scheduler.remove(sequence)

    def step(self) -> list[Result]:
        """Do one step of work and return what came of it."""
        now_s = perf_counter()
        step = self._scheduler.next_step()
        is_for_a_caller = any(
            piece.sequence.request.priority == Priority.PHONE
            for piece in (*step.decode, *step.prefill)
        )
        try:
            return self._do(step, now_s)
        finally:
            if is_for_a_caller:
                self.load.note_step(now_s, perf_counter())

    def _do(self, step: Step, now_s: float) -> list[Result]:
        for sequence in self._scheduler.running:
            if sequence.started_at_s is None:
                sequence.started_at_s = now_s
        for placement in step.copies:
            self._cache.copy(placement.source, placement.slot, placement.num_cached)
        results = self._encode(step)
        # Pieces whose audio has to wait for the next step, or failed, are left out.
        prefill = [
            piece
            for piece in step.prefill
            if not piece.sequence.clips_to_encode(piece.start, piece.stop)
        ]
        for piece, outcome in self._run(step.decode, prefill):
            if isinstance(outcome, GenerationFailed):
                results.append(self._fail(piece.sequence, outcome))
            else:
                results += self._conclude(outcome)
        return results

    def _encode(self, step: Step) -> list[Result]:
        """Encode audio this step needs, most important first, as much as fits in a
        step but at least one request's; those it cannot be done for fail."""
        wanting: dict[Sequence, list[AudioClip]] = {}
        # By identity: two callers' clips are never one, even if they sound alike.
        clips: dict[int, AudioClip] = {}
        for piece in step.prefill:
            own = piece.sequence.clips_to_encode(piece.start, piece.stop)
            if not own:
                continue
            more = clips | {id(clip): clip for clip in own}
            audio_s = sum(clip.duration_s for clip in more.values())
            if clips and audio_s > self._max_step_audio_s:
                break
            wanting[piece.sequence], clips = own, more
        if not wanting:
            return []
        began_s = perf_counter()
        results: list[Result] = []
        try:
            self._runner.encode(list(clips.values()))
        except Exception as exc:  # noqa: BLE001 - a bulkhead between requests
            _contain("encode", len(wanting), exc)
            for sequence, own in wanting.items():
                failure = self._encode_alone(sequence, own)
                if failure is not None:
                    results.append(failure)
        took_s = perf_counter() - began_s
        for sequence in wanting:
            sequence.encode_s += took_s
        return results

    def _encode_alone(
        self, sequence: Sequence, clips: Many[AudioClip]
    ) -> Result | None:
        try:
            for clip in clips:
                if clip.vectors is None:
                    self._runner.encode([clip])
        except Exception as exc:  # noqa: BLE001 - a bulkhead between requests
            _contain("encode", 1, exc)
            return self._fail(sequence, _failure("the audio could not be encoded", exc))
        return None

    def _run(
        self, decode: Many[Piece], prefill: Many[Piece]
    ) -> list[tuple[Piece, Outcome | GenerationFailed]]:
        pieces = [*decode, *prefill]
        if not pieces:
            return []
        try:
            outcomes = self._runner.run(decode, prefill)
        except Exception as exc:  # noqa: BLE001 - a bulkhead between requests
            _contain("step", len(pieces), exc)
            if len(pieces) == 1:
                return [(pieces[0], _failure("the model failed", exc))]
            alone = [self._run([piece], []) for piece in decode]
            alone += [self._run([], [piece]) for piece in prefill]
            return [result for results in alone for result in results]
        self._scheduler.commit(o.piece for o in outcomes if o.is_finite)
        return [
            (
                outcome.piece,
                outcome
                if outcome.is_finite
                else GenerationFailed("the model's output was not a number"),
            )
            for outcome in outcomes
        ]

    def _conclude(self, outcome: Outcome) -> list[Result]:
        """Take a new token in, and see whether the reply is over."""
        sequence = outcome.piece.sequence
        request = sequence.request
        # Told with the step that reads the end of the audio, be it not the last one.
        probability = outcome.end_of_turn_probability
        if not outcome.piece.completes:
            if probability is None:
                return []
            return [(sequence, Delivery(end_of_turn_probability=probability))]
        is_first = sequence.first_token_at_s is None
        if is_first:
            sequence.first_token_at_s = perf_counter()
        token_ids: tuple[int, ...] = ()
        finish: FinishReason | None = None
        if outcome.token in self._stop_ids:
            finish = "stop"
        elif outcome.token is not None:
            sequence.produced.append(outcome.token)
            token_ids = (outcome.token,)
        if finish is None and len(sequence.produced) >= request.max_new_tokens:
            finish = "length"
        if finish is not None:
            self._scheduler.remove(sequence)
        tells_more = is_first or finish is not None
        delivery = Delivery(
            token_ids=token_ids,
            finish_reason=finish,
            end_of_turn_probability=probability,
            usage=_usage(sequence) if tells_more else None,
            timings=_timings(sequence) if tells_more else None,
        )
        return [(sequence, delivery)]

    def _fail(self, sequence: Sequence, error: GenerationFailed) -> Result:
        slot = sequence.slot
        self._scheduler.fail(sequence)
        if slot is not None:
            # Not a number times a masked zero is still not a number: leave none.
            self._cache.clear(slot)
        return (sequence, Delivery(error=error))


def _failure(what: str, exc: Exception) -> GenerationFailed:
    error = GenerationFailed(f"{what}: {type(exc).__name__}: {exc}")
    error.__cause__ = exc
    return error


def _contain(what: str, num_rows: int, exc: Exception) -> None:
    """A bulkhead between requests; only a lost device goes through it.

    Raises:
        DeviceLost: nothing will ever work here again.
    """
    logger.warning(
        "batch_failed",
        exc_info=exc,
        extra={"during": what, "num_rows": num_rows},
    )
    if is_device_lost(exc):
        raise DeviceLost(f"the device is lost: {exc}") from exc
    make_room(exc)


def _usage(sequence: Sequence) -> Usage:
    prompt = sequence.request.prompt
    return Usage(
        prompt_tokens=len(prompt),
        cached_tokens=sequence.num_cached,
        audio_tokens=prompt.num_audio_tokens,
        completion_tokens=len(sequence.produced),
    )


def _timings(sequence: Sequence) -> Timings:
    now_s = perf_counter()
    started_s = sequence.started_at_s or now_s
    first_s = sequence.first_token_at_s or now_s
    return Timings(
        queue_ms=1000 * (started_s - sequence.submitted_at_s),
        encode_ms=1000 * sequence.encode_s,
        prefill_ms=1000 * (first_s - started_s - sequence.encode_s),
        first_token_ms=1000 * (first_s - sequence.submitted_at_s),
        total_ms=1000 * (now_s - sequence.submitted_at_s),
    )
