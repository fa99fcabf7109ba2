"""The EAGI relay leg: full duplex on every Asterisk, with nothing installed there.

`EXEC EAGI` starts a shell line on the Asterisk host that connects twice to the media
port: an inner AGI dialogue, and the caller's audio from file descriptor 3.  Audio comes
while STREAM FILE runs, so something is always being played: speech in pieces, or
silence.  STREAM FILE stops within a frame when it is interrupted.

::

    outer AGI ──EXEC EAGI──▶ shell ══AGI token══▶ inner dialogue: STREAM FILE, interrupt
                               └═══EAR token═══▶ caller's audio, 8 kHz pcm16

The inner dialogue has no HANGUP line (the shell gets a signal, which it ignores): there
the caller's leaving is `result=-1`, and the outer dialogue tells the rest.
"""

from __future__ import annotations

import asyncio
import logging
import math
import string
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import cast

from agi_handlers.agi.commands import (
    ExecEnded,
    channel_status,
    exec_,
    get_variable,
)
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.audio_leg.caller_clock import CallerClock
from agi_handlers.audio_leg.caller_format import CallerAudioReader
from agi_handlers.audio_leg.channel_end import why_ended
from agi_handlers.audio_leg.event_queue import LegEventQueue
from agi_handlers.audio_leg.file_exchange import FileExchange
from agi_handlers.audio_leg.file_playback import FilePlayback, FilePlaybackOptions
from agi_handlers.audio_leg.frame_wheel import FrameWheel
from agi_handlers.audio_leg.leg import (
    AudioListener,
    CloseReason,
    LegClosed,
    LegEvent,
    LegName,
)
from agi_handlers.audio_leg.media_port import Announcement, MediaPort
from agi_handlers.audio_leg.sent_keys import SentKeys
from agi_handlers.errors import AudioLegUnavailable, ChannelGone, TelephonyError
from model.audio.frames import SAMPLE_BYTES
from telemetry import ERRORS, fields

logger = logging.getLogger(__name__)

# EXEC splits at commas and takes double quotes and backslashes away: there are none.
# Standard input and output are the inner dialogue; descriptor 3 is the audio.  A
# connect that a firewall swallows would keep EXEC busy for two minutes: the first
# line ends the shell before that.
_SCRIPT = string.Template(
    "(sleep $patience_s;kill $$$$)</dev/null >/dev/null 2>&1 & W=$$!;"
    "exec 5<>/dev/tcp/$host/$port 6<>/dev/tcp/$host/$port||s=no;kill $$W;"
    "[ $$s ]&&exit;"
    "trap : HUP PIPE;"
    "echo $agi_line>&5;echo $ear_line>&6;"
    "cat <&3 >&6 2>/dev/null & A=$$!;cat <&0 >&5 2>/dev/null & B=$$!;"
    "cat <&5 2>/dev/null;kill $$A $$B"
)
_MAX_TALK_S = 14_400.0  # EXEC answers when the talk ends


@dataclass(frozen=True, slots=True)
class EagiOptions:
    # No HANGUP line comes on the inner dialogue, so there is nothing to wait for.
    playback: FilePlaybackOptions = field(
        default_factory=lambda: replace(FilePlaybackOptions(), hangup_grace_s=0.0)
    )
    connect_timeout_s: float = 3.0  # measured 10-20 ms; a firewall that drops: never
    # From closing the inner dialogue to the answer: 20 ms; a shell that could not
    # connect takes another second to notice.
    end_timeout_s: float = 2.0
    judge_timeout_s: float = 1.0
    gap_after_ms: int = 100  # without caller audio; it comes 20 to 50 ms apart


@asynccontextmanager
async def open_eagi_leg(
    agi: AgiConnection,
    media_port: MediaPort,
    wheel: FrameWheel,
    files: FileExchange,
    *,
    host: str,
    port: int,
    options: EagiOptions | None = None,
) -> AsyncIterator[EagiLeg]:
    """The caller's audio over an EAGI relay, for the block; the channel must be up.

    host, port: the media port as Asterisk reaches it. `files` must stay open as long.

    Raises:
        AudioLegUnavailable: no shell there, or it cannot connect.
        ChannelGone: the caller left meanwhile.
    """
    options = options or EagiOptions()
    leg = EagiLeg(agi, wheel, options)
    with (
        media_port.announce_line("AGI", AgiConnection) as (agi_line, dialogue),
        media_port.announce_line("EAR", lambda: _Ear(leg)) as (ear_line, ear),
    ):
        script = _SCRIPT.substitute(
            host=host,
            port=port,
            agi_line=agi_line,
            ear_line=ear_line,
            patience_s=math.ceil(options.connect_timeout_s),
        )
        command = exec_("EAGI", "/bin/bash", "-c", script, may_take_s=_MAX_TALK_S)
        leg.exec_task = asyncio.create_task(agi.execute(command), name="exec EAGI")
        task: asyncio.Task[None] | None = None
        try:
            inner = await _connected(agi, leg.exec_task, dialogue, ear, options)
            leg.begin(inner, files)
            task = asyncio.create_task(leg.run(), name="EAGI leg")
            yield leg
        finally:
            await leg.shut_down(task, dialogue)


async def _connected(
    agi: AgiConnection,
    exec_task: asyncio.Task[ExecEnded],
    dialogue: Announcement[AgiConnection],
    ear: Announcement[_Ear],
    options: EagiOptions,
) -> AgiConnection:
    """The inner dialogue, once both connections are there and its environment too."""
    both = asyncio.ensure_future(_both(dialogue, ear))
    try:
        await asyncio.wait(
            (both, exec_task),
            timeout=options.connect_timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if both.done():
            return both.result()
    finally:
        both.cancel()
        await asyncio.gather(both, return_exceptions=True)
    if not exec_task.done():
        raise AudioLegUnavailable(
            "EAGI relay: the shell on the Asterisk host did not connect within "
            f"{options.connect_timeout_s:g} s"
        )
    await exec_task  # ChannelGone and the like
    await agi.execute(channel_status())  # ChannelGone: a hang-up, not a fault
    status = await agi.execute(get_variable("AGISTATUS"))
    raise AudioLegUnavailable(
        f"EAGI relay: the shell ended without a connection (AGISTATUS={status}; "
        "is there /bin/bash, may it connect?)"
    )


async def _both(
    dialogue: Announcement[AgiConnection], ear: Announcement[_Ear]
) -> AgiConnection:
    inner = await dialogue.arrived()
    await inner.receive_request()
    await ear.arrived()
    return inner


class EagiLeg:
    """One call's audio over an EAGI relay; made by `open_eagi_leg`."""

    name: LegName = "eagi"
    is_full_duplex = True

    def __init__(
        self, agi: AgiConnection, wheel: FrameWheel, options: EagiOptions
    ) -> None:
        self.exec_task: asyncio.Task[ExecEnded] | None = None
        self._outer = agi
        self._wheel = wheel
        self._options = options
        self._events = LegEventQueue()
        self._clock = CallerClock(self._events, options.gap_after_ms)
        self._inner: AgiConnection | None = None
        self._ear: asyncio.Transport | None = None
        self._playback: FilePlayback | None = None
        self._keys = SentKeys()
        self._is_filling = False
        self._ending = False
        self._odd_byte = b""
        self._reader = CallerAudioReader()

    def begin(self, inner: AgiConnection, files: FileExchange) -> None:
        """Both connections are there."""
        self._inner = inner
        self._playback = FilePlayback(
            inner, files, self._events, self._options.playback, wake=self._wake
        )
        self._clock.heard()
        self._wheel.add(self)

    @property
    def num_gap_frames(self) -> int:
        """Silence put where Asterisk sent nothing of the caller."""
        return self._clock.num_gap_frames

    # --- AudioLeg ---

    def events(self) -> AsyncIterator[LegEvent]:
        return self._events.events()

    def hand_audio_to(self, listener: AudioListener | None) -> None:
        self._events.hand_audio_to(listener)

    async def play(self, pcm16: bytes) -> None:
        if self._events.closed is None:
            await self._speech.play(pcm16)
        else:  # a speaker that plays on and on must not keep the loop to itself
            await asyncio.sleep(0)

    def end_of_speech(self) -> None:
        if self._events.closed is None:
            self._speech.end_of_speech()

    def stop(self) -> int:
        return self._speech.stop()

    def lower(self, *, is_lowered: bool) -> None:
        """Asterisk plays a file as it is."""

    def heard_ms(self) -> int:
        return self._speech.heard_ms

    def listen(self) -> None:
        """Nothing to do: both directions flow all the time."""

    async def send_keys(self, keys: str) -> bool:
        """Send DTMF behind the piece that is playing; nothing is heard meanwhile."""
        if self._events.closed is not None:
            return False
        return await self._keys.ask(keys, self._wake)

    async def end(self) -> None:
        """Close the inner dialogue: the shell ends, and EXEC is answered."""
        self._close("ended_by_us")
        self._ending = True
        if self._playback is not None:
            self._playback.stop()
        self._wake()
        if self._inner is not None:
            await self._inner.close()
        if self.exec_task is not None:
            await asyncio.wait((self.exec_task,), timeout=self._options.end_timeout_s)

    # --- the wheel's and the ear's side ---

    def on_frame_time(self, num_frames: int) -> None:
        """Frames go out by file; only the gaps in the caller's audio are ours."""
        self._clock.on_frame_time(num_frames)

    def ear_connected(self, transport: asyncio.Transport) -> None:
        """The caller's audio begins."""
        self._ear = transport

    def caller_heard(self, pcm16: bytes) -> None:
        """Bytes of the audio connection, cut anywhere."""
        self._clock.heard()
        stream = self._odd_byte + pcm16 if self._odd_byte else pcm16
        whole = len(stream) - len(stream) % SAMPLE_BYTES
        self._odd_byte = stream[whole:]
        heard = self._reader.read(stream[:whole], time.monotonic())
        self._events.put_audio(heard)

    # --- the leg's task ---

    @property
    def _speech(self) -> FilePlayback:
        assert self._playback is not None, "the leg is handed out once it has begun"
        return self._playback

    async def run(self) -> None:
        """Everything this leg does on the inner dialogue, one command at a time."""
        detail = "the relay ended"
        try:
            async with asyncio.TaskGroup() as tasks:
                preparing = tasks.create_task(self._speech.prepare_pieces())
                watching = tasks.create_task(self._watch_exec())
                await self._speech.open()
                await self._talk()
                preparing.cancel()
                watching.cancel()
        except* ChannelGone:
            pass  # the caller, or the relay: the outer dialogue knows
        except* TelephonyError as group:
            detail = str(group.exceptions[0])
        finally:
            self._keys.refuse_all()
        if not self._ending:
            await self._find_out(detail)

    async def _watch_exec(self) -> None:
        """A killed Asterisk leaves the shell, and the inner dialogue, in silence."""
        assert self.exec_task is not None
        await asyncio.wait((self.exec_task,))
        raise ChannelGone("EXEC EAGI has ended")

    async def _talk(self) -> None:
        assert self._inner is not None
        while not self._ending:
            if (keys := self._keys.next()) is not None:
                await self._keys.send(self._inner, keys)
            elif self._speech.is_ready:
                await self._speech.play_next()
            else:
                await self._fill()

    async def _fill(self) -> None:
        self._is_filling = True
        try:
            await self._speech.play_silence()
        finally:
            self._is_filling = False

    def _wake(self) -> None:
        """Something else is due: the silence gives way."""
        if self._is_filling and self._inner is not None:
            self._inner.request_interrupt()

    async def _find_out(self, detail: str) -> None:
        assert self.exec_task is not None
        assert self._inner is not None
        await self._inner.close()  # the shell ends, so that EXEC is answered
        reason, detail = await why_ended(
            self._outer,
            self.exec_task,
            detail=detail,
            timeout_s=self._options.judge_timeout_s,
        )
        self._close(reason, detail)

    # --- the end ---

    def _close(self, reason: CloseReason, detail: str = "") -> None:
        self._wheel.remove(self)
        if self._events.closed is not None:
            return
        self._events.put(LegClosed(reason, detail))
        if self._playback is not None:
            self._playback.release()
        self._keys.refuse_all()
        if reason == "lost":
            ERRORS.labels(kind="eagi_lost").inc()
            logger.warning("leg_lost", extra=fields(leg=self.name, detail=detail))

    async def shut_down(
        self, task: asyncio.Task[None] | None, dialogue: Announcement[AgiConnection]
    ) -> None:
        """Leave nothing behind: no task, no socket, the outer AGI free."""
        assert self.exec_task is not None
        if self._inner is None and dialogue.is_taken:
            self._inner = await dialogue.arrived()  # only half of it had come
        try:
            await self.end()
        finally:
            tasks: list[asyncio.Task[object]] = [
                cast("asyncio.Task[object]", each)
                for each in (task, self.exec_task)
                if each is not None
            ]
            for each in tasks:
                each.cancel()
            if self._ear is not None:
                self._ear.abort()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, Exception) and not isinstance(
                    outcome, TelephonyError
                ):
                    logger.error("eagi_leg_failed", exc_info=outcome)


class _Ear(asyncio.Protocol):
    """The caller's audio, as it comes from descriptor 3."""

    def __init__(self, leg: EagiLeg) -> None:
        self._leg = leg

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._leg.ear_connected(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self._leg.caller_heard(data)
