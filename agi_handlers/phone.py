"""What every call on this host shares: settings, speech half, audio legs, capacity."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from agi_handlers.audio_leg.batched_ears import BatchedEars
from agi_handlers.audio_leg.choose_leg import LegChooser
from agi_handlers.call_records import CallRecord, CallRecords, unrecorded
from agi_handlers.campaigns import Campaign
from agi_handlers.conversation.call import Call
from agi_handlers.conversation.turn_actions import PhraseName, TurnTakingOptions
from agi_handlers.dialplan_variables import BotStatus
from agi_handlers.languages.known import primary_tag
from agi_handlers.live_calls import LiveCalls
from agi_handlers.recording import RecordingStore
from agi_handlers.records.rows import CallRow, Result
from agi_handlers.turn_traces import TurnTraces
from agi_handlers.vicidial.service import Vicidial
from config import Settings
from model.audio.prompts import Prompt
from model.client import Heartbeat
from model.speech import SpeechService, SpeechStatus
from model.vad.detector import SpeechDetector
from model.vad.options import EndpointingOptions
from telemetry import CALLS_ALLOWED, CALLS_NOW, fields

logger = logging.getLogger(__name__)

# What answers where no model was to be had.
_STAND_INS: Final = ("demo", "random")
_STATUS_INTERVAL_S = 1.0  # how old the answer of agi://bot/health may be


@dataclass(slots=True)
class Phone:
    """The telephone half of the service."""

    settings: Settings
    speech: SpeechService
    legs: LegChooser
    detector: SpeechDetector
    prompts: Mapping[str, Prompt]
    campaigns: Mapping[str, Campaign]
    prompts_in: Mapping[str, Mapping[str, Prompt]] = field(default_factory=dict)
    """Prompts of other languages than `prompts` have, by primary tag."""
    records: CallRecords | None = None
    """None: nothing is kept of calls."""
    traces: TurnTraces | None = None
    """None: no OpenTelemetry."""
    recordings: RecordingStore | None = None
    vicidial: Vicidial | None = None
    """None: the calls are not VICIdial's."""
    ears: BatchedEars = field(default_factory=BatchedEars)
    started_s: float = field(default_factory=time.monotonic)
    speech_status: SpeechStatus = field(
        default_factory=lambda: SpeechStatus(False, "", "remote", detail="starting")
    )
    is_draining: bool = False
    on_draining: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """Done first in a drain, e.g. to tell the dialer; see `phone_service`."""
    last_error: str = ""
    num_calls: int = 0
    live: LiveCalls = field(default_factory=LiveCalls)
    """The running calls, as operators see them."""
    _calls: set[Call] = field(default_factory=set)
    _is_speech_known: asyncio.Event = field(default_factory=asyncio.Event)

    def why_not(self) -> tuple[BotStatus, str] | None:
        """Why a new call cannot be taken now; None: it can."""
        if self.is_draining or self.live.is_drained:
            return BotStatus.DRAINING, "draining"
        if self.num_calls >= self.settings.max_calls:
            return BotStatus.BUSY, "all_lines_busy"
        if not self.speech_status.is_ready:
            return BotStatus.NOT_READY, "speech_not_ready"
        if not self.speech_status.has_room:
            return BotStatus.BUSY, "speech_busy"
        return None

    def prompts_for(self, language: str) -> Mapping[str, Prompt]:
        """The recorded prompts in a language, or else in the folder's own."""
        return self.prompts_in.get(primary_tag(language), self.prompts)

    @contextmanager
    def line(self) -> Iterator[None]:
        """One of the lines, for as long as a call lasts."""
        self.num_calls += 1
        CALLS_NOW.set(self.num_calls)
        try:
            yield
        finally:
            self.num_calls -= 1
            CALLS_NOW.set(self.num_calls)

    def open_record(self, row: CallRow) -> CallRecord:
        """The record of a call that begins."""
        record = self.records.open_call(row) if self.records else unrecorded(row)
        if self.traces is not None:
            record.sink = self.traces.follow(row, record.sink)
        return record

    def confirmed(self, call_id: str, result: Result, detail: str) -> None:
        """What became of something a call asked for, perhaps long ago."""
        if self.records is not None:
            self.records.confirmed(call_id, result, detail)

    def note_problem(self, problem: str) -> None:
        """Something that is no call's own went wrong; the health port shows it."""
        self.last_error = problem

    @contextmanager
    def talking(self, call: Call) -> Iterator[None]:
        """Known as running, so that a shutdown reaches it."""
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)

    def shut_down_calls(self) -> None:
        """Hand every caller over to the dialplan's people, now."""
        for call in list(self._calls):
            call.shut_down()

    async def watch_speech(self) -> None:
        """Keep `speech_status` fresh until cancelled."""
        CALLS_ALLOWED.set(self.settings.max_calls)
        while True:
            status = await self.speech.status()
            if status.is_ready != self.speech_status.is_ready:
                logger.info(
                    "speech_ready" if status.is_ready else "speech_not_ready",
                    extra=fields(model=status.model, detail=status.detail),
                )
            self.speech_status = status
            self._is_speech_known.set()
            await asyncio.sleep(_STATUS_INTERVAL_S)

    async def speech_known(self, timeout_s: float) -> None:
        """Until the speech half has said how it is, or has not in that time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._is_speech_known.wait()

    def heartbeat(self, num_frames_late: int = 0) -> Heartbeat:
        """What the speech half's health port shows of us."""
        return Heartbeat(
            num_calls=self.num_calls,
            max_calls=self.settings.max_calls,
            is_draining=self.is_draining or self.live.is_drained,
            num_frames_late=num_frames_late,
            last_error=self.last_error,
            uptime_s=round(time.monotonic() - self.started_s, 1),
        )

    # --- a campaign's rules over the service's settings ---

    def is_recorded(self, campaign: Campaign) -> bool:
        """Whether this campaign's calls are recorded."""
        wanted = campaign.rules.record
        return self.settings.recordings if wanted is None else wanted

    def redacts_digits(self, campaign: Campaign) -> bool:
        """Whether numbers are taken out of what this campaign's callers say."""
        wanted = campaign.rules.redact_digits
        return self.settings.records_digits == "masked" if wanted is None else wanted

    def phrases_of(self, campaign: Campaign) -> Mapping[PhraseName, str]:
        """What the bot says by itself on this campaign's calls.

        What answers for want of a model says so before the greeting.
        """
        phrases = campaign.phrases.as_mapping()
        notice = phrases["demo_notice"]
        if not notice or self.speech_status.weights not in _STAND_INS:
            return phrases
        return {**phrases, "greeting": f"{notice} {phrases['greeting']}"}

    def turn_taking_options(self, campaign: Campaign) -> TurnTakingOptions:
        """The thresholds of one call."""
        settings, rules = self.settings, campaign.rules
        no_input_s = rules.no_input_s or settings.no_input_s
        max_call_s = rules.max_call_s or settings.max_call_s
        return TurnTakingOptions(
            barge_in=settings.barge_in if rules.barge_in is None else rules.barge_in,
            is_greeting_protected=rules.protect_greeting,
            has_disclosure=bool(campaign.phrases.disclosure),
            no_input_ms=round(no_input_s * 1000),
            max_reprompts=rules.max_reprompts,
            max_call_ms=round(max_call_s * 1000),
            opt_out_key=rules.opt_out_key,
            max_retries=rules.max_retries,
            first_audio_timeout_ms=round(settings.first_audio_timeout_s * 1000),
        )

    def endpointing_options(self, *, is_full_duplex: bool) -> EndpointingOptions:
        """When the caller's turn counts as over on this kind of leg."""
        if not is_full_duplex:
            # a recording ends by itself after a second of silence; shorter pauses
            # inside it are pauses of thought, and nothing is won by reacting to them
            return EndpointingOptions.fixed(1500)
        if self.settings.endpoint_ms:
            return EndpointingOptions.fixed(self.settings.endpoint_ms)
        return EndpointingOptions()
