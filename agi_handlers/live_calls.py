"""The calls that run now, as operators see and steer them.

Whatever an operator does to a call is in its record, with the name of his key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from agi_handlers.call_records import CallRecord
from agi_handlers.campaigns import Campaign
from agi_handlers.conversation.call import Call
from agi_handlers.dialers import Dialers
from agi_handlers.live_audio import LiveAudio
from agi_handlers.recording import Recording
from model.client import MAX_SAY_CHARS, Calls, CallState, ControlRefused, Do, Listener
from telemetry import fields

logger = logging.getLogger(__name__)

MAX_LISTENERS: Final = 8
"""Of one phone half: each costs 32 kB/s and some CPU beside the calls."""
_DEFAULT_TARGET: Final = "default"


@dataclass(frozen=True, slots=True)
class LiveCall:
    """One of them."""

    call: Call
    record: CallRecord
    campaign: Campaign
    audio: LiveAudio
    leg: str
    recording: Recording | None = None
    began_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    def state(self, now_s: float) -> CallState:
        """What it is at now."""
        caller_dbfs, bot_dbfs = self.audio.levels()
        recording = self.recording
        return CallState(
            call_id=self.record.call_id,
            caller=self.record.caller,
            campaign=self.campaign.name,
            lead_id=self.record.lead_id,
            leg=self.leg,
            seconds=round(now_s - self.began_s, 1),
            phase=self.call.phase,
            caller_dbfs=caller_dbfs,
            bot_dbfs=bot_dbfs,
            num_turns=self.call.num_turns,
            num_barge_ins=self.call.num_barge_ins,
            response_ms=self.call.last_response_ms,
            recording=(
                "" if recording is None else "paused" if recording.is_paused else "on"
            ),
            targets=tuple(
                name for name in self.campaign.transfer if name != _DEFAULT_TARGET
            ),
            num_listeners=self.audio.num_listeners,
        )


class LiveCalls:
    """All of this phone half."""

    def __init__(self) -> None:
        self.dialers = Dialers()
        self.vicidial: Callable[[], str] = lambda: ""
        """How VICIdial is; see `Calls.vicidial`."""
        self._calls: dict[str, LiveCall] = {}
        self._is_drained = False

    @property
    def is_drained(self) -> bool:
        """An operator wants no new calls here."""
        return self._is_drained

    @contextmanager
    def known(self, live: LiveCall) -> Iterator[None]:
        """Seen by operators for as long as the block lasts."""
        self._calls[live.record.call_id] = live
        try:
            yield
        finally:
            del self._calls[live.record.call_id]
            live.audio.close()

    def report(self) -> Calls:
        """Every running call, the oldest first, and the world around."""
        now_s = asyncio.get_running_loop().time()
        return Calls(
            tuple(live.state(now_s) for live in self._calls.values()),
            self._is_drained,
            self.dialers.states(),
            self.vicidial(),
        )

    def carry_out(self, wanted: Do) -> None:
        """Do what an operator wants.

        Raises:
            ControlRefused: it cannot be done.
        """
        logger.info(
            "operator",
            extra=fields(
                action=wanted.action, by=wanted.by, of_call=wanted.call_id or None
            ),
        )
        if wanted.action in ("drain", "resume"):
            self._is_drained = wanted.action == "drain"
            return
        live = self._call(wanted.call_id)
        argument = " ".join(wanted.argument.split())
        match wanted.action:
            case "say":
                if not 0 < len(argument) <= MAX_SAY_CHARS:
                    raise ControlRefused(f"1 to {MAX_SAY_CHARS} characters to say")
                done = live.call.say_for_operator(argument)
            case "transfer":
                if live.campaign.target_of(argument) is None:
                    raise ControlRefused(f"this campaign has no target {argument!r}")
                done = live.call.transfer_for_operator(argument)
            case "hangup":
                done = live.call.hang_up_for_operator()
            case "pause_recording" | "resume_recording":
                if live.recording is None:
                    raise ControlRefused("this call is not recorded")
                is_paused = wanted.action == "pause_recording"
                live.call.pause_recording_for_operator(is_paused=is_paused)
                done = True
            case _:
                raise ControlRefused(f"{wanted.action} is nothing to do to a call")
        if not done:
            raise ControlRefused("the call is ending, or must not be interrupted now")
        said = f"{wanted.by}: {argument}" if argument else wanted.by
        live.call.note_operator(wanted.action, said)

    def listen(self, call_id: str, by: str, listener: Listener) -> Callable[[], None]:
        """Let an operator hear a call; returns what ends that.

        Raises:
            ControlRefused: no such call, or too many listen already.
        """
        live = self._call(call_id)
        if sum(one.audio.num_listeners for one in self._calls.values()) >= (
            MAX_LISTENERS
        ):
            raise ControlRefused(f"{MAX_LISTENERS} listen in already")
        logger.info("operator", extra=fields(action="listen", by=by, of_call=call_id))
        live.call.note_operator("listen", by)
        return live.audio.listen(listener)

    def _call(self, call_id: str) -> LiveCall:
        live = self._calls.get(call_id)
        if live is None:
            raise ControlRefused("this call has ended")
        return live
