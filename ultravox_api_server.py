"""The speech half: model, voice and HTTP API on one port.

Started by fastagi_server.py beside the calls, or alone for REST users.  The port
answers at once; /health says what start-up is at and, should the model be unusable,
why.  Settings are environment variables ULTRAVOX_... or lines in ultravox.toml.

Exit status: 0 ended by a signal, 1 the port cannot be opened, 2 wrong settings, 3 the
GPU is lost to this process: start another one (fastagi_server.py and systemd do).
With --take-over also 1: the model cannot be had.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
import uvloop
from fastapi import FastAPI

import config
from model.live_messages import MAX_AUDIO_BYTES
from rest_api.app import AppOptions, create_app
from rest_api.auth import (
    ApiKeysInvalid,
    KeyRing,
    LiveKeys,
    add_key,
    load_or_make_key,
    revoke_key,
)
from rest_api.freed_memory import keep_freed_memory
from rest_api.http_protocol import ConnectionLimits, guarded_http
from rest_api.service_state import ServiceState
from rest_api.start_up import OpenService, keep_service
from rest_api.succession import end_when_retired, has_model, listen, say_ready
from service_manager import ServiceManager
from telemetry import count_tasks, fields, set_up_logging

logger = logging.getLogger("ultravox_api_server")

_STOP_GRACE_S = 5
"""For REST replies under way; dialogues are closed at once and tried elsewhere."""
_ORPHAN_GRACE_S = 15.0
"""From the end of our parent to the hard end of us, should the soft one hang."""
_BACKLOG = 2048
_DEVICE_LOST = 3


def main(arguments: list[str] | None = None, opening: OpenService | None = None) -> int:
    """Run until told to end; the exit status.

    `opening` opens the service in place of what the settings ask for.
    """
    wanted = _parser().parse_args(arguments)
    supervised = wanted.supervised
    try:
        settings = config.load()
        if wanted.new_key or wanted.revoke_key:
            _change_keys(settings, wanted.new_key, wanted.revoke_key)
            return 0
        ring, new_key = _keys(settings)
    except config.ConfigError as exc:
        for problem in exc.problems:
            print(problem, file=sys.stderr)
        return 2
    keep_freed_memory()
    set_up_logging(settings.log_level, settings.log_format)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_worth_a_line)
    keys = LiveKeys(ring)
    state = ServiceState(model_wanted=settings.model)
    app = create_app(state, AppOptions.of(settings, keys))
    try:
        server = _Server(uvicorn_config(app, settings))
        listener = None if wanted.take_over else _listen(settings, is_shared=supervised)
    except (ssl.SSLError, FileNotFoundError, PermissionError) as exc:
        print(f"ULTRAVOX_TLS_CERTIFICATE, _KEY: {exc}", file=sys.stderr)
        return 2
    except OSError as exc:
        _say_taken(settings, exc)
        return 1
    if new_key is not None:
        _show_key(new_key)
    # what is loaded by now stays: the collector need not walk it with each request
    gc.collect()
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(
            _serve(
                server,
                listener,
                settings,
                app,
                opening,
                supervised=supervised,
                successor_of=wanted.take_over,
            )
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--supervised",
        action="store_true",
        help="end when standard input is closed, i.e. when the parent has ended",
    )
    parser.add_argument(
        "--take-over",
        metavar="DESCRIPTOR",
        type=int,
        help="load the model first, then open the port beside the one that has it, "
        "and say so on this pipe; needs --supervised",
    )
    parser.add_argument(
        "--new-key", metavar="NAME", help="make an API key, print it once, and end"
    )
    parser.add_argument(
        "--revoke-key", metavar="NAME", help="forget that API key, and end"
    )
    return parser


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """uvicorn 0.54 takes each WebSocket refused by an HTTP answer for a mistake."""
    return "without completing handshake" not in record.getMessage()


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: ours end with status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(
    server: _Server,
    listener: socket.socket | None,
    settings: config.Settings,
    app: FastAPI,
    opening: OpenService | None,
    *,
    supervised: bool,
    successor_of: int | None,
) -> int:
    """Until stopped; the exit status.  No listener: opened when the model is there."""
    state: ServiceState = app.state.service
    keys: LiveKeys = app.state.keys
    retired = asyncio.Event()
    loop = asyncio.get_running_loop()
    count_tasks(loop)

    def stop() -> None:
        server.force_exit = server.should_exit  # asked twice
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, _reload_keys, keys)
    if supervised:
        _end_with_parent(lambda: loop.call_soon_threadsafe(stop))
        loop.add_signal_handler(signal.SIGUSR2, retired.set)
    # a supervised child is no service of its own
    manager = ServiceManager({} if supervised else None)
    keeping = [
        asyncio.create_task(keep_service(settings, state, _make_tiny, opening)),
        asyncio.create_task(manager.stay_alive()),
        asyncio.create_task(
            end_when_retired(server, app.state.control_desk, retired),
        ),
    ]
    manager.ready("answering; /health tells whether the model is loaded")
    # it returns only when this process can serve no more
    keeping[0].add_done_callback(lambda _: setattr(server, "should_exit", True))
    try:
        if listener is None:
            if not await has_model(state):
                return 1
            try:
                listener = _listen(settings, is_shared=True, takes_over=True)
            except OSError as exc:
                _say_taken(settings, exc)
                return 1
        if successor_of is not None:
            keeping.append(asyncio.create_task(say_ready(server, successor_of)))
        logger.info("listening", extra=fields(port=listener.getsockname()[1]))
        await server.serve(sockets=[listener])
        return _DEVICE_LOST if keeping[0].done() else 0
    finally:
        manager.stopping()
        for task in keeping:
            task.cancel()
        await asyncio.wait(keeping)
        app.state.decoding.close()
        logger.info("stopped")


def uvicorn_config(app: object, settings: config.Settings) -> uvicorn.Config:
    """The HTTP server's options; raises ssl.SSLError, OSError: of the certificate."""
    wanted = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=guarded_http(
            ConnectionLimits(
                max_body_bytes=settings.http_max_body_mb << 20,
                per_address=settings.http_connections,
            )
        ),
        ws="websockets-sansio",
        ws_max_size=MAX_AUDIO_BYTES,
        ws_ping_interval=10.0,
        ws_ping_timeout=10.0,
        ws_per_message_deflate=False,  # speech shrinks little, and it costs CPU
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_STOP_GRACE_S,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
    wanted.load()
    return wanted


def _listen(
    settings: config.Settings, *, is_shared: bool, takes_over: bool = False
) -> socket.socket:
    """Raises OSError: taken, not ours, or no such address."""
    host, port = settings.host, settings.port
    return listen(host, port, _BACKLOG, shares=is_shared, takes_over=takes_over)


def _say_taken(settings: config.Settings, error: OSError) -> None:
    where = f"{settings.host}:{settings.port}"
    reason = error.strerror or str(error)
    print(f"cannot listen on {where} (ULTRAVOX_PORT): {reason}", file=sys.stderr)


def _keys(settings: config.Settings) -> tuple[KeyRing | None, str | None]:
    """Who may come in, and a key that was made just now.

    Raises:
        ConfigError: the keys are not `name:key`, or the new one cannot be kept.
    """
    if settings.auth == "off":
        return None, None
    configured = settings.api_keys.get_secret_value()
    try:
        if configured.strip():
            return KeyRing.parse(configured), None
        return load_or_make_key(settings.data_dir)
    except ApiKeysInvalid as exc:
        raise config.ConfigError([f"ULTRAVOX_API_KEYS: {exc}"]) from exc
    except OSError as exc:
        raise config.ConfigError(
            [f"ULTRAVOX_DATA_DIR: the new API key cannot be kept: {exc}"]
        ) from exc


def _reload_keys(keys: LiveKeys) -> None:
    """Read the keys again; should that fail, those known so far go on counting."""
    try:
        settings = config.load()
        if (settings.auth == "off") != (keys.ring is None):
            logger.error("keys_kept", extra=fields(reason="ULTRAVOX_AUTH has changed"))
            return
        ring, new_key = _keys(settings)
    except config.ConfigError as exc:
        logger.error("keys_kept", extra=fields(reason="; ".join(exc.problems)))
        return
    keys.ring = ring
    if new_key is not None:
        _show_key(new_key)
    count = 0 if ring is None else len(ring.digests)
    logger.info("keys_reloaded", extra=fields(keys=count))


def _change_keys(settings: config.Settings, new: str | None, old: str | None) -> None:
    """Raises ConfigError: it cannot be done."""
    if settings.api_keys.get_secret_value().strip():
        raise config.ConfigError(["the keys are in ULTRAVOX_API_KEYS: change it there"])
    try:
        if new:
            _, key = add_key(settings.data_dir, new)
            print(f"{key}\n(kept as a hash; SIGHUP tells a running server)")
        if old:
            revoke_key(settings.data_dir, old)
            print(f"{old} is revoked (SIGHUP tells a running server)")
    except (ApiKeysInvalid, OSError) as exc:
        raise config.ConfigError([f"ULTRAVOX_DATA_DIR: {exc}"]) from exc


def _show_key(key: str) -> None:
    # To people, once, and into no log file's JSON: only its hash is kept.
    print(
        f"API key for the HTTP port, shown this once: {key}\n"
        "(asked of every address but loopback; ULTRAVOX_API_KEYS sets others)",
        file=sys.stderr,
        flush=True,
    )


def _make_tiny(folder: Path) -> None:
    from tools.make_tiny_checkpoint import write_tiny_checkpoint

    write_tiny_checkpoint(folder)


def _end_with_parent(stop: Callable[[], object]) -> None:
    """Call `stop` when standard input ends; should that not help, end hard."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        hard = threading.Timer(_ORPHAN_GRACE_S, os._exit, [1])
        hard.daemon = True
        hard.start()
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            stop()

    threading.Thread(target=wait, name="parent", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
