"""Speech by sound files: pieces are prepared while the last one plays.

Plays with STREAM FILE on one AGI connection, the only command that stops within a
frame when it is interrupted.  When there is nothing to say it plays silence, so that
packets keep flowing to the caller (some trunks drop a call that goes quiet) and keys
are heard.

How much was heard: pieces played to their end, plus a clock for the one that is
playing, since Asterisk does not tell the position of an interrupted one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from agi_handlers.agi.commands import PlaybackEnd, PlaybackEnded, channel_status
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.audio_leg.event_queue import LegEventQueue
from agi_handlers.audio_leg.file_exchange import FileExchange
from agi_handlers.audio_leg.leg import CallerKey, PlaybackFinished
from agi_handlers.audio_leg.speech_pieces import PieceOptions, SpeechPieces
from agi_handlers.errors import AudioLegLost, ChannelGone
from model.audio.frames import SAMPLES_PER_MS
from model.audio.g711 import ULAW_SILENCE, ulaw_encode

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FilePlaybackOptions:
    pieces: PieceOptions = field(default_factory=PieceOptions)
    max_queued_ms: int = 20_000  # longer speech makes play() wait
    filler_ms: int = 5_000  # one silence file; played again and again
    # After a failed playback: the hang-up line comes up to 45 ms later.
    hangup_grace_s: float = 0.2


@dataclass(frozen=True, slots=True)
class _ReadyPiece:
    """A piece whose file is where Asterisk can play it; no file when it is empty."""

    name: str | None
    duration_ms: int
    ends_speech: bool


class FilePlayback:
    """What a leg that plays files needs: play, stop, heard, silence.

    `prepare_pieces` runs as a task of the leg; `play_next` and `play_silence` are
    called by the leg's own task, which alone uses the AGI connection.
    """

    def __init__(
        self,
        agi: AgiConnection,
        files: FileExchange,
        events: LegEventQueue,
        options: FilePlaybackOptions,
        *,
        wake: Callable[[], None],
    ) -> None:
        self._agi = agi
        self._files = files
        self._events = events
        self._options = options
        self._wake_leg = wake
        self._pieces = SpeechPieces(options.pieces)
        self._ready: deque[_ReadyPiece] = deque()  # one at most: see prepare_pieces
        self._preparing = False
        self._changed = asyncio.Event()  # for prepare_pieces
        self._room = asyncio.Event()
        self._room.set()
        self._generation = 0
        self._heard_ms = 0  # of this speech, in pieces that have ended
        self._playing: _ReadyPiece | None = None
        self._playing_since_s = 0.0
        self._playing_from_ms = 0
        self._silence_name = files.new_name()

    # --- the conversation's side ---

    @property
    def is_idle(self) -> bool:
        """Nothing queued, prepared or playing."""
        return (
            self._pieces.is_empty
            and not self._ready
            and not self._preparing
            and self._playing is None
        )

    @property
    def is_ready(self) -> bool:
        """There is a piece to play now."""
        return bool(self._ready)

    @property
    def heard_ms(self) -> int:
        return self._heard_ms + self._playing_ms()

    async def play(self, pcm16: bytes) -> None:
        """Queue speech; waits while too much is queued, void after a stop."""
        generation = self._generation
        step = 1000 * SAMPLES_PER_MS * 2  # a second at a time
        for at in range(0, len(pcm16), step):
            await self._room.wait()
            if generation != self._generation:
                return  # stopped meanwhile
            self._pieces.add(pcm16[at : at + step])
            if self._pieces.queued_ms >= self._options.max_queued_ms:
                self._room.clear()
            self._changed.set()

    def end_of_speech(self) -> None:
        self._pieces.end_of_speech()
        self._changed.set()

    def stop(self) -> int:
        """Drop all, silence what plays; returns the milliseconds heard."""
        heard_ms = self.heard_ms
        self._generation += 1
        self._heard_ms = 0
        self._pieces.stop()
        self._ready.clear()
        self._room.set()
        self._changed.set()
        if self._playing is not None:
            self._playing = None
            self._agi.request_interrupt()
        return heard_ms

    def release(self) -> None:
        """The leg has closed: nobody may wait any more."""
        self._generation += 1
        self._room.set()

    # --- the leg's tasks ---

    async def open(self) -> None:
        """Put the silence where Asterisk can play it.  Raises: FileExchangeFailed."""
        num_samples = self._options.filler_ms * SAMPLES_PER_MS
        await self._files.put(self._silence_name, bytes((ULAW_SILENCE,)) * num_samples)

    async def prepare_pieces(self) -> None:
        """Make files of the speech that is queued, one ahead of the ear; for ever."""
        while True:
            await self._until_due()
            generation = self._generation
            piece = self._pieces.take()
            if self._pieces.queued_ms < self._options.max_queued_ms:
                self._room.set()
            self._preparing = True
            try:
                name = await self._file_of(piece.pcm16)
            finally:
                self._preparing = False
            if generation != self._generation:
                if name is not None:
                    await self._files.remove(name)
                continue
            self._ready.append(_ReadyPiece(name, piece.duration_ms, piece.ends_speech))
            self._wake_leg()

    async def play_next(self) -> None:
        """Play the piece that is ready, through keys, until its end or a stop.

        Raises:
            ChannelGone: the caller left. AudioLegLost: the file cannot be played.
        """
        piece = self._ready.popleft()
        self._changed.set()
        generation = self._generation
        if piece.name is not None:
            try:
                await self._play_through_keys(piece, piece.name)
            finally:
                await self._files.remove(piece.name)
        if generation != self._generation:
            return
        self._heard_ms += piece.duration_ms
        self._playing = None
        self._changed.set()
        if piece.ends_speech:
            heard_ms, self._heard_ms = self._heard_ms, 0
            self._events.put(PlaybackFinished(heard_ms))

    async def play_silence(self) -> None:
        """Send silence until interrupted, a key, or the end of the file.

        Raises:
            ChannelGone: the caller left. AudioLegLost: the file cannot be played.
        """
        await self._report_key(await self._play_file(self._silence_name, 0))

    # --- inside ---

    async def _until_due(self) -> None:
        """Wait until a piece should be taken; with one ready, until that one plays."""
        while True:
            self._changed.clear()
            due_in_ms = None
            if not self._ready:
                due_in_ms = self._pieces.due_in_ms(self._left_to_play_ms())
            if due_in_ms == 0:
                return
            timeout_s = None if due_in_ms is None else due_in_ms / 1000
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _file_of(self, pcm16: bytes) -> str | None:
        if not pcm16:
            return None
        name = self._files.new_name()
        await self._files.put(name, ulaw_encode(pcm16))
        return name

    async def _play_through_keys(self, piece: _ReadyPiece, name: str) -> None:
        generation = self._generation
        self._playing, self._playing_from_ms = piece, 0
        while generation == self._generation:
            self._playing_since_s = asyncio.get_running_loop().time()
            ended = await self._play_file(name, self._playing_from_ms * SAMPLES_PER_MS)
            if ended.how is not PlaybackEnd.DIGIT or generation != self._generation:
                return
            # report the key, and go on from there unless that stops us
            end_ms = (ended.endpos_samples or 0) // SAMPLES_PER_MS
            self._playing_from_ms = max(self._playing_from_ms, end_ms)
            self._playing_since_s = asyncio.get_running_loop().time()
            await self._report_key(ended)
            if end_ms >= piece.duration_ms:
                return

    async def _play_file(self, name: str, offset_samples: int) -> PlaybackEnded:
        ended = await self._agi.play_interruptible(
            self._files.path_for_asterisk(name), offset_samples=offset_samples
        )
        if ended.how is PlaybackEnd.FAILED:
            await self._raise_failure()
        return ended

    async def _report_key(self, ended: PlaybackEnded) -> None:
        if ended.digit is None:
            return
        self._events.put(CallerKey(ended.digit))
        # The conversation acts on the key first: an interrupt on the heels of the
        # next command would reach Asterisk in one packet with it, and be late.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _raise_failure(self) -> None:
        """STREAM FILE says -1 for a hang-up and for a missing file alike."""
        try:
            async with asyncio.timeout(self._options.hangup_grace_s):
                await self._agi.wait_hangup()
        except TimeoutError:
            await self._agi.execute(channel_status())  # ChannelGone where no line came
            raise AudioLegLost("Asterisk cannot play our sound file") from None
        raise ChannelGone("the caller left during playback")

    def _left_to_play_ms(self) -> int | None:
        if self._playing is None:
            return None
        return max(0, self._playing.duration_ms - self._playing_ms())

    def _playing_ms(self) -> int:
        if self._playing is None:
            return 0
        elapsed_s = asyncio.get_running_loop().time() - self._playing_since_s
        position_ms = self._playing_from_ms + round(elapsed_s * 1000)
        return min(position_ms, self._playing.duration_ms)
