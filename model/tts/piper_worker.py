"""A process that speaks with piper.

python -m model.tts.piper_worker --threads 1 VOICE.onnx [VOICE.onnx ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from model.tts.piper_voices import open_piper
from model.tts.worker_loop import run_worker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("voices", type=Path, nargs="+", metavar="VOICE.onnx")
    arguments = parser.parse_args()
    files: tuple[Path, ...] = tuple(arguments.voices)
    run_worker(lambda: open_piper(files, arguments.threads))


if __name__ == "__main__":
    main()
