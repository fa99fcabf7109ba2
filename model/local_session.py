"""One dialogue in this process: turns in, text and speech out, history kept.

    utterance ─▶ 16 kHz ─▶ history.prompt ─▶ engine ─▶ text ─▶ actions taken out
                                                        └─▶ speaker ─▶ ReplyAudio
One reply is one task that fills a `ReplyStream`; closing the reply's iterator cancels
the task, and with it synthesis and generation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import telemetry
from model.actions import Action, ActionParser, Part
from model.answerer import who_answered
from model.audio.frames import SAMPLE_BYTES
from model.audio.pcm import wave_from_pcm16
from model.audio.resample import resample
from model.call_history import CallHistory, HistoryTurn, UserParts
from model.engine.interface import ReplyEngine
from model.engine.request import GenerationRequest, Priority, TokenChunk
from model.engine.stream import TokenStream
from model.errors import ContextTooLong, GenerationFailed, InvalidAudio, SpeechError
from model.reply_stream import ReplyStream
from model.speech import (
    Answerer,
    ReplyAction,
    ReplyAudio,
    ReplyDone,
    ReplyEvent,
    ReplyText,
    SessionOptions,
    Timings,
    Transcript,
    TurnEnd,
    TypedTurn,
    Usage,
    UserTurn,
    Utterance,
)
from model.spoken_reply import SpokenReply
from model.transcription import can_transcribe, first_words, transcribe
from model.tts.speaker import Speaker
from model.tts.voice import Voice
from model.turn_model import TurnModel
from model.ultravox.clip import AudioClip
from telemetry import fields

logger = logging.getLogger(__name__)

MODEL_RATE_HZ: Final = 16_000
_TURN_MODEL_PATIENCE_S: Final = 0.5
"""After the reply is made; by then its word is hardly of use any more."""


@dataclass(slots=True)
class _OpenTurn:
    """A turn that isn't settled: what is made of it, and the task that makes it."""

    history: HistoryTurn
    spoken: SpokenReply
    stream: ReplyStream
    began: float
    first_audio_ms: float = 0.0
    own_clip: AudioClip | None = None
    """The caller's speech for the turn model, which has an encoder of its own."""
    turn_end: TurnEnd | None = None
    task: asyncio.Task[None] | None = None

    def elapsed_ms(self) -> float:
        return (time.monotonic() - self.began) * 1000.0


class LocalSession:
    """One dialogue; implements `SpeechSession`.  Made by `LocalSpeechService`."""

    def __init__(
        self,
        engine: ReplyEngine,
        speaker: Speaker,
        voice: Voice,
        options: SessionOptions,
        max_buffered_bytes: int,
        turn_model: TurnModel | None = None,
    ) -> None:
        """`turn_model` tells the end of turns, if it is not the engine that does."""
        self._engine = engine
        self._turn_model = turn_model
        self._speaker = speaker
        self._voice = voice
        self._options = options
        self._max_buffered_bytes = max_buffered_bytes
        self._slot = engine.open_session()
        self._history = CallHistory(lambda: engine.new_dialogue(options.instructions))
        self._turns: dict[int, _OpenTurn] = {}
        self._last_turn = -1
        self._warming: asyncio.Task[None] | None = None

    def warm(self) -> None:
        """Have the instructions read in while the greeting is spoken."""
        self._warming = asyncio.create_task(self._warm())

    async def aclose(self) -> None:
        """Stop whatever is still being made and give the engine's memory back."""
        await _end([self._warming, *(turn.task for turn in self._turns.values())])
        for turn in self._turns.values():
            turn.stream.close()
        self._turns.clear()
        self._slot.close()

    def reply(self, turn: int, user: UserTurn) -> AsyncGenerator[ReplyEvent]:
        """See `SpeechSession.reply`; close the iterator to cancel."""
        return self._events(turn, user, self._answer)

    def say(self, turn: int, text: str) -> AsyncGenerator[ReplyEvent]:
        """See `SpeechSession.say`; close the iterator to cancel."""
        return self._events(turn, None, partial(self._recite, text))

    async def settle(self, turn: int, heard_ms: int | None = None) -> None:
        """See `SpeechSession.settle`; a turn that isn't open is left alone."""
        if made := await self._stop(turn):
            made.history.said = made.spoken.text
            self._history.settle(turn, made.spoken.heard(heard_ms))

    async def forget(self, turn: int) -> None:
        """See `SpeechSession.forget`; a turn that isn't open is left alone."""
        await self._stop(turn)
        self._history.forget(turn)

    async def identify(self, said: Utterance) -> Answerer:
        """See `SpeechSession.identify`."""
        try:
            [clip] = await _user_parts(said)
        except InvalidAudio:
            return Answerer("unsure", "")
        assert isinstance(clip, AudioClip)
        request_id = f"{self._options.call_id}/answer"
        return await who_answered(self._engine, clip, request_id)

    async def words_of(self, said: Utterance) -> str | None:
        """See `SpeechSession.words_of`."""
        try:
            [clip] = await _user_parts(said)
        except InvalidAudio:
            return None
        assert isinstance(clip, AudioClip)
        request_id = f"{self._options.call_id}/words"
        return await first_words(self._engine, clip, request_id)

    async def recall(self, user: UserTurn | None, heard: str) -> None:
        """A turn of this dialogue that another speech half served.

        Raises:
            InvalidAudio: the caller's part is not audio.
        """
        self._history.recall(await _user_parts(user) if user else (), heard)

    async def _events(
        self,
        turn: int,
        user: UserTurn | None,
        make: Callable[[int, _OpenTurn], Awaitable[None]],
    ) -> AsyncGenerator[ReplyEvent]:
        if turn <= self._last_turn:
            raise ValueError(f"turn {turn} after turn {self._last_turn}")
        self._last_turn = turn
        began = time.monotonic()
        parts = await _user_parts(user) if user is not None else ()
        made = self._turns[turn] = _OpenTurn(
            self._history.open(turn, parts),
            SpokenReply(self._options.rate_hz),
            ReplyStream(self._max_buffered_bytes),
            began,
        )
        if self._turn_model is not None and parts and isinstance(parts[0], AudioClip):
            made.own_clip = parts[0].twin()
        made.task = asyncio.create_task(self._guarded(turn, made, make))
        try:
            while (event := await made.stream.get()) is not None:
                yield event
        finally:
            made.stream.close()
            await _end([made.task])

    async def _guarded(
        self,
        turn: int,
        made: _OpenTurn,
        make: Callable[[int, _OpenTurn], Awaitable[None]],
    ) -> None:
        """The bulkhead of one reply: whatever goes wrong, its stream says so."""
        error: SpeechError | None = None
        try:
            await make(turn, made)
        except SpeechError as exc:
            error = exc
        except Exception as exc:
            logger.exception("reply_failed", extra=fields(turn=turn))
            error = GenerationFailed(f"internal error: {type(exc).__name__}")
            error.__cause__ = exc
        if error is not None:
            telemetry.ERRORS.labels(kind=error.code).inc()
            if not made.spoken.speech_ms:
                # Nothing was heard of it: to the caller it hasn't happened.
                self._turns.pop(turn, None)
                self._history.forget(turn)
        made.stream.end(error)

    async def _answer(self, turn: int, made: _OpenTurn) -> None:
        """Generate, take actions out, speak; with fewer old turns when it must be."""
        while True:
            try:
                return await self._generate(turn, made)
            except ContextTooLong as exc:
                # A server elsewhere finds out late, but before its first word.
                if made.spoken.text or not self._history.drop_oldest():
                    raise
                logger.info("oldest_turns_dropped", extra=fields(reason=str(exc)))

    async def _generate(self, turn: int, made: _OpenTurn) -> None:
        request = GenerationRequest(
            self._history.prompt(turn),
            session=self._slot,
            priority=Priority.PHONE,
            max_new_tokens=self._options.max_new_tokens,
            temperature=self._options.temperature,
            request_id=f"{self._options.call_id}/{turn}",
        )
        async with self._engine.submit(request) as tokens, self._asking(turn, made):
            try:
                await self._speak(turn, made, self._texts(turn, made, tokens))
            finally:
                made.history.token_ids = tuple(tokens.token_ids)
        await made.stream.put(_done(turn, made, tokens))
        if self._options.transcribe:
            await self._write_down(turn, made)

    @asynccontextmanager
    async def _asking(self, turn: int, made: _OpenTurn) -> AsyncGenerator[None]:
        """Meanwhile ask the turn model; a reply that is done hardly waits for it."""
        if self._turn_model is None or made.own_clip is None:
            yield
            return
        asked = asyncio.create_task(self._ask(self._turn_model, turn, made))
        try:
            yield
            await asyncio.wait([asked], timeout=_TURN_MODEL_PATIENCE_S)
        finally:
            await _end([asked])

    async def _ask(self, model: TurnModel, turn: int, made: _OpenTurn) -> None:
        assert made.own_clip is not None
        said_before = self._history.said_before(turn)
        made.turn_end = await model.try_turn_end(turn, said_before, made.own_clip)
        if made.turn_end is not None:
            await made.stream.put(made.turn_end)

    async def _write_down(self, turn: int, made: _OpenTurn) -> None:
        """The caller's words, behind the reply; typed turns have none to add."""
        clips = [part for part in made.history.user if isinstance(part, AudioClip)]
        if not clips:
            return
        text = ""
        if can_transcribe(self._engine):
            request_id = f"{self._options.call_id}/{turn}/transcript"
            text = await transcribe(self._engine, clips[0], request_id)
        await made.stream.put(Transcript(turn, text))

    async def _recite(self, text: str, turn: int, made: _OpenTurn) -> None:
        """Speak a given text."""
        made.spoken.add_text(text)
        await made.stream.put(ReplyText(turn, text))
        await self._speak(turn, made, text)
        timings = Timings(
            first_audio_ms=made.first_audio_ms, total_ms=made.elapsed_ms()
        )
        await made.stream.put(ReplyDone(turn, text, "stop", timings=timings))

    async def _texts(
        self, turn: int, made: _OpenTurn, tokens: TokenStream
    ) -> AsyncGenerator[str]:
        """The speakable text; on its way, text and actions go to the reader."""
        parser = ActionParser(self._options.actions)
        async for chunk in tokens:
            if chunk.end_of_turn_probability is not None and made.own_clip is None:
                made.turn_end = self._turn_end(turn, chunk)
                await made.stream.put(made.turn_end)
            if text := await self._tell(turn, made, parser.receive_text(chunk.text)):
                yield text
        if text := await self._tell(turn, made, parser.flush()):
            yield text

    def _turn_end(self, turn: int, chunk: TokenChunk) -> TurnEnd:
        assert chunk.end_of_turn_probability is not None
        bounds = self._engine.description.turn_end
        return TurnEnd(
            turn,
            chunk.end_of_turn_probability,
            over_from=bounds.over_from if bounds else None,
            more_below=bounds.more_below if bounds else None,
        )

    async def _tell(self, turn: int, made: _OpenTurn, parts: list[Part]) -> str:
        spoken = ""
        for part in parts:
            if isinstance(part, Action):
                event: ReplyEvent = ReplyAction(turn, part.name, part.argument)
            else:
                event = ReplyText(turn, part)
                made.spoken.add_text(part)
                spoken += part
            await made.stream.put(event)
        return spoken

    async def _speak(
        self, turn: int, made: _OpenTurn, text: str | AsyncIterable[str]
    ) -> None:
        speech = self._speaker.speak(
            text,
            self._voice,
            rate_hz=self._options.rate_hz,
            # Greetings and re-prompts are the same in every call.
            is_fixed=isinstance(text, str),
        )
        async with aclosing(speech) as pieces:
            async for piece in pieces:
                if piece.pcm16 and not made.first_audio_ms:
                    made.first_audio_ms = made.elapsed_ms()
                    telemetry.FIRST_AUDIO.observe(made.first_audio_ms / 1000.0)
                made.spoken.add_speech(
                    piece.index,
                    piece.pcm16,
                    start_chars=piece.start_chars,
                    end_chars=piece.end_chars,
                )
                if piece.pcm16:
                    said = piece.text if piece.is_first else ""
                    await made.stream.put(
                        ReplyAudio(turn, piece.index, said, piece.pcm16)
                    )

    async def _stop(self, turn: int) -> _OpenTurn | None:
        made = self._turns.pop(turn, None)
        if made is not None:
            await _end([made.task])
            made.stream.end()
        return made

    async def _warm(self) -> None:
        try:
            await self._engine.warm(self._history.opening_prompt())
        except SpeechError as exc:
            # The first turn will say so if it still is so.
            logger.warning("warming_failed", extra=fields(reason=str(exc)))


def _done(turn: int, made: _OpenTurn, tokens: TokenStream) -> ReplyDone:
    assert tokens.usage
    assert tokens.timings
    assert tokens.finish_reason
    used, took = tokens.usage, tokens.timings
    telemetry.FIRST_TOKEN.observe(took.first_token_ms / 1000.0)
    telemetry.REPLY_TOKENS.inc(used.completion_tokens)
    return ReplyDone(
        turn,
        made.spoken.text,
        tokens.finish_reason,
        Usage(
            prompt_tokens=used.prompt_tokens,
            audio_tokens=used.audio_tokens,
            cached_tokens=used.cached_tokens,
            completion_tokens=used.completion_tokens,
        ),
        Timings(
            queue_ms=took.queue_ms,
            encode_ms=took.encode_ms,
            first_token_ms=took.first_token_ms,
            first_audio_ms=made.first_audio_ms,
            total_ms=made.elapsed_ms(),
        ),
        made.turn_end.probability if made.turn_end else None,
    )


async def _user_parts(user: UserTurn) -> UserParts:
    """The caller's part as the model takes it; speech at 16 kHz.

    Raises:
        InvalidAudio: empty, or not whole samples.
    """
    if isinstance(user, TypedTurn):
        return (user.text,)
    if len(user.pcm16) % SAMPLE_BYTES:
        raise InvalidAudio("half a sample at the end of the utterance")
    return (await asyncio.to_thread(_clip, user.pcm16, user.rate_hz),)


def _clip(pcm16: bytes, rate_hz: int) -> AudioClip:
    return AudioClip(resample(wave_from_pcm16(pcm16), rate_hz, MODEL_RATE_HZ))


async def _end(tasks: Iterable[asyncio.Task[None] | None]) -> None:
    """Cancel and wait; what they raise has been dealt with where it belongs."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
