"""The service's life cycle at the wire: real processes, real calls, real signals."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.end_to_end.asterisk_lab import ROOT
from tests.end_to_end.bot_service import BotService

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BotService]:
    """One service for all tests: none of them may leave it worse than it was."""
    service = BotService.start(tmp_path_factory.mktemp("service"))
    try:
        service.wait_until_ready()
        yield service
    finally:
        assert service.stop() == 0


@asynccontextmanager
async def calling(
    service: BotService, *options: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tools.place_call"),
        *("--agi", f"127.0.0.1:{service.agi_port}", *options),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def report_of(process: asyncio.subprocess.Process) -> dict[str, Any]:
    out, err = await process.communicate()
    assert out, err.decode()
    report: dict[str, Any] = json.loads(out.splitlines()[-1])
    return report


class Log:
    """What the service has logged since this was made."""

    def __init__(self, service: BotService) -> None:
        self._service = service
        self._skip = len(service.log())

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = self._service.log()[self._skip :].splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry["event"] == name]

    async def has(self, name: str, num: int = 1, timeout_s: float = 30) -> None:
        for _ in range(round(timeout_s * 10)):
            if len(self.events(name)) >= num:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"no {name}: {self._service.log()[self._skip :][-3000:]}")


async def counted_deaths(
    client: httpx.AsyncClient, service: BotService, metric: str
) -> float:
    text = (await client.get(f"http://127.0.0.1:{service.http_port}/metrics")).text
    told = [line for line in text.splitlines() if line.startswith(metric)]
    return sum(float(line.split()[-1]) for line in told if 'reason="died"' in line)


def pids(processes: Sequence[psutil.Process]) -> list[int]:
    return [one.pid for one in processes]


async def test_restart_without_a_gap(service: BotService) -> None:
    """Calls come all the while: none is refused, and the running ones finish."""
    log = Log(service)
    (old,) = service.phone_halves()
    (speech,) = service.speech_halves()
    long_call = ("--say", "@9", "bye", "--no-audiosocket", "--run-scripts")
    many = ("--calls", "36", "--stagger", "0.25", "--say", "wait:200,0.3", "bye")
    async with (
        calling(service, *long_call, "--uniqueid", "1.1") as long_one,
        calling(service, *many, "--uniqueid", "2.1") as stream,
    ):
        await log.has("call_answered", 3)
        service.send_signal(signal.SIGUSR2)
        long_report = await report_of(long_one)
        report = await report_of(stream)
    assert report["answered"] == report["calls"] == 36, report
    assert not report["errors"], report
    assert not long_report["errors"]
    await log.has("phone_half_ended")
    (new,) = service.phone_halves()
    assert new.pid != old.pid
    await log.has("sidecar_retired")
    (new_speech,) = service.speech_halves()
    assert new_speech.pid != speech.pid
    assert not log.events("control_lost") or log.events("control_back")
    assert not log.events("speech_failed")
    ended = log.events("call_ended")
    assert len(ended) == 37
    assert {entry["status"] for entry in ended} == {"caller_hung_up"}
    assert not log.events("calls_interrupted")
    assert not log.events("media_refused")


@contextmanager
def broken_campaign(service: BotService) -> Iterator[None]:
    path = service.folder / "campaigns/default.toml"
    text = path.read_text()
    path.write_text("nonsense = 1\n")
    try:
        yield
    finally:
        path.write_text(text)


async def test_restart_with_a_mistake_leaves_the_running_one(
    service: BotService,
) -> None:
    log = Log(service)
    before = pids(service.phone_halves())
    with broken_campaign(service):
        service.send_signal(signal.SIGUSR2)
        await log.has("restart_failed")
    assert pids(service.phone_halves()) == before
    assert service.status() == "ready"


async def test_frozen_phone_half_is_killed_and_replaced(service: BotService) -> None:
    log = Log(service)
    before = pids(service.phone_halves())
    async with calling(service, "--say", "@60") as process:
        await log.has("call_answered")
        service.freeze()
        report = await asyncio.wait_for(report_of(process), 15)
    assert "BOT_RESULT" not in report["variables"]
    await service.becomes("ready")
    assert pids(service.phone_halves()) != before
    assert len(log.events("phone_half_frozen")) == 1
    await log.has("calls_interrupted")


async def test_dead_phone_half_is_replaced(service: BotService) -> None:
    (phone_half,) = service.phone_halves()
    phone_half.kill()
    phone_half.wait(10)
    await service.becomes("ready")
    assert pids(service.phone_halves()) != [phone_half.pid]
    # counted by the supervisor, told by the new phone half's next heartbeat
    metric = 'voicebot_restarts_total{half="phone",process='
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        async with asyncio.timeout(20):
            while not await counted_deaths(client, service, metric):  # noqa: ASYNC110
                await asyncio.sleep(0.2)


async def test_reload_takes_new_campaigns_and_keeps_good_ones(
    service: BotService,
) -> None:
    log = Log(service)
    campaigns = service.folder / "campaigns"
    text = (campaigns / "default.toml").read_text()
    (campaigns / "later.toml").write_text(text)
    service.send_signal(signal.SIGHUP)
    await log.has("campaigns_reloaded")
    say = ("--say", "wait:200,0.3", "bye")
    async with calling(service, "--script", "ultravox?campaign=later", *say) as process:
        assert not (await report_of(process))["errors"]
    with broken_campaign(service):
        service.send_signal(signal.SIGHUP)
        await log.has("campaigns_not_reloaded")
    async with calling(service, *say) as process:
        assert not (await report_of(process))["errors"]


async def test_calls_that_outlast_a_drain_go_to_people(tmp_path: Path) -> None:
    service = await asyncio.to_thread(
        BotService.start, tmp_path, settings={"DRAIN_S": "1"}
    )
    try:
        await asyncio.to_thread(service.wait_until_ready)
        log = Log(service)
        async with calling(service, "--say", "@60") as process:
            await log.has("call_answered")
            service.ask_to_stop()
            report = await asyncio.wait_for(report_of(process), 20)
        variables = report["variables"]
        assert variables["BOT_STATUS"] == "failed", report
        assert variables["BOT_REASON"] == "shutdown"
        assert "BOT_RESULT" not in variables
    finally:
        assert await asyncio.to_thread(service.stop) == 0


async def test_phone_half_does_not_outlive_its_supervisor(tmp_path: Path) -> None:
    service = await asyncio.to_thread(BotService.start, tmp_path)
    await asyncio.to_thread(service.wait_until_ready)
    family = psutil.Process(service.pid).children(recursive=True)
    service.kill()
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, 20)
    assert not alive


async def test_wrong_campaigns_end_the_start_with_status_2(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "default.toml").write_text("nonsense = 1\n")
    service = BotService.start(tmp_path, settings={"CAMPAIGNS_DIR": str(folder)})
    assert await asyncio.to_thread(service._process.wait, 60) == 2
    assert "nonsense" in service.log()
