"""A call's dealings with VICIdial: who it is, what is told, what the dialplan gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from agi_handlers.agi.connection import AgiConnection
from agi_handlers.campaigns import Campaign, VicidialRules
from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.vicidial.call_control import VicidialCall
from agi_handlers.vicidial.call_facts import CallControlOptions
from agi_handlers.vicidial.client import VicidialOptions
from agi_handlers.vicidial.outbox import OutboxOptions
from agi_handlers.vicidial.service import Vicidial, open_vicidial
from tests.fakes.asterisk import FakeAsterisk, connected_agi
from tests.fakes.vicidial import FakeVicidial, Fault

V = "V1221015300000001001"
Y = "Y1221015310000001001"
CAMPAIGN = Campaign(name="c", instructions="You call {first_name}.")
OPTIONS = CallControlOptions(
    agent_user="7001",
    num_lines=2,
    lead_timeout_s=1.0,
    ending_timeout_s=0.6,
    callback_timeout_s=0.3,
    hang_up_wait_s=0.3,
    transfer_wait_s=0.3,
    second_look_s=0.05,
)
QUICK = OutboxOptions(first_retry_s=0.05, longest_retry_s=0.1, longest_sleep_s=0.1)
ENDED = CallOutcome("completed", "model_ended", "NI")
GONE = CallOutcome("caller_hung_up", "caller_hung_up")


@pytest.fixture
async def fake() -> AsyncIterator[FakeVicidial]:
    async with FakeVicidial() as fake:
        fake.db.add_line("7001")
        fake.db.add_line("7002")
        fake.db.add_lead(1001, "7275551212", first_name="Maria")
        yield fake


@dataclass
class Stage:
    """One call on the stage: VICIdial, our side, Asterisk."""

    vicidial: Vicidial
    call: VicidialCall
    agi: AgiConnection
    asterisk: FakeAsterisk
    confirmed: list[tuple[str, str]] = field(default_factory=list)
    """What the call's record is told: result, what it was of."""

    async def end(self, outcome: CallOutcome) -> CallOutcome:
        return await self.call.end(outcome, self.agi)


@asynccontextmanager
async def on_stage(
    fake: FakeVicidial,
    data_dir: Path,
    name: str = V,
    *,
    callerid: str = "7275551212",
    args: tuple[str, ...] = (),
    campaign: Campaign = CAMPAIGN,
    options: CallControlOptions = OPTIONS,
) -> AsyncIterator[Stage]:
    environment: Mapping[str, str] = {
        "agi_calleridname": name,
        "agi_callerid": callerid,
        **{f"agi_arg_{i}": arg for i, arg in enumerate(args, 1)},
    }
    agi, asterisk = await connected_agi(environment=environment)
    api = VicidialOptions(fake.url, "botapi", "Secret-Pass_1", timeout_s=0.6)

    def follow(call_id: str, where: str = "") -> None:
        tasks.append(asyncio.ensure_future(asterisk.hang_up()))

    def confirm(call_id: str, result: str, detail: str) -> None:
        assert call_id == "c-1"
        confirmed.append((result, detail))

    tasks: list[asyncio.Future[None]] = []
    confirmed: list[tuple[str, str]] = []
    fake.db.on_hang_up = follow
    fake.db.on_redirect = follow
    try:
        async with open_vicidial(
            api, options, data_dir, QUICK, confirm=confirm
        ) as vicidial:
            await vicidial.probe()
            running = asyncio.create_task(vicidial.run())
            try:
                async with vicidial.open_call(agi.request, "c-1") as call:
                    await call.follow(campaign)
                    yield Stage(vicidial, call, agi, asterisk, confirmed)
            finally:
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running
    finally:
        await asyncio.gather(*tasks)
        await agi.close()
        await asterisk.aclose()


async def told(fake: FakeVicidial, function: str, times: int = 1) -> dict[str, str]:
    return await fake.asked(function, times)


async def until_confirmed(stage: Stage, result: str) -> None:
    async with asyncio.timeout(5):
        while stage.confirmed[-1][0] != result:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)


# --- who is calling -------------------------------------------------------------------


async def test_lead_and_line_are_known(fake: FakeVicidial, data_dir: Path) -> None:
    fake.db.give_call(Y, 1001, "SALESLINE")
    async with on_stage(fake, data_dir, Y) as stage:
        assert stage.call.facts.lead.get("first_name") == "Maria"
        await told(fake, "callid_info")
        await told(fake, "agent_status", 3)  # two probes, and the line's campaign
        await stage.end(ENDED)
    assert fake.forms("ra_call_control")[0]["agent_user"] == "7001"
    assert fake.db.log[Y].status == "NI"


async def test_id_comes_from_the_argument_when_the_name_is_a_customer(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir, "GARCIA", args=("GARCIA", V)) as stage:
        assert stage.call.facts.identity is not None
        assert stage.call.facts.identity.source == "argument"


async def test_id_is_recovered_from_the_line_with_the_callers_number(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.lines["7001"].status = "INCALL"
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir, "GARCIA") as stage:
        assert stage.call.facts.identity is not None
        assert stage.call.facts.identity.text == V
        await stage.end(ENDED)
    assert fake.forms("ra_call_control")[0]["agent_user"] == "7002"


async def test_without_an_id_nothing_is_controlled(
    fake: FakeVicidial, data_dir: Path
) -> None:
    async with on_stage(fake, data_dir, "GARCIA") as stage:
        assert stage.call.facts.identity is None
        outcome = await stage.end(
            CallOutcome("transfer", transfer_to="ingroup:SALESLINE")
        )
    assert outcome.transfer_to == "SALESLINE"
    assert "ra_call_control" not in fake.functions


async def test_lead_of_a_call_without_an_id_is_found_by_its_number(
    fake: FakeVicidial, data_dir: Path
) -> None:
    async with on_stage(fake, data_dir, "GARCIA") as stage:
        assert stage.call.facts.identity is None
        assert stage.call.facts.lead.get("first_name") == "Maria"
    fake.db.add_lead(1002, "7275551212", first_name="Bob")
    async with on_stage(fake, data_dir, "GARCIA") as stage:
        assert stage.call.facts.lead.get("first_name") == ""


async def test_line_that_does_not_answer_makes_recovery_give_up(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.give_call(V, 1001)
    fake.fault, fake.faulty_functions = "html", frozenset(("agent_status",))
    async with on_stage(fake, data_dir, "GARCIA") as stage:
        assert stage.call.facts.identity is None


async def test_pipe_in_the_comments_does_not_hide_the_lead(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.leads["1001"]["comments"] = "a|b"
    async with on_stage(fake, data_dir) as stage:
        assert stage.call.facts.lead.get("first_name") == "Maria"


# --- the end --------------------------------------------------------------------------


async def test_goodbye_is_one_hang_up_with_the_status(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        outcome = await stage.end(ENDED)
        assert await stage.end(ENDED) == ENDED
        assert stage.agi.hung_up
        assert "HANGUP" not in stage.asterisk.commands
    assert outcome.disposition == "NI"
    forms = fake.forms("ra_call_control")
    assert [form["stage"] for form in forms] == ["HANGUP"]
    assert forms[0]["value"] == V
    assert fake.db.log[V].status == fake.db.leads["1001"]["status"] == "NI"


async def test_caller_who_hangs_up_first_is_still_reported(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        await stage.asterisk.hang_up()
        await stage.agi.wait_hangup()
        await stage.end(GONE)
    fake.db.channel_ended(V)  # call_log runs after our socket is closed
    assert fake.db.log[V].status == fake.db.leads["1001"]["status"] == "PU"


async def test_queued_is_not_done_so_the_bot_hangs_up_itself(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.has_strict_sql = True
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        await stage.end(ENDED)
        assert "HANGUP" in stage.asterisk.commands


async def test_transfer_keeps_the_line_until_the_channel_is_taken(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        outcome = await stage.end(CallOutcome("transfer", transfer_to="SALESLINE"))
        assert stage.agi.hung_up
        assert stage.asterisk.commands == []
        what = "transfer to in_group SALESLINE, status XFER: taken by VICIdial"
        assert stage.confirmed == [("ok", what)]
    form = fake.forms("ra_call_control")[0]
    assert (form["stage"], form["ingroup_choices"]) == ("INGROUPTRANSFER", "SALESLINE")
    assert outcome.transfer_to == "SALESLINE"


async def test_transfer_that_never_comes_is_the_dialplans(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.has_strict_sql = True
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        outcome = await stage.end(CallOutcome("transfer", transfer_to="SALESLINE"))
        assert not stage.agi.hung_up
        assert [result for result, _ in stage.confirmed] == ["ok", "failed"]
    assert outcome.transfer_to == "SALESLINE"


async def test_transfer_to_an_extension(fake: FakeVicidial, data_dir: Path) -> None:
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        await stage.end(CallOutcome("transfer", transfer_to="917275559999"))
    assert fake.forms("ra_call_control")[0]["phone_number"] == "917275559999"


@pytest.mark.parametrize("target", ["NOSUCH", "DEFAULTINGROUP", "extension:x"])
async def test_refused_transfer_leads_to_the_dialplans_people(
    fake: FakeVicidial, data_dir: Path, target: str
) -> None:
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        outcome = await stage.end(CallOutcome("transfer", transfer_to=target))
    assert (outcome.status, outcome.transfer_to) == ("transfer", "")
    assert len(fake.forms("ra_call_control")) == 1


async def test_failure_is_left_to_the_dialplan(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        await stage.end(CallOutcome("failed", "speech_unavailable"))
    assert "ra_call_control" not in fake.functions
    assert V in fake.db.calls


async def test_call_that_is_gone_is_reported_to_log_and_lead(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        await told(fake, "callid_info")
        fake.db.channel_ended(V)
        assert fake.db.log[V].status == "DROP"
        await stage.end(GONE)
        await told(fake, "update_lead")
    assert fake.db.log[V].status == fake.db.leads["1001"]["status"] == "PU"


async def test_line_that_logged_out_is_replaced_by_the_first(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.lines["7001"].status = "INCALL"
    fake.db.give_call(Y, 1001, "SALESLINE")
    async with on_stage(fake, data_dir, Y) as stage:
        await told(fake, "callid_info")
        await told(fake, "agent_status", 3)
        del fake.db.lines["7002"]
        await stage.end(ENDED)
    users = [form["agent_user"] for form in fake.forms("ra_call_control")]
    assert users == ["7002", "7001"]
    assert fake.db.log[Y].status == "NI"


async def test_lost_answer_is_no_second_control(
    fake: FakeVicidial, data_dir: Path
) -> None:
    """VICIdial did it and the answer got lost: told again by other means only."""
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        await told(fake, "callid_info", 2)
        fake.lost_answers = 1
        await stage.end(ENDED)
        await told(fake, "update_lead")
    assert len(fake.forms("ra_call_control")) == 1
    assert fake.db.log[V].status == fake.db.leads["1001"]["status"] == "NI"


async def test_transfer_whose_answer_was_lost_is_made_once(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        await told(fake, "callid_info", 2)
        fake.lost_answers = 1
        outcome = await stage.end(CallOutcome("transfer", transfer_to="917275559999"))
        assert stage.agi.hung_up
    assert outcome.transfer_to == "917275559999"
    assert len(fake.forms("ra_call_control")) == 1


async def test_transfer_without_vicidial_is_the_dialplans_at_once(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        await fake.stop()
        outcome = await stage.end(CallOutcome("transfer", transfer_to="SALESLINE"))
        assert not stage.agi.hung_up
        await fake.start()
    assert outcome.transfer_to == "SALESLINE"


@pytest.mark.parametrize("fault", ["html", "500", "silent", "reset", "empty"])
async def test_vicidial_down_and_back(
    fake: FakeVicidial, data_dir: Path, fault: Fault
) -> None:
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        await told(fake, "callid_info")
        await stage.asterisk.hang_up()
        await stage.agi.wait_hangup()
        fake.fault = fault
        async with asyncio.timeout(3):
            await stage.end(GONE)
        fake.db.channel_ended(V)
        assert fake.db.log[V].status == "DROP"
        num_before = len(fake.forms("update_lead"))
        fake.fault = ""
        await told(fake, "update_lead", num_before + 1)
    assert fake.db.log[V].status == fake.db.leads["1001"]["status"] == "PU"


async def test_report_after_a_restart(fake: FakeVicidial, data_dir: Path) -> None:
    fake.db.give_call(V, 1001)
    fake.faulty_functions = frozenset(("ra_call_control", "update_log_entry"))
    async with on_stage(fake, data_dir) as stage:
        fake.fault = "500"
        await stage.end(ENDED)
    fake.fault = ""
    fake.db.channel_ended(V)
    async with on_stage(fake, data_dir, "GARCIA", callerid=""):
        await told(fake, "update_lead")
    assert fake.db.log[V].status == fake.db.leads["1001"]["status"] == "NI"


async def test_wrong_password_never_locks_the_user(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.password = "Another-Pass"
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        assert "user or password not accepted" in stage.vicidial.problem
        outcome = await stage.end(ENDED)
        assert outcome.disposition == "NI"
    assert fake.db.num_bad_logins == 1


# --- opt-outs, callbacks, notes -------------------------------------------------------


async def test_opt_out_is_on_the_list_at_once(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        await stage.call.opt_out()
        assert fake.db.dnc == {("7275551212", "SYSTEM_INTERNAL")}
        await stage.end(CallOutcome("completed", "opt_out", "DNC", is_opt_out=True))
    assert fake.functions.index("add_dnc_phone") < fake.functions.index(
        "ra_call_control"
    )
    assert fake.db.leads["1001"]["status"] == "DNC"


async def test_opt_out_on_both_lists(fake: FakeVicidial, data_dir: Path) -> None:
    fake.db.give_call(V, 1001)
    campaign = Campaign(name="c", vicidial=VicidialRules(dnc="both"))
    async with on_stage(fake, data_dir, campaign=campaign) as stage:
        await told(fake, "callid_info", 2)
        await stage.call.opt_out()
    assert {where for _, where in fake.db.dnc} == {"SYSTEM_INTERNAL", "BOTCAMP"}


async def test_opt_out_of_an_unknown_caller_goes_by_his_number(
    fake: FakeVicidial, data_dir: Path
) -> None:
    async with on_stage(fake, data_dir, "", callerid="+17275550000") as stage:
        await stage.call.opt_out()
    # a list's numbers have no country code
    assert {number for number, _ in fake.db.dnc} == {"17275550000", "7275550000"}


async def test_opt_out_survives_a_vicidial_that_is_down(
    fake: FakeVicidial, data_dir: Path
) -> None:
    async with on_stage(fake, data_dir) as stage:
        fake.fault = "500"
        await stage.call.opt_out()
        assert fake.db.dnc == set()
        (result, what), *_ = stage.confirmed
        assert result == "later"
        assert what.startswith("the number on the system's do-not-call list: ")
        fake.fault = ""
        while not fake.db.dnc:
            await told(fake, "add_dnc_phone", len(fake.forms("add_dnc_phone")) + 1)
        await until_confirmed(stage, "ok")
        for result in ("later", "ok"):
            counted = {"duty": "OptOut", "result": result}
            assert REGISTRY.get_sample_value("voicebot_vicidial_total", counted)
    assert fake.db.dnc == {("7275551212", "SYSTEM_INTERNAL")}


async def test_callback_then_hang_up_then_hold(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.give_call(V, 1001)
    wanted = CallOutcome("completed", callback="in 3 days", notes=("likes blue",))
    async with on_stage(fake, data_dir) as stage:
        await told(fake, "callid_info")
        await asyncio.sleep(0.05)
        await stage.end(wanted)
        await told(fake, "update_lead", 4)
    changes = [f for f in fake.functions if f.startswith(("update_lead", "ra_"))]
    assert changes == ["update_lead", "ra_call_control", *["update_lead"] * 3]
    lead = fake.db.leads["1001"]
    assert lead["status"] == "CBHOLD"
    assert lead["comments"] == "bot: likes blue"
    assert fake.db.lead_status_history[-2:] == [("1001", "CALLBK"), ("1001", "CBHOLD")]
    assert fake.db.callbacks["1001"]["campaign_id"] == "BOTCAMP"


async def test_callback_is_in_the_servers_time(
    fake: FakeVicidial, data_dir: Path
) -> None:
    """The lead says ten o'clock in UTC+2, the server lives in UTC-5."""
    fake.db.leads["1001"]["gmt_offset_now"] = "2.00"
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        await told(fake, "callid_info")
        await asyncio.sleep(0.05)
        await stage.end(CallOutcome("completed", callback="tomorrow 10 am"))
        at = fake.db.callbacks["1001"]["callback_datetime"]
    assert at.endswith(" 03:00:00")


async def test_callback_nobody_understands_is_a_comment(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        await stage.end(CallOutcome("completed", callback="when the cows come home"))
        assert stage.confirmed[0][0] == "failed"
        await told(fake, "update_lead")
    assert "cows come home" in fake.db.leads["1001"]["comments"]
    assert fake.db.leads["1001"]["status"] == "CALLBK"
    assert not fake.db.callbacks


async def test_who_opts_out_is_not_called_back(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.give_call(V, 1001)
    outcome = CallOutcome("completed", callback="in 3 days", is_opt_out=True)
    async with on_stage(fake, data_dir) as stage:
        await told(fake, "callid_info")
        await stage.end(outcome)
    assert not fake.db.callbacks
    assert fake.db.leads["1001"]["status"] == "DNC"


async def test_three_way_leg_is_the_agents(fake: FakeVicidial, data_dir: Path) -> None:
    async with on_stage(fake, data_dir, "DC101530W0000001001W") as stage:
        assert stage.call.facts.lead.get("first_name") == "Maria"
        await stage.end(ENDED)
        await told(fake, "update_lead")
    assert "ra_call_control" not in fake.functions
    assert fake.db.leads["1001"]["status"] == "NI"


async def test_callback_agreed_in_the_talk_does_not_move(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        await told(fake, "callid_info")
        await asyncio.sleep(0.05)
        assert stage.call.callback.read("tomorrow 10 am", "en") is not None
        assert stage.call.callback.read("when pigs fly", "en") is None
        spoken = stage.call.callback.read("tomorrow 11 am", "es")
        assert spoken is not None
        assert spoken.endswith("a las 11 de la ma\u00f1ana")
        await stage.end(CallOutcome("completed", callback="tomorrow 11 am"))
    assert fake.db.callbacks["1001"]["callback_datetime"].endswith(" 11:00:00")


async def test_callback_goes_by_vicidials_clock(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.clock_ahead_s = 7200
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        await told(fake, "callid_info")
        await asyncio.sleep(0.05)
        stage.call.callback.read("in 1 hour", "en")
        await stage.end(CallOutcome("completed", callback="in 1 hour"))
    at = datetime.strptime(
        fake.db.callbacks["1001"]["callback_datetime"], "%Y-%m-%d %H:%M:%S"
    )
    theirs = datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=2 - 5)
    assert timedelta(minutes=58) < at - theirs < timedelta(minutes=62)


async def test_fields_the_campaign_lets_callers_change(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.custom["1001"] = {"Colour": ""}
    fake.db.give_call(V, 1001)
    rules = VicidialRules(update_fields=("email",), custom_fields=("Colour",))
    updates = ("email maria@example.com", "colour: blue", "status SALE", "city")
    outcome = replace(ENDED, updates=updates)
    async with on_stage(fake, data_dir, campaign=Campaign(vicidial=rules)) as stage:
        await stage.end(outcome)
        await told(fake, "update_lead")
    lead = fake.db.leads["1001"]
    assert (lead["email"], lead["status"]) == ("maria@example.com", "NI")
    assert fake.db.custom["1001"] == {"Colour": "blue"}


async def test_transfer_to_one_person_names_him(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.agents["1001"] = "READY"
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        outcome = CallOutcome("transfer", transfer_to="agent:1001")
        await stage.end(outcome)
        assert stage.agi.hung_up
    form = fake.forms("ra_call_control")[-1]
    assert form["stage"] == "INGROUPTRANSFER"
    assert form["ingroup_choices"] == "AGENTDIRECT"
    assert form["agent_user"] == "1001"


async def test_transfer_to_a_person_who_has_left_goes_to_people(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        outcome = await stage.end(CallOutcome("transfer", transfer_to="agent:1001"))
    assert outcome.transfer_to == ""
    assert len(fake.forms("ra_call_control")) == 1


async def test_extension_transfer_vicidial_does_not_make_is_the_dialplans(
    fake: FakeVicidial, data_dir: Path
) -> None:
    fake.db.has_strict_sql = True
    fake.db.give_call(V, 1001)
    async with on_stage(fake, data_dir) as stage:
        outcome = await stage.end(CallOutcome("transfer", transfer_to="917275559999"))
    assert (outcome.transfer_to, outcome.transfer_kind) == ("917275559999", "extension")


async def test_unknown_caller_becomes_a_lead_with_his_callback(
    fake: FakeVicidial, data_dir: Path
) -> None:
    rules = VicidialRules(new_lead_list=998, campaign_id="BOTCAMP")
    outcome = CallOutcome("completed", callback="tomorrow 10 am", notes=("roof",))
    async with on_stage(
        fake, data_dir, "", callerid="+13055550000", campaign=Campaign(vicidial=rules)
    ) as stage:
        await stage.end(outcome)
        await told(fake, "update_lead")
    (lead,) = [li for li in fake.db.leads.values() if li["list_id"] == "998"]
    assert (lead["phone_number"], lead["status"]) == ("3055550000", "CBHOLD")
    assert "roof" in lead["comments"]
    assert fake.db.callbacks[lead["lead_id"]]["callback_datetime"].endswith("10:00:00")
    assert "ra_call_control" not in fake.functions


async def test_new_lead_is_told_twice_without_harm(
    fake: FakeVicidial, data_dir: Path
) -> None:
    """The answer to the first was lost."""
    rules = VicidialRules(new_lead_list=998)
    async with on_stage(
        fake, data_dir, "", callerid="3055550000", campaign=Campaign(vicidial=rules)
    ) as stage:
        fake.lost_answers = 1
        await stage.end(CallOutcome("completed", notes=("roof",)))
        await told(fake, "update_lead", 2)
    (lead,) = [li for li in fake.db.leads.values() if li["list_id"] == "998"]
    assert (lead["status"], lead["comments"]) == ("PU", "bot: roof")


async def test_known_caller_without_an_id_gets_his_callback_and_no_status(
    fake: FakeVicidial, data_dir: Path
) -> None:
    rules = VicidialRules(new_lead_list=998, campaign_id="BOTCAMP")
    async with on_stage(fake, data_dir, "", campaign=Campaign(vicidial=rules)) as stage:
        await stage.end(CallOutcome("completed", callback="tomorrow 10 am"))
        await told(fake, "update_lead")
    assert list(fake.db.leads) == ["1001"]
    assert fake.db.leads["1001"]["status"] == "NEW"
    assert fake.db.callbacks["1001"]["campaign_id"] == "BOTCAMP"
