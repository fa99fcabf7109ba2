"""Conversations kept here on request, so that a client sends only what is new.

Audio stays in context: a kept clip holds what the encoder made of it.  No place in the
engine is held, since its memory belongs to calls.  What is kept is bounded in number,
in seconds of audio and in time; beyond that the one unused for longest goes.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

from model.completion import ChatMessage
from model.ultravox.clip import AudioClip
from rest_api.errors import RequestRefused


@dataclass(frozen=True, slots=True)
class KeepingOptions:
    """How much is kept."""

    max_conversations: int = 500
    idle_s: float = 1800.0
    """A chat left for longer is over."""
    max_turns: int = 400
    max_text_chars: int = 400_000
    """Of one conversation; the model's context is far smaller."""
    max_audio_s: float = 1800.0
    """Of all conversations: as samples 115 MB, as audio vectors of an 8B model 90."""


@dataclass(slots=True)
class KeptConversation:
    """One client's turns and replies so far."""

    conversation_id: str
    owner: str
    """Whose it is: a key's name, or nobody's on loopback."""
    used_s: float
    messages: list[ChatMessage] = field(default_factory=list)
    is_busy: bool = False

    @property
    def num_chars(self) -> int:
        """Of its text."""
        return sum(
            len(part)
            for message in self.messages
            for part in message.parts
            if isinstance(part, str)
        )

    @property
    def audio_s(self) -> float:
        """Of its clips."""
        return sum(
            part.duration_s
            for message in self.messages
            for part in message.parts
            if isinstance(part, AudioClip)
        )


class Conversations:
    """All that are kept; used on the event loop only."""

    def __init__(
        self,
        options: KeepingOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options or KeepingOptions()
        self._clock = clock
        self._kept: OrderedDict[str, KeptConversation] = OrderedDict()

    def __len__(self) -> int:
        self._forget_idle()
        return len(self._kept)

    @property
    def idle_s(self) -> float:
        """How long one is kept unused."""
        return self._options.idle_s

    def begin(self, owner: str) -> KeptConversation:
        """A new one; it is kept once something was said in it."""
        return KeptConversation(f"c_{secrets.token_urlsafe(16)}", owner, self._clock())

    def get(self, conversation_id: str, owner: str) -> KeptConversation:
        """The conversation.

        Raises:
            RequestRefused: 404, for another's as for one that isn't there.
        """
        self._forget_idle()
        kept = self._kept.get(conversation_id)
        if kept is None or kept.owner != owner:
            raise RequestRefused(
                HTTPStatus.NOT_FOUND,
                "no such conversation: never begun, deleted or expired",
                code="conversation_not_found",
                field="conversation_id",
            )
        return kept

    @contextmanager
    def in_use(self, kept: KeptConversation) -> Iterator[None]:
        """One request at a time.

        Raises:
            RequestRefused: 409 while another one has it.
        """
        if kept.is_busy:
            raise RequestRefused(
                HTTPStatus.CONFLICT,
                "a reply in this conversation is under way",
                code="conversation_busy",
                field="conversation_id",
            )
        kept.is_busy = True
        try:
            yield
        finally:
            kept.is_busy = False

    def check_room(self, kept: KeptConversation, more: Sequence[ChatMessage]) -> None:
        """Whether these turns can be kept too.

        Raises:
            RequestRefused: 422, the conversation is too long.
        """
        whole = KeptConversation("", "", 0.0, [*kept.messages, *more])
        options = self._options
        if (
            len(whole.messages) >= options.max_turns
            or whole.num_chars > options.max_text_chars
            or whole.audio_s > options.max_audio_s
        ):
            raise RequestRefused(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "the conversation is too long to be kept; begin a new one",
                code="conversation_full",
                field="conversation_id",
            )

    def add(self, kept: KeptConversation, messages: Sequence[ChatMessage]) -> None:
        """Keep what was said, the reply included."""
        kept.messages.extend(messages)
        kept.used_s = self._clock()
        self._kept[kept.conversation_id] = kept
        self._kept.move_to_end(kept.conversation_id)
        while len(self._kept) > 1 and self._is_too_much():
            self._kept.popitem(last=False)

    def delete(self, conversation_id: str, owner: str) -> None:
        """Forget it; raises RequestRefused as `get` does."""
        del self._kept[self.get(conversation_id, owner).conversation_id]

    def _is_too_much(self) -> bool:
        return (
            len(self._kept) > self._options.max_conversations
            or sum(kept.audio_s for kept in self._kept.values())
            > self._options.max_audio_s
        )

    def _forget_idle(self) -> None:
        oldest_s = self._clock() - self._options.idle_s
        while self._kept:
            conversation_id, kept = next(iter(self._kept.items()))
            if kept.used_s >= oldest_s:
                return
            del self._kept[conversation_id]
