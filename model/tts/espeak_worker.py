"""A process that speaks with espeak-ng: `python -m model.tts.espeak_worker`."""

from __future__ import annotations

from model.tts.espeak_library import EspeakLibrary
from model.tts.worker_loop import run_worker

if __name__ == "__main__":
    run_worker(EspeakLibrary)
