"""Latency of speech synthesis: sentences asked for at the same moment.

    python -m benchmarks.bench_tts [--calls 1,10,50] [--workers 2] [--voice V] ...

Each of N calls asks for one sentence of about 5 s, all at once, through the whole path:
splitting, spoken form, process, resampling to 8 kHz. Measured per call: until its first
audio, and until its last. Every sentence is another one, so nothing comes from memory.

The ceiling is the processes' arithmetic: espeak-ng with shaping takes 6 to 8 ms of one
core for such a sentence, so N calls on W processes (W cores free) cannot all be done
before N * 7 / W ms. The first audio of a lone sentence is bounded by one trip to the
process and back and by soxr, which holds back the first 0.1 s of speech.

Prints a table and, as the last line, JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from model.errors import SpeechError
from model.tts.open import TtsOptions, default_voice, open_synthesizer
from model.tts.speaker import Speaker
from model.tts.voice import Voice

_RATE_HZ = 8000
_WARM_UP_CALLS = 4


@dataclass(frozen=True, slots=True)
class Heard:
    """One call's sentence; both times since it was asked for."""

    first_audio_s: float
    total_s: float
    speech_s: float


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", default="1,10,50", help="simultaneous sentences")
    parser.add_argument("--rounds", type=int, default=5, help="repeats of each")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--voice", default="", help="name, or a piper voice file")
    parser.add_argument("--language", default="en-us")
    parser.add_argument("--url", default="", help="of a speech server, for openai")
    arguments = parser.parse_args()
    options = TtsOptions(
        backend=arguments.backend,
        voice=arguments.voice,
        language=arguments.language,
        num_workers=arguments.workers,
        url=arguments.url,
    )
    calls = [int(number) for number in arguments.calls.split(",")]
    try:
        result = uvloop.run(measure(options, calls, arguments.rounds))
    except SpeechError as exc:
        print(f"bench_tts: {exc}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


async def measure(
    options: TtsOptions, calls: list[int], num_rounds: int
) -> dict[str, Any]:
    started = time.perf_counter()
    synthesizer = await open_synthesizer(options)
    open_s = time.perf_counter() - started
    try:
        speaker, voice = Speaker(synthesizer), default_voice(options)
        await _round(speaker, voice, _WARM_UP_CALLS, "warm")
        print(f"{synthesizer.status().version}, {options.num_workers} processes")
        print(
            f"{'calls':>5} {'first audio ms p50/p95/p99':>28} {'total ms':>24} x real"
        )
        rows = []
        for num_calls in calls:
            heard = [
                one
                for number in range(num_rounds)
                for one in await _round(speaker, voice, num_calls, f"round {number}")
            ]
            rows.append(_row(num_calls, heard))
        status = synthesizer.status()
    finally:
        await synthesizer.aclose()
    return {
        "benchmark": "tts",
        "commit": _commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
        "synthesizer": status.version,
        "backend": status.backend,
        "workers": options.num_workers,
        "rounds": num_rounds,
        "open_s": round(open_s, 3),
        "failures": status.num_failures,
        "results": rows,
    }


async def _round(
    speaker: Speaker, voice: Voice, num_calls: int, name: str
) -> list[Heard]:
    return await asyncio.gather(
        *(_hear(speaker, voice, _sentence(name, number)) for number in range(num_calls))
    )


def _sentence(name: str, number: int) -> str:
    """About 5 s of speech, no two alike; lower case, so that it stays one piece."""
    return f"{name}: your order {1000 + number} ships on Nov 22 and costs ${number}.50."


async def _hear(speaker: Speaker, voice: Voice, text: str) -> Heard:
    started = time.perf_counter()
    first_s = 0.0
    num_bytes = 0
    async for piece in speaker.speak(text, voice, rate_hz=_RATE_HZ):
        first_s = first_s or time.perf_counter() - started
        num_bytes += len(piece.pcm16)
    return Heard(first_s, time.perf_counter() - started, num_bytes / 2 / _RATE_HZ)


def _row(num_calls: int, heard: list[Heard]) -> dict[str, Any]:
    first = [1000 * one.first_audio_s for one in heard]
    total = [1000 * one.total_s for one in heard]
    speech_s = float(np.mean([one.speech_s for one in heard]))
    row = {
        "calls": num_calls,
        "first_audio_ms": _percentiles(first),
        "total_ms": _percentiles(total),
        "speech_s": round(speech_s, 2),
        "real_time_factor": round(speech_s / (_percentiles(total)["p50"] / 1000), 1),
    }
    print(
        f"{num_calls:>5} {_slashed(row['first_audio_ms']):>28} "
        f"{_slashed(row['total_ms']):>24} {row['real_time_factor']:>6}"
    )
    return row


def _percentiles(values_ms: list[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(values_ms, q)), 1) for q in (50, 95, 99)}


def _slashed(percentiles: Any) -> str:
    return " / ".join(f"{value:.1f}" for value in percentiles.values())


def _commit() -> str:
    run = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
