"""The bot under load: real processes, started, watched and, if asked, killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import psutil

from benchmarks.bench_turn_latency import free_port

ROOT: Final = Path(__file__).resolve().parent.parent
_LATENESS: Final = re.compile(
    r'^voicebot_frame_lateness_seconds_bucket\{le="([^"]+)",process="([^"]+)"\} (\S+)'
)


@dataclass(slots=True)
class Half:
    """One server process with its children, as the operating system counts it."""

    name: str
    process: psutil.Process
    cpu_s: float = 0.0
    """At the last look."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a half saw since the one before."""

    cpu_percent: float
    rss_mb: float


class Fleet:
    """Phone halves and speech halves on free ports; use `running_fleet`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.agi_ports: list[int] = []
        self.http_ports: list[int] = []
        self.phones: list[subprocess.Popen[bytes]] = []
        self.speeches: list[subprocess.Popen[bytes]] = []
        self._halves: dict[int, Half] = {}
        self._looked_s = time.monotonic()

    def start(
        self, num_phones: int, num_speeches: int, settings: dict[str, str]
    ) -> Self:
        """One of each: as the service runs by default.  More: told of one another."""
        self.http_ports = [free_port() for _ in range(num_speeches)]
        urls = ",".join(f"http://127.0.0.1:{port}" for port in self.http_ports)
        is_fleet = num_phones > 1 or num_speeches > 1
        if is_fleet:
            for port in self.http_ports:
                own = {"PORT": str(port), **settings}
                self.speeches.append(self._run("ultravox_api_server.py", own))
        for _ in range(num_phones):
            self.agi_ports.append(free_port())
            own = {
                "AGI_PORT": str(self.agi_ports[-1]),
                "AUDIOSOCKET_PORT": str(free_port()),
                **(
                    {"API_URL": urls} if is_fleet else {"PORT": str(self.http_ports[0])}
                ),
                **settings,
            }
            self.phones.append(self._run("fastagi_server.py", own))
        return self

    def _run(self, script: str, settings: dict[str, str]) -> subprocess.Popen[bytes]:
        number = len(self.phones) + len(self.speeches)
        folder = self.folder / f"{number}-{script.partition('_')[0]}"
        folder.mkdir(parents=True)
        environ = {k: v for k, v in os.environ.items() if "ULTRAVOX" not in k}
        base = {"HOST": "127.0.0.1", "DATA_DIR": str(folder), "LOG_FORMAT": "json"}
        environ |= {f"ULTRAVOX_{k}": v for k, v in (base | settings).items()}
        with (folder / "log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, script],
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def ready(self, timeout_s: float = 180.0) -> None:
        """Until every speech half has its model and the phone halves know."""
        deadline_s = time.monotonic() + timeout_s
        for port in self.http_ports:
            while not await asyncio.to_thread(_is_ready, port):
                if time.monotonic() > deadline_s:
                    raise SystemExit(f"not ready in time; logs: {self.folder}")
                await asyncio.sleep(0.2)
        await asyncio.sleep(2.5)  # phone halves ask once a second

    def log_lines(self, event: str) -> int:
        """How many log lines of all processes have that event."""
        return sum(
            path.read_text(errors="replace").count(f'"event": "{event}"')
            for path in self.folder.glob("*/log")
        )

    # --- what they cost ---

    def look(self) -> dict[str, Look]:
        """CPU since the last look and memory now: phone halves, speech halves."""
        now_s = time.monotonic()
        passed_s, self._looked_s = max(1e-3, now_s - self._looked_s), now_s
        cpu_s = {"phone": 0.0, "speech": 0.0}
        rss_mb = {"phone": 0.0, "speech": 0.0}
        for half in self._seen():
            with suppress(psutil.NoSuchProcess):
                times = half.process.cpu_times()
                total_s = times.user + times.system
                cpu_s[half.name] += total_s - half.cpu_s
                half.cpu_s = total_s
                rss_mb[half.name] += half.process.memory_info().rss / (1 << 20)
        return {
            name: Look(round(100 * cpu_s[name] / passed_s, 1), round(rss_mb[name], 1))
            for name in cpu_s
        }

    def _seen(self) -> Iterator[Half]:
        for process in (*self.phones, *self.speeches):
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(process.pid)
                for one in (root, *root.children(recursive=True)):
                    if one.pid not in self._halves:
                        self._halves[one.pid] = Half(_half_of(one), one)
                    yield self._halves[one.pid]

    def wheel_lateness(self) -> dict[float, float]:
        """Ticks of the audio wheels so far: bucket's bound in seconds -> number."""
        found: dict[float, float] = {}
        with suppress(OSError):
            url = f"http://127.0.0.1:{self.http_ports[0]}/metrics"
            with urllib.request.urlopen(url, timeout=5) as answer:
                for line in answer.read().decode().splitlines():
                    match = _LATENESS.match(line)
                    if match and match[2] != "speech":
                        bound = float(match[1].replace("+Inf", "inf"))
                        found[bound] = found.get(bound, 0.0) + float(match[3])
        return found

    # --- what is done to them ---

    def kill_a_phone_half(self) -> None:
        """SIGKILL to the process that has the calls; its supervisor stays."""
        for child in psutil.Process(self.phones[0].pid).children():
            if any("--phone-half" in part for part in child.cmdline()):
                child.kill()

    def kill_a_speech_half(self) -> None:
        self.speeches[0].send_signal(signal.SIGKILL)

    def stop(self) -> None:
        for process in (*self.phones, *self.speeches):
            process.terminate()
        for process in (*self.phones, *self.speeches):
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()


def _half_of(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        if "fastagi_server" in " ".join(process.cmdline()):
            return "phone"
    return "speech"  # with its synthesiser's workers


@contextmanager
def running_fleet(
    folder: Path, num_phones: int, num_speeches: int, settings: dict[str, str]
) -> Iterator[Fleet]:
    """The processes, for the block."""
    fleet = Fleet(folder)
    try:
        yield fleet.start(num_phones, num_speeches, settings)
    finally:
        fleet.stop()


def _is_ready(port: int) -> bool:
    url = f"http://127.0.0.1:{port}/health/ready"
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@dataclass(slots=True)
class Samples:
    """What was seen of both halves, a row a second."""

    rows: list[dict[str, float]] = field(default_factory=list)

    def add(self, at_s: float, num_calls: int, looks: dict[str, Look]) -> None:
        row = {"at_s": round(at_s, 1), "calls": float(num_calls)}
        for name, look in looks.items():
            row[f"{name}_cpu_percent"] = look.cpu_percent
            row[f"{name}_rss_mb"] = look.rss_mb
        self.rows.append(row)

    def mean(self, key: str) -> float:
        return sum(row[key] for row in self.rows) / max(1, len(self.rows))

    def peak(self, key: str) -> float:
        return max((row[key] for row in self.rows), default=0.0)


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float:
    """Upper bound of the bucket that holds this share; 0 of nothing."""
    if not buckets or buckets[-1][1] <= 0:
        return 0.0
    wanted = share * buckets[-1][1]
    return next(bound for bound, number in buckets if number >= wanted)
