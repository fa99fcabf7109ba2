"""The service with a VICIdial: calls from outside, kill -9 and a restart.

VICIdial is played over HTTP, Asterisk by tools.place_call; the service is the real one
with scripted replies.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.end_to_end.asterisk_lab import ROOT
from tests.end_to_end.bot_service import BotService
from tests.fakes.vicidial import FakeVicidial

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

V = "V1221015300000001001"
NUMBER = "7275551212"
PASSWORD = "Secret-Pass_1"
CAMPAIGN = """
instructions = "You call {first_name}."

[phrases]
greeting = "Hello {first_name}."
opted_out = "Goodbye."

[rules]
opt_out_key = "9"

[transfer]
default = "SALESLINE"
"""


@pytest.fixture
async def vicidial() -> AsyncIterator[FakeVicidial]:
    async with FakeVicidial() as fake:
        fake.db.add_line("7001")
        fake.db.add_lead(1001, NUMBER, first_name="Maria")
        fake.db.give_call(V, 1001)
        yield fake


async def start(folder: Path, vicidial: FakeVicidial) -> BotService:
    """The service, ready; VICIdial is answered meanwhile."""
    (folder / "campaigns").mkdir(parents=True, exist_ok=True)
    (folder / "campaigns/sales.toml").write_text(CAMPAIGN)
    settings = {
        "VICIDIAL_URL": vicidial.url,
        "VICIDIAL_USER": "botapi",
        "VICIDIAL_PASSWORD": PASSWORD,
        "VICIDIAL_AGENT_USER": "7001",
        "MEDIA": "audiosocket",
    }
    service = BotService.start(folder, settings=settings)
    try:
        await asyncio.to_thread(service.wait_until_ready)
    except BaseException:
        service.kill()
        raise
    return service


async def stop(service: BotService) -> None:
    assert await asyncio.to_thread(service.stop) == 0


def call(service: BotService, *say: str) -> list[str]:
    return [
        *(sys.executable, "-m", "tools.place_call"),
        *("--agi", f"127.0.0.1:{service.agi_port}"),
        *("--script", "ultravox?campaign=sales"),
        *("--caller", NUMBER, "--caller-name", "GARCIA"),
        *("--arg", "GARCIA", "--arg", V),
        *("--answered", "--seconds", "30"),
        *(part for item in say for part in ("--say", item)),
    ]


async def placed(service: BotService, *say: str) -> dict[str, Any]:
    """The last line of a call's report."""
    process = await asyncio.create_subprocess_exec(
        *call(service, *say), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    summary = json.loads(output.splitlines()[-1])
    assert isinstance(summary, dict)
    return summary


async def test_opt_out_and_hang_up_of_real_calls(
    tmp_path: Path, vicidial: FakeVicidial
) -> None:
    service = await start(tmp_path, vicidial)
    try:
        summary = await placed(service, "wait:200,0.3", "dtmf:9")
        assert summary["variables"]["BOT_RESULT"] == "done"
        assert summary["variables"]["BOT_DISPOSITION"] == "DNC"
        assert vicidial.db.dnc == {(NUMBER, "SYSTEM_INTERNAL")}
        assert vicidial.db.log[V].status == "DNC"
        assert len(vicidial.forms("ra_call_control")) == 1

        vicidial.db.give_call(V, 1001)
        summary = await placed(service, "wait:200,0.3", "bye")
        assert summary["variables"]["BOT_STATUS"] == "hangup"
        assert vicidial.db.log[V].status == "PU"
        assert PASSWORD not in service.log()
        assert NUMBER not in service.log()
    finally:
        await stop(service)
    assert all(request.method == "POST" for request in vicidial.requests)


async def test_disposition_survives_kill_minus_nine(
    tmp_path: Path, vicidial: FakeVicidial
) -> None:
    service = await start(tmp_path, vicidial)
    vicidial.fault = "silent"
    vicidial.faulty_functions = frozenset(("ra_call_control",))
    process = await asyncio.create_subprocess_exec(
        *call(service, "wait:200,0.3", "bye"),
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        await vicidial.asked("ra_call_control", timeout_s=30)
    finally:
        family = psutil.Process(service.pid).children(recursive=True)
        service.kill()
        await process.wait()
        await asyncio.to_thread(psutil.wait_procs, family, 30)
    vicidial.db.channel_ended(V)
    assert vicidial.db.log[V].status == "DROP"
    vicidial.fault = ""
    service = await start(tmp_path, vicidial)
    try:
        await vicidial.asked("update_lead", timeout_s=30)
    finally:
        await stop(service)
    assert vicidial.db.log[V].status == vicidial.db.leads["1001"]["status"] == "PU"
