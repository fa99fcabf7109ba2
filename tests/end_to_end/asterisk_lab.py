"""A real Asterisk for tests: installed by the project's script, run, looked into."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

_SCRIPTS: Final = Path(__file__).parent / "asterisk"
ROOT: Final = _SCRIPTS.parent.parent.parent
_UNAVAILABLE: Final = 69  # install-asterisk.sh: no way to Debian's packages
_INSTALL_TIMEOUT_S: Final = 600
_START_TIMEOUT_S: Final = 30
_PORT_SPAN: Final = 300  # SIP at +0, RTP up to +299, see run-asterisk.sh
_PR_SET_PDEATHSIG: Final = 1


class AsteriskUnavailable(Exception):
    """This machine has no Asterisk and no way to get one."""


def die_with_parent() -> None:
    """In a child before exec: it shall not outlive a test run that is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def install(version: int) -> Path:
    """The unpacked Asterisk of that major version, fetched if need be.

    Raises:
        AsteriskUnavailable: it cannot be fetched here; the message says why.
        RuntimeError: the script failed in any other way.
    """
    tree = ROOT / "build" / f"asterisk-{version}"
    run = subprocess.run(
        [_SCRIPTS / "install-asterisk.sh", str(version), tree],
        capture_output=True,
        text=True,
        timeout=_INSTALL_TIMEOUT_S,
        check=False,
    )
    if run.returncode == _UNAVAILABLE:
        raise AsteriskUnavailable(run.stderr.strip().splitlines()[-1])
    if run.returncode != 0:
        raise RuntimeError(f"install-asterisk.sh {version}: {run.stderr[-2000:]}")
    return tree


@dataclass(slots=True)
class Asterisk:
    """A running Asterisk; `start` makes one, `stop` ends it."""

    version: int
    tree: Path
    folder: Path
    agi_port: int
    vicidial_agi_port: int
    sip_port: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @classmethod
    def start(cls, version: int, agi_port: int, vicidial_agi_port: int = 4573) -> Self:
        """Start one on free ports.

        agi_port, vicidial_agi_port: where its plain dialplan looks for a bot, and its
        entries for VICIdial.
        """
        tree = install(version)
        # Short and without a dot: it holds a Unix socket, and Asterisk 22 mishandles
        # its media cache below a folder with a dot.
        folder = Path(tempfile.mkdtemp(prefix=f"asterisk-{version}-", dir="/tmp"))
        asterisk = cls(version, tree, folder, agi_port, vicidial_agi_port)
        try:
            asterisk._start()
        except BaseException:
            asterisk.stop()
            raise
        return asterisk

    @property
    def chan_sip_port(self) -> int:
        """Where chan_sip listens; versions up to 20 have it."""
        return self.sip_port + 1

    @property
    def ami_port(self) -> int:
        """Where the manager interface listens."""
        return self.sip_port + 2

    def recording(self, name: str) -> Path:
        """One of Asterisk's recordings of a human voice, by its name."""
        path = self.tree / "recordings" / f"{name}.wav"
        assert path.exists(), f"no such recording: {path}"
        return path

    def cli(self, command: str) -> str:
        """What the CLI prints for a command."""
        config = self.folder / "etc/asterisk.conf"
        run = subprocess.run(
            [self.tree / "asterisk", "-C", config, "-rx", command],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return run.stdout

    def channels(self) -> list[str]:
        """Names of all channels there are."""
        lines = self.cli("core show channels concise").splitlines()
        return [line.split("!")[0] for line in lines if "!" in line]

    def log(self, since: int = 0) -> str:
        """Asterisk's full log from a position on; see `log_position`."""
        with (self.folder / "log/full").open(errors="replace") as file:
            file.seek(since)
            return file.read()

    def log_position(self) -> int:
        return (self.folder / "log/full").stat().st_size

    async def logged(self, pattern: str, since: int, timeout_s: float = 10.0) -> str:
        """The first line from there on that matches."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for line in self.log(since).splitlines():
                if re.search(pattern, line):
                    return line
            await asyncio.sleep(0.05)
        raise AssertionError(f"no {pattern!r} in Asterisk's log:\n{self.log(since)}")

    async def is_empty(self, timeout_s: float = 10.0) -> None:
        """Every call is gone from Asterisk."""
        deadline = time.monotonic() + timeout_s
        while left := self.channels():
            assert time.monotonic() < deadline, f"channels left: {left}"
            await asyncio.sleep(0.1)

    def sound_files_left(self) -> list[str]:
        """What calls have left in the folders that Asterisk writes to."""
        spool = self.folder / "spool"
        return [str(p.relative_to(spool)) for p in spool.rglob("*") if p.is_file()]

    def kill_and_restart(self) -> None:
        """SIGKILL, then as a supervisor would: the same folders, the same ports."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._run()

    def stop(self) -> None:
        """End it by its own process id and remove its folder."""
        if self._process is not None:
            if self._process.poll() is None:
                self.cli("core stop now")
            for send in (None, self._process.terminate, self._process.kill):
                if send is not None:
                    send()
                try:
                    self._process.wait(5)
                    break
                except subprocess.TimeoutExpired:
                    continue
        shutil.rmtree(self.folder)

    def _start(self) -> None:
        self.sip_port = _free_port_span()
        self._run()

    def _run(self) -> None:
        environment = os.environ | {
            "RUN_DIR": str(self.folder),
            "PORT_BASE": str(self.sip_port),
            "AGI_PORT": str(self.agi_port),
            "VICIDIAL_AGI_PORT": str(self.vicidial_agi_port),
        }
        with (self.folder / "console").open("wb") as console:
            self._process = subprocess.Popen(
                [_SCRIPTS / "run-asterisk.sh", "fg", self.tree],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while "fully booted" not in self.cli("core waitfullybooted"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "console").read_text(errors="replace")
                raise RuntimeError(f"Asterisk {self.version} did not start:\n{said}")
            time.sleep(0.1)


def _free_port_span() -> int:
    """The first of a span of ports, with those of SIP and AMI free."""
    for _ in range(100):
        first = random.randrange(20_000, 32_000, _PORT_SPAN)
        try:
            for kind, port in (
                (socket.SOCK_DGRAM, first),
                (socket.SOCK_DGRAM, first + 1),
                (socket.SOCK_STREAM, first + 2),
            ):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError("no free SIP ports")
