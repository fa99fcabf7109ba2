"""Synthesiser processes: bad ones are replaced, requests never lost or mixed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from model.errors import SynthesisFailed
from model.tts.errors import SynthesisOverloaded, SynthesizerUnavailable, VoiceUnknown
from model.tts.voice import Voice
from model.tts.worker_pool import PoolOptions, WorkerPool
from model.tts.worker_process import WorkerOptions
from tests.model.tts.scripted_worker import RATE_HZ

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SCRIPTED = ("tests.model.tts.scripted_worker",)
PATIENT = WorkerOptions(start_timeout_s=60.0, silence_timeout_s=60.0)
IMPATIENT = WorkerOptions(start_timeout_s=60.0, silence_timeout_s=0.3)


@asynccontextmanager
async def open_pool(
    num_workers: int = 1,
    *,
    worker: WorkerOptions = PATIENT,
    max_waiting: int = 100,
    wait_timeout_s: float = 60.0,
) -> AsyncIterator[WorkerPool]:
    options = PoolOptions(
        num_workers=num_workers,
        max_waiting=max_waiting,
        wait_timeout_s=wait_timeout_s,
        worker=worker,
    )
    pool = WorkerPool("scripted", SCRIPTED, options)
    await pool.open()
    try:
        yield pool
    finally:
        await pool.aclose()


async def speak(pool: WorkerPool, text: str, voice: Voice | None = None) -> bytes:
    chunks = pool.synthesize(text, voice or Voice(), rate_hz=RATE_HZ)
    return b"".join([chunk async for chunk in chunks])


def seconds(pcm16: bytes) -> float:
    return len(pcm16) / 2 / RATE_HZ


def children() -> set[int]:
    """Processes of ours that still exist, ended ones not yet waited for included."""
    pids = Path("/proc/self/task").glob("*/children")
    return {int(pid) for file in pids for pid in file.read_text().split()}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - it is another process's doing
            await asyncio.sleep(0.01)


async def test_a_request_is_spoken_whole() -> None:
    async with open_pool() as pool:
        assert seconds(await speak(pool, "tone 1.5")) == 1.5


async def test_thirty_requests_at_once_each_get_their_own_speech() -> None:
    async with open_pool(2) as pool:
        durations = [0.2 + 0.05 * n for n in range(30)]
        speeches = await asyncio.gather(*(speak(pool, f"tone {d}") for d in durations))
        for duration_s, speech in zip(durations, speeches, strict=True):
            assert seconds(speech) == pytest.approx(duration_s, abs=0.001)
        assert pool.status().num_requests == 30


async def test_a_process_killed_in_mid_speech_is_replaced_and_the_request_retried(
    tmp_path: Path,
) -> None:
    async with open_pool(2) as pool:
        speech = await speak(pool, f"die {tmp_path / 'died'}")
        assert speech == await speak(pool, "tone 1")  # no sample twice, none missing
        assert pool.status().num_retries == 1
        await until(lambda: pool.status().num_workers == 2)
        assert pool.status().num_replaced == 1


async def test_one_process_is_enough_for_a_retry(tmp_path: Path) -> None:
    async with open_pool(1) as pool:
        assert seconds(await speak(pool, f"die {tmp_path / 'died'}")) == 1.0


async def test_a_text_that_kills_every_process_fails_and_the_pool_recovers() -> None:
    async with open_pool(2) as pool:
        with pytest.raises(SynthesisFailed, match="synthesiser process"):
            await speak(pool, "always die")
        assert seconds(await speak(pool, "tone 1")) == 1.0
        assert pool.status().num_failures == 1


async def test_a_process_killed_while_idle_costs_nobody_a_request() -> None:
    before = children()
    async with open_pool(1) as pool:
        (pid,) = children() - before
        os.kill(pid, signal.SIGKILL)
        assert seconds(await speak(pool, "tone 1")) == 1.0


async def test_a_process_that_keeps_dying_while_idle_is_always_replaced() -> None:
    before = children()
    async with open_pool(1, max_waiting=1) as pool:
        for num_deaths in range(1, 5):
            (pid,) = children() - before
            os.kill(pid, signal.SIGKILL)
            await until(lambda n=num_deaths: pool.status().num_replaced == n)  # type: ignore[misc]
            await until(lambda: pool.status().num_workers == 1)
        assert seconds(await speak(pool, "tone 1")) == 1.0


async def test_a_stopped_process_is_replaced_after_the_deadline() -> None:
    before = children()
    async with open_pool(1, worker=IMPATIENT) as pool:
        (pid,) = children() - before
        os.kill(pid, signal.SIGSTOP)
        assert seconds(await speak(pool, "tone 1")) == 1.0
        assert pid not in children()
        assert pool.status().num_replaced == 1


async def test_a_process_that_hangs_in_mid_speech_fails_after_the_retry() -> None:
    async with open_pool(1, worker=IMPATIENT) as pool:
        with pytest.raises(SynthesisFailed, match="hung"):
            await speak(pool, "hang")
        assert pool.status().num_retries == 1


async def test_a_process_that_talks_nonsense_is_replaced() -> None:
    async with open_pool(1) as pool:
        with pytest.raises(SynthesisFailed, match="no message"):
            await speak(pool, "nonsense")
        assert seconds(await speak(pool, "tone 1")) == 1.0


async def test_what_a_process_prints_is_not_taken_for_speech() -> None:
    async with open_pool(1) as pool:
        assert seconds(await speak(pool, "print")) == 1.0


async def test_a_text_that_is_refused_fails_without_a_retry() -> None:
    async with open_pool(1) as pool:
        with pytest.raises(SynthesisFailed, match="cannot say"):
            await speak(pool, "refuse")
        assert pool.status().num_retries == 0
        assert pool.status().num_replaced == 0


async def test_an_unknown_voice_is_refused_without_a_retry() -> None:
    async with open_pool(1) as pool:
        with pytest.raises(VoiceUnknown, match="no xx"):
            await speak(pool, "tone 1", Voice("xx"))
        assert pool.status().num_retries == 0


async def test_closing_the_speech_stops_it_and_frees_the_process() -> None:
    async with open_pool(1, worker=IMPATIENT) as pool:
        async with aclosing(pool.synthesize("tone 100", Voice())) as chunks:
            async for _ in chunks:
                break
        assert seconds(await speak(pool, "tone 1")) == 1.0
        assert pool.status().num_replaced == 0


async def test_cancelling_who_listens_stops_the_speech() -> None:
    async with open_pool(1) as pool:
        task = asyncio.create_task(speak(pool, "hang"))
        await until(lambda: pool.status().num_busy == 1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def test_an_abandoned_process_that_does_not_answer_is_replaced() -> None:
    async with open_pool(1, worker=IMPATIENT) as pool:
        async with aclosing(pool.synthesize("hang", Voice())) as chunks:
            async for _ in chunks:
                break
        assert seconds(await speak(pool, "tone 1")) == 1.0
        assert pool.status().num_replaced == 1


async def test_a_slow_listener_holds_up_nobody() -> None:
    async with open_pool(1) as pool:
        async with aclosing(
            pool.synthesize("tone 60", Voice(), rate_hz=RATE_HZ)
        ) as slow:
            first = await anext(slow)
            assert seconds(await speak(pool, "tone 1")) == 1.0
            rest = b"".join([chunk async for chunk in slow])
        assert seconds(first + rest) == 60.0


async def test_more_waiting_requests_than_allowed_are_refused() -> None:
    async with open_pool(1, max_waiting=1) as pool:
        tasks = [asyncio.create_task(speak(pool, "hang")) for _ in range(2)]
        await until(lambda: pool.status().num_waiting == 1)
        with pytest.raises(SynthesisOverloaded):
            await speak(pool, "tone 1")
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_who_waits_too_long_for_a_process_is_told_so() -> None:
    async with open_pool(1, wait_timeout_s=0.1) as pool:
        busy = asyncio.create_task(speak(pool, "hang"))
        await until(lambda: pool.status().num_busy == 1)
        with pytest.raises(SynthesisOverloaded):
            await speak(pool, "tone 1")
        busy.cancel()
        await asyncio.wait([busy])


async def test_closing_the_pool_fails_what_waits_and_leaves_no_process() -> None:
    before = children()
    async with open_pool(1) as pool:
        tasks = [asyncio.create_task(speak(pool, "hang")) for _ in range(3)]
        await until(lambda: pool.status().num_waiting == 2)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [SynthesisFailed] * 3
    assert children() == before
    with pytest.raises(SynthesisFailed, match="closed"):
        await speak(pool, "tone 1")


async def test_closing_kills_a_stopped_process() -> None:
    before = children()
    async with open_pool(1):
        (pid,) = children() - before
        os.kill(pid, signal.SIGSTOP)
    assert children() == before


async def test_ctrl_c_and_sigterm_leave_the_end_to_the_service() -> None:
    before = children()
    async with open_pool(1) as pool:
        (pid,) = children() - before
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        assert seconds(await speak(pool, "tone 1")) == 1.0
        assert pool.status().num_replaced == 0


async def test_a_process_that_cannot_start_is_said_at_once() -> None:
    before = children()
    pool = WorkerPool("missing", ("tests.model.tts.no_such_worker",))
    with pytest.raises(SynthesizerUnavailable, match="no_such_worker"):
        await pool.open()
    assert children() == before


async def test_opening_may_be_cancelled() -> None:
    before = children()
    pool = WorkerPool("scripted", SCRIPTED)
    opening = asyncio.create_task(pool.open())
    await until(lambda: len(children() - before) == 2)
    opening.cancel()
    await asyncio.wait([opening])
    assert children() == before


async def test_an_overlong_text_is_refused() -> None:
    async with open_pool(1) as pool:
        with pytest.raises(SynthesisFailed, match="longer"):
            await speak(pool, "x" * 1001)


async def test_a_voice_that_passed_is_not_checked_again() -> None:
    async with open_pool(1) as pool:
        with pytest.raises(VoiceUnknown):
            await pool.check_voice(Voice("xx"))
        await pool.check_voice(Voice())
        num_requests = pool.status().num_requests
        await pool.check_voice(Voice())
        assert pool.status().num_requests == num_requests


def test_processes_end_when_the_service_is_killed() -> None:
    script = """
import asyncio, os
from pathlib import Path
from model.tts.worker_pool import WorkerPool

async def main():
    pool = WorkerPool("scripted", ("tests.model.tts.scripted_worker",))
    await pool.open()
    print(Path(f"/proc/self/task/{os.getpid()}/children").read_text(), flush=True)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    pids = run.stdout.split()
    assert len(pids) == 2, run.stderr

    async def gone() -> None:
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))

    asyncio.run(gone())


def test_neither_process_nor_pool_imports_torch() -> None:
    script = """
import sys
import model.tts.espeak_worker, model.tts.piper_worker, model.tts.open
import model.tts.speaker
sys.exit("torch" in sys.modules or "transformers" in sys.modules)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, timeout=60, check=False
    )
    assert run.returncode == 0
