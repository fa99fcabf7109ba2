"""Coverage-guided fuzzing of everything that outsiders' bytes reach.

    python -m tests.fuzz [--seconds 60] [--target agi,audio] [--corpus FOLDER]
    nice python -m tests.fuzz --seconds 3600 --out fuzz.json

Each target runs in a process of its own under atheris (libFuzzer) for its share of the
time, from the kept inputs in `tests/fuzz/corpus/`.  A finding is printed with the input
that made it; put that into the corpus once it is mended, so that it stays so.

Exit status: 0 nothing found, 1 something was.  The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).resolve().parent / "corpus"
_ROOT = CORPUS.parent.parent.parent
_MAX_INPUT_BYTES = 4096
_GRACE_S = 300  # to start on a busy machine; a hanging input ends after ten seconds


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=60, help="in all")
    parser.add_argument("--target", default=",".join(TARGETS), help="comma list")
    parser.add_argument("--corpus", type=Path, help="folder for inputs that add cover")
    parser.add_argument("--out", type=Path, help="file for the JSON as well")
    wanted = parser.parse_args()
    names = wanted.target.split(",")
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    each_s = max(1, wanted.seconds // len(names))
    results = []
    for name in names:
        result = run(name, each_s, wanted.corpus)
        results.append(result)
        print(
            f"{name:<15} {result['runs']:>9} runs in {result['seconds']:>4} s, cover "
            f"{result['cover']:>5}, {result['new_inputs']:>4} new inputs, "
            f"{'FOUND' if result['found'] else 'nothing found'}",
            flush=True,
        )
    whole = {"benchmark": "fuzz", "targets": results, **provenance("atheris")}
    if wanted.out is not None:
        wanted.out.write_text(json.dumps(whole) + "\n")
    print(json.dumps(whole))
    return 1 if any(result["found"] for result in results) else 0


def run(name: str, seconds: int, corpus: Path | None = None) -> dict[str, Any]:
    """One target for so long; what was found is shown on standard error."""
    with tempfile.TemporaryDirectory() as folder:
        new = (corpus or Path(folder)) / name
        new.mkdir(parents=True, exist_ok=True)
        options = (
            f"-max_total_time={seconds}",
            f"-max_len={_MAX_INPUT_BYTES}",
            "-timeout=10",
            "-rss_limit_mb=2048",
            f"-artifact_prefix={folder}/found-",
            str(new),
            str(CORPUS / name),
        )
        num_before = sum(file.is_file() for file in new.iterdir())
        began_s = time.monotonic()
        command = [sys.executable, "-m", "tests.fuzz.one", name, *options]
        done = subprocess.run(
            command,
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds + _GRACE_S,
        )
        passed_s = time.monotonic() - began_s
        num_new = sum(file.is_file() for file in new.iterdir()) - num_before
        found = done.returncode != 0
        if found:
            print(f"--- {name}\n{done.stdout[-6000:]}", file=sys.stderr)
            for file in Path(folder).glob("found-*"):
                print(f"input: {file.read_bytes()!r}", file=sys.stderr)
    runs = re.findall(r"^#(\d+)", done.stdout, re.MULTILINE)
    covers = re.findall(r"cov: (\d+)", done.stdout)
    return {
        "target": name,
        "runs": int(runs[-1]) if runs else 0,
        "cover": int(covers[-1]) if covers else 0,
        "seconds": round(passed_s),
        "new_inputs": num_new,
        "found": found,
    }


if __name__ == "__main__":
    sys.exit(main())
