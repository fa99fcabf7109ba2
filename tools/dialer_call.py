"""A call through the real dialer, placed by AMI: does the bot hear, and is it heard?

    AMI ── Originate Local/EXTENSION@CONTEXT ──▶ dialplan ──▶ the bot
                        └── Application AudioSocket ──▶ here: a caller's ear and mouth

Asterisk joins the two ends, so everything between is the dialer's own: its dialplan,
its AGI and audio connections to the bot, its codecs.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from agi_handlers.audio_leg.audiosocket_protocol import (
    Audio,
    AudioSocketDecoder,
    CallId,
    audio_message,
)
from model.audio.frames import FRAME_MS
from tools.ami import AmiFailed, manager
from tools.caller.ear import Ear
from tools.caller.mouth import Mouth
from tools.caller.say_items import Item
from tools.caller.turns import Turn, measured_turns

_ARRIVE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Dialer:
    """The dialer's manager port, and where it reaches us."""

    host: str
    port: int
    user: str
    secret: str
    own_address: str
    """As the dialer sees this machine."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of it."""

    first_sound_ms: int | None
    """From our answer to the bot's first voiced sample."""
    turns: Sequence[Turn]
    heard_s: float


async def place_test_call(
    dialer: Dialer, channel: str, items: Sequence[Item], longest_s: float
) -> Heard:
    """Place the call and stay until all is said and heard, or the time is up.

    Raises:
        AmiFailed: no login, no such extension, no AudioSocket, or nobody came.
    """
    caller = _Caller(items)
    server = await asyncio.start_server(caller.serve, "0.0.0.0", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        async with manager(
            dialer.host, dialer.port, dialer.user, dialer.secret
        ) as asterisk:
            await asterisk.act(
                "Originate",
                Channel=channel,
                Application="AudioSocket",
                Data=f"{caller.call_id},{dialer.own_address}:{port}",
                CallerID='"Doctor" <0000000000>',
                Timeout=str(int(_ARRIVE_S * 1000)),
                Async="true",
            )
        try:
            async with asyncio.timeout(_ARRIVE_S):
                await caller.arrived.wait()
        except TimeoutError as exc:
            raise AmiFailed(
                f"{channel} was not answered, or Asterisk has no AudioSocket or does "
                f"not reach {dialer.own_address}:{port}"
            ) from exc
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await caller.over.wait()
        caller.close()
    return caller.heard()


class _Caller:
    """The other end of Asterisk's AudioSocket application."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.call_id = uuid.uuid4()
        self.arrived = asyncio.Event()
        self.over = asyncio.Event()
        self._mouth = Mouth(items)
        self._ear = Ear()
        self._answered_s = 0.0
        self._writer: asyncio.StreamWriter | None = None

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        decoder = AudioSocketDecoder()
        talking: asyncio.Task[None] | None = None
        try:
            while received := await reader.read(65_536):
                decoder.receive_data(received)
                for event in decoder.events_received():
                    if isinstance(event, CallId) and event.uuid == self.call_id:
                        self._answered_s = loop.time()
                        self._writer = writer
                        self.arrived.set()
                        talking = asyncio.create_task(self._talk(writer))
                    elif isinstance(event, Audio) and talking is not None:
                        self._ear.on_arrival(loop.time(), event.pcm16)
        except OSError:
            pass
        finally:
            if talking is not None:
                talking.cancel()
                self.over.set()
            writer.close()

    async def _talk(self, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while not self._mouth.has_hung_up:
            slot = self._mouth.next_slot(loop.time(), self._answered_s, self._ear)
            if slot.pcm16 is not None:
                writer.write(audio_message(slot.pcm16))
            due_s += FRAME_MS / 1000
            await asyncio.sleep(max(0.0, due_s - loop.time()))
        self.over.set()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def heard(self) -> Heard:
        self._ear.finish()
        sounds = self._ear.sounds
        first = sounds[0].start_s - self._answered_s if sounds else None
        return Heard(
            first_sound_ms=None if first is None else round(1000 * first),
            turns=measured_turns(self._mouth.said, sounds),
            heard_s=sum(sound.end_s - sound.start_s for sound in sounds),
        )
