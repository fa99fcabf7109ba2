"""VICIdial as a whole: probing, the login, ids that calls have."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agi_handlers.campaigns import Campaign
from agi_handlers.vicidial.call_facts import CallControlOptions
from agi_handlers.vicidial.client import VicidialOptions
from agi_handlers.vicidial.service import OUTBOX_FILE, Vicidial, open_vicidial
from tests.fakes.asterisk import connected_agi
from tests.fakes.vicidial import FakeVicidial

V = "V1221015300000001001"
CONTROL = CallControlOptions(agent_user="7001", num_lines=2)


@pytest.fixture
async def fake() -> AsyncIterator[FakeVicidial]:
    async with FakeVicidial() as fake:
        fake.db.add_line("7001")
        fake.db.add_line("7002")
        fake.db.add_lead(1001, "7275551212")
        yield fake


@pytest.fixture
async def vicidial(fake: FakeVicidial, data_dir: Path) -> AsyncIterator[Vicidial]:
    api = VicidialOptions(fake.url, "botapi", "Secret-Pass_1", timeout_s=1.0)
    async with open_vicidial(api, CONTROL, data_dir) as vicidial:
        yield vicidial


async def test_probe_learns_versions_and_clock(vicidial: Vicidial) -> None:
    assert vicidial.utc_offset_s is None
    await vicidial.probe()
    assert vicidial.problem == ""
    assert vicidial.versions["agent"].version == "2.14-81"
    assert vicidial.versions["non_agent"].version == "2.14-194"
    assert vicidial.utc_offset_s == -5 * 3600


async def test_probe_says_what_is_wrong_and_when_it_is_over(
    vicidial: Vicidial, fake: FakeVicidial
) -> None:
    fake.fault = "html"
    await vicidial.probe()
    assert "a page of HTML" in vicidial.problem
    fake.fault = ""
    await vicidial.probe()
    assert vicidial.problem == ""


async def test_wrong_password_is_found_at_the_first_probe(
    vicidial: Vicidial, fake: FakeVicidial
) -> None:
    fake.db.password = "Another"
    for _ in range(3):
        await vicidial.probe()
    assert "not accepted" in vicidial.problem
    assert fake.db.num_bad_logins == 1


async def test_two_calls_without_an_id_never_get_the_same_one(
    vicidial: Vicidial, fake: FakeVicidial
) -> None:
    fake.db.give_call(V, 1001)
    environment = {"agi_calleridname": "GARCIA", "agi_callerid": "7275551212"}
    agi, asterisk = await connected_agi(environment=environment)
    campaign = Campaign()
    try:
        async with (
            vicidial.open_call(agi.request, campaign, "1") as first,
            vicidial.open_call(agi.request, campaign, "2") as second,
        ):
            assert first.facts.identity is not None
            assert second.facts.identity is None
        async with vicidial.open_call(agi.request, campaign, "3") as third:
            assert third.facts.identity is not None
    finally:
        await agi.close()
        await asterisk.aclose()


async def test_outbox_is_in_the_data_folder(vicidial: Vicidial, data_dir: Path) -> None:
    assert OUTBOX_FILE in os.listdir(data_dir)  # noqa: PTH208 - not blocking, small
