"""VICIdial as a whole: probing, the login, ids that calls have."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.vicidial.call_facts import CallControlOptions
from agi_handlers.vicidial.client import VicidialOptions
from agi_handlers.vicidial.server_clock import ServerClock
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
    assert vicidial.clock is None
    await vicidial.probe()
    assert vicidial.problem == ""
    assert vicidial.versions["agent"].version == "2.14-81"
    assert vicidial.versions["non_agent"].version == "2.14-194"
    assert vicidial.clock == ServerClock(-5 * 3600)


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
    try:
        async with (
            vicidial.open_call(agi.request, "1") as first,
            vicidial.open_call(agi.request, "2") as second,
        ):
            assert first.facts.identity is not None
            assert second.facts.identity is None
        async with vicidial.open_call(agi.request, "3") as third:
            assert third.facts.identity is not None
    finally:
        await agi.close()
        await asterisk.aclose()


async def test_outbox_is_in_the_data_folder(vicidial: Vicidial, data_dir: Path) -> None:
    assert OUTBOX_FILE in os.listdir(data_dir)  # noqa: PTH208 - not blocking, small


async def test_an_id_two_channels_claim_is_the_firsts_alone(
    vicidial: Vicidial, fake: FakeVicidial, caplog: pytest.LogCaptureFixture
) -> None:
    fake.db.give_call(V, 1001)
    environment = {"agi_calleridname": V, "agi_callerid": "7275551212"}
    agi, asterisk = await connected_agi(
        environment={**environment, "agi_uniqueid": "1.1"}
    )
    other, other_asterisk = await connected_agi(
        environment={**environment, "agi_uniqueid": "1.2"}
    )
    try:
        async with (
            vicidial.open_call(agi.request, "1") as first,
            vicidial.open_call(other.request, "2") as second,
        ):
            await second.end(CallOutcome("completed"), other)
            assert "ra_call_control" not in fake.functions
            assert first.facts.identity is not None
        assert "call_id_claimed_twice" in caplog.text
        # the same channel comes back while its first session is being ended
        async with (
            vicidial.open_call(agi.request, "3") as first,
            vicidial.open_call(agi.request, "4") as second,
        ):
            await first.end(CallOutcome("completed"), agi)
            assert "ra_call_control" not in fake.functions
            assert second.facts.identity is not None
    finally:
        for ours in (agi, other):
            await ours.close()
        for theirs in (asterisk, other_asterisk):
            await theirs.aclose()


async def test_clocks_that_differ_are_said(
    vicidial: Vicidial, fake: FakeVicidial, caplog: pytest.LogCaptureFixture
) -> None:
    fake.db.clock_ahead_s = 600
    await vicidial.probe()
    await vicidial.probe()
    assert vicidial.clock is not None
    assert abs(vicidial.clock.ahead_s - 600) <= 2
    assert caplog.text.count("clocks_differ") == 1


async def test_persona_by_group_knows_it_before_the_greeting(
    vicidial: Vicidial, fake: FakeVicidial
) -> None:
    fake.db.give_call(V, 1001)
    agi, asterisk = await connected_agi(environment={"agi_calleridname": V})
    try:
        async with vicidial.open_call(agi.request, "1") as call:
            await call.facts.fetch_group()
            assert (call.facts.group, call.facts.list_id) == ("BOTCAMP", "999")
            fake.fault = "500"
            await call.facts.fetch_group()  # known already: not asked again
    finally:
        await agi.close()
        await asterisk.aclose()
    assert len(fake.forms("callid_info")) == 1
