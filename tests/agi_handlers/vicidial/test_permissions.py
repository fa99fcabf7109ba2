"""What the API user may do is found out, and nothing is changed by it."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator

import pytest

from agi_handlers.campaigns import Campaign
from agi_handlers.errors import VicidialError
from agi_handlers.vicidial.client import VicidialClient, VicidialOptions
from agi_handlers.vicidial.permissions import missing_in_groups, missing_permissions
from tests.fakes.vicidial import FakeVicidial

FUNCTIONS = (
    "callid_info", "lead_all_info", "lead_search", "update_lead", "update_log_entry",
    "ra_call_control", "update_remote_agent",
)  # fmt: skip


@pytest.fixture
async def fake() -> AsyncIterator[FakeVicidial]:
    async with FakeVicidial() as fake:
        fake.db.add_line("7001")
        fake.db.add_lead(1001, "7275551212")
        yield fake


@pytest.fixture
async def client(fake: FakeVicidial) -> AsyncIterator[VicidialClient]:
    options = VicidialOptions(fake.url, "botapi", "Secret-Pass_1", timeout_s=1.0)
    async with VicidialClient(options) as client:
        yield client


async def test_a_user_who_may_everything_changes_nothing(
    fake: FakeVicidial, client: VicidialClient
) -> None:
    before = copy.deepcopy((fake.db.leads, fake.db.lines, fake.db.log, fake.db.dnc))
    assert await missing_permissions(client, "7001", drains=True) == []
    assert (fake.db.leads, fake.db.lines, fake.db.log, fake.db.dnc) == before
    assert fake.db.remote_agents == {}
    assert sorted(set(fake.functions)) == sorted(FUNCTIONS)


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_each_missing_permission_is_named(
    fake: FakeVicidial, client: VicidialClient, function: str
) -> None:
    fake.db.forbidden = frozenset((function,))
    (found,) = await missing_permissions(client, "7001", drains=True)
    assert function in found.what


async def test_an_old_vicidial_is_no_missing_permission(
    fake: FakeVicidial, client: VicidialClient
) -> None:
    fake.db.unknown_functions = frozenset(("lead_all_info",))
    (found,) = await missing_permissions(client, "7001", drains=False)
    assert "does not know lead_all_info" in found.what


async def test_a_vicidial_that_is_down_is_said(
    fake: FakeVicidial, client: VicidialClient
) -> None:
    fake.fault = "html"
    with pytest.raises(VicidialError):
        await missing_permissions(client, "7001", drains=False)


async def test_in_groups_of_personas_must_exist(
    fake: FakeVicidial, client: VicidialClient
) -> None:
    """Asked by a log entry: in_group_status counts nobody for any name at all."""
    campaigns = {
        "sales": Campaign.model_validate(
            {"transfer": {"a": "SALESLINE", "b": "NOSUCH", "c": "8600", "d": "agent:1"}}
        )
    }
    (found,) = await missing_in_groups(client, campaigns)
    assert "NOSUCH (of sales)" in found.what
    assert fake.db.log == {}
    status = await client.in_group_status("NOSUCH")
    assert status is not None
    assert status.num_agents == 0


async def test_a_user_who_may_not_look_at_agents_is_told_so(
    fake: FakeVicidial, client: VicidialClient
) -> None:
    fake.db.forbidden = frozenset(("in_group_status",))
    told = {"transfer": {"a": "SALESLINE", "b": "SUPPORT"}}
    plain = Campaign.model_validate(told)
    looks = Campaign.model_validate({**told, "transfer_fallback": {"a": "b"}})
    assert await missing_in_groups(client, {"plain": plain}) == []
    (found,) = await missing_in_groups(client, {"looks": looks})
    assert "in_group_status" in found.what
