"""Targets under libFuzzer, one after the other.

    python -m tests.fuzz.one FOLDER TARGET,TARGET... LIBFUZZER-OPTION...

Instrumenting what is fuzzed takes longer than a short run, so it is done once and each
target runs in a fork.  Its own folder FOLDER/TARGET has what it printed in `log`, what
it found in `found-*`, new inputs in `new`.  A line of JSON for each one that is over:
its name, its exit status, how long it took.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path

import atheris

# Instrumented while imported, so that the fuzzer sees which branches an input takes.
with atheris.instrument_imports(
    include=["agi_handlers", "config", "model", "rest_api"]
):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    logging.disable()  # findings are exceptions, not lines
    folder, names, *options = sys.argv[1:]
    for name in names.split(","):
        began_s = time.monotonic()
        child = os.fork()
        if child == 0:
            _fuzz(name, Path(folder, name), options)
        _, status = os.waitpid(child, 0)
        row = {
            "target": name,
            "status": os.waitstatus_to_exitcode(status),
            "seconds": round(time.monotonic() - began_s),
        }
        print(json.dumps(row), flush=True)


def _fuzz(name: str, folder: Path, options: list[str]) -> None:
    """Does not return."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    own = [f"-artifact_prefix={folder}/found-", str(folder / "new")]
    atheris.Setup([sys.argv[0], *options, *own, *_kept(name)], TARGETS[name])
    atheris.Fuzz()


def _kept(name: str) -> list[str]:
    corpus = Path(__file__).parent / "corpus" / name
    return [str(corpus)] if corpus.exists() else []


if __name__ == "__main__":
    main()
