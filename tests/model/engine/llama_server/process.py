"""A real llama-server for tests: installed by the script beside this, run, asked."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import httpx

from tests.end_to_end.asterisk_lab import ROOT, die_with_parent
from tests.free_port import free_port

_SCRIPT: Final = Path(__file__).with_name("install-llama-server.sh")
_UNAVAILABLE: Final = 69  # of that script: no way to Debian's packages
_INSTALL_TIMEOUT_S: Final = 600
_START_TIMEOUT_S: Final = 60
# The plug-in that computes: the first whose instructions this machine has.
_BACKENDS: Final = (("avx512vl", "skylakex"), ("avx2", "haswell"), ("", "x64"))


class LlamaServerUnavailable(Exception):
    """This machine has no llama-server and no way to get one."""


def install() -> Path:
    """The unpacked tree, fetched if need be.

    Raises:
        LlamaServerUnavailable: it cannot be fetched here; the message says why.
        RuntimeError: the script failed in any other way.
    """
    if platform.machine() != "x86_64":
        raise LlamaServerUnavailable("its plug-ins are chosen for x86-64 only")
    tree = ROOT / "build" / "llama-server"
    run = subprocess.run(
        [_SCRIPT, tree],
        capture_output=True,
        text=True,
        timeout=_INSTALL_TIMEOUT_S,
        check=False,
    )
    if run.returncode == _UNAVAILABLE:
        raise LlamaServerUnavailable(run.stderr.strip().splitlines()[-1])
    if run.returncode != 0:
        raise RuntimeError(f"{_SCRIPT.name}: {run.stderr[-2000:]}")
    return tree


@dataclass(slots=True)
class LlamaServer:
    """A running llama-server; `start` makes one, `stop` ends it."""

    url: str
    log: Path
    _process: subprocess.Popen[bytes] = field(repr=False)

    @classmethod
    def start(
        cls, tree: Path, folder: Path, arguments: Sequence[str], *, api_key: str = ""
    ) -> Self:
        """Start it with model files and options, and wait until it answers."""
        port = free_port()
        command = [
            *(str(tree / "llama-server"), "--host", "127.0.0.1", "--port", str(port)),
            *("-t", "1", "-fa", "off", "-ctk", "f32", "-ctv", "f32"),
            *("--no-ui", "--slots", "--alias", "ultravox-tiny"),
            *(("--api-key", api_key) if api_key else ()),
            *arguments,
        ]
        log = folder / f"llama-server-{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env={**os.environ, "GGML_BACKEND_PATH": str(_backend(tree))},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,
            )
        server = cls(f"http://127.0.0.1:{port}", log, process)
        try:
            server._wait_until_ready()
        except BaseException:
            server.stop()
            raise
        return server

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def num_busy_slots(self) -> int:
        """Requests that are being worked on."""
        answer = httpx.get(f"{self.url}/slots", timeout=20)
        slots: list[dict[str, Any]] = answer.json()
        return sum(slot["is_processing"] for slot in slots)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait(20)

    def freeze(self) -> None:
        """SIGSTOP: its sockets stay open and nobody answers."""
        self._process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        """End it, frozen or not."""
        self._process.kill()
        self._process.wait(20)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and self.is_running:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(f"llama-server: {self.log.read_text()[-3000:]}")


def _backend(tree: Path) -> Path:
    flags = Path("/proc/cpuinfo").read_text().split()
    name = next(name for flag, name in _BACKENDS if not flag or flag in flags)
    return tree / "backends" / f"libggml-cpu-{name}.so"
