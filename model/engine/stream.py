"""One reply on its way from an engine to whoever asked for it, in asyncio.

The engine puts deliveries in; the caller iterates chunks of text. Leaving the
stream early, by `aclose`, by the end of its `async with` block or by cancellation,
tells the engine to drop the request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from model.engine.detokenizer import Detokenizer
from model.engine.request import FinishReason, Timings, TokenChunk, Usage
from model.errors import SpeechError, SpeechUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one step of an engine brings to one request.

    The last delivery has a finish reason or an error. Ids never include the stop id.
    """

    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    error: SpeechError | None = None
    end_of_turn_probability: float | None = None
    usage: Usage | None = None
    timings: Timings | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.finish_reason is not None or self.error is not None


class TokenStream:
    """An async iterator of `TokenChunk`, made by an engine's `submit`.

    `token_ids`, `text` and the rest describe the reply so far; after a stop string
    both end before it.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        *,
        stop: Sequence[str],
        timeout_s: float,
        cancel: Callable[[], None],
    ) -> None:
        self._detokenizer = Detokenizer(decode, stop)
        self._has_stop_strings = bool(stop)
        self._wakes_for_the_end_only = False
        self._timeout_s = timeout_s
        self._cancel = cancel
        # Bounded by the request's max_new_tokens: one delivery holds at least one.
        self._deliveries: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._engine_is_done = False
        self._is_over = False
        self.finish_reason: FinishReason | None = None
        self.end_of_turn_probability: float | None = None
        self.usage: Usage | None = None
        self.timings: Timings | None = None

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The reply so far, as the model produced it."""
        return tuple(self._detokenizer.token_ids)

    @property
    def text(self) -> str:
        """The reply so far."""
        return self._detokenizer.text

    def deliver(self, delivery: Delivery) -> None:
        """For engines, on the event loop's thread: something has come."""
        if self._engine_is_done:
            return
        self._engine_is_done = delivery.is_last
        self._deliveries.append(delivery)
        if delivery.is_last or not self._wakes_for_the_end_only:
            self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenChunk:
        """The next piece of the reply.

        Raises:
            GenerationFailed: the model failed for this request.
            SpeechUnavailable: the engine stopped, or nothing came in time.
        """
        while not self._is_over:
            if not self._deliveries:
                await self._wait()
            chunk = self._take()
            if chunk is not None:
                return chunk
        raise StopAsyncIteration

    async def read_on(self) -> None:
        """To the end at once, for who shows nothing on the way; raises as `__anext__`.

        Not woken for each token: of a short reply's cost on the event loop it saves
        more than half.
        """
        # a stop string has to be seen as it comes, to end the request
        self._wakes_for_the_end_only = not self._has_stop_strings
        while not self._is_over:
            if not self._engine_is_done and not (
                self._deliveries and self._has_stop_strings
            ):
                await self._wait()
            self._take()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End it here; the engine frees the request's slot between two steps."""
        self._close()

    def __del__(self) -> None:
        self._close()

    async def _wait(self) -> None:
        self._arrived.clear()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._arrived.wait()
        except TimeoutError as exc:
            if self._deliveries:
                return
            self._close()
            raise SpeechUnavailable(
                f"the engine gave nothing for {self._timeout_s:g} s"
            ) from exc
        except asyncio.CancelledError:
            self._close()
            raise

    def _take(self) -> TokenChunk | None:
        """All that has come, as one chunk; None if there is nothing to show yet."""
        text, ids, num_pushed = "", list[int](), 0
        probability: float | None = None
        timings: Timings | None = None
        while self._deliveries:
            delivery = self._deliveries.popleft()
            if delivery.error is not None:
                if text or ids:  # first what came before it
                    text += self._detokenizer.push(ids[num_pushed:])
                    self._deliveries.appendleft(delivery)
                    break
                self._close()
                raise delivery.error
            self._note(delivery)
            if delivery.end_of_turn_probability is not None:
                probability = delivery.end_of_turn_probability
            timings = delivery.timings or timings
            ids.extend(delivery.token_ids)
            is_last = delivery.finish_reason is not None
            if self._has_stop_strings or is_last or not self._deliveries:
                text += self._detokenizer.push(ids[num_pushed:])
                num_pushed = len(ids)
            if is_last:
                text += self._detokenizer.finish()
                self.finish_reason = delivery.finish_reason
            if self._detokenizer.stopped:
                self.finish_reason = "stop"
                self._count_what_is_left()
                break
        if self.finish_reason is not None:
            self._close()
        is_first = timings is not None or probability is not None
        if not text and not is_first and self.finish_reason is None:
            return None
        return TokenChunk(
            text=text,
            token_ids=tuple(ids),
            finish_reason=self.finish_reason,
            end_of_turn_probability=probability,
            usage=self.usage if self.finish_reason else None,
            timings=self.timings if self.finish_reason else timings,
        )

    def _note(self, delivery: Delivery) -> None:
        if delivery.end_of_turn_probability is not None:
            self.end_of_turn_probability = delivery.end_of_turn_probability
        self.usage = delivery.usage or self.usage
        self.timings = delivery.timings or self.timings

    def _count_what_is_left(self) -> None:
        """After a stop string: the engine may have gone on for a token or two."""
        if self.usage is not None:
            num_tokens = len(self.token_ids)
            self.usage = replace(self.usage, completion_tokens=num_tokens)

    def _close(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._deliveries.clear()
            if not self._engine_is_done:
                self._engine_is_done = True
                self._cancel()
