"""What is held goes on where it stopped, and is counted right."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from agi_handlers.conversation.mouth import BotMouth
from tests.fakes.call_parts import HangsUp, ScriptedLeg
from tests.fakes.clock import run_in_virtual_time

MS = 16  # bytes


def tone(ms: int, first: int = 0) -> bytes:
    """Speech in which every millisecond is known by its value."""
    return b"".join((first + i).to_bytes(2, "little") * 8 for i in range(ms))


class Ear:
    """Notes every frame the leg sends out, and the ends it reports."""

    def __init__(self) -> None:
        self.leg = ScriptedLeg([HangsUp(60.0)])
        self.mouth = BotMouth(self.leg)
        self.finished_ms: list[int] = []

    async def listen(self) -> None:
        async for event in self.leg.events():
            if type(event).__name__ == "PlaybackFinished":
                heard_s = sum(end_s - start_s for start_s, end_s in self.leg.played)
                self.finished_ms.append(round(heard_s * 1000))
                self.mouth.finished()


def hear(ear: Ear, script: Coroutine[Any, Any, None]) -> None:
    async def run() -> None:
        listening = asyncio.create_task(ear.listen())
        await script
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    run_in_virtual_time(run())


def test_held_speech_goes_on_where_it_stopped_and_ends_once() -> None:
    ear = Ear()

    async def script() -> None:
        speech = tone(3000)
        await ear.mouth.play(speech)
        await ear.mouth.end_of_speech()
        await asyncio.sleep(1.0)
        ear.mouth.hold()
        held_ms = ear.mouth.heard_ms
        assert 900 <= held_ms <= 1040
        await asyncio.sleep(2.0)
        assert ear.mouth.heard_ms == held_ms
        assert ear.finished_ms == []
        num_bytes = len(ear.leg.taken)
        await ear.mouth.go_on()
        assert bytes(ear.leg.taken[num_bytes:]) == speech[held_ms * MS :]
        await asyncio.sleep(1.0)
        assert held_ms + 900 <= ear.mouth.heard_ms <= held_ms + 1040
        await asyncio.sleep(2.0)
        assert ear.finished_ms == [3000]

    hear(ear, script())


def test_speech_that_comes_while_held_waits_and_follows() -> None:
    ear = Ear()

    async def script() -> None:
        await ear.mouth.play(tone(500))
        await asyncio.sleep(0.2)
        ear.mouth.hold()
        await ear.mouth.play(tone(500))
        await ear.mouth.end_of_speech()
        await asyncio.sleep(1.0)
        assert ear.finished_ms == []
        await ear.mouth.go_on()
        await asyncio.sleep(1.5)
        assert ear.finished_ms == [1000]

    hear(ear, script())


def test_held_twice_it_still_knows_its_place() -> None:
    ear = Ear()

    async def script() -> None:
        await ear.mouth.play(tone(3000))
        await ear.mouth.end_of_speech()
        for _ in range(2):
            await asyncio.sleep(0.5)
            ear.mouth.hold()
            ear.mouth.hold()
            await asyncio.sleep(0.5)
            await ear.mouth.go_on()
        assert 900 <= ear.mouth.heard_ms <= 1080
        await asyncio.sleep(3.0)
        assert ear.finished_ms == [3000]

    hear(ear, script())


def test_stopping_what_is_held_leaves_nothing() -> None:
    ear = Ear()

    async def script() -> None:
        await ear.mouth.play(tone(3000))
        await asyncio.sleep(0.5)
        ear.mouth.hold()
        ear.mouth.stop()
        assert ear.mouth.heard_ms == 0
        await ear.mouth.go_on()
        await ear.mouth.play(tone(200))
        await ear.mouth.end_of_speech()
        await asyncio.sleep(1.0)
        assert ear.finished_ms == [pytest.approx(500 + 200, abs=40)]

    hear(ear, script())


def test_a_speaker_without_end_waits_while_it_is_held() -> None:
    ear = Ear()

    async def speak() -> None:
        while True:
            await ear.mouth.play(tone(1000))

    async def script() -> None:
        speaking = asyncio.create_task(speak())
        await asyncio.sleep(1.0)
        ear.mouth.hold()
        await asyncio.sleep(1.0)
        ear.mouth.stop()
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)

    ear.leg.max_queued_ms = 5000
    hear(ear, script())
    assert len(ear.leg.taken) <= 10_000 * MS


def test_a_filler_is_heard_but_not_counted() -> None:
    ear = Ear()

    async def script() -> None:
        await ear.mouth.play_filler(tone(400))
        await asyncio.sleep(0.2)
        assert ear.mouth.heard_ms == 0
        await ear.mouth.play(tone(1000))
        await asyncio.sleep(0.7)
        assert 440 <= ear.mouth.heard_ms <= 540

    hear(ear, script())


def test_what_was_heard_lately_ends_now() -> None:
    ear = Ear()

    async def script() -> None:
        speech = tone(1000, first=1)
        await ear.mouth.play(speech)
        await ear.mouth.end_of_speech()
        await asyncio.sleep(0.5)
        heard_ms = ear.mouth.heard_ms
        lately = ear.mouth.recently_heard(8 * 100)
        assert lately == speech[(heard_ms - 100) * MS : heard_ms * MS]
        await asyncio.sleep(0.7)
        lately = ear.mouth.recently_heard(8 * 1000)
        silent_ms = (len(lately) - len(lately.rstrip(b"\0"))) // MS
        assert 150 <= silent_ms <= 250
        await asyncio.sleep(3.0)
        assert not any(ear.mouth.recently_heard(8 * 1000))

    hear(ear, script())


def test_a_long_speech_is_not_kept_from_its_beginning() -> None:
    ear = Ear()

    async def script() -> None:
        for _ in range(40):
            await ear.mouth.play(tone(500))
            await asyncio.sleep(0.5)
        ear.mouth.hold()
        held_ms = ear.mouth.heard_ms
        await ear.mouth.go_on()
        await ear.mouth.end_of_speech()
        await asyncio.sleep((20_000 - held_ms) / 1000 + 0.2)
        assert ear.finished_ms == [20_000]

    hear(ear, script())
