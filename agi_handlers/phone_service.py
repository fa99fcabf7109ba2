"""The phone half as a process: everything a call needs, put together from the settings.

Started by the supervisor (`agi_handlers.supervision`), which owns the ports.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from agi_handlers import routes
from agi_handlers.agi.server import AgiServer, AgiServerOptions
from agi_handlers.ami.watch import AmiOptions, AmiWatch, parse_addresses
from agi_handlers.audio_leg.choose_leg import LegChooser, LegOptions
from agi_handlers.audio_leg.frame_wheel import run_frame_wheel
from agi_handlers.audio_leg.media_port import MediaPortOptions, open_media_port
from agi_handlers.call_records import CallRecords, RecordsOptions
from agi_handlers.campaign_shelf import CampaignShelf
from agi_handlers.campaigns import CampaignsInvalid
from agi_handlers.phone import Phone
from agi_handlers.recording import RecordingOptions, RecordingStore
from agi_handlers.records.store import StoreOptions
from agi_handlers.supervision.supervised import Supervised
from agi_handlers.turn_traces import TracesUnavailable, otlp_traces
from agi_handlers.vicidial.call_facts import CallControlOptions
from agi_handlers.vicidial.client import VicidialOptions, VicidialOptionsInvalid
from agi_handlers.vicidial.responses import Vocabulary
from agi_handlers.vicidial.service import Vicidial, open_vicidial
from config import Settings, comma_list
from model.audio.prompts import Prompt, PromptUnusable, load_languages, load_prompts
from model.client import (
    ControlLink,
    HeartbeatSender,
    RemoteSpeechService,
    SpeechClientOptions,
)
from model.vad.detector import load_detector
from telemetry import count_tasks, fields

logger = logging.getLogger(__name__)

_FAREWELL_S = 6.0  # at the end of a drain: time to say that people take over
_HAND_OVER_S = 2.0  # and then for the last calls to reach them
_FIRST_STATUS_S = 2.0  # for the speech half to say how it is, before calls come
_DRAIN_HOOK_S = 5.0  # a dialer that does not answer holds up no drain
_NEVER_S = 1e9


class PhoneHalfInvalid(Exception):
    """Campaigns, prompts or VICIdial settings are wrong; `problems`, a line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Persona:
    """What is read from disk before anything is started."""

    campaigns: CampaignShelf
    prompts: Mapping[str, Prompt]
    prompts_in: Mapping[str, Mapping[str, Prompt]]
    """The same in other languages."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """What the supervisor has opened for us."""

    agi_listener: socket.socket
    audio_listener: socket.socket
    control: socket.socket

    @classmethod
    def from_text(cls, text: str) -> Inherited:
        """Of the descriptors' numbers, as --phone-half has them.

        Raises:
            ValueError: not three descriptors of sockets.
        """
        agi, audio, control = (int(part) for part in text.split(","))
        try:
            return cls(*(socket.socket(fileno=one) for one in (agi, audio, control)))
        except OSError as exc:
            raise ValueError(f"{text}: {exc}") from exc


def read_persona(settings: Settings) -> Persona:
    """Campaigns and prompts, checked.

    Raises:
        PhoneHalfInvalid: with every mistake.
    """
    problems: list[str] = []
    campaigns: CampaignShelf | None = None
    prompts: Mapping[str, Prompt] = {}
    prompts_in: Mapping[str, Mapping[str, Prompt]] = {}
    try:
        campaigns = CampaignShelf.open(settings.campaigns_dir, settings.language)
    except CampaignsInvalid as exc:
        problems += exc.problems
    try:
        prompts = load_prompts(settings.sounds_dir)
        prompts_in = load_languages(settings.sounds_dir)
    except PromptUnusable as exc:
        problems.append(str(exc))
    try:
        _vicidial_options(settings)
    except VicidialOptionsInvalid as exc:
        problems.append(f"ULTRAVOX_VICIDIAL_…: {exc}")
    if settings.otlp_url:
        try:
            with otlp_traces(settings.otlp_url, "check"):
                pass
        except TracesUnavailable as exc:
            problems.append(str(exc))
    try:
        _ami_watch(settings)
    except ValueError as exc:
        problems.append(f"ULTRAVOX_AMI_…: {exc}")
    if problems or campaigns is None:
        raise PhoneHalfInvalid(problems)
    return Persona(campaigns, prompts, prompts_in)


async def serve(
    settings: Settings, persona: Persona, inherited: Inherited, urls: list[str]
) -> None:
    """Take calls until told to end; `urls` are the speech halves'."""
    loop = asyncio.get_running_loop()
    count_tasks(loop)
    async with AsyncExitStack() as stack:
        media_port = await stack.enter_async_context(
            open_media_port(_media_port_options(settings), inherited.audio_listener)
        )
        supervised = Supervised(inherited.control, media_port)
        stack.callback(supervised.close)
        supervised.start()
        wheel = stack.enter_context(run_frame_wheel())
        ami = _ami_watch(settings)
        speech = await stack.enter_async_context(_speech_client(settings, urls))
        phone = Phone(
            settings=settings,
            speech=speech,
            legs=LegChooser(_leg_options(settings), media_port, wheel, ami),
            detector=load_detector(settings.vad),
            prompts=persona.prompts,
            prompts_in=persona.prompts_in,
            campaigns=persona.campaigns,
        )
        persona.campaigns.on_problem = phone.note_problem
        _keep_calls(phone, stack)
        name, key = _phone_name(settings), settings.api_key.get_secret_value()
        heartbeat = HeartbeatSender(
            urls, name, lambda: phone.heartbeat(wheel.stats.num_late_ticks), key
        )
        link = ControlLink(urls, name, phone.live, key)
        work = [*(phone.watch_speech(), heartbeat.run(), link.run(), supervised.beat())]
        work += [persona.campaigns.watch(), *([ami.run()] if ami else [])]
        vicidial = await _join_vicidial(phone, persona, stack)
        if vicidial is not None:
            work.append(vicidial.run(lambda: phone.speech_status.is_ready))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        background = [tasks.create_task(one) for one in work]
        await phone.speech_known(_FIRST_STATUS_S)
        server = await stack.enter_async_context(
            AgiServer(
                routes(phone),
                _agi_options(settings),
                listener=inherited.agi_listener,
            )
        )
        # what is loaded by now stays: the collector need not walk it in mid-call
        gc.collect()
        gc.freeze()
        ports = {"agi_port": server.port, "audio_port": media_port.port}
        logger.info("listening", extra=fields(**ports, speech=",".join(urls)))
        shift = _Shift(phone, server, heartbeat, persona.campaigns)
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, shift.drain, settings.drain_s)
        supervised.ready(shift)
        await shift.over()
        for task in background:
            task.cancel()


async def _join_vicidial(
    phone: Phone, persona: Persona, stack: AsyncExitStack
) -> Vicidial | None:
    """Have the calls be VICIdial's, where the settings name one."""
    settings = phone.settings
    options = _vicidial_options(settings)
    if options is None:
        return None
    phone.vicidial = await stack.enter_async_context(
        open_vicidial(
            options,
            _call_control_options(settings),
            settings.data_dir,
            drains=_drained_lines(settings, persona.campaigns),
            confirm=phone.confirmed,
        )
    )
    phone.live.vicidial = partial(_vicidial_state, phone.vicidial)
    phone.on_draining.append(phone.vicidial.drain)
    return phone.vicidial


class _Shift:
    """A phone half's work from its first call to its last."""

    def __init__(
        self,
        phone: Phone,
        server: AgiServer,
        heartbeat: HeartbeatSender,
        campaigns: CampaignShelf,
    ) -> None:
        self._phone = phone
        self._server = server
        self._heartbeat = heartbeat
        self._campaigns = campaigns
        self._asked = asyncio.Event()
        self._drain_by_s: float | None = None
        self._is_retiring = False

    def drain(self, within_s: float) -> None:
        """Refuse new calls; running ones have so long to end, then people take over."""
        by_s = asyncio.get_running_loop().time() + within_s
        self._drain_by_s = min(by_s, self._drain_by_s or by_s)
        self._asked.set()

    def retire(self) -> None:
        """Another one takes the new calls; end with the last of ours."""
        self._is_retiring = True
        self._asked.set()

    def reload(self) -> None:
        """Read campaigns again; a mistake in them leaves everything as it was."""
        self._campaigns.reload()

    async def over(self) -> None:
        """Until asked to end, and then until it has ended."""
        await self._asked.wait()
        phone, is_over = self._phone, False
        while not is_over:
            self._asked.clear()
            if self._drain_by_s is not None and not phone.is_draining:
                await self._begin_drain()
            last_call = asyncio.create_task(self._last_call_over())
            changed = asyncio.create_task(self._asked.wait())
            await asyncio.wait(
                {last_call, changed},
                timeout=self._left_s(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            changed.cancel()
            is_over = last_call.done()
            if not is_over and self._left_s() == 0.0:
                for wait_s in (_FAREWELL_S, _HAND_OVER_S):
                    phone.shut_down_calls()
                    await asyncio.wait({last_call}, timeout=wait_s)
                is_over = True
            last_call.cancel()
            await asyncio.wait({last_call})
        logger.info("phone_half_stopped")

    async def _begin_drain(self) -> None:
        phone = self._phone
        logger.info(
            "draining", extra=fields(calls=phone.num_calls, seconds=self._left_s())
        )
        phone.is_draining = True
        for hook in phone.on_draining:
            try:
                async with asyncio.timeout(_DRAIN_HOOK_S):
                    await hook()
            except TimeoutError:
                logger.warning("drain_hook_overdue", extra=fields(hook=repr(hook)))

    async def _last_call_over(self) -> None:
        if not self._is_retiring:
            await self._server.drain(_NEVER_S)
            return
        logger.info("retiring", extra=fields(calls=self._phone.num_calls))
        self._heartbeat.name = f"{socket.gethostname()} retiring {os.getpid()}"
        if self._phone.vicidial is not None:
            self._phone.vicidial.retire()
        await self._server.retire()

    def _left_s(self) -> float | None:
        """Until the drain's deadline; None: there is none."""
        if self._drain_by_s is None:
            return None
        return max(0.0, self._drain_by_s - asyncio.get_running_loop().time())


def _media_port_options(settings: Settings) -> MediaPortOptions:
    return MediaPortOptions(
        host=settings.audiosocket_host,
        port=settings.audiosocket_port,
        allowed_peers=tuple(comma_list(settings.allowed_dialers)),
    )


def _agi_options(settings: Settings) -> AgiServerOptions:
    return AgiServerOptions(
        host=settings.agi_host,
        port=settings.agi_port,
        allowed_peers=tuple(comma_list(settings.allowed_dialers)),
    )


def _leg_options(settings: Settings) -> LegOptions:
    return LegOptions(
        media=settings.media,
        advertise=settings.audiosocket_advertise,
        shared_dir=settings.shared_dir,
        exchange_dir=settings.data_dir / "exchange",
        asterisk_dir=settings.asterisk_dir,
    )


def _ami_watch(settings: Settings) -> AmiWatch | None:
    """Raises ValueError: an address is none."""
    addresses = parse_addresses(comma_list(settings.ami_addresses))
    if not addresses:
        return None
    password = settings.ami_password.get_secret_value()
    return AmiWatch(AmiOptions(settings.ami_user, password, addresses))


def _vicidial_options(settings: Settings) -> VicidialOptions | None:
    """None: there is no VICIdial.  Raises VicidialOptionsInvalid."""
    if not settings.vicidial_url:
        return None
    try:
        vocabulary = Vocabulary.parse(comma_list(settings.vicidial_phrases))
    except ValueError as exc:
        raise VicidialOptionsInvalid(f"PHRASES: {exc}") from exc
    return VicidialOptions(
        url=settings.vicidial_url,
        user=settings.vicidial_user,
        password=settings.vicidial_password.get_secret_value(),
        timeout_s=settings.vicidial_timeout_s,
        ca_file=settings.vicidial_ca,
        vocabulary=vocabulary,
    )


def _call_control_options(settings: Settings) -> CallControlOptions:
    return CallControlOptions(
        agent_user=settings.vicidial_agent_user,
        num_lines=settings.vicidial_lines,
        ending_timeout_s=settings.vicidial_timeout_s,
    )


def _drained_lines(settings: Settings, campaigns: CampaignShelf) -> list[str]:
    """Remote agents whose lines are closed when the service stops."""
    if not settings.vicidial_drain:
        return []
    own = [campaign.vicidial.agent_user for campaign in campaigns.values()]
    return [settings.vicidial_agent_user, *own]


def _keep_calls(phone: Phone, stack: AsyncExitStack) -> None:
    """Records, recordings and traces, as far as settings and campaigns want them."""
    settings = phone.settings
    if settings.otlp_url:
        phone.traces = stack.enter_context(
            otlp_traces(settings.otlp_url, _phone_name(settings))
        )
    if settings.records:
        phone.records = CallRecords(_records_options(settings), phone.note_problem)
        stack.enter_context(phone.records.running())
    # a campaign may want it later, and what was recorded before has to expire
    phone.recordings = RecordingStore(_recording_options(settings), phone.note_problem)
    stack.enter_context(phone.recordings.running())


def _recording_options(settings: Settings) -> RecordingOptions:
    return RecordingOptions(
        data_dir=settings.data_dir,
        days=settings.recordings_days,
        max_disk_percent=settings.recordings_disk_percent,
        form=settings.recordings_format,
        min_free_bytes=settings.recordings_min_free_mb << 20,
    )


def _vicidial_state(vicidial: Vicidial) -> str:
    return vicidial.problem or "ok"


def _phone_name(settings: Settings) -> str:
    """Tells phone halves apart that share a host, a store or a speech half."""
    return f"{socket.gethostname()}:{settings.agi_port}"


def _records_options(settings: Settings) -> RecordsOptions:
    return RecordsOptions(
        store=StoreOptions(
            settings.data_dir,
            settings.records_url.get_secret_value(),
            settings.caller_key.get_secret_value(),
        ),
        owner=_phone_name(settings),
        numbers=settings.records_numbers,
        days=settings.records_days,
    )


def _speech_client(settings: Settings, urls: list[str]) -> RemoteSpeechService:
    return RemoteSpeechService(
        urls,
        settings.api_key.get_secret_value(),
        SpeechClientOptions(first_event_timeout_s=settings.first_audio_timeout_s),
    )
