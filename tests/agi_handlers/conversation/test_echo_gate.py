"""The bot does not hear itself; whoever speaks over its echo is heard."""

from __future__ import annotations

import asyncio

import numpy as np

from agi_handlers.audio_leg.leg import CallerAudio, PlaybackFinished
from agi_handlers.conversation.echo_gate import EchoGate
from agi_handlers.conversation.mouth import BotMouth
from model.audio.pcm import Wave, pcm16_from_wave
from model.vad.events import SpeechEnded, SpeechEvent, SpeechStarted
from tests.fakes.call_parts import ScriptedLeg
from tests.fakes.clock import run_in_virtual_time
from tests.fakes.ear import loudness_ear
from tests.model.vad.test_echo import come_back, voice

DELAY_MS = 180


def overheard(
    bot: Wave, received: Wave, lasting_s: float, signs: list[float] | None = None
) -> list[SpeechEvent]:
    """What passes the gate while the bot speaks and that comes in.

    signs: when it looked as if the caller began.
    """
    passed: list[SpeechEvent] = []

    async def run() -> None:
        leg = ScriptedLeg([])
        mouth = BotMouth(leg)
        ear = loudness_ear()
        gate = EchoGate(ear, mouth)
        await mouth.play(pcm16_from_wave(bot))
        await mouth.end_of_speech()
        at = 0
        async for event in leg.events():
            if isinstance(event, PlaybackFinished):
                mouth.finished()
            if isinstance(event, CallerAudio):
                frame = received[at : at + 160]
                at += 160
                passed.extend(gate.let_through(ear.feed(pcm16_from_wave(frame))))
                if signs is not None and gate.may_be_caller():
                    signs.append(at / 8000)
            if at >= lasting_s * 8000:
                return

    run_in_virtual_time(asyncio.wait_for(run(), 60))
    return passed


def silence(seconds: float) -> Wave:
    return np.zeros(int(seconds * 8000), dtype=np.float32)


def test_the_bots_own_echo_is_no_speech() -> None:
    bot = np.concatenate((voice(1, 4.0), silence(2.0)))
    echo = come_back(bot, DELAY_MS, -6.0)
    assert loudness_ear().feed(pcm16_from_wave(echo)), "the ear alone would hear it"
    signs: list[float] = []
    assert overheard(voice(1, 4.0), echo, 6.0, signs) == []
    assert signs == []


def test_a_caller_over_the_echo_is_heard_soon() -> None:
    bot = np.concatenate((voice(1, 4.0), silence(2.0)))
    received = come_back(bot, DELAY_MS, -15.0)
    received[2 * 8000 : 3 * 8000] += voice(7, 1.0)
    events = overheard(voice(1, 4.0), received, 6.0)
    assert isinstance(events[0], SpeechStarted)
    assert 2.0 <= events[0].decided_samples / 8000 <= 2.6
    ended = events[-1]
    assert isinstance(ended, SpeechEnded)
    # his words, and not the seconds of echo before them
    assert len(ended.pcm16) / 16_000 <= ended.decided_samples / 8000 - 1.5


def test_a_caller_on_a_line_without_echo_is_heard_at_once() -> None:
    received = silence(6.0)
    received[2 * 8000 : 3 * 8000] += voice(7, 1.0)
    alone = loudness_ear().feed(pcm16_from_wave(received))
    assert overheard(voice(1, 4.0), received, 6.0) == alone
