"""An engine on other machines: OpenAI-compatible servers with audio input.

vLLM and llama.cpp's llama-server are such servers.  Each request brings the whole
dialogue, its audio included; the servers keep what they can of it.  Of several
addresses the least busy is asked, and one that fails before it has said anything is
passed over.

What these servers do not tell: how sure the model is that the caller's turn is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import date
from time import perf_counter
from typing import Final, Self

import httpx

from model.engine.interface import EngineDescription, EngineLoad
from model.engine.openai_servers import ModelServer, ModelServers
from model.engine.openai_wire import (
    ClipTexts,
    StreamLines,
    StreamPart,
    error_of,
    request_body,
    stream_part,
)
from model.engine.plain_chat import PlainChat
from model.engine.request import (
    FinishReason,
    GenerationRequest,
    Session,
    Timings,
    Usage,
)
from model.engine.stream import Delivery, TokenStream
from model.errors import (
    ContextTooLong,
    EngineOverloaded,
    GenerationFailed,
    SpeechError,
    SpeechUnavailable,
)
from model.http_bodies import read_bounded
from model.ultravox.inputs import Dialogue, Prompt
from telemetry import fields

logger = logging.getLogger(__name__)

_COMPLETIONS: Final = "/v1/chat/completions"
_MAX_TOKEN_CHARS: Final = 32  # tokens of today's vocabularies are rarely longer


@dataclass(frozen=True, slots=True)
class OpenAiOptions:
    """Where the servers are and how patient we are with them."""

    urls: tuple[str, ...]
    """With or without /v1: http://gpu-1:8000."""
    api_key: str = field(default="", repr=False)
    model: str = ""
    """As the servers name it; empty: their first."""
    max_requests: int = 64
    """Under way at once; servers queue without saying so, and callers wait."""
    max_clips: int = 8
    """In one dialogue, vLLM's --limit-mm-per-prompt; the oldest turns go beyond it."""
    connect_timeout_s: float = 2.0
    first_token_timeout_s: float = 30.0
    """llama-server encodes clips one after the other, in a queue we cannot see."""
    chunk_timeout_s: float = 10.0
    """Within a stream: a clip being encoded for another holds up all the others."""
    probe_interval_s: float = 5.0
    """How often every server is looked at."""


class OpenAiEngine:
    """A `ReplyEngine` over HTTP."""

    def __init__(self, options: OpenAiOptions) -> None:
        self._options = options
        self._chat = PlainChat()
        self._clips = ClipTexts()
        self._servers = ModelServers(
            options.urls,
            api_key=options.api_key,
            model=options.model,
            max_requests=options.max_requests,
            connect_timeout_s=options.connect_timeout_s,
            read_timeout_s=options.chunk_timeout_s,
            probe_interval_s=options.probe_interval_s,
        )
        self._is_running = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: list[Session] = []

    @property
    def description(self) -> EngineDescription:
        """What the servers say of themselves, which is little."""
        return EngineDescription(
            engine="openai",
            model_name=self._servers.model,
            weights_kind="remote",
            device=", ".join(self._options.urls),
            dtype="",
            num_parameters=0,
            context_tokens=0,
        )

    @property
    def is_running(self) -> bool:
        """Whether requests are taken; servers that are gone may come back."""
        return self._is_running

    async def __aenter__(self) -> Self:
        """Find the servers.

        Raises:
            SpeechUnavailable: none answers, or none has the model.
        """
        if self._is_running:
            raise RuntimeError("the engine is running already")
        await self._servers.start()
        self._is_running = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._is_running = False
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._servers.aclose()

    def new_dialogue(
        self, instructions: str | None = None, *, today: date | None = None
    ) -> Dialogue:
        """A dialogue; the servers put it into the model's chat format."""
        return Dialogue(self._chat, instructions, today=today or date.today())

    def open_session(self) -> Session:
        """A call; it is only counted."""
        self._sessions = [session for session in self._sessions if not session.closed]
        self._sessions.append(Session())
        return self._sessions[-1]

    def submit(self, request: GenerationRequest) -> TokenStream:
        """Ask a server.

        Raises:
            EngineOverloaded: as many requests are under way as are allowed.
            ContextTooLong: more clips than a prompt may have.
            SpeechUnavailable: outside `async with`.
        """
        if not self._is_running:
            raise SpeechUnavailable("the engine is not running")
        if len(self._tasks) >= self._options.max_requests:
            raise EngineOverloaded(f"{len(self._tasks)} requests are under way")
        num_clips = len(request.prompt.audio)
        if num_clips > self._options.max_clips:
            raise ContextTooLong(
                f"{num_clips} clips; at most {self._options.max_clips} are sent",
                num_tokens=num_clips,
                limit_tokens=self._options.max_clips,
            )

        def cancel() -> None:
            task.cancel()

        stream = TokenStream(
            self._chat.decode,
            stop=request.stop,
            # the request's own timeouts say more
            timeout_s=2 * self._options.first_token_timeout_s,
            cancel=cancel,
        )
        task = asyncio.create_task(self._run(request, stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return stream

    async def warm(self, prompt: Prompt) -> None:
        """See that a server is there; there is no way to have a prompt read ahead.

        Raises:
            SpeechUnavailable: none is.
        """
        await self._servers.check()

    def memory(self) -> dict[str, int]:
        """None of it is here."""
        return {}

    def load(self) -> EngineLoad:
        """What we have asked for; what the servers do for others isn't known."""
        return EngineLoad(
            num_active=len(self._tasks),
            num_waiting=0,
            max_slots=self._options.max_requests,
            max_waiting=0,
            num_sessions=sum(not session.closed for session in self._sessions),
        )

    async def _run(self, request: GenerationRequest, stream: TokenStream) -> None:
        """One request, at the first server that begins to answer."""
        reply = _Reply(stream, perf_counter(), request.max_new_tokens)
        body = await asyncio.to_thread(request_body, request, self._clips)
        error: SpeechError = SpeechUnavailable("no model server")
        for server in self._servers.in_order(request.session):
            try:
                with server.request():
                    await self._ask(server, request.session, body, reply)
                return
            except httpx.HTTPError as exc:
                reason = f"{type(exc).__name__} {exc}".strip()
                error = SpeechUnavailable(f"{server.url}: {reason}")
            except TimeoutError:
                error = SpeechUnavailable(f"{server.url}: no token in time")
            except SpeechError as exc:
                error = exc
            if isinstance(error, SpeechUnavailable):
                self._servers.note_failure(server, str(error))
            if reply.has_begun or not error.retryable:
                break
            logger.warning(
                "model_server_failed", extra=fields(url=server.url, reason=str(error))
            )
        stream.deliver(Delivery(error=error))

    async def _ask(
        self,
        server: ModelServer,
        session: Session | None,
        body: dict[str, object],
        reply: _Reply,
    ) -> None:
        """Raises httpx.HTTPError, TimeoutError, SpeechError: this server failed."""
        async with asyncio.timeout(self._options.first_token_timeout_s) as patience:
            asked = {**body, "model": server.model}
            stream = server.http.stream("POST", _COMPLETIONS, json=asked)
            async with stream as answer:
                if answer.is_error:
                    text = (await read_bounded(answer)).decode(errors="replace")
                    raise error_of(answer.status_code, text)
                self._servers.note_success(server, session)
                async for line in _lines(answer):
                    part = stream_part(line)
                    if part is None:
                        continue
                    if part.text:
                        patience.reschedule(None)  # from here on, httpx watches
                    reply.take(part)
                    if reply.has_ended:
                        return
        # A server that leaves out [DONE] has still ended its answer.
        reply.end()


async def _lines(answer: httpx.Response) -> AsyncIterator[str]:
    """The answer's lines; unlike httpx's own, of bounded length."""
    lines = StreamLines()
    async for chunk in answer.aiter_bytes():
        for line in lines.receive_data(chunk):
            yield line
    yield lines.receive_eof()


class _Reply:
    """One reply as its events come in."""

    def __init__(self, stream: TokenStream, began: float, max_new_tokens: int) -> None:
        self._stream = stream
        self._began = began
        self._max_new_tokens = max_new_tokens
        self._first_token_ms = 0.0
        self._num_events = 0
        self._num_chars = 0
        self._last = StreamPart()
        self._finish_reason: FinishReason | None = None
        self._has_ended = False

    @property
    def has_begun(self) -> bool:
        """Text has been passed on: nobody else can take over."""
        return self._num_events > 0

    @property
    def has_ended(self) -> bool:
        """Nothing more is taken."""
        return self._has_ended

    def take(self, part: StreamPart) -> None:
        """Pass text on; keep the rest for the end.

        A server that goes on beyond the number of tokens it was given is cut off:
        every event with text holds one token at least.
        """
        if part.text:
            if not self._num_events:
                self._first_token_ms = self._elapsed_ms()
            self._num_events += 1
            self._num_chars += len(part.text)
            self._stream.deliver(
                Delivery(
                    token_ids=tuple(part.text.encode(errors="replace")),
                    timings=self._timings(),
                )
            )
        if part.finish_reason is not None:
            self._finish_reason = part.finish_reason
        if part.prompt_tokens is not None:
            self._last = part
        if self._is_too_long:
            # some name a reason and go on all the same
            self._finish_reason = self._finish_reason or "length"
            self.end()
        elif part.is_end:
            self.end()

    @property
    def _is_too_long(self) -> bool:
        limit = self._max_new_tokens
        return self._num_events > limit or self._num_chars > limit * _MAX_TOKEN_CHARS

    def end(self) -> None:
        """The answer is over.

        Raises:
            GenerationFailed: it broke off without a reason to.
        """
        if self._has_ended:
            return
        if self._finish_reason is None:
            raise GenerationFailed("the model server's answer broke off")
        self._has_ended = True
        usage = Usage(
            prompt_tokens=self._last.prompt_tokens or 0,
            cached_tokens=self._last.cached_tokens,
            audio_tokens=0,
            # an event may hold several tokens: a lower bound where nobody counts
            completion_tokens=(
                self._num_events
                if self._last.completion_tokens is None
                else self._last.completion_tokens
            ),
        )
        self._stream.deliver(
            Delivery(
                finish_reason=self._finish_reason,
                usage=usage,
                timings=self._timings(),
            )
        )

    def _elapsed_ms(self) -> float:
        return (perf_counter() - self._began) * 1000.0

    def _timings(self) -> Timings:
        first = self._first_token_ms
        return Timings(
            queue_ms=0.0,
            encode_ms=0.0,
            prefill_ms=first,
            first_token_ms=first,
            total_ms=self._elapsed_ms(),
        )
