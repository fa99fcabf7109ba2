"""One target under libFuzzer: python -m tests.fuzz.one TARGET LIBFUZZER-OPTION..."""

from __future__ import annotations

import logging
import sys

import atheris

# Instrumented while imported, so that the fuzzer sees which branches an input takes.
with atheris.instrument_imports(
    include=["agi_handlers", "config", "model", "rest_api"]
):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    logging.disable()  # findings are exceptions, not lines
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
