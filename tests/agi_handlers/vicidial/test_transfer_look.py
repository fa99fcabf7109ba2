"""Before a transfer is promised: who is free, and where else the caller can go."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agi_handlers.campaigns import Campaign
from agi_handlers.vicidial.client import VicidialClient, VicidialOptions
from agi_handlers.vicidial.transfer_look import confirm_transfer
from tests.fakes.vicidial import FakeVicidial

CAMPAIGN = Campaign.model_validate(
    {
        "transfer": {
            "sales": "SALESLINE",
            "help": "SUPPORT",
            "maria": "agent:1001",
            "outside": "917275559999",
            "default": "SALESLINE",
        },
        "transfer_fallback": {"sales": "help", "maria": "sales", "default": "stay"},
    }
)


@pytest.fixture
async def fake() -> AsyncIterator[FakeVicidial]:
    async with FakeVicidial() as fake:
        yield fake


@pytest.fixture
async def client(fake: FakeVicidial) -> AsyncIterator[VicidialClient]:
    options = VicidialOptions(fake.url, "botapi", "Secret-Pass_1", timeout_s=1.0)
    async with VicidialClient(options) as client:
        yield client


async def test_free_agents_take_the_call(
    fake: FakeVicidial, client: VicidialClient
) -> None:
    assert await confirm_transfer(client, CAMPAIGN, "Sales") == "SALESLINE"
    assert fake.forms("in_group_status")[0]["in_groups"] == "SALESLINE"


async def test_nobody_free_leads_to_the_next_and_the_last_queues(
    fake: FakeVicidial, client: VicidialClient
) -> None:
    fake.db.free_agents = {"SALESLINE": 0, "SUPPORT": 0}
    assert await confirm_transfer(client, CAMPAIGN, "sales") == "SUPPORT"
    assert len(fake.forms("in_group_status")) == 1


async def test_nobody_free_and_the_campaign_wants_him_to_stay(
    fake: FakeVicidial, client: VicidialClient
) -> None:
    fake.db.free_agents = {"SALESLINE": 0}
    assert await confirm_transfer(client, CAMPAIGN, "") is None


@pytest.mark.parametrize(
    ("status", "target"),
    [("READY", "agent:1001"), ("CLOSER", "agent:1001"), ("INCALL", "SALESLINE"),
     ("PAUSED", "SALESLINE"), (None, "SALESLINE")],
)  # fmt: skip
async def test_one_person_is_asked_for_only_while_he_is_free(
    fake: FakeVicidial, client: VicidialClient, status: str | None, target: str
) -> None:
    if status is not None:
        fake.db.agents["1001"] = status
    assert await confirm_transfer(client, CAMPAIGN, "maria") == target


async def test_without_a_fallback_nobody_is_asked(
    fake: FakeVicidial, client: VicidialClient
) -> None:
    assert await confirm_transfer(client, CAMPAIGN, "outside") == "917275559999"
    assert await confirm_transfer(client, CAMPAIGN, "the moon") == ""
    assert not fake.requests


async def test_what_cannot_be_found_out_stops_no_transfer(
    fake: FakeVicidial, client: VicidialClient
) -> None:
    fake.fault = "html"
    assert await confirm_transfer(client, CAMPAIGN, "sales") == "SALESLINE"
