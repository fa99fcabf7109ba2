"""Supervision of the speech half: started, watched, restarted, never orphaned."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from agi_handlers.sidecar import Sidecar, SidecarOptions, sidecar_command
from model.client import RemoteSpeechService
from model.errors import SpeechUnavailable
from model.speech import SessionOptions, TypedTurn
from tests.free_port import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

# Answers /health/ready and ends when its standard input does, unless a file tells it
# to misbehave.
CHILD = """
import http.server, os, pathlib, sys, threading, time
port, mood = int(sys.argv[1]), pathlib.Path(sys.argv[2])
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        word = mood.read_text() if mood.exists() else "ready"
        if word == "hang":
            time.sleep(600)
        self.send_response(200 if word == "ready" else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *parts):
        pass
def watch():
    sys.stdin.buffer.read()
    if not (mood.exists() and mood.read_text() == "stubborn"):
        os._exit(0)
if mood.exists() and mood.read_text() == "die":
    sys.exit(3)
threading.Thread(target=watch, daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", port), Answer).serve_forever()
"""


class Mood:
    """Tells the child how to behave."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def be(self, word: str) -> None:
        self.path.write_text(word)


@pytest.fixture
def mood(tmp_path: Path) -> Mood:
    return Mood(tmp_path / "mood")


@pytest.fixture
def options(tmp_path: Path, mood: Mood) -> SidecarOptions:
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD))
    port = free_port()
    return SidecarOptions(
        url=f"http://127.0.0.1:{port}",
        command=(sys.executable, str(script), str(port), str(mood.path)),
        backoff_first_s=0.05,
        backoff_max_s=0.2,
        live_interval_s=0.05,
        live_timeout_s=0.3,
        max_missed=2,
        stop_grace_s=1.0,
    )


@asynccontextmanager
async def running(options: SidecarOptions) -> AsyncIterator[Sidecar]:
    sidecar = Sidecar(options)
    task = asyncio.create_task(sidecar.run())
    try:
        yield sidecar
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until_restarted(sidecar: Sidecar, old_pid: int | None) -> None:
    async with asyncio.timeout(20):
        while sidecar.pid == old_pid or not sidecar.is_ready:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while psutil.pid_exists(pid):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)


async def test_it_becomes_ready_and_is_ended_with_us(options: SidecarOptions) -> None:
    async with running(options) as sidecar:
        assert await sidecar.wait_ready(20)
        pid = sidecar.pid
        assert pid is not None
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)
    assert not sidecar.is_ready
    assert sidecar.pid is None
    assert sidecar.last_exit == "exit status 0"


async def test_not_ready_is_alive(options: SidecarOptions, mood: Mood) -> None:
    mood.be("loading")
    async with running(options) as sidecar:
        assert not await sidecar.wait_ready(0.5)
        mood.be("ready")
        assert await sidecar.wait_ready(20)
        assert sidecar.num_restarts == 0
        mood.be("loading")
        async with asyncio.timeout(10):
            while sidecar.is_ready:  # noqa: ASYNC110 - a poll notices it
                await asyncio.sleep(0.01)


async def test_killed_it_is_started_again(options: SidecarOptions) -> None:
    async with running(options) as sidecar:
        assert await sidecar.wait_ready(20)
        pid = sidecar.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until_restarted(sidecar, pid)
        assert sidecar.num_restarts == 1
        assert sidecar.last_exit == "killed by SIGKILL"


async def test_one_that_cannot_take_over_leaves_the_old_one(
    options: SidecarOptions, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(options) as sidecar:
        assert await sidecar.wait_ready(20)
        pid = sidecar.pid
        for num in (1, 2):  # whoever could not once may be asked again
            sidecar.replace()  # the test's child opens the port as if it were alone
            async with asyncio.timeout(20):
                while caplog.text.count("sidecar_not_replaced") < num:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert sidecar.is_ready
        assert (sidecar.pid, sidecar.num_restarts) == (pid, 0)


async def test_one_that_hangs_is_killed_and_started_again(
    options: SidecarOptions, mood: Mood
) -> None:
    async with running(options) as sidecar:
        assert await sidecar.wait_ready(20)
        pid = sidecar.pid
        mood.be("hang")
        async with asyncio.timeout(20):
            while sidecar.pid == pid:  # noqa: ASYNC110 - polls notice it
                await asyncio.sleep(0.01)
        mood.be("ready")
        assert await sidecar.wait_ready(20)
        assert sidecar.num_restarts >= 1


async def test_one_that_cannot_start_is_tried_again_and_again(
    options: SidecarOptions, mood: Mood
) -> None:
    mood.be("die")
    async with running(options) as sidecar:
        async with asyncio.timeout(30):
            while sidecar.num_restarts < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert sidecar.last_exit == "exit status 3"
        assert not sidecar.is_ready


async def test_a_command_that_does_not_exist_is_a_reason(
    options: SidecarOptions,
) -> None:
    async with running(replace(options, command=("/nonexistent/python",))) as sidecar:
        async with asyncio.timeout(20):
            while not sidecar.last_exit:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert sidecar.last_exit.startswith("cannot start")


async def test_one_that_will_not_end_is_killed(
    options: SidecarOptions, mood: Mood
) -> None:
    async with running(options) as sidecar:
        assert await sidecar.wait_ready(20)
        mood.be("stubborn")
    assert sidecar.last_exit == "killed by SIGKILL"


# The real server, without a model: about three seconds to start.


@pytest.fixture
def real(tmp_path: Path) -> SidecarOptions:
    port = free_port()
    environ = {
        **os.environ,
        "ULTRAVOX_ENGINE": "scripted",
        "ULTRAVOX_HOST": "127.0.0.1",
        "ULTRAVOX_PORT": str(port),
        "ULTRAVOX_DATA_DIR": str(tmp_path / "data"),
        "ULTRAVOX_TTS_WORKERS": "1",
    }
    return SidecarOptions(
        url=f"http://127.0.0.1:{port}",
        command=sidecar_command(ROOT),
        environ=environ,
        backoff_first_s=0.1,
        live_interval_s=0.1,
    )


async def test_a_kill_in_mid_call_is_noticed_at_once_and_mended(
    real: SidecarOptions,
) -> None:
    async with running(real) as sidecar, RemoteSpeechService([real.url]) as speech:
        assert await sidecar.wait_ready(60)
        pid = sidecar.pid
        assert pid is not None
        workers = psutil.Process(pid).children(recursive=True)
        assert workers
        async with speech.open_session(SessionOptions("c", "")) as session:
            stream = session.reply(0, TypedTurn("word " * 100))
            await anext(stream)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(SpeechUnavailable):
                async for _ in stream:
                    pass
        await until_restarted(sidecar, pid)
        for worker in workers:
            await until_gone(worker.pid)
        async with speech.open_session(SessionOptions("d", "")) as session:
            events = [event async for event in session.say(0, "Back again.")]
        assert events


def test_the_child_ends_when_we_are_killed(real: SidecarOptions) -> None:
    """Even by SIGKILL, which leaves us no last word."""
    program = textwrap.dedent(
        f"""
        import asyncio
        from agi_handlers.sidecar import Sidecar, SidecarOptions
        async def main():
            sidecar = Sidecar(SidecarOptions(
                url={real.url!r}, command={real.command!r}, live_interval_s=0.1))
            running = asyncio.create_task(sidecar.run())
            assert await sidecar.wait_ready(60)
            print(sidecar.pid, flush=True)
            await running
        asyncio.run(main())
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=real.environ,
        cwd=ROOT,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        family = [child, *child.children(recursive=True)]
        parent.kill()
    gone, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert len(gone) >= 2


def test_nothing_here_imports_torch() -> None:
    program = (
        "import sys, agi_handlers.sidecar; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
