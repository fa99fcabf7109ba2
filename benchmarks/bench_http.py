"""What the HTTP port costs: requests a second, latency and CPU, without a model.

    python -m benchmarks.bench_http [--clients 1,16,64] [--seconds 3] [--calls 1,10,40]

The server runs as a process of its own with the scripted engine, so that what is
measured is parsing, decoding, routing and sending.  Two tables: REST requests by kind
and number of clients, and live dialogues (one WebSocket a call; a typed turn, its
reply's text and speech) by number of calls.  Then the server's memory before and after
some thousands of requests of every kind.

The ceiling is one core: a request that takes C ms of CPU cannot be served more often
than 1000 / C times a second.  Clients run on the same machine; with few cores they take
their share, so CPU per request is the figure to compare, not requests a second.  Beside
it stands the floor, what the same requests cost a bare uvicorn that only reads them
(benchmarks/bare_http.py), measured in turn with ours, a slice of the time each.

Prints tables and, as the last line, JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import numpy as np
import psutil
import uvloop

from benchmarks.provenance import provenance
from model.client import RemoteSpeechService
from model.speech import ReplyAudio, SessionOptions, TypedTurn, Utterance

_ROOT = Path(__file__).resolve().parent.parent
_START_TIMEOUT_S = 120.0
_SLICES = 3
_TURNS = [{"role": "user", "content": "Hello, I need help with my order."}]

Served: TypeAlias = tuple[str, psutil.Process]
"""A server's address and its process."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", default="1,16,64", help="REST clients at once")
    parser.add_argument("--calls", default="1,10,40", help="live dialogues at once")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each REST row")
    parser.add_argument("--turns", type=int, default=5, help="of each dialogue")
    parser.add_argument(
        "--requests", type=int, default=10_000, help="between two looks at the memory"
    )
    wanted = parser.parse_args()
    with server() as ours, bare_server() as floor:
        result = uvloop.run(
            measure(
                ours,
                floor,
                [int(n) for n in wanted.clients.split(",")],
                [int(n) for n in wanted.calls.split(",")],
                wanted.seconds,
                wanted.turns,
                wanted.requests,
            )
        )
    print(json.dumps(result))
    return 0


async def measure(
    ours: Served,
    floor: Served,
    clients: Sequence[int],
    calls: Sequence[int],
    seconds: float,
    turns: int,
    num_requests: int,
) -> dict[str, Any]:
    url, process = ours
    columns = f"{'ms p50/p95/p99':>22} {'CPU ms':>6} {'floor':>6}"
    print(f"{'request':<22} {'clients':>7} {'/s':>7} {columns}")
    rest = []
    for name, request in requests().items():
        for num_clients in clients:
            spent, bare = _Spent(), _Spent()
            for _ in range(_SLICES):
                slice_s = seconds / _SLICES
                await spent.add(ours, request, num_clients, slice_s)
                await bare.add(floor, request, num_clients, slice_s / 2)
            row = {
                "request": name,
                "clients": num_clients,
                "per_s": round(len(spent.times_ms) / spent.took_s, 1),
                "ms": percentiles(spent.times_ms),
                "cpu_ms": round(spent.cpu_ms, 2),
                "floor_cpu_ms": round(bare.cpu_ms, 2),
            }
            rest.append(row)
            print(
                f"{name:<22} {num_clients:>7} {row['per_s']:>7}"
                f" {slashed(row['ms']):>22} {row['cpu_ms']:>6}"
                f" {row['floor_cpu_ms']:>6}",
                flush=True,
            )
    print(f"\n{'live dialogues':<22} {'first audio ms p50/p95/p99':>28} CPU ms a turn")
    live = []
    for num_calls in calls:
        began_cpu_s = cpu_s(process)
        first_ms = await _dialogues(url, num_calls, turns)
        row = {
            "calls": num_calls,
            "first_audio_ms": percentiles(first_ms),
            "cpu_ms": round(1000 * (cpu_s(process) - began_cpu_s) / len(first_ms), 2),
        }
        live.append(row)
        print(
            f"{num_calls:<22} {slashed(row['first_audio_ms']):>28} {row['cpu_ms']:>6}"
        )
    memory = await _memory(url, process, num_requests)
    print(
        f"\nafter {memory['requests']} requests: {memory['before_mb']} MB then "
        f"{memory['after_mb']} MB"
    )
    return {
        "benchmark": "http",
        **provenance("fastapi", "uvicorn", "websockets"),
        "seconds": seconds,
        "turns": turns,
        "rest": rest,
        "live": live,
        "memory": memory,
    }


@dataclass(slots=True)
class _Spent:
    """Of one kind of request, so far."""

    times_ms: list[float] = field(default_factory=list)
    took_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def cpu_ms(self) -> float:
        """A request."""
        return 1000 * self.cpu_s / len(self.times_ms)

    async def add(
        self, served: Served, asked: Asked, num_clients: int, seconds: float
    ) -> None:
        """As many requests as fit into the time."""
        url, process = served
        began_cpu_s, began_s = cpu_s(process), time.perf_counter()
        self.times_ms += await _requests(url, asked, num_clients, seconds)
        self.took_s += time.perf_counter() - began_s
        self.cpu_s += cpu_s(process) - began_cpu_s


@dataclass(frozen=True, slots=True)
class Asked:
    """One kind of request."""

    method: str
    path: str
    content: bytes | None = None
    media_type: str = "application/json"


def requests() -> dict[str, Asked]:
    """What is asked, by name."""
    json_30_s = json.dumps(audio_body(30.0)).encode()
    return {
        "health": Asked("GET", "/health"),
        "text": Asked("POST", "/chat/text", json.dumps({"turns": _TURNS}).encode()),
        "audio 5 s": Asked("POST", "/chat/audio", json.dumps(audio_body(5.0)).encode()),
        "audio 30 s": Asked("POST", "/chat/audio", json_30_s),
        "audio 30 s raw": Asked(
            "POST", "/chat/audio", samples(30.0), "application/octet-stream"
        ),
    }


def samples(seconds: float) -> bytes:
    """Bare samples at 16 kHz."""
    noise = np.random.default_rng(0).normal(0, 1000, int(16_000 * seconds))
    return noise.astype("<i2").tobytes()


def audio_body(seconds: float) -> dict[str, Any]:
    """Bare samples at 16 kHz in base64."""
    encoded = base64.b64encode(samples(seconds)).decode()
    return {"audio_base64": encoded, "turns": [], "sampling_rate": 16_000}


async def _requests(
    url: str, asked: Asked, num_clients: int, seconds: float
) -> list[float]:
    """Latencies of as many requests as fit into the time."""
    times_ms: list[float] = []
    deadline = time.perf_counter() + seconds

    async def ask(client: httpx.AsyncClient) -> None:
        while time.perf_counter() < deadline:
            began = time.perf_counter()
            await ask_once(client, asked)
            times_ms.append((time.perf_counter() - began) * 1000.0)

    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        await asyncio.gather(*(ask(client) for _ in range(num_clients)))
    return times_ms


async def ask_once(client: httpx.AsyncClient, asked: Asked) -> None:
    """One request, and that it is answered."""
    answer = await client.request(
        asked.method,
        asked.path,
        content=asked.content,
        headers={"Content-Type": asked.media_type},
    )
    answer.raise_for_status()


async def _memory(
    url: str, process: psutil.Process, num_requests: int
) -> dict[str, Any]:
    """Resident memory after warming up, and after many more requests."""
    kinds = [asked for name, asked in requests().items() if name != "audio 5 s"]
    before_mb = 0.0
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        for number in range(num_requests // 10 + num_requests):
            if number == num_requests // 10:
                before_mb = process.memory_info().rss / 1e6
            # long audio is a tenth of it, so that this ends
            await ask_once(client, kinds[number % 2 if number % 10 else number % 4])
    return {
        "requests": num_requests,
        "before_mb": round(before_mb, 1),
        "after_mb": round(process.memory_info().rss / 1e6, 1),
    }


async def _dialogues(url: str, num_calls: int, turns: int) -> list[float]:
    """From each turn's question to the first audio of its reply."""
    times_ms: list[float] = []
    said = Utterance(bytes(2 * 8000 * 3), 8000)

    async def call(speech: RemoteSpeechService, number: int) -> None:
        options = SessionOptions(f"call-{number}", "Be brief.")
        async with speech.open_session(options) as session:
            for turn in range(turns):
                user = said if turn % 2 else TypedTurn(f"Call {number}, turn {turn}.")
                began = time.perf_counter()
                first_ms = 0.0
                async with aclosing(session.reply(turn, user)) as events:
                    async for event in events:
                        if isinstance(event, ReplyAudio) and not first_ms:
                            first_ms = (time.perf_counter() - began) * 1000.0
                times_ms.append(first_ms)
                await session.settle(turn)

    async with RemoteSpeechService([url]) as speech:
        await asyncio.gather(*(call(speech, number) for number in range(num_calls)))
    return times_ms


@contextmanager
def server() -> Iterator[Served]:
    """The server on a free port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            **os.environ,
            "ULTRAVOX_HOST": "127.0.0.1",
            "ULTRAVOX_PORT": str(port),
            "ULTRAVOX_ENGINE": "scripted",
            "ULTRAVOX_MAX_CALLS": "1000",
            "ULTRAVOX_DATA_DIR": folder,
            "ULTRAVOX_LOG_LEVEL": "WARNING",
        }
        script = str(_ROOT / "ultravox_api_server.py")
        with _process([script, "--supervised"], port, environ) as served:
            yield served


@contextmanager
def bare_server() -> Iterator[Served]:
    """One that only reads, on a free port."""
    port = free_port()
    command = ["-m", "benchmarks.bare_http", str(port)]
    with _process(command, port, dict(os.environ)) as served:
        yield served


def free_port() -> int:
    """One that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(
    arguments: Sequence[str], port: int, environ: dict[str, str]
) -> Iterator[Served]:
    with subprocess.Popen(
        [sys.executable, *arguments],
        env=environ,
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_ready(url)
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()


def _wait_ready(url: str) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health/ready", trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("bench_http: the server did not become ready")


def cpu_s(process: psutil.Process) -> float:
    """CPU time of the process so far; the synthesiser's processes are not in it."""
    times = process.cpu_times()
    return float(times.user + times.system)


def percentiles(values_ms: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99."""
    return {f"p{q}": round(float(np.percentile(values_ms, q)), 1) for q in (50, 95, 99)}


def slashed(values: Any) -> str:
    """For a table."""
    return " / ".join(f"{value:.1f}" for value in values.values())


if __name__ == "__main__":
    sys.exit(main())
