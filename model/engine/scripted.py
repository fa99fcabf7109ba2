"""An engine that says what it was told to: for load tests of everything around it.

It runs no model and says so: its description reads engine "scripted", weights
"none". It is only ever used where someone asked for it by name.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import date
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

from model.engine.interface import EngineDescription, EngineLoad
from model.engine.plain_chat import PlainChat
from model.engine.request import Session, Timings, Usage
from model.engine.stream import Delivery, TokenStream
from model.errors import EngineOverloaded, SpeechUnavailable
from model.ultravox.inputs import Dialogue

if TYPE_CHECKING:
    from model.engine.request import GenerationRequest
    from model.ultravox.config import TurnEndBounds
    from model.ultravox.inputs import Message, Prompt

_WORDS = re.compile(r"\s*\S+")


@dataclass(frozen=True, slots=True)
class ScriptedOptions:
    """What to say, and how fast.

    `replies` are used in turn, by how often the caller has spoken, and over again
    from the start; without any, the caller's last turn is echoed: its text, or how
    long it was. Delays imitate a model's.
    """

    replies: tuple[str, ...] = ()
    first_token_ms: int = 0
    token_interval_ms: int = 0  # between words
    end_of_turn_probability: float | None = None
    turn_end: TurnEndBounds | None = None
    max_slots: int = 1024  # a load test wants the rest of the system to be the limit


class ScriptedEngine:
    """Streams scripted replies word by word through the same interface."""

    def __init__(self, options: ScriptedOptions | None = None) -> None:
        self._options = options or ScriptedOptions()
        self._chat = PlainChat()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._streams: WeakSet[TokenStream] = WeakSet()
        self._numbers = count()
        self._sessions: list[Session] = []
        self._group: asyncio.TaskGroup | None = None

    @property
    def description(self) -> EngineDescription:
        """Says plainly that no model is here."""
        return EngineDescription(
            engine="scripted",
            model_name="scripted replies",
            weights_kind="none",
            device="none",
            dtype="none",
            num_parameters=0,
            context_tokens=1 << 20,
            turn_end=self._options.turn_end,
        )

    @property
    def is_running(self) -> bool:
        """Within `async with`."""
        return self._group is not None

    async def __aenter__(self) -> Self:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        group, self._group = self._group, None
        for task in list(self._tasks.values()):
            task.cancel()
        stopped = Delivery(error=SpeechUnavailable("the engine has stopped"))
        for stream in self._streams:
            stream.deliver(stopped)  # ignored by those that are over
        if group is not None:
            await group.__aexit__(None, None, None)

    def new_dialogue(
        self, instructions: str | None = None, *, today: date | None = None
    ) -> Dialogue:
        """A dialogue in plain text."""
        return Dialogue(self._chat, instructions, today=today or date.today())

    def open_session(self) -> Session:
        """A call; it is only counted."""
        self._sessions = [session for session in self._sessions if not session.closed]
        self._sessions.append(Session())
        return self._sessions[-1]

    def submit(self, request: GenerationRequest) -> TokenStream:
        """Begin the scripted reply.

        Raises:
            EngineOverloaded: more than `max_slots` at once.
            SpeechUnavailable: outside `async with`.
        """
        if self._group is None:
            raise SpeechUnavailable("the engine is not running")
        if len(self._tasks) >= self._options.max_slots:
            raise EngineOverloaded(f"all {self._options.max_slots} slots are taken")
        number = next(self._numbers)
        stream = TokenStream(
            self._chat.decode,
            stop=request.stop,
            timeout_s=3600.0,  # the script may ask for any delay
            cancel=lambda: self._drop(number),
        )
        task = self._group.create_task(self._speak(request, stream))
        self._tasks[number] = task
        self._streams.add(stream)
        task.add_done_callback(lambda _: self._tasks.pop(number, None))
        return stream

    async def warm(self, prompt: Prompt) -> None:
        """Nothing to get ready."""

    def memory(self) -> dict[str, int]:
        """No model, no memory."""
        return {"weights_bytes": 0, "kv_bytes": 0, "audio_bytes": 0}

    def load(self) -> EngineLoad:
        """How many replies are under way."""
        return EngineLoad(
            num_active=len(self._tasks),
            num_waiting=0,
            max_slots=self._options.max_slots,
            max_waiting=0,
            num_sessions=sum(not session.closed for session in self._sessions),
        )

    def _drop(self, number: int) -> None:
        task = self._tasks.pop(number, None)
        if task is not None:
            task.cancel()

    async def _speak(self, request: GenerationRequest, stream: TokenStream) -> None:
        began = perf_counter()
        await asyncio.sleep(self._options.first_token_ms / 1000)
        first_token_ms = (perf_counter() - began) * 1000
        stream.deliver(
            Delivery(
                end_of_turn_probability=self._options.end_of_turn_probability,
                usage=_usage(request, 0),
                timings=_timings(first_token_ms, began),
            )
        )
        words = _WORDS.findall(self._reply(request.prompt.messages))
        limit = request.max_new_tokens
        num_tokens = min(len(words), limit)
        for index, word in enumerate(words[:limit]):
            if index:
                await asyncio.sleep(self._options.token_interval_ms / 1000)
            stream.deliver(Delivery(token_ids=tuple(word.encode())))
        stream.deliver(
            Delivery(
                finish_reason="stop" if len(words) <= limit else "length",
                usage=_usage(request, num_tokens),
                timings=_timings(first_token_ms, began),
            )
        )

    def _reply(self, messages: tuple[Message, ...]) -> str:
        turns = [message for message in messages if message.role == "user"]
        if self._options.replies:
            return self._options.replies[(len(turns) - 1) % len(self._options.replies)]
        if not turns:
            return "Hello."
        last = turns[-1]
        if last.text:
            return f"You said: {last.text}"
        seconds = sum(clip.duration_s for clip in last.clips)
        return f"I heard you speak for {seconds:.1f} seconds."


def _usage(request: GenerationRequest, num_tokens: int) -> Usage:
    return Usage(
        prompt_tokens=len(request.prompt),
        cached_tokens=0,
        audio_tokens=request.prompt.num_audio_tokens,
        completion_tokens=num_tokens,
    )


def _timings(first_token_ms: float, began: float) -> Timings:
    total_ms = (perf_counter() - began) * 1000
    return Timings(0.0, 0.0, first_token_ms, first_token_ms, total_ms)
