"""The API client against a VICIdial that speaks HTTP, in good and bad days."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest

from agi_handlers.errors import VicidialUnavailable
from agi_handlers.vicidial.api_text import BLANK, stored_text
from agi_handlers.vicidial.client import (
    CallbackRequest,
    VicidialClient,
    VicidialOptions,
    VicidialOptionsInvalid,
)
from agi_handlers.vicidial.look_ups import ColumnsShifted
from agi_handlers.vicidial.responses import (
    LoginRefused,
    Refusal,
    Refused,
)
from tests.fakes.vicidial import FakeVicidial, Fault

CALL = "V1221015300000001001"
PASSWORD = "Secret-Pass_1"


@pytest.fixture
async def vicidial() -> AsyncIterator[FakeVicidial]:
    async with FakeVicidial() as fake:
        fake.db.add_line("7001")
        fake.db.add_line("7002")
        fake.db.add_lead(1001, "7275551212", first_name="Maria", comments="old")
        yield fake


def options(fake: FakeVicidial, **more: object) -> VicidialOptions:
    values: dict[str, object] = {"password": PASSWORD, "timeout_s": 2.0, **more}
    return VicidialOptions(url=fake.url, user="botapi", **values)  # type: ignore[arg-type]


@pytest.fixture
async def client(vicidial: FakeVicidial) -> AsyncIterator[VicidialClient]:
    async with VicidialClient(options(vicidial)) as made:
        yield made


async def test_version_needs_no_login(
    vicidial: FakeVicidial, client: VicidialClient
) -> None:
    found = await client.version("non_agent")
    assert (found.version, found.utc_offset_s) == ("2.14-194", -5 * 3600)
    assert (await client.version("agent")).version == "2.14-81"
    assert all("pass" not in request.form for request in vicidial.requests)


async def test_everything_is_posted_and_nothing_stands_in_the_url(
    vicidial: FakeVicidial, client: VicidialClient
) -> None:
    await client.lead_all_info(1001)
    request = vicidial.requests[-1]
    assert (request.method, request.query) == ("POST", "")
    assert request.form["source"] == "ultravox"


async def test_a_lead_is_read_by_name(client: VicidialClient) -> None:
    lead = await client.lead_all_info(1001)
    assert lead is not None
    assert (lead["first_name"], lead["phone_number"]) == ("Maria", "7275551212")
    assert await client.lead_all_info(7) is None


async def test_a_pipe_in_the_comments_leads_to_single_fields(
    vicidial: FakeVicidial, client: VicidialClient
) -> None:
    vicidial.db.leads["1001"]["comments"] = "a|b"
    with pytest.raises(ColumnsShifted):
        await client.lead_all_info(1001)
    assert await client.lead_field_info(1001, "comments") == "a|b"
    assert await client.lead_field_info(1001, "email") == ""


async def test_one_value_by_whichever_function_can_answer(
    vicidial: FakeVicidial, client: VicidialClient
) -> None:
    assert await client.lead_value(1001, "comments") == "old"
    assert "lead_field_info" not in vicidial.functions
    vicidial.db.leads["1001"]["comments"] = "a|b"
    assert await client.lead_value(1001, "comments") == "a|b"
    vicidial.db.unknown_functions = frozenset(("lead_all_info",))
    assert await client.lead_value(1001, "first_name") == "Maria"
    assert await client.lead_value(7, "first_name") == ""


async def test_look_ups(vicidial: FakeVicidial, client: VicidialClient) -> None:
    vicidial.db.give_call(CALL, 1001)
    info = await client.callid_info(CALL)
    assert info is not None
    assert (info.campaign_id, info.user) == ("BOTCAMP", "VDAD")
    line = await client.agent_status("7001")
    assert line is not None
    assert (line.call_id, line.phone_number) == (CALL, "7275551212")
    assert await client.agent_status("9999") is None
    assert await client.callid_info("V1221015300000009999") is None
    assert await client.lead_search("7275551212") == (1001,)
    assert await client.lead_search("7275550000") == ()
    group = await client.in_group_status("SALESLINE")
    assert group is not None
    assert group.num_waiting == 1


async def test_hang_up_sets_log_lead_and_line(
    vicidial: FakeVicidial, client: VicidialClient
) -> None:
    vicidial.db.give_call(CALL, 1001)
    await client.hang_up(CALL, "7001", "NI")
    assert vicidial.db.log[CALL].status == "NI"
    assert vicidial.db.leads["1001"]["status"] == "NI"
    assert vicidial.db.lines["7001"].status == "READY"
    with pytest.raises(Refused) as caught:
        await client.hang_up(CALL, "7001", "NI")
    assert caught.value.reason is Refusal.NO_ACTIVE_CALL


async def test_transfers(vicidial: FakeVicidial, client: VicidialClient) -> None:
    went: list[tuple[str, str]] = []
    vicidial.db.on_redirect = lambda call_id, where: went.append((call_id, where))
    vicidial.db.give_call(CALL, 1001)
    with pytest.raises(Refused) as caught:
        await client.transfer_to_in_group(CALL, "7001", "XFER", "NOSUCH")
    assert caught.value.reason is Refusal.INGROUP_INVALID
    with pytest.raises(Refused) as caught:
        await client.transfer_to_extension(CALL, "7001", "XFER", "9")
    assert caught.value.reason is Refusal.PHONE_INVALID
    await client.transfer_to_in_group(CALL, "7001", "XFER", "SALESLINE")
    other = "Y1221015310000001001"
    vicidial.db.give_call(other, 1001, "SALESLINE")
    await client.transfer_to_extension(other, "7001", "XFER", "917275559999")
    assert went == [(CALL, "SALESLINE"), (other, "917275559999")]


async def test_lead_is_updated_in_text_it_can_keep(
    vicidial: FakeVicidial, client: VicidialClient
) -> None:
    await client.update_lead(
        1001,
        {"first_name": "Mar\u00eda", "comments": 'wants "A+B"; #2\n' + "x" * 300},
    )
    lead = vicidial.db.leads["1001"]
    assert lead["first_name"] == "Maria"
    assert lead["comments"].startswith("wants A B 2 xxx")
    assert len(lead["comments"]) == 255
    await client.update_lead(1001, {"comments": BLANK})
    assert lead["comments"] == ""
    with pytest.raises(Refused):
        await client.update_lead(7, {"status": "NI"})


async def test_update_with_nothing_to_change_is_done(client: VicidialClient) -> None:
    await client.update_lead(1001, {})


async def test_custom_fields(vicidial: FakeVicidial, client: VicidialClient) -> None:
    vicidial.db.custom["1001"] = {"colour": ""}
    await client.update_lead(1001, {}, custom={"colour": "blue"})
    assert vicidial.db.custom["1001"]["colour"] == "blue"


async def test_callback_is_scheduled_and_leaves_the_status(
    vicidial: FakeVicidial, client: VicidialClient
) -> None:
    wanted = CallbackRequest("BOTCAMP", "2026-11-23 10:00:00", "after lunch")
    await client.update_lead(1001, {}, callback=wanted)
    assert vicidial.db.callbacks["1001"]["callback_datetime"] == "2026-11-23 10:00:00"
    assert vicidial.db.leads["1001"]["status"] == "NEW"


async def test_callback_without_a_campaign_is_an_error(client: VicidialClient) -> None:
    wanted = CallbackRequest("", "2026-11-23 10:00:00")
    with pytest.raises((Refused, VicidialUnavailable)):
        await client.update_lead(1001, {"comments": "x"}, callback=wanted)


async def test_log_entry_dnc_and_drain(
    vicidial: FakeVicidial, client: VicidialClient
) -> None:
    vicidial.db.give_call(CALL, 1001)
    await client.update_log_entry("BOTCAMP", CALL, "NI")
    await client.update_log_entry("BOTCAMP", CALL, "NI")  # equal: done already
    with pytest.raises(Refused):
        await client.update_log_entry("OTHER", CALL, "NI")
    await client.add_dnc_phone("+1 (727) 555-1212")
    await client.add_dnc_phone("17275551212")  # is there already: done
    await client.add_dnc_phone("7275551212", "BOTCAMP")
    assert vicidial.db.dnc == {
        ("17275551212", "SYSTEM_INTERNAL"),
        ("7275551212", "BOTCAMP"),
    }
    await client.update_remote_agent("7001", is_active=False)
    assert vicidial.forms("update_remote_agent")[0]["status"] == "INACTIVE"
    assert await client.add_lead("7275553333", 999, {"first_name": "Ann"}) == 1002


async def test_refused_login_is_never_tried_again(
    vicidial: FakeVicidial, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with VicidialClient(options(vicidial, password="Wrong-Pass")) as client:
        for _ in range(20):
            with pytest.raises(LoginRefused) as caught:
                await client.lead_all_info(1001)
        assert client.is_locked_out
        assert (await client.version("agent")).version  # needs no login
    assert vicidial.db.num_bad_logins == 1
    seen = caplog.text + repr(caught.value) + repr(client)
    assert "Wrong-Pass" not in seen
    assert "Wrong-Pass" not in str([vars(record) for record in caplog.records])


@pytest.mark.parametrize(
    "fault", ["html", "500", "empty", "silent", "reset", "redirect"]
)
async def test_every_fault_is_one_typed_error(
    vicidial: FakeVicidial, fault: Fault
) -> None:
    vicidial.db.give_call(CALL, 1001)
    vicidial.fault = fault
    async with VicidialClient(options(vicidial, timeout_s=0.3)) as client:
        with pytest.raises(VicidialUnavailable) as caught:
            await client.hang_up(CALL, "7001", "NI")
    assert caught.value.retryable
    assert PASSWORD not in str(caught.value)


async def test_server_that_is_down_is_unavailable(vicidial: FakeVicidial) -> None:
    await vicidial.stop()
    async with VicidialClient(options(vicidial)) as client:
        with pytest.raises(VicidialUnavailable, match="ConnectError"):
            await client.lead_all_info(1001)
    await vicidial.start()


async def test_older_vicidial_says_it_does_not_know(client: VicidialClient) -> None:
    with pytest.raises(Refused) as caught:
        await client._change("brand_new_function", {})
    assert caught.value.reason is Refusal.UNKNOWN_FUNCTION


@pytest.mark.parametrize(
    ("password", "why"),
    [("pa$$word", "deletes before it compares"), ("", "is empty"), ("a b", "deletes")],
)
def test_password_that_can_never_work_is_refused(password: str, why: str) -> None:
    with pytest.raises(VicidialOptionsInvalid, match=why) as caught:
        VicidialOptions("http://d", "u", password)
    assert not password or password not in str(caught.value)


@pytest.mark.parametrize("url", ["dialer", "ftp://d", "http://u:p@d"])
def test_url_that_can_never_work_is_refused(url: str) -> None:
    with pytest.raises(VicidialOptionsInvalid):
        VicidialOptions(url, "u", "p")


def test_options_do_not_show_the_password() -> None:
    assert PASSWORD not in repr(VicidialOptions("http://d", "u", PASSWORD))


@pytest.mark.parametrize(
    ("text", "field", "stored"),
    [
        ("Mar\u00eda Stra\u00dfe", "first_name", "Maria Strasse"),
        ("a\nb\tc", "comments", "a b c"),
        ("\u0645\u0631\u062d\u0628\u0627", "comments", ""),
        ("TOOLONG", "status", "TOOLON"),
        ("it\u2019s", "comments", "it's"),
    ],
)
def test_text_is_sent_as_it_will_be_stored(text: str, field: str, stored: str) -> None:
    assert stored_text(text, field) == stored


async def test_text_that_begins_like_a_verdict_is_text(
    vicidial: FakeVicidial, client: VicidialClient
) -> None:
    for text in ("ERROR: not found, he said", "NOTICE: rings back", "SUCCESS: sold"):
        vicidial.db.leads["1001"]["comments"] = text
        assert await client.lead_field_info(1001, "comments") == text
    assert await client.lead_field_info(7, "comments") == ""
    vicidial.db.forbidden = frozenset(("lead_field_info",))
    with pytest.raises(Refused) as caught:
        await client.lead_field_info(1001, "comments")
    assert caught.value.reason is Refusal.PERMISSION


async def test_new_lead_once(vicidial: FakeVicidial, client: VicidialClient) -> None:
    callback = CallbackRequest("BOTCAMP", "2026-11-23 10:00:00", "roof")
    lead_id = await client.add_lead(
        "+1 (305) 555-0000", 998, {"first_name": "Jos\u00e9"}, callback
    )
    assert lead_id == 1002
    lead = vicidial.db.leads["1002"]
    assert (lead["first_name"], lead["phone_number"]) == ("Jose", "13055550000")
    assert (lead["list_id"], lead["status"]) == ("998", "CBHOLD")
    assert await client.add_lead("13055550000", 998, {}) is None


async def test_in_group_is_asked_with_its_header(
    vicidial: FakeVicidial, client: VicidialClient
) -> None:
    vicidial.db.free_agents["SUPPORT"] = 0
    found = await client.in_group_status("SUPPORT")
    assert found is not None
    assert not found.is_somebody_free
    unknown = await client.in_group_status("NOSUCH")  # VICIdial takes any name
    assert unknown is not None
    assert not unknown.is_somebody_free
