"""Coverage-guided fuzzing of everything that outsiders' bytes reach.

    python -m tests.fuzz [--seconds 60] [--target agi,audio] [--corpus FOLDER]
    nice python -m tests.fuzz --seconds 3600 --out fuzz.json

Each target runs in a process of its own under atheris (libFuzzer) for its share of the
time, from the kept inputs in `tests/fuzz/corpus/`; `new_inputs` reached something that
none before had.  A finding is printed with the input
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).resolve().parent / "corpus"
_ROOT = CORPUS.parent.parent.parent
_MAX_INPUT_BYTES = 4096


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
    for result in run(names, each_s, wanted.corpus):
        results.append(result)
        print(
            f"{result['target']:<15} {result['runs']:>9} runs in "
            f"{result['seconds']:>4} s, cover {result['cover']:>5}, "
            f"{result['new_inputs']:>4} new inputs, "
            f"{'FOUND' if result['found'] else 'nothing found'}",
            flush=True,
        )
    whole = {"benchmark": "fuzz", "targets": results, **provenance("atheris")}
    if wanted.out is not None:
        wanted.out.write_text(json.dumps(whole) + "\n")
    print(json.dumps(whole))
    return 1 if any(result["found"] for result in results) else 0


def run(
    names: Sequence[str], each_s: int, corpus: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Targets, each for so long; what was found is shown on standard error.

    Raises:
        RuntimeError: not every target was run to its end.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for target in names:
            (folder / target).mkdir()
            new = (corpus or folder / "unkept") / target
            new.mkdir(parents=True, exist_ok=True)
            (folder / target / "new").symlink_to(new.absolute())
        options = (
            f"-max_total_time={each_s}",
            f"-max_len={_MAX_INPUT_BYTES}",
            "-timeout=10",
            "-rss_limit_mb=2048",
        )
        with subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.one", name, ",".join(names), *options],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as running:
            assert running.stdout is not None
            num_over = 0
            for line in running.stdout:
                over = json.loads(line)
                num_over += 1
                yield _result(over, folder / over["target"])
        if num_over < len(names):
            raise RuntimeError(f"ended with {running.returncode}, {num_over} done")


def _result(over: dict[str, Any], folder: Path) -> dict[str, Any]:
    log = (folder / "log").read_text(errors="replace")
    found = over["status"] != 0
    if found:
        print(f"--- {over['target']}\n{log[-6000:]}", file=sys.stderr)
        for file in folder.glob("found-*"):
            print(f"input: {file.read_bytes()!r}", file=sys.stderr)
    runs = re.findall(r"^#(\d+)", log, re.MULTILINE)
    covers = re.findall(r"cov: (\d+)", log)
    return {
        "target": over["target"],
        "runs": int(runs[-1]) if runs else 0,
        "cover": int(covers[-1]) if covers else 0,
        "seconds": over["seconds"],
        "new_inputs": len(re.findall(r"^#\d+\s+NEW ", log, re.MULTILINE)),
        "found": found,
    }


if __name__ == "__main__":
    sys.exit(main())
