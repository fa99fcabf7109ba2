"""Leaves a message on an answering machine: after its beep, or when it is silent.

greeting ─▶ beep ─▶ message ─▶ heard to its end
             ▲         └── it speaks on: too early, once more from the start
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

from agi_handlers.audio_leg.leg import (
    AudioLeg,
    CallerAudio,
    CallerPaused,
    LegClosed,
    LegEvent,
    PlaybackFinished,
)
from agi_handlers.conversation.call_notes import CallNotes
from agi_handlers.records.rows import TurnFate
from model.audio.frames import SAMPLE_BYTES, ms_from_samples
from model.audio.tones import ToneDetector
from model.errors import SpeechError
from model.speech import ReplyAudio, ReplyDone, ReplyEvent, SpeechSession
from model.vad.events import SpeechEnded, SpeechStarted, SpeechTooLong
from model.vad.listener import CallerEar
from telemetry import fields

logger = logging.getLogger(__name__)

MessageFate: TypeAlias = Literal["left", "no_room", "caller_hung_up", "lost", "failed"]
_FIRST_TURN: Final = 1 << 20  # behind all turns of a conversation
_MAX_TRIES: Final = 2


@dataclass(frozen=True, slots=True)
class MessageOptions:
    """When to speak."""

    quiet_ms: int = 2_500
    """A machine whose beep is not heard is silent so long only when it records."""
    longest_wait_ms: int = 30_000
    spoken_over_ms: int = 1_200
    """So much speech while the message plays: the greeting was not over."""
    longest_message_s: float = 90.0


class MessageMoment:
    """Pure: the machine's audio in, whether it is the bot's time to speak."""

    def __init__(self, ear: CallerEar, options: MessageOptions) -> None:
        self._ear = ear
        self._tones = ToneDetector()
        self._options = options
        self._heard_samples = 0
        self._quiet_since_samples = 0
        self._speech_since_samples: int | None = None
        self._has_come = False

    def is_now(self) -> bool:
        """The beep is over, or the machine has been silent for long enough."""
        return self._has_come

    def beep(self) -> None:
        """Its beep was heard by somebody else."""
        self._has_come = True

    @property
    def is_hopeless(self) -> bool:
        """The machine never lets the bot speak."""
        heard_ms = ms_from_samples(self._heard_samples)
        return not self._has_come and heard_ms >= self._options.longest_wait_ms

    @property
    def is_spoken_over(self) -> bool:
        """Speech has gone on for as long as no echo or click does."""
        since = self._speech_since_samples
        if since is None:
            return False
        said_ms = ms_from_samples(self._heard_samples - since)
        return said_ms >= self._options.spoken_over_ms

    def again(self) -> None:
        """It was too early."""
        self._has_come = False
        self._quiet_since_samples = self._heard_samples

    def feed(self, pcm16: bytes) -> None:
        """More of the line, cut anywhere."""
        for event in self._ear.feed(pcm16):
            match event:
                case SpeechStarted(started_samples=started):
                    self._speech_since_samples = started
                case (
                    SpeechEnded(ended_samples=ended)
                    | SpeechTooLong(ended_samples=ended)
                ):
                    self._speech_since_samples = None
                    self._quiet_since_samples = ended
                case _:
                    pass
        for tone in self._tones.feed(pcm16):
            if tone.kind in ("beep", "cng"):  # a fax calls on other lines
                self._has_come = True
        self._heard_samples += len(pcm16) // SAMPLE_BYTES
        if self._speech_since_samples is None:
            quiet = self._heard_samples - self._quiet_since_samples
            if ms_from_samples(quiet) >= self._options.quiet_ms:
                self._has_come = True


class MachineMessage:
    """One message on one machine."""

    def __init__(
        self,
        leg: AudioLeg,
        session: SpeechSession,
        ear: CallerEar,
        notes: CallNotes,
        answered_s: float,
        options: MessageOptions | None = None,
    ) -> None:
        """answered_s: when the call was answered, on the loop's clock."""
        self._leg = leg
        self._session = session
        self._notes = notes
        self._answered_s = answered_s
        self._options = options or MessageOptions()
        self._moment = MessageMoment(ear, self._options)
        self._turn = _FIRST_TURN

    def _now_ms(self) -> int:
        since_s = asyncio.get_running_loop().time() - self._answered_s
        return round(since_s * 1000)

    async def leave(self, text: str, *, at_once: bool) -> MessageFate:
        """Wait for the moment and speak; `at_once`: the beep has been heard."""
        if at_once:
            self._moment.beep()
        events = cast("AsyncGenerator[LegEvent, None]", self._leg.events())
        async with contextlib.aclosing(events):
            for _ in range(_MAX_TRIES):
                if (fate := await self._wait(events)) is not None:
                    return fate
                if (fate := await self._speak(text, events)) is not None:
                    return fate
                logger.info("message_begun_too_early")
                self._moment.again()
        return "no_room"

    async def _wait(self, events: AsyncGenerator[LegEvent, None]) -> MessageFate | None:
        """None: now."""
        if self._moment.is_now():
            return None
        self._leg.listen()
        patience_s = self._options.longest_wait_ms / 1000 + 5.0
        try:
            async with asyncio.timeout(patience_s):
                async for event in events:
                    match event:
                        case CallerAudio(pcm16):
                            self._moment.feed(pcm16)
                        case CallerPaused():
                            self._leg.listen()
                        case LegClosed() as closed:
                            return _fate_of(closed)
                        case _:
                            pass
                    if self._moment.is_now():
                        return None
                    if self._moment.is_hopeless:
                        return "no_room"
        except TimeoutError:
            return "no_room"
        return "lost"

    async def _speak(
        self, text: str, events: AsyncGenerator[LegEvent, None]
    ) -> MessageFate | None:
        """None: the machine spoke on, and nothing of it counts."""
        self._turn += 1
        fate: MessageFate | None = "failed"
        self._notes.phrase(self._turn, self._now_ms(), "message", text)
        speaking = asyncio.create_task(self._stream(text))
        hearing = asyncio.create_task(self._until_heard(events))
        try:
            async with asyncio.timeout(self._options.longest_message_s):
                await asyncio.wait(
                    {speaking, hearing}, return_when=asyncio.FIRST_COMPLETED
                )
                if speaking.done():
                    speaking.result()
                fate = await hearing
        except TimeoutError:
            logger.error("message_stuck")
        except SpeechError as exc:
            logger.error(
                "message_not_spoken", extra=fields(code=exc.code, error=str(exc))
            )
        finally:
            for task in (speaking, hearing):
                task.cancel()
            await asyncio.wait({speaking, hearing})
            heard_ms = None if fate == "left" else self._leg.stop()
            with contextlib.suppress(SpeechError):
                await self._session.settle(self._turn, heard_ms)
            how: TurnFate = "heard" if fate == "left" else "cut_off"
            self._notes.sealed(self._turn, self._now_ms(), how, heard_ms)
        return fate

    async def _until_heard(
        self, events: AsyncGenerator[LegEvent, None]
    ) -> MessageFate | None:
        async for event in events:
            match event:
                case CallerAudio(pcm16):
                    self._moment.feed(pcm16)
                    if self._moment.is_spoken_over and self._leg.is_full_duplex:
                        return None
                case PlaybackFinished():
                    return "left"
                case LegClosed() as closed:
                    return _fate_of(closed)
                case _:
                    pass
        return "lost"

    async def _stream(self, text: str) -> None:
        said = self._session.say(self._turn, text)
        async with contextlib.aclosing(
            cast("AsyncGenerator[ReplyEvent, None]", said)
        ) as events:
            async for event in events:
                match event:
                    case ReplyAudio(pcm16=pcm16):
                        self._notes.audio(event)
                        await self._leg.play(pcm16)
                    case ReplyDone():
                        self._leg.end_of_speech()
                    case _:
                        pass


def _fate_of(closed: LegClosed) -> MessageFate:
    return "caller_hung_up" if closed.reason == "caller_hung_up" else "lost"
