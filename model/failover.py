"""A call's dialogue, over one sidecar after another should they die.

    reply ─▶ connection lost before its first event ─▶ connect to the next sidecar,
             tell it the turns so far, ask again

A reply that had begun is not asked again: the caller has heard its beginning.  It
raises, and the next turn finds a new sidecar.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, TypeAlias

from model.call_memory import CallMemory
from model.errors import SpeechUnavailable
from model.remote_session import RemoteSession, SpeechClientOptions
from model.speech import (
    Answerer,
    ReplyEvent,
    SessionOptions,
    TurnEnd,
    UserTurn,
    Utterance,
)
from telemetry import fields

logger = logging.getLogger(__name__)

_MAX_TRIES: Final = 2
"""For one turn: the caller is waiting."""

Connect: TypeAlias = Callable[[], Awaitable[RemoteSession]]
Failed: TypeAlias = Callable[[RemoteSession], bool]
Asking: TypeAlias = Callable[[RemoteSession], AsyncGenerator[ReplyEvent]]


class FailoverSession:
    """The dialogue; implements `SpeechSession`."""

    def __init__(
        self,
        connect: Connect,
        failed: Failed,
        session: SessionOptions,
        options: SpeechClientOptions,
    ) -> None:
        """`connect` opens a started session at whatever sidecar takes it; `failed` is
        told of one that didn't do, and knows whether there is another."""
        self._connect = connect
        self._failed = failed
        self._current: RemoteSession | None = None
        self._memory = CallMemory(session.rate_hz, options.max_remembered_bytes)
        self._last_turn = -1
        self._connecting = asyncio.Lock()  # a reply and a filler may both find it lost

    async def open(self) -> None:
        """Connect for the first time.

        Raises:
            SpeechOverloaded, SpeechUnavailable, InvalidRequest: as the sidecars answer.
        """
        self._current = await self._connect()

    async def aclose(self) -> None:
        """Leave the sidecar."""
        if self._current is not None:
            await self._current.aclose()

    def reply(self, turn: int, user: UserTurn) -> AsyncGenerator[ReplyEvent]:
        """See `SpeechSession.reply`; asked when iteration begins, cancelled by closing
        the iterator."""
        return self._events(turn, user, lambda session: session.reply(turn, user))

    def say(self, turn: int, text: str) -> AsyncGenerator[ReplyEvent]:
        """See `SpeechSession.say`; as `reply`."""
        return self._events(turn, None, lambda session: session.say(turn, text))

    async def settle(self, turn: int, heard_ms: int | None = None) -> None:
        """See `SpeechSession.settle`; never fails."""
        self._memory.settle(turn, heard_ms)
        if self._current is not None:
            await self._current.settle(turn, heard_ms)

    async def forget(self, turn: int) -> None:
        """See `SpeechSession.forget`; never fails."""
        self._memory.forget(turn)
        if self._current is not None:
            await self._current.forget(turn)

    async def identify(self, said: Utterance) -> Answerer:
        """See `SpeechSession.identify`; of the sidecar in use, and of no other."""
        if self._current is None:
            return Answerer("unsure", "")
        return await self._current.identify(said)

    async def words_of(self, said: Utterance) -> str | None:
        """See `SpeechSession.words_of`; of the sidecar in use, and of no other."""
        return None if self._current is None else await self._current.words_of(said)

    async def _events(
        self, turn: int, user: UserTurn | None, ask: Asking
    ) -> AsyncGenerator[ReplyEvent]:
        if turn <= self._last_turn:
            raise ValueError(f"turn {turn} after turn {self._last_turn}")
        self._last_turn = turn
        for tries in range(1, _MAX_TRIES + 1):
            session = await self._connected()
            self._memory.open(turn, user)
            has_begun = False
            try:
                async with aclosing(ask(session)) as events:
                    async for event in events:
                        # The caller hears nothing of a TurnEnd.
                        has_begun = has_begun or not isinstance(event, TurnEnd)
                        self._memory.note(event)
                        yield event
                return
            except SpeechUnavailable as exc:
                has_another = self._failed(session)
                if has_another:
                    # It may be connected, and only its engine gone: leave it as well.
                    await session.aclose()
                # The only one may have been started again; asking one that is merely
                # silent a second time doubles the silence.
                is_worth_it = has_another or session.lost is not None
                if has_begun or tries == _MAX_TRIES or not is_worth_it:
                    raise
                logger.warning("sidecar_failed_over", extra=fields(reason=str(exc)))

    async def _connected(self) -> RemoteSession:
        async with self._connecting:
            current = self._current
            if current is None or current.lost is not None:
                self._current = None
                if current is not None:
                    await current.aclose()
                fresh = await self._connect()
                fresh.recall(self._memory.past())
                self._current = current = fresh
            return current
