"""The service: takes calls from Asterisk and starts the speech half beside itself.

Opens the FastAGI port and the audio port.  Unless ULTRAVOX_API_URL names running
speech servers, `ultravox_api_server.py` is started as a supervised child, which also
answers on the HTTP port.  SIGTERM and SIGINT drain: new calls are refused, running
ones may end.  SIGHUP has API keys read again.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import uvloop

from agi_handlers import routes
from agi_handlers.agi.server import AgiServer, AgiServerOptions
from agi_handlers.audio_leg.choose_leg import LegChooser, LegOptions
from agi_handlers.audio_leg.frame_wheel import run_frame_wheel
from agi_handlers.audio_leg.media_port import MediaPortOptions, open_media_port
from agi_handlers.call_records import CallRecords, RecordsOptions, records_path
from agi_handlers.campaigns import Campaign, CampaignsInvalid, load_campaigns
from agi_handlers.errors import ListenFailed
from agi_handlers.phone import Phone
from agi_handlers.recording import RecordingOptions, RecordingStore
from agi_handlers.records.recording_files import FOLDER as RECORDINGS
from agi_handlers.sidecar import Sidecar, SidecarOptions, sidecar_command
from agi_handlers.vicidial.call_facts import CallControlOptions
from agi_handlers.vicidial.client import VicidialOptions, VicidialOptionsInvalid
from agi_handlers.vicidial.responses import Vocabulary
from agi_handlers.vicidial.service import open_vicidial
from config import ConfigError, Settings, comma_list, load
from model.audio.prompts import Prompt, PromptUnusable, load_prompts
from model.client import (
    ControlLink,
    HeartbeatSender,
    RemoteSpeechService,
    SpeechClientOptions,
)
from model.vad.detector import load_detector
from telemetry import fields, set_up_logging

logger = logging.getLogger("fastagi_server")

_ROOT = Path(__file__).resolve().parent
_HAND_OVER_S = 2.0  # at the end of a drain: time for the last calls to reach people


def main(argv: list[str] | None = None) -> int:
    """Run the service; 0 after an orderly end, 1 on a failure, 2 on bad settings."""
    parser = argparse.ArgumentParser(
        prog="fastagi_server.py",
        description=__doc__,
        epilog="Settings are environment variables ULTRAVOX_… or keys of "
        "ultravox.toml; the README has the table.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="read settings, campaigns and prompts, report every mistake, and end",
    )
    arguments = parser.parse_args(argv)
    problems: list[str] = []
    try:
        settings = load()
    except ConfigError as exc:
        for problem in exc.problems:
            print(f"fastagi_server: {problem}", file=sys.stderr)
        return 2
    set_up_logging(settings.log_level, settings.log_format)
    try:
        campaigns = load_campaigns(settings.campaigns_dir)
    except CampaignsInvalid as exc:
        problems += exc.problems
    try:
        prompts = load_prompts(settings.sounds_dir)
    except PromptUnusable as exc:
        problems.append(str(exc))
    try:
        _vicidial_options(settings)
    except VicidialOptionsInvalid as exc:
        problems.append(f"ULTRAVOX_VICIDIAL_…: {exc}")
    if problems:
        for problem in problems:
            print(f"fastagi_server: {problem}", file=sys.stderr)
        return 2
    if arguments.check:
        print(f"settings, {len(campaigns)} campaigns, {len(prompts)} prompts: all well")
        return 0
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, _Persona(campaigns, prompts)))
    except ListenFailed as exc:
        logger.error("cannot_listen", extra=fields(error=str(exc)))
        return 1
    return 0


@dataclass(frozen=True, slots=True)
class _Persona:
    """What was read from disk before anything was started."""

    campaigns: Mapping[str, Campaign]
    prompts: Mapping[str, Prompt]


async def _serve(settings: Settings, persona: _Persona) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    urls = comma_list(settings.api_url)
    sidecar: Sidecar | None = None
    if not urls:
        _check_http_port(settings)
        urls = [_own_url(settings)]
        sidecar = Sidecar(SidecarOptions(url=urls[0], command=sidecar_command(_ROOT)))
    loop.add_signal_handler(signal.SIGHUP, _pass_on_reload, sidecar)
    async with AsyncExitStack() as stack:
        media_port = await stack.enter_async_context(
            open_media_port(_media_port_options(settings))
        )
        wheel = stack.enter_context(run_frame_wheel())
        speech = await stack.enter_async_context(_speech_client(settings, urls))
        phone = Phone(
            settings=settings,
            speech=speech,
            legs=LegChooser(_leg_options(settings), media_port, wheel),
            detector=load_detector(settings.vad),
            prompts=persona.prompts,
            campaigns=persona.campaigns,
        )
        _keep_calls(phone, stack)
        name, key = _phone_name(settings), settings.api_key.get_secret_value()
        heartbeat = HeartbeatSender(
            urls, name, lambda: phone.heartbeat(wheel.stats.num_late_ticks), key
        )
        link = ControlLink(urls, name, phone.live, key)
        work = [phone.watch_speech(), heartbeat.run(), link.run()]
        vicidial = _vicidial_options(settings)
        if vicidial is not None:
            control = _call_control_options(settings)
            phone.vicidial = await stack.enter_async_context(
                open_vicidial(vicidial, control, settings.data_dir)
            )
            work.append(phone.vicidial.run())
        if sidecar is not None:
            work.append(sidecar.run())
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        background = [tasks.create_task(one) for one in work]
        server = await stack.enter_async_context(
            AgiServer(routes(phone), _agi_options(settings))
        )
        # what is loaded by now stays: the collector need not walk it in mid-call
        gc.collect()
        gc.freeze()
        ports = {"agi_port": server.port, "audio_port": media_port.port}
        logger.info("listening", extra=fields(**ports, speech=",".join(urls)))
        await stop.wait()
        await _drain(phone, server, settings.drain_s)
        for task in background:
            task.cancel()


def _pass_on_reload(sidecar: Sidecar | None) -> None:
    """SIGHUP: the speech half reads its API keys again; calls go on."""
    pid = sidecar.pid if sidecar is not None else None
    logger.info("reload", extra=fields(passed_on=pid is not None))
    if pid is not None:
        with suppress(ProcessLookupError):  # it has just ended, and reads them anew
            os.kill(pid, signal.SIGHUP)


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


def _keep_calls(phone: Phone, stack: AsyncExitStack) -> None:
    """Records and recordings, as far as settings and campaigns want them."""
    settings = phone.settings
    if settings.records:
        phone.records = CallRecords(_records_options(settings), phone.note_problem)
        stack.enter_context(phone.records.running())
    is_wanted = any(phone.is_recorded(one) for one in phone.campaigns.values())
    # what was recorded before expires though nothing more is recorded
    if is_wanted or (settings.data_dir / RECORDINGS).exists():
        phone.recordings = RecordingStore(
            _recording_options(settings), phone.note_problem
        )
        stack.enter_context(phone.recordings.running())


def _recording_options(settings: Settings) -> RecordingOptions:
    return RecordingOptions(
        data_dir=settings.data_dir,
        days=settings.recordings_days,
        max_disk_percent=settings.recordings_disk_percent,
        form=settings.recordings_format,
        min_free_bytes=settings.recordings_min_free_mb << 20,
    )


def _phone_name(settings: Settings) -> str:
    """Tells phone halves apart that share a host, a store or a speech half."""
    return f"{socket.gethostname()}:{settings.agi_port}"


def _records_options(settings: Settings) -> RecordsOptions:
    return RecordsOptions(
        path=records_path(settings.data_dir),
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


async def _drain(phone: Phone, server: AgiServer, drain_s: float) -> None:
    logger.info("draining", extra=fields(calls=phone.num_calls, seconds=drain_s))
    phone.is_draining = True
    if not await server.drain(drain_s):
        phone.shut_down_calls()
        await server.drain(_HAND_OVER_S)
    logger.info("stopped")


def _own_url(settings: Settings) -> str:
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://127.0.0.1:{settings.port}"


def _check_http_port(settings: Settings) -> None:
    """Find out before anything starts that the speech half's port is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as exc:
            raise ListenFailed(
                f"HTTP port {settings.host}:{settings.port} (ULTRAVOX_PORT): "
                f"{exc.strerror}"
            ) from exc


if __name__ == "__main__":
    sys.exit(main())
