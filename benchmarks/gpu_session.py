"""Everything of the engine that only a GPU can show, in one command.

    python -m benchmarks.gpu_session [--shape 1b|8b] [--calls 1,8,32,64]

    parity      the reference's numbers, computed on the GPU in float32
    equal       fast paths (CUDA graphs, paged attention) against plain steps: a
                random 1B in bfloat16, the same prompts, the same greedy tokens
    speed       `bench_engine` with and without them, turns of 2 to 8 s of speech
                behind 500 tokens of instructions

Each step is a process of its own, so that one that fails leaves the others alone.
What came of them is written to `benchmarks/results/engine_gpu_SHAPE.json`, and the
last line is that JSON. Made for a session of ten minutes: 8b takes most of it, so
shapes are run one at a time. Exit status 0 only if every step succeeded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.provenance import provenance

ROOT = Path(__file__).resolve().parents[1]
_RESULTS = ROOT / "benchmarks" / "results"
_STEP_TIMEOUT_S = 280
_LOAD = "--own 60 --new 40 --audio-s 2-8"


def steps(shape: str, calls: str) -> dict[str, list[str]]:
    """Name and command line of every step, in order."""
    python = [sys.executable, "-m"]
    parity = [*python, "benchmarks.check_parity", "--device", "cuda"]
    bench = [*python, "benchmarks.bench_engine", "--shape", shape, "--device", "cuda"]
    bench += [*_LOAD.split(), "--calls", calls]
    equal = "tests/model/engine/test_on_gpu.py"
    return {
        "parity_v0_4": [*parity, "tests/data/parity/v0_4"],
        "parity_v0_5": [*parity, "tests/data/parity/v0_5"],
        "equal": [*python, "pytest", "-q", "-rs", "-p", "no:cacheprovider", equal],
        "speed_fast": [*bench, "--fast-paths", "auto"],
        "speed_plain": [*bench, "--fast-paths", "off"],
    }


def run(command: Sequence[str]) -> dict[str, Any]:
    """One step: whether it succeeded, how long it took, and what its last line says."""
    began = perf_counter()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_STEP_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"ok": False, "error": f"took longer than {_STEP_TIMEOUT_S} s"}
    result: dict[str, Any] = {
        "ok": done.returncode == 0,
        "seconds": round(perf_counter() - began, 1),
    }
    lines = done.stdout.strip().splitlines()
    try:
        result["result"] = json.loads(lines[-1]) if lines else None
    except ValueError:
        result["result"] = lines[-1]
    if not result["ok"]:
        result["error"] = (done.stdout + done.stderr)[-2000:]
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_session",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shape", choices=["tiny", "1b", "8b"], default="1b")
    parser.add_argument("--calls", default="1,8,32,64", help="numbers of calls at once")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="folder")
    options = parser.parse_args(arguments)
    import torch

    if not torch.cuda.is_available():
        print("no CUDA device is available to PyTorch", file=sys.stderr)
        return 1
    record: dict[str, Any] = {
        "benchmark": "gpu_session",
        **provenance("torch", "transformers"),
        "gpu": torch.cuda.get_device_name(),
        "shape": options.shape,
        "steps": {},
    }
    for name, command in steps(options.shape, options.calls).items():
        print(f"{name}: {' '.join(command)}", flush=True)
        record["steps"][name] = run(command)
        print(f"  {'ok' if record['steps'][name]['ok'] else 'FAILED'}", flush=True)
        # Written after each: a session that is cut short keeps what it has.
        options.results.mkdir(parents=True, exist_ok=True)
        file = options.results / f"engine_gpu_{options.shape}.json"
        file.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))
    return 0 if all(step["ok"] for step in record["steps"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
