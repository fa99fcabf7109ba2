"""Lines are closed before a stop and opened after a start, ours only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agi_handlers.vicidial.client import VicidialClient, VicidialOptions
from agi_handlers.vicidial.lines import NOTE_FILE, Lines
from tests.fakes.vicidial import FakeVicidial


@pytest.fixture
async def fake() -> AsyncIterator[FakeVicidial]:
    async with FakeVicidial() as fake:
        fake.db.add_line("7001")
        fake.db.add_line("7051")
        yield fake


@pytest.fixture
async def client(fake: FakeVicidial) -> AsyncIterator[VicidialClient]:
    options = VicidialOptions(fake.url, "botapi", "Secret-Pass_1", timeout_s=1.0)
    async with VicidialClient(options) as client:
        yield client


async def test_what_a_stop_closed_a_start_opens(
    fake: FakeVicidial, client: VicidialClient, data_dir: Path
) -> None:
    await Lines(client, data_dir, ("7001", "7051", "7001", "")).close()
    assert fake.db.remote_agents == {"7001": "INACTIVE", "7051": "INACTIVE"}
    # the setting was taken back meanwhile
    assert await Lines(client, data_dir, ()).open()
    assert fake.db.remote_agents == {"7001": "ACTIVE", "7051": "ACTIVE"}
    assert await Lines(client, data_dir, ()).open()
    assert len(fake.forms("update_remote_agent")) == 4
    assert not (data_dir / NOTE_FILE).exists()


async def test_a_line_somebody_else_closed_stays_closed(
    fake: FakeVicidial, client: VicidialClient, data_dir: Path
) -> None:
    del fake.db.lines["7001"]
    await Lines(client, data_dir, ("7001",)).close()
    assert await Lines(client, data_dir, ("7001",)).open()
    assert fake.db.remote_agents == {}


async def test_a_stop_while_vicidial_is_down_goes_on(
    fake: FakeVicidial, client: VicidialClient, data_dir: Path
) -> None:
    fake.fault = "500"
    await Lines(client, data_dir, ("7001",)).close()
    fake.fault, fake.faulty_functions = "500", frozenset(("update_remote_agent",))
    await Lines(client, data_dir, ("7001",)).close()
    # perhaps it was closed, so the start makes sure of it, again and again
    assert not await Lines(client, data_dir, ()).open()
    fake.fault = ""
    assert await Lines(client, data_dir, ()).open()
    assert fake.db.remote_agents == {"7001": "ACTIVE"}


async def test_a_missing_permission_is_said(
    fake: FakeVicidial,
    client: VicidialClient,
    data_dir: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake.db.forbidden = frozenset(("update_remote_agent",))
    await Lines(client, data_dir, ("7001",)).close()
    assert "line_not_closed" in caplog.text


async def test_a_note_nobody_can_read_opens_nothing(
    fake: FakeVicidial, client: VicidialClient, data_dir: Path
) -> None:
    (data_dir / NOTE_FILE).write_text("{broken")
    assert await Lines(client, data_dir, ()).open()
    assert fake.db.remote_agents == {}
