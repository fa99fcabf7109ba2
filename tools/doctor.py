"""Check an installation: one line a finding, and what to do about what is wrong.

    python -m tools.doctor            before the start, or beside the running service
    python -m tools.doctor --json     the same as one JSON list on the last line
    AMI_SECRET=... python -m tools.doctor --call Local/8901@default/n --ami DIALER:5038
                                      and a test call through the real dialer

Reads the settings as the service does, and changes nothing but an empty data folder.
Exit status: 0 nothing is broken (warnings may stand), 1 something is, 2 the settings
are wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import resource
import shutil
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, TypeAlias

import httpx

import config
from agi_handlers.call_records import records_path
from agi_handlers.campaigns import CampaignsInvalid, load_campaigns
from agi_handlers.errors import TelephonyError, VicidialError
from agi_handlers.records.archive import NoRecords
from agi_handlers.records.store import open_archive
from agi_handlers.vicidial.client import (
    Api,
    VicidialClient,
    VicidialOptions,
    VicidialOptionsInvalid,
)
from agi_handlers.vicidial.permissions import missing_in_groups, missing_permissions
from config import Settings, comma_list
from model.audio.prompts import PromptUnusable, load_languages, load_prompts
from model.errors import SpeechError
from model.http_bodies import plain_client
from model.vad.detector import load_detector
from rest_api.auth import ApiKeysInvalid, KeyRing
from rest_api.engines import DEMO_MODEL, choose_model
from rest_api.start_up import tts_options
from tools.ami import AmiFailed
from tools.caller.say_items import parse_item
from tools.dialer_call import Dialer, place_test_call
from tools.records_store import store_of

Verdict: TypeAlias = Literal["ok", "note", "warn", "FAIL"]

_TIMEOUT_S: Final = 5.0
_MODEL_TIMEOUT_S: Final = 60.0
_LEAST_FREE_MB: Final = 500  # records, logs, a new model's index
_FILES_A_CALL: Final = 8  # AGI, audio, WebSocket, a relay's, with room
_CLOCK_WARN_S: Final = 2.0
_TEST_CALL: Final = (
    *("wait:200,0", "quiet:200,1", "say:What are your opening hours?"),
    *("wait:200,0", "quiet:200,1", "bye"),
)
_TEST_CALL_S: Final = 45.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found."""

    what: str
    verdict: Verdict
    text: str
    cure: str = ""

    def __str__(self) -> str:
        line = f"{self.verdict:<5} {self.what}: {self.text}"
        return f"{line} -> {self.cure}" if self.cure else line


def main(arguments: list[str] | None = None) -> int:
    """0 well, 1 something is broken, 2 wrong settings."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.doctor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="JSON on the last line")
    parser.add_argument(
        "--call",
        metavar="CHANNEL",
        help="what reaches the bot on the dialer, e.g. Local/8901@default/n; its "
        "manager user needs `originate`, the secret is taken from AMI_SECRET",
    )
    parser.add_argument("--ami", default="127.0.0.1:5038", metavar="HOST:PORT")
    parser.add_argument("--ami-user", default="ultravox", metavar="NAME")
    parser.add_argument(
        "--own-address",
        default="",
        metavar="ADDRESS",
        help="of this machine as the dialer sees it; found out if left out",
    )
    given = parser.parse_args(arguments)
    try:
        settings = config.load()
    except config.ConfigError as exc:
        findings = [
            Finding("settings", "FAIL", problem, "correct it; README has the table")
            for problem in exc.problems
        ]
        _show(findings, as_json=given.json)
        return 2
    looks = examine(settings) if given.call is None else _with_call(settings, given)
    findings = asyncio.run(_examine(looks, quiet=given.json))
    _show(findings if given.json else [], as_json=given.json)
    broken = sum(finding.verdict == "FAIL" for finding in findings)
    if not given.json:
        print(f"{len(findings)} looks, {broken} broken")
    return 1 if broken else 0


def _show(findings: list[Finding], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            print(finding)


async def _examine(looks: AsyncIterator[Finding], *, quiet: bool) -> list[Finding]:
    findings: list[Finding] = []
    async for finding in looks:
        findings.append(finding)
        if not quiet:
            print(finding, flush=True)
    return findings


async def _with_call(
    settings: Settings, given: argparse.Namespace
) -> AsyncIterator[Finding]:
    async for finding in examine(settings):
        yield finding
    async for finding in call_through_dialer(given):
        yield finding


async def call_through_dialer(given: argparse.Namespace) -> AsyncIterator[Finding]:
    """A call through the dialer: is the bot heard, and does it hear?"""
    what = f"test call {given.call}"
    host, _, port = given.ami.rpartition(":")
    if not host or not port.isdecimal():
        yield Finding(what, "FAIL", f"--ami {given.ami}", "HOST:PORT is wanted")
        return
    dialer = Dialer(
        host=host.strip("[]"),
        port=int(port),
        user=given.ami_user,
        secret=os.environ.get("AMI_SECRET", ""),
        own_address=given.own_address or _address_towards(host.strip("[]")),
    )
    items = [parse_item(text) for text in _TEST_CALL]
    try:
        heard = await place_test_call(dialer, given.call, items, _TEST_CALL_S)
    except AmiFailed as exc:
        cure = "manager.conf on the dialer (user, secret, permit, write=originate); "
        yield Finding(what, "FAIL", str(exc), cure + "--call, --own-address")
        return
    yield Finding(what, "ok", "placed, and answered by the dialplan")
    if heard.first_sound_ms is None:
        cure = (
            "audio from the bot does not come through: ULTRAVOX_AUDIOSOCKET_ADVERTISE"
        )
        yield Finding("bot is heard", "FAIL", "not a sound in the call", cure)
        return
    text = f"after {heard.first_sound_ms} ms, {heard.heard_s:.1f} s in all"
    yield Finding("bot is heard", "ok", text)
    answers = [one.response_ms for one in heard.turns if one.response_ms is not None]
    if answers:
        yield Finding("bot hears", "ok", f"it answered after {answers[0]} ms")
    else:
        cure = (
            "the caller's audio does not reach it, or its model gave no answer: /health"
        )
        yield Finding("bot hears", "FAIL", "a question got no answer", cure)


def _address_towards(host: str) -> str:
    """Our address on the way there; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Every look, in the order in which one thing needs another."""
    yield Finding("settings", "ok", "all are known and fit together")
    for finding in (*_personas(settings), *_disk(settings), *_limits(settings)):
        yield finding
    for finding in (*_keys(settings), *_detector(settings), *_advertised(settings)):
        yield finding
    for finding in await asyncio.to_thread(lambda: list(_ports(settings))):
        yield finding
    async for finding in _speech_halves(settings):
        yield finding
    async for finding in _model(settings):
        yield finding
    async for finding in _voice(settings):
        yield finding
    async for finding in _vicidial(settings):
        yield finding
    async for finding in _clock(settings):
        yield finding


def _personas(settings: Settings) -> Iterator[Finding]:
    try:
        campaigns = load_campaigns(settings.campaigns_dir, settings.language)
        names = ", ".join(sorted(campaigns))
        yield Finding("campaigns", "ok", f"{len(campaigns)}: {names}")
    except CampaignsInvalid as exc:
        for problem in exc.problems:
            yield Finding("campaigns", "FAIL", problem, "correct that file")
    try:
        prompts = load_prompts(settings.sounds_dir)
        tags = load_languages(settings.sounds_dir)
        others = f", also in {', '.join(tags)}" if tags else ""
        found = f"{len(prompts)} in {settings.sounds_dir}{others}"
        yield Finding("prompts", "ok", found)
    except PromptUnusable as exc:
        cure = "restore the file, or make it: python -m sounds.make_prompts"
        yield Finding("prompts", "FAIL", str(exc), cure)


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free_mb = shutil.disk_usage(folder).free >> 20
    except OSError as exc:
        cure = "ULTRAVOX_DATA_DIR must be a folder this user may write"
        yield Finding("data folder", "FAIL", f"{folder}: {exc.strerror}", cure)
        return
    least_mb = settings.recordings_min_free_mb if settings.recordings else 0
    least_mb = max(_LEAST_FREE_MB, least_mb)
    yield Finding(
        "data folder",
        "ok" if free_mb >= least_mb else "FAIL",
        f"{folder} is writable, {free_mb} MB free",
        "" if free_mb >= least_mb else f"make room: {least_mb} MB are wanted",
    )
    yield _records(settings)


def _records(settings: Settings) -> Finding:
    path = records_path(settings.data_dir)
    if not settings.records:
        return Finding("call records", "note", "switched off (ULTRAVOX_RECORDS)")
    if settings.records_url.get_secret_value():
        return _shared_records(settings)
    if not path.exists():
        return Finding("call records", "ok", "none yet; the first call makes them")
    try:
        with closing(sqlite3.connect(path, timeout=_TIMEOUT_S)) as connection:
            connection.execute("PRAGMA query_only=ON")
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            (number,) = connection.execute("SELECT count(*) FROM calls").fetchone()
    except sqlite3.Error as exc:
        verdict, number = str(exc), 0
    if verdict != "ok":
        cure = "the service moves a corrupt file aside at its next write; restore one"
        return Finding("call records", "FAIL", f"{path}: {verdict}", cure)
    return Finding("call records", "ok", f"{number} calls in {path}")


def _shared_records(settings: Settings) -> Finding:
    try:
        campaigns = open_archive(store_of(settings), _TIMEOUT_S).campaigns()
    except NoRecords:
        return Finding("call records", "ok", "none yet in the shared store")
    except (TelephonyError, OSError) as exc:
        cure = "calls go on, their records wait in memory; see ULTRAVOX_RECORDS_URL"
        return Finding("call records", "FAIL", f"shared store: {exc}", cure)
    text = f"the shared store has calls of {len(campaigns)} campaigns"
    return Finding("call records", "ok", text)


def _limits(settings: Settings) -> Iterator[Finding]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_calls * _FILES_A_CALL + 200
    text = f"{soft} open files allowed, {settings.max_calls} calls want {wanted}"
    cure = "raise LimitNOFILE= of the unit, or ulimit -n"
    is_enough = soft == resource.RLIM_INFINITY or soft >= wanted
    yield Finding(
        "limits", "ok" if is_enough else "FAIL", text, "" if is_enough else cure
    )


def _keys(settings: Settings) -> Iterator[Finding]:
    setting = settings.api_keys.get_secret_value()
    if settings.auth == "off":
        cure = "ULTRAVOX_AUTH=auto, unless a proxy in front asks for a login"
        yield Finding("API keys", "warn", "the HTTP port asks for none", cure)
        return
    try:
        keys = KeyRing.parse(setting)
    except ApiKeysInvalid as exc:
        cure = "name:key,name:key with long random keys"
        yield Finding("API keys", "FAIL", f"ULTRAVOX_API_KEYS: {exc}", cure)
        return
    if keys.digests:
        yield Finding(
            "API keys", "ok", f"{len(keys.digests)}: {', '.join(keys.digests)}"
        )
    else:
        yield Finding("API keys", "ok", "none set; the first start makes and shows one")


def _detector(settings: Settings) -> Iterator[Finding]:
    try:
        load_detector(settings.vad)
        yield Finding("speech detector", "ok", settings.vad)
    except SpeechError as exc:
        cure = "install requirements.txt again, or ULTRAVOX_VAD=webrtc"
        yield Finding("speech detector", "FAIL", str(exc), cure)


def _advertised(settings: Settings) -> Iterator[Finding]:
    told = settings.audiosocket_advertise
    if not told:
        text = "dialers are told the address their AGI connection came to"
        yield Finding("audio address", "ok", text)
        return
    host = told.rsplit(":", 1)[0] if told.count(":") == 1 else told.strip("[]")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
        yield Finding("audio address", "ok", f"dialers are told {told} ({found})")
    except OSError as exc:
        cure = "ULTRAVOX_AUDIOSOCKET_ADVERTISE must be a name or address dialers know"
        yield Finding("audio address", "FAIL", f"{told}: {exc.strerror}", cure)


def _ports(settings: Settings) -> Iterator[Finding]:
    status = _agi_status(settings)
    ports = {
        "AGI_PORT": (settings.agi_host, settings.agi_port),
        "AUDIOSOCKET_PORT": (settings.audiosocket_host, settings.audiosocket_port),
    }
    if not settings.api_url:
        ports["PORT"] = (settings.host, settings.port)
    for name, (host, port) in ports.items():
        yield _port(f"ULTRAVOX_{name}", host, port, is_running=bool(status))
    if status is None:
        yield Finding("calls", "note", "the service is not running: not asked")
    elif status == "ready":
        yield Finding("calls", "ok", "the running service takes calls")
    else:
        cure = "see the speech half below, the service's log, and /health"
        yield Finding(
            "calls", "FAIL", f"agi://.../health says {status or 'nothing'}", cure
        )


def _port(setting: str, host: str, port: int, *, is_running: bool) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    what, where = "port", f"{host}:{port}"
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE and is_running:
                return Finding(what, "ok", f"{where} is in use, the service runs")
            cure = f"{setting}: an address and port that are free and allowed"
            return Finding(what, "FAIL", f"{where}: {exc.strerror}", cure)
    return Finding(what, "ok", f"{where} is free")


def _agi_status(settings: Settings) -> str | None:
    """BOT_STATUS of agi://…/health; None: nobody listens, empty: no AGI there."""
    host = _reachable(settings.agi_host)
    request = (
        f"agi_network: yes\nagi_network_script: health\nagi_request: agi://{host}/health"
        "\nagi_channel: Doctor/1\nagi_uniqueid: 0.0\nagi_version: 18.0.0\n\n"
    )
    try:
        with socket.create_connection((host, settings.agi_port), _TIMEOUT_S) as agi:
            agi.sendall(request.encode())
            with agi.makefile("r", errors="replace") as commands:
                for command in commands:
                    words = command.split()
                    if words[:3] == ["SET", "VARIABLE", "BOT_STATUS"]:
                        return words[3].strip('"')
                    agi.sendall(b"200 result=1\n")
    except ConnectionRefusedError:
        return None
    except OSError:
        return ""
    return ""


async def _speech_halves(settings: Settings) -> AsyncIterator[Finding]:
    for url in comma_list(settings.api_url) or [_own_url(settings)]:
        yield await _speech_half(settings, url.rstrip("/"))


async def _speech_half(settings: Settings, url: str) -> Finding:
    what = f"speech half {url}"
    key = settings.api_key.get_secret_value()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    is_ours = not settings.api_url
    try:
        # on loopback the certificate names another host
        async with plain_client(
            timeout=_TIMEOUT_S, trust_env=False, verify=not is_ours, headers=headers
        ) as http:
            health = (await http.get(f"{url}/health")).json()
            guarded = await http.get(f"{url}/memory")
    except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
        if is_ours:
            return Finding(what, "note", "not running: the service starts it")
        cure = "start it, or correct ULTRAVOX_API_URL"
        return Finding(what, "FAIL", f"not reachable: {exc}", cure)
    except (httpx.HTTPError, ValueError) as exc:
        cure = "something else listens there: ULTRAVOX_PORT, ULTRAVOX_API_URL"
        return Finding(what, "FAIL", f"no answer of ours: {exc!r}", cure)
    if guarded.status_code == httpx.codes.UNAUTHORIZED:
        cure = "ULTRAVOX_API_KEY must be one of its ULTRAVOX_API_KEYS"
        return Finding(what, "FAIL", "our key was refused", cure)
    return _judged(what, health)


def _judged(what: str, health: Any) -> Finding:
    try:
        status, detail = health["status"], health["detail"]
        model, note = health["model"]["name"], health["model"]["detail"]
    except (KeyError, TypeError):
        return Finding(what, "FAIL", "its /health is not ours", "ULTRAVOX_API_URL")
    text = f"{status}, {model}" + "".join(
        f"; {part}" for part in (detail, note) if part
    )
    if status == "unhealthy":
        return Finding(what, "FAIL", text, "its log has the whole reason")
    return Finding(what, "ok" if status == "healthy" else "warn", text)


async def _model(settings: Settings) -> AsyncIterator[Finding]:
    if settings.api_url:
        yield Finding("model", "note", "the speech halves above have it")
    elif settings.engine == "scripted":
        cure = "ULTRAVOX_ENGINE=local for a model"
        yield Finding("model", "warn", "scripted replies, for tests only", cure)
    elif settings.engine == "openai":
        for url in comma_list(settings.engine_url):
            yield await _model_server(settings, url.rstrip("/"))
    else:
        yield await asyncio.to_thread(_local_model, settings)
    if settings.turn_model and not settings.api_url:
        name = settings.turn_model
        what = "model for the end of turns"
        yield await asyncio.to_thread(_files, what, name, "ULTRAVOX_TURN_MODEL", name)


async def _model_server(settings: Settings, url: str) -> Finding:
    what = f"model server {url}"
    key = settings.engine_api_key.get_secret_value()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    address = url if url.endswith("/v1") else f"{url}/v1"
    try:
        async with plain_client(timeout=_TIMEOUT_S, headers=headers) as http:
            answer = await http.get(f"{address}/models")
            answer.raise_for_status()
            names = [str(model["id"]) for model in answer.json()["data"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as exc:
        cure = "ULTRAVOX_ENGINE_URL, ULTRAVOX_ENGINE_API_KEY; does it run?"
        return Finding(what, "FAIL", f"{exc}" or repr(exc), cure)
    if settings.model and settings.model not in names:
        cure = "ULTRAVOX_MODEL must be one of these"
        return Finding(what, "FAIL", f"serves {', '.join(names)}", cure)
    return Finding(what, "ok", f"serves {', '.join(names)}")


def _local_model(settings: Settings) -> Finding:
    # torch: seconds to import, and nobody else here needs it
    import torch

    has_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if has_gpu else "CPU"
    if settings.device.startswith("cuda") and not has_gpu:
        cure = "install the driver and a CUDA torch, or ULTRAVOX_DEVICE=auto"
        return Finding("model", "FAIL", f"{settings.device} is set, no GPU found", cure)
    wanted = settings.device != "cpu" and has_gpu
    choice = choose_model(settings, has_gpu=wanted, demo=DEMO_MODEL)
    text = f"{choice.name} ({choice.reason}) on {device}"
    if choice.must_be_made or choice.name.startswith(str(settings.data_dir)):
        cure = "set ULTRAVOX_MODEL for a bot that speaks sense"
        return Finding("model", "warn", text, cure)
    return _files("model", choice.name, "ULTRAVOX_MODEL", text)


def _files(what: str, name: str, setting: str, text: str) -> Finding:
    """Whether a checkpoint's files are to be had; `text` if so."""
    from model.ultravox.repository import HubOptions, open_repository

    try:
        if open_repository(name, HubOptions()).find("config.json") is None:
            cure = f"{setting} must name a folder or hub repository of a model"
            return Finding(what, "FAIL", f"{name} has no config.json", cure)
    except SpeechError as exc:
        cure = "check the name, the network, HF_TOKEN and the model's licence page"
        return Finding(what, "FAIL", str(exc), cure)
    return Finding(what, "ok", text)


async def _voice(settings: Settings) -> AsyncIterator[Finding]:
    if settings.api_url:
        return
    from model.tts.open import open_synthesizer

    try:
        async with asyncio.timeout(_MODEL_TIMEOUT_S):
            synthesizer = await open_synthesizer(tts_options(settings))
            await synthesizer.aclose()
    except (SpeechError, TimeoutError) as exc:
        cure = "ULTRAVOX_TTS, ULTRAVOX_TTS_VOICE, ULTRAVOX_TTS_URL"
        yield Finding("voice", "FAIL", str(exc) or "did not start in time", cure)
    else:
        voice = settings.tts_voice or f"the default for {settings.language}"
        yield Finding("voice", "ok", f"{settings.tts}: {voice}")


async def _vicidial(settings: Settings) -> AsyncIterator[Finding]:
    if not settings.vicidial_url:
        yield Finding("VICIdial", "note", "not configured (ULTRAVOX_VICIDIAL_URL)")
        return
    try:
        options = VicidialOptions(
            url=settings.vicidial_url,
            user=settings.vicidial_user,
            password=settings.vicidial_password.get_secret_value(),
            timeout_s=settings.vicidial_timeout_s,
            ca_file=settings.vicidial_ca,
        )
    except VicidialOptionsInvalid as exc:
        yield Finding("VICIdial", "FAIL", str(exc), "ULTRAVOX_VICIDIAL_URL, _USER, …")
        return
    async with VicidialClient(options) as client:
        apis: tuple[Api, ...] = ("non_agent", "agent")
        for api in apis:
            what = f"VICIdial {api.replace('_', '-')} API"
            try:
                found = await client.version(api)
            except VicidialError as exc:
                cure = "ULTRAVOX_VICIDIAL_URL; is the web server up and its API there?"
                yield Finding(what, "FAIL", str(exc), cure)
                return
            yield Finding(what, "ok", f"version {found.version} build {found.build}")
        # a refused login counts towards VICIdial's lock-out: one try, no more
        try:
            await client.agent_status(settings.vicidial_agent_user)
        except VicidialError as exc:
            cure = "user, password, user level and API permissions in VICIdial"
            yield Finding("VICIdial login", "FAIL", str(exc), cure)
        else:
            text = (
                f"{settings.vicidial_user} may look up {settings.vicidial_agent_user}"
            )
            yield Finding("VICIdial login", "ok", text)
            async for finding in _vicidial_rights(settings, client):
                yield finding


async def _vicidial_rights(
    settings: Settings, client: VicidialClient
) -> AsyncIterator[Finding]:
    """What would fail in a call: permissions, and in-groups of the personas."""
    what, agent_user = "VICIdial permissions", settings.vicidial_agent_user
    try:
        missing = await missing_permissions(
            client, agent_user, drains=settings.vicidial_drain
        )
        campaigns = load_campaigns(settings.campaigns_dir)
        missing += await missing_in_groups(client, campaigns)
    except CampaignsInvalid:
        return  # said above
    except VicidialError as exc:
        cure = "run this again when VICIdial answers"
        yield Finding(what, "warn", f"not known: {exc}", cure)
        return
    for one in missing:
        yield Finding(what, "FAIL", one.what, one.cure)
    if not missing:
        text = "every function the bot needs; the DNC list shows with the first opt-out"
        yield Finding(what, "ok", text)


async def _clock(settings: Settings) -> AsyncIterator[Finding]:
    if not settings.vicidial_url:
        is_sane = time.time() > 1_735_689_600  # 2025: a clock that was never set
        text = time.strftime("%Y-%m-%d %H:%M:%S %Z")
        cure = "set the clock: timedatectl set-ntp true"
        yield Finding(
            "clock", "ok" if is_sane else "FAIL", text, "" if is_sane else cure
        )
        return
    verify = str(settings.vicidial_ca) if settings.vicidial_ca else True
    try:
        async with plain_client(
            timeout=_TIMEOUT_S, trust_env=False, verify=verify
        ) as http:
            answer = await http.get(settings.vicidial_url)
        theirs_at = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (httpx.HTTPError, KeyError, ValueError, OSError) as exc:
        yield Finding("clock", "note", f"VICIdial's time is not known: {exc!r}")
        return
    off_s = time.time() - theirs_at
    # a Date header has whole seconds, rounded down
    is_well = -_CLOCK_WARN_S < off_s < _CLOCK_WARN_S + 1
    yield Finding(
        "clock",
        "ok" if is_well else "warn",
        f"{off_s:+.0f} s from VICIdial's web server",
        "" if is_well else "NTP on both hosts: timedatectl set-ntp true",
    )


def _own_url(settings: Settings) -> str:
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://{_reachable(settings.host)}:{settings.port}"


def _reachable(host: str) -> str:
    """Where to reach a listener of this address."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)


if __name__ == "__main__":
    sys.exit(main())
