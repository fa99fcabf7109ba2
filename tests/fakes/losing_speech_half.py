"""The speech half on a device that can be lost: a process for tests of what follows.

    python -m tests.fakes.losing_speech_half FILE [--supervised]

It is ultravox_api_server.py with its own model, engine and settings. Only, encoding
speech while FILE exists fails as it does in CUDA after a fault; the file goes with it,
so that the next process is well.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import torch

import ultravox_api_server
from config import Settings
from model.engine.engine import Engine
from model.engine.runner import Runner
from model.service import LocalSpeechService
from model.ultravox.clip import AudioClip
from rest_api.service_state import ServiceState
from rest_api.start_up import open_service


class LosingRunner:
    """A runner whose device is lost once the file is there."""

    def __init__(self, runner: Runner, file: Path) -> None:
        self._runner = runner
        self._file = file

    def encode(self, clips: Sequence[AudioClip]) -> None:
        if self._file.exists():
            self._file.unlink()
            raise torch.AcceleratorError(
                "CUDA error: an illegal memory access was encountered"
            )
        self._runner.encode(clips)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)


def main(file: Path, arguments: list[str]) -> int:
    @asynccontextmanager
    async def opening(
        settings: Settings, state: ServiceState, make_tiny: Callable[[Path], object]
    ) -> AsyncIterator[LocalSpeechService]:
        async with open_service(settings, state, make_tiny) as service:
            engine = service.engine
            assert isinstance(engine, Engine)
            worker = engine._worker
            worker._runner = cast("Runner", LosingRunner(worker._runner, file))
            yield service

    return ultravox_api_server.main(arguments, opening)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
