"""The service: takes calls from Asterisk and starts the speech half beside itself.

Opens the FastAGI port and the audio port, and keeps a phone half running that takes
the calls.  Unless ULTRAVOX_API_URL names running speech servers,
`ultravox_api_server.py` is started as well; it answers on the HTTP port.

signals:
  SIGTERM, SIGINT   drain: new calls are refused, running ones may end for
                    ULTRAVOX_DRAIN_S, then people take them; sent twice: at once
  SIGHUP            read campaigns and API keys again; calls go on
  SIGUSR2           start new halves, with new code and settings, that take the new
                    calls once they are ready; the old ones end with the last of their
                    own.  For a while both models are in memory: where it holds one
                    only, the new speech half gives up and the old one goes on
  SIGUSR1           the same with the phone half alone

Exit status: 0 after an orderly end, 1 on a failure, 2 on wrong settings.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import sys
from pathlib import Path

import uvloop

from agi_handlers.errors import ListenFailed
from agi_handlers.sidecar import Sidecar, SidecarOptions, sidecar_command
from agi_handlers.supervision.supervisor import (
    WRONG_SETTINGS,
    Supervisor,
    SupervisorOptions,
    listen,
)
from config import ConfigError, Settings, comma_list, load
from service_manager import ServiceManager
from telemetry import fields, set_up_logging

logger = logging.getLogger("fastagi_server")

_ROOT = Path(__file__).resolve().parent
_BACKLOG = 2048  # a burst of 400 connects overran asyncio's default of 100


def main(argv: list[str] | None = None) -> int:
    """Run the service; 0 after an orderly end, 1 on a failure, 2 on bad settings."""
    arguments = _parser().parse_args(argv)
    try:
        settings = load()
    except ConfigError as exc:
        for problem in exc.problems:
            print(f"fastagi_server: {problem}", file=sys.stderr)
        return WRONG_SETTINGS
    set_up_logging(settings.log_level, settings.log_format)
    if arguments.phone_half or arguments.check:
        return _phone_half(settings, arguments.phone_half)
    try:
        return uvloop.run(_supervise(settings))
    except ListenFailed as exc:
        logger.error("cannot_listen", extra=fields(error=str(exc)))
        return 1


def _parser() -> argparse.ArgumentParser:
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
    # by the supervisor: the descriptors it hands on
    parser.add_argument("--phone-half", default="", help=argparse.SUPPRESS)
    return parser


def _phone_half(settings: Settings, descriptors: str) -> int:
    """Take calls from the ports with these descriptors; none: only check."""
    # not for the supervisor, which stays small
    from agi_handlers import phone_service

    try:
        persona = phone_service.read_persona(settings)
    except phone_service.PhoneHalfInvalid as exc:
        for problem in exc.problems:
            print(f"fastagi_server: {problem}", file=sys.stderr)
        return WRONG_SETTINGS
    if not descriptors:
        print(
            f"settings, {len(persona.campaigns)} campaigns, "
            f"{len(persona.prompts)} prompts: all well"
        )
        return 0
    inherited = phone_service.Inherited.from_text(descriptors)
    urls = comma_list(settings.api_url) or [_own_url(settings)]
    uvloop.run(phone_service.serve(settings, persona, inherited, urls))
    return 0


async def _supervise(settings: Settings) -> int:
    """Raises ListenFailed: a port is taken."""
    sidecar: Sidecar | None = None
    if not comma_list(settings.api_url):
        _check_http_port(settings)
        sidecar = Sidecar(
            SidecarOptions(url=_own_url(settings), command=sidecar_command(_ROOT))
        )
    with (
        _listener("AGI", settings.agi_host, settings.agi_port) as agi,
        _listener(
            "audio", settings.audiosocket_host, settings.audiosocket_port
        ) as audio,
    ):
        supervisor = Supervisor(
            SupervisorOptions(
                command=(sys.executable, str(_ROOT / "fastagi_server.py")),
                freeze_s=settings.freeze_s,
                drain_s=settings.drain_s,
            ),
            agi,
            audio,
            sidecar,
            ServiceManager(),
        )
        loop = asyncio.get_running_loop()
        for signum, act in (
            (signal.SIGTERM, supervisor.stop),
            (signal.SIGINT, supervisor.stop),
            (signal.SIGHUP, supervisor.reload),
            (signal.SIGUSR2, supervisor.restart),
            (signal.SIGUSR1, supervisor.restart_phone_half),
        ):
            loop.add_signal_handler(signum, act)
        return await supervisor.run()


def _listener(name: str, host: str, port: int) -> socket.socket:
    try:
        return listen(host, port, _BACKLOG)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise ListenFailed(f"{name} port {host}:{port}: {reason}") from exc


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
