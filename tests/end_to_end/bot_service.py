"""The service itself as a child process: started, asked, hurt and stopped by tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.request import urlopen

import psutil

from tests.end_to_end.asterisk_lab import ROOT, die_with_parent
from tests.free_port import free_port

_START_TIMEOUT_S: Final = 90  # importing torch on a busy machine takes long
_STOP_TIMEOUT_S: Final = 30
# Settings of whoever runs the tests must not decide what they test.
_OUR_PREFIX: Final = "ULTRAVOX_"

CAMPAIGNS: Final = {
    "default": {
        "greeting": "Hello, how can I help you?",
        "still_there": "Are you still there?",
        "goodbye_no_input": "Goodbye.",
        "transferring": "One moment please.",
    },
    # Long enough to be talked over at leisure.
    "talkative": {
        "greeting": "Hello and welcome. "
        + "We have a very large number of offers for you today, and I will read all "
        "of them to you, one after the other, until you ask me to stop. " * 3,
    },
}


@dataclass(slots=True)
class BotService:
    """A running fastagi_server.py with its speech half."""

    folder: Path
    agi_port: int
    http_port: int
    audio_port: int
    data_dir: Path
    _process: subprocess.Popen[bytes] = field(repr=False)

    @classmethod
    def start(
        cls,
        folder: Path,
        agi_port: int | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        log_fd: int | None = None,
    ) -> Self:
        """Start the service on free ports with its data in `folder`.

        log_fd: where its log goes; None: to the file that `log` reads.
        """
        agi, http, audio = agi_port or free_port(), free_port(), free_port()
        _write_campaigns(folder / "campaigns")
        on_dialer = folder / "on-dialer"
        on_dialer.mkdir(exist_ok=True)
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_OUR_PREFIX)
        }
        ours = {
            "HOST": "127.0.0.1",
            "PORT": str(http),
            "AGI_HOST": "127.0.0.1",
            "AGI_PORT": str(agi),
            "AUDIOSOCKET_HOST": "127.0.0.1",
            "AUDIOSOCKET_PORT": str(audio),
            "ENGINE": "scripted",
            "DATA_DIR": str(folder / "data"),
            "ASTERISK_DIR": str(on_dialer),
            "CAMPAIGNS_DIR": str(folder / "campaigns"),
            "LOG_FORMAT": "json",
            **(settings or {}),
        }
        environment |= {_OUR_PREFIX + name: value for name, value in ours.items()}
        environment |= environ or {}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, ROOT / "fastagi_server.py"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log if log_fd is None else log_fd,
                stderr=log if log_fd is None else log_fd,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        return cls(folder, agi, http, audio, Path(ours["DATA_DIR"]), process)

    @classmethod
    @contextlib.contextmanager
    def running(
        cls, folder: Path, settings: Mapping[str, str] | None = None
    ) -> Iterator[Self]:
        """One that takes calls, for the block."""
        service = cls.start(folder, settings=settings)
        try:
            service.wait_until_ready()
            yield service
        finally:
            service.stop()

    def wait_until_ready(self) -> None:
        """Until agi://host/health says that it takes calls."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while (status := self.status()) != "ready":
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(
                    f"the service is {status!r}:\n{self.log()[-4000:]}"
                )
            time.sleep(0.2)

    def status(self) -> str:
        """BOT_STATUS as a dialplan gets it; empty when nobody answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.agi_port), 2) as agi:
                agi.sendall(
                    b"agi_network: yes\nagi_network_script: health\n"
                    b"agi_request: agi://127.0.0.1/health\nagi_channel: Test/1\n"
                    b"agi_uniqueid: 1.1\nagi_version: 22.0.0\n\n"
                )
                return _status_set(agi)
        except OSError:
            return ""

    def health(self) -> str:
        """What GET /health answers, as text."""
        url = f"http://127.0.0.1:{self.http_port}/health"
        with urlopen(url, timeout=10) as response:
            return str(response.read().decode())

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log lines with that event name, in order."""
        found = []
        for line in self.log().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and name in entry.values():
                found.append(entry)
        return found

    async def logged(self, name: str, timeout_s: float = 10.0) -> dict[str, Any]:
        """The last log line with that event name, waited for."""
        deadline = time.monotonic() + timeout_s
        while not (found := self.events(name)):
            assert time.monotonic() < deadline, f"no {name} in:\n{self.log()[-4000:]}"
            await asyncio.sleep(0.1)
        return found[-1]

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self._process.pid

    def speech_halves(self) -> list[psutil.Process]:
        """The supervised child that answers on the HTTP port; none while it is dead."""
        return self._children("ultravox_api_server")

    def phone_halves(self) -> list[psutil.Process]:
        """The children that take the calls, the oldest first: mostly one."""
        return self._children("--phone-half")

    def _children(self, mark: str) -> list[psutil.Process]:
        found = []
        for child in psutil.Process(self.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(mark in part for part in child.cmdline()):
                    found.append(child)
        return sorted(found, key=lambda one: one.pid)

    async def becomes(self, status: str, timeout_s: float = 60.0) -> None:
        """Until BOT_STATUS of agi://host/health is that."""
        deadline = time.monotonic() + timeout_s
        while (found := self.status()) != status:
            assert time.monotonic() < deadline, f"is {found!r}, not {status!r}"
            await asyncio.sleep(0.2)

    async def is_clean(self, num_sockets: int, timeout_s: float = 10.0) -> None:
        """Until calls have left no file, and no more sockets than that."""
        deadline = time.monotonic() + timeout_s
        while (found := self.num_sockets()) > num_sockets or self.files_left():
            assert time.monotonic() < deadline, (
                f"{found - num_sockets} sockets and {self.files_left()} left"
            )
            await asyncio.sleep(0.1)

    def num_sockets(self) -> int:
        """Connections and listeners of the phone half."""
        (phone_half,) = self.phone_halves()
        return len(phone_half.net_connections("all"))

    async def has_let_go(self, timeout_s: float = 10.0) -> None:
        """Until no dialer is connected any more, and calls have left no file."""
        ports = (self.agi_port, self.audio_port)
        deadline = time.monotonic() + timeout_s
        while (found := self._connections_at(ports)) or self.files_left():
            assert time.monotonic() < deadline, f"{found} and {self.files_left()} left"
            await asyncio.sleep(0.1)

    def _connections_at(self, ports: Collection[int]) -> list[str]:
        found = []
        for phone_half in self.phone_halves():
            with contextlib.suppress(psutil.NoSuchProcess):
                found += phone_half.net_connections("tcp")
        return [
            f"{one.laddr.port} from {one.raddr.port}"
            for one in found
            if one.raddr and one.laddr.port in ports
        ]

    def files_left(self) -> list[str]:
        """Sound files of calls, here and where a remote Asterisk would have them."""
        folders = (self.data_dir / "exchange", self.folder / "on-dialer")
        return [
            str(path)
            for folder in folders
            for path in folder.rglob("*")
            if path.is_file()
        ]

    def kill(self) -> None:
        """SIGKILL to the supervisor: no chance to say anything, for any of them."""
        self._process.kill()
        self._process.wait(_STOP_TIMEOUT_S)

    def freeze(self) -> None:
        """SIGSTOP to the phone half: every socket stays open and nobody answers."""
        for phone_half in self.phone_halves():
            phone_half.suspend()

    def thaw(self) -> None:
        for phone_half in self.phone_halves():
            phone_half.resume()

    def send_signal(self, number: signal.Signals) -> None:
        """To the supervisor, as an operator would."""
        self._process.send_signal(number)

    def ask_to_stop(self) -> None:
        """SIGTERM: drain."""
        self._process.terminate()

    def stop(self) -> int:
        """End it, with everything it started; its exit status."""
        family = list(self._family())
        if self._process.poll() is None:
            self.thaw()
            self._process.terminate()
        try:
            status = self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"did not stop:\n{self.log()[-4000:]}") from None
        _, alive = psutil.wait_procs(family, timeout=_STOP_TIMEOUT_S)
        for process in alive:
            process.kill()
        assert not alive, f"outlived the service: {alive}"
        return status

    def _family(self) -> Iterator[psutil.Process]:
        try:
            yield from psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return


def _status_set(agi: socket.socket) -> str:
    """Answer the commands of a dialogue; what BOT_STATUS was set to."""
    status = ""
    with agi.makefile("r") as commands:
        for command in commands:
            words = command.split()
            if words[:3] == ["SET", "VARIABLE", "BOT_STATUS"]:
                status = words[3].strip('"')
            agi.sendall(b"200 result=1\n")
    return status


def _write_campaigns(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, phrases in CAMPAIGNS.items():
        lines = [f"{key} = {json.dumps(text)}" for key, text in phrases.items()]
        (folder / f"{name}.toml").write_text("\n".join(["[phrases]", *lines, ""]))
