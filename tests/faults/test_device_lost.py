"""The GPU is lost in mid-call: nobody waits in silence, and the next process serves.

Two phone halves talk to one speech half whose device is lost when the first caller's
words are encoded. One knows no other speech half, the other does.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from agi_handlers.sidecar import Sidecar, SidecarOptions, sidecar_command
from tests.end_to_end.asterisk_lab import ROOT
from tests.end_to_end.bot_service import BotService
from tests.faults.callers import QUESTION, heard
from tools.make_tiny_checkpoint import write_tiny_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

_LONGEST_WAIT_S: Final = 6.0
_SERVED: Final = (*QUESTION, "wait:200,1", "bye")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def _speech_half(
    folder: Path, command: tuple[str, ...], **settings: str
) -> AsyncIterator[tuple[Sidecar, str]]:
    """A supervised one and its address; it becomes ready by itself."""
    port = _free_port()
    ours = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "DATA_DIR": str(folder),
        "TTS_WORKERS": "1",
        **settings,
    }
    environ = {k: v for k, v in os.environ.items() if not k.startswith("ULTRAVOX_")}
    environ |= {f"ULTRAVOX_{name}": value for name, value in ours.items()}
    url = f"http://127.0.0.1:{port}"
    sidecar = Sidecar(SidecarOptions(url, command, environ))
    running = asyncio.create_task(sidecar.run())
    try:
        yield sidecar, url
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_its_process_ends_and_callers_are_looked_after(tmp_path: Path) -> None:
    for name in ("model", "losing", "well", "alone", "safe"):
        (tmp_path / name).mkdir()
    write_tiny_checkpoint(tmp_path / "model")
    file = tmp_path / "lose-the-device"
    losing_command = (
        *(sys.executable, "-m", "tests.fakes.losing_speech_half"),
        *(str(file), "--supervised"),
    )
    async with AsyncExitStack() as stack:
        losing, losing_url = await stack.enter_async_context(
            _speech_half(
                tmp_path / "losing",
                losing_command,
                MODEL=str(tmp_path / "model"),
                DEVICE="cpu",
                ENGINE_THREADS="1",
                MAX_NEW_TOKENS="8",
            )
        )
        well, well_url = await stack.enter_async_context(
            _speech_half(tmp_path / "well", sidecar_command(ROOT), ENGINE="scripted")
        )
        assert await losing.wait_ready(90)
        assert await well.wait_ready(30)
        services = []
        for name, urls in (("alone", losing_url), ("safe", f"{losing_url},{well_url}")):
            service = BotService.start(tmp_path / name, settings={"API_URL": urls})
            stack.push_async_callback(asyncio.to_thread, service.stop)
            services.append(service)
        for service in services:
            await asyncio.to_thread(service.wait_until_ready)
        file.touch()
        alone, safe = await asyncio.gather(
            heard(services[0], QUESTION, linger_s=20.0),  # hears it out
            heard(services[1], _SERVED, linger_s=6.0),
        )
        assert not file.exists(), "nobody's words were encoded"
        # Who can be served elsewhere is; the other hears why, and is handed to people.
        assert safe.status == "hangup", services[1].log()[-3000:]
        assert not alone.is_well_ended
        assert alone.status == "failed", services[0].log()[-3000:]
        for call in (alone, safe):
            assert call.longest_wait_s < _LONGEST_WAIT_S
            assert call.record is not None
            assert call.record["ended_at"] is not None
        assert "device_lost" in str(alone.record)
        assert losing.last_exit == "exit status 3"
        assert losing.num_restarts == 1
        # The next process has the device anew, and has replied once.
        assert await losing.wait_ready(90)
