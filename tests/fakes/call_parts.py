"""The world around one conversation, scripted: a leg with a caller, a speech half.

The caller's timeline is a list of what he says and presses at which second.  The leg
runs on the loop's clock (virtual in tests): a frame every 20 ms in, speech out at the
pace of a telephone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import numpy as np

from agi_handlers.audio_leg.leg import (
    AudioListener,
    CallerAudio,
    CallerKey,
    CloseReason,
    LegClosed,
    LegEvent,
    LegName,
    PlaybackFinished,
)
from model.audio.pcm import pcm16_from_wave
from model.errors import SpeechError
from model.speech import (
    Answerer,
    ReplyAction,
    ReplyAudio,
    ReplyDone,
    ReplyEvent,
    ReplyText,
    Transcript,
    UserTurn,
    Utterance,
)

FRAME_S = 0.02
VOICE = b"\x10\x27" * 160  # a frame the loudness detector takes for speech
SILENCE = bytes(320)
BYTES_PER_MS = 16


@dataclass(frozen=True, slots=True)
class Speaks:
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Sounds:
    """A tone: an answering machine's beep, a fax."""

    start_s: float
    end_s: float
    hz: float = 1000.0

    def frame(self, at_s: float) -> bytes:
        at = at_s + np.arange(160) / 8000
        return pcm16_from_wave((0.2 * np.sin(2 * np.pi * self.hz * at)).astype("f4"))


@dataclass(frozen=True, slots=True)
class Coughs:
    """A sound as loud as words, without any pitch."""

    start_s: float
    end_s: float

    def frame(self, at_s: float) -> bytes:
        noise = np.random.default_rng(round(at_s * 50)).standard_normal(160)
        return pcm16_from_wave((0.2 * noise).astype(np.float32))


@dataclass(frozen=True, slots=True)
class Presses:
    at_s: float
    key: str


@dataclass(frozen=True, slots=True)
class HangsUp:
    at_s: float
    reason: CloseReason = "caller_hung_up"


@dataclass(slots=True)
class ScriptedLeg:
    """A full-duplex leg with a caller who follows a script."""

    script: Sequence[Speaks | Sounds | Coughs | Presses | HangsUp]
    name: LegName = "audiosocket"
    is_full_duplex: bool = True
    played: list[tuple[float, float]] = field(default_factory=list)
    """Start and end of every stretch of sound the caller heard, in seconds."""
    taken: bytearray = field(default_factory=bytearray)
    """All that it was given to play, heard or not."""
    _queued_ms: float = 0.0
    _heard_ms: float = 0.0
    _is_last: bool = False
    _is_sounding: bool = False
    _zero_s: float | None = None
    _tick: int = 0
    _pressed: set[Presses] = field(default_factory=set)
    num_stops: int = 0
    lowered: list[tuple[float, bool]] = field(default_factory=list)
    """When the bot was told to speak softly, or at full voice again."""
    max_queued_ms: float = float("inf")
    """More than this makes `play` wait, as it does on every leg."""
    chunk_samples: int = 160
    """How the caller's audio is cut: less than a frame, or several at once."""
    listener: AudioListener | None = None

    def hand_audio_to(self, listener: AudioListener | None) -> None:
        self.listener = listener

    async def events(self) -> AsyncIterator[LegEvent]:
        waiting = b""
        size = 2 * self.chunk_samples
        async with aclosing(self._frames()) as frames:
            async for event in frames:
                if isinstance(event, LegClosed):
                    closed = event
                    break
                if not isinstance(event, CallerAudio):
                    yield event
                    continue
                waiting += event.pcm16
                while len(waiting) >= size:
                    chunk, waiting = waiting[:size], waiting[size:]
                    if self.listener is not None:
                        self.listener(chunk)
                    else:
                        yield CallerAudio(chunk)
        yield closed

    async def _frames(self) -> AsyncGenerator[LegEvent]:
        loop = asyncio.get_running_loop()
        if self._zero_s is None:
            self._zero_s = loop.time()
        pressed = self._pressed
        while True:
            next_s = self._zero_s + (self._tick + 1) * FRAME_S
            await asyncio.sleep(max(0.0, next_s - loop.time()))
            now_s = self._tick * FRAME_S
            self._tick += 1
            for item in self.script:
                match item:
                    case HangsUp(at_s, reason) if now_s >= at_s:
                        self._silent(now_s)
                        yield LegClosed(reason)
                        return
                    case Presses(at_s, key) if now_s >= at_s and item not in pressed:
                        pressed.add(item)
                        yield CallerKey(key)
            finished = self._play_frame(now_s)
            if finished is not None:
                yield finished
            speaks = any(
                isinstance(s, Speaks) and s.start_s <= now_s < s.end_s
                for s in self.script
            )
            tones = [s for s in self.script if isinstance(s, Sounds | Coughs)]
            tone = next((s for s in tones if s.start_s <= now_s < s.end_s), None)
            if tone is not None:
                yield CallerAudio(tone.frame(now_s))
            else:
                yield CallerAudio(VOICE if speaks else SILENCE)

    def _play_frame(self, now_s: float) -> PlaybackFinished | None:
        if self._queued_ms > 0:
            if not self._is_sounding:
                self._is_sounding = True
                self.played.append((now_s, now_s))
            self._queued_ms -= 20
            self._heard_ms += 20
            self.played[-1] = (self.played[-1][0], now_s + FRAME_S)
        if self._queued_ms <= 0:
            self._silent(now_s)
            if self._is_last:
                self._is_last = False
                heard_ms, self._heard_ms = self._heard_ms, 0.0
                return PlaybackFinished(round(heard_ms))
        return None

    def _silent(self, now_s: float) -> None:
        self._is_sounding = False

    async def play(self, pcm16: bytes) -> None:
        self.taken += pcm16
        self._queued_ms += len(pcm16) / BYTES_PER_MS
        num_stops = self.num_stops
        while (  # noqa: ASYNC110 - a frame at a time, as all of this leg
            self._queued_ms > self.max_queued_ms and num_stops == self.num_stops
        ):
            await asyncio.sleep(FRAME_S)

    def end_of_speech(self) -> None:
        self._is_last = True

    def stop(self) -> int:
        self.num_stops += 1
        heard_ms, self._heard_ms = self._heard_ms, 0.0
        self._queued_ms, self._is_last, self._is_sounding = 0.0, False, False
        return round(heard_ms)

    def lower(self, *, is_lowered: bool) -> None:
        self.lowered.append((self._tick * FRAME_S, is_lowered))

    def heard_ms(self) -> int:
        return round(self._heard_ms)

    def listen(self) -> None:
        return

    async def send_keys(self, keys: str) -> bool:
        return False

    async def end(self) -> None:
        return


@dataclass(frozen=True, slots=True)
class Answer:
    """What the scripted speech half answers to one user turn."""

    text: str = "All right."
    after_s: float = 0.1
    speech_s: float = 2.0
    action: tuple[str, str] | None = None
    error: SpeechError | None = None
    never: bool = False
    transcript: str | None = None
    transcript_after_s: float = 0.2


@dataclass(slots=True)
class ScriptedSession:
    """A speech half that follows a list of answers and notes what it was told."""

    answers: list[Answer] = field(default_factory=list)
    phrase_s: float = 1.0
    phrase_error: SpeechError | None = None
    heard: list[tuple[int, UserTurn]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    settled: list[tuple[int, int | None]] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    answerers: list[Answerer] = field(default_factory=list)
    identified: list[Utterance] = field(default_factory=list)
    words: list[str | None] = field(default_factory=list)
    """What short sounds are heard as, one after the other; then: it cannot tell."""
    words_after_s: float = 0.15
    asked_for_words: list[Utterance] = field(default_factory=list)
    num_open: int = 0

    async def reply(self, turn: int, user: UserTurn) -> AsyncIterator[ReplyEvent]:
        self.heard.append((turn, user))
        answer = self.answers.pop(0) if self.answers else Answer()
        self.num_open += 1
        try:
            await asyncio.sleep(answer.after_s)
            if answer.never:
                await asyncio.sleep(3600)
            if answer.error is not None:
                raise answer.error
            if answer.text:
                yield ReplyText(turn, answer.text)
                yield ReplyAudio(turn, 0, answer.text, _pcm16(answer.speech_s))
            if answer.action is not None:
                yield ReplyAction(turn, *answer.action)
            yield ReplyDone(turn, answer.text, "stop")
            if answer.transcript is not None:
                await asyncio.sleep(answer.transcript_after_s)
                yield Transcript(turn, answer.transcript)
        finally:
            self.num_open -= 1

    async def say(self, turn: int, text: str) -> AsyncIterator[ReplyEvent]:
        self.said.append(text)
        if self.phrase_error is not None:
            raise self.phrase_error
        yield ReplyAudio(turn, 0, text, _pcm16(self.phrase_s))
        yield ReplyDone(turn, text, "stop")

    async def settle(self, turn: int, heard_ms: int | None = None) -> None:
        self.settled.append((turn, heard_ms))

    async def forget(self, turn: int) -> None:
        self.forgotten.append(turn)

    async def identify(self, said: Utterance) -> Answerer:
        self.identified.append(said)
        await asyncio.sleep(0.2)
        return self.answerers.pop(0) if self.answerers else Answerer("unsure", "")

    async def words_of(self, said: Utterance) -> str | None:
        self.asked_for_words.append(said)
        await asyncio.sleep(self.words_after_s)
        return self.words.pop(0) if self.words else None


def _pcm16(seconds: float) -> bytes:
    return b"\x00\x10" * int(seconds * 8000)
