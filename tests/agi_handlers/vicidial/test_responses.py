"""VICIdial's answers: every form seen, and any bytes at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agi_handlers.errors import VicidialError, VicidialUnavailable
from agi_handlers.vicidial.responses import (
    Accepted,
    ColumnsShifted,
    Data,
    Denied,
    LoginRefused,
    Refusal,
    Refused,
    Response,
    Unusable,
    Vocabulary,
    accepted,
    data_lines,
    read_agent_status,
    read_call_info,
    read_in_group_status,
    read_lead_search,
    read_response,
    read_version,
    rows_by_name,
)

SECRET = "hunter2-secret"


def read(text: str, status: int = 200) -> object:
    return read_response(status, text.encode(), secret=SECRET)


def test_success_has_its_phrase_and_values() -> None:
    assert read(
        "SUCCESS: ra_call_control hungup - 7001|V1221015300000001001|HANGUP\n"
    ) == Accepted(
        "ra_call_control hungup", ("7001", "V1221015300000001001", "HANGUP"), ()
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ERROR: no active call found - V1221015300000001001\n\n", "no_active_call"),
        ("ERROR: no active call found: V122", "no_active_call"),
        ("ERROR: agent_user is not logged in - 9999", "agent_not_logged_in"),
        ("ERROR: ingroup is not valid - ---NONE---", "ingroup_invalid"),
        ("ERROR: phone_number is not valid - 9", "phone_invalid"),
        ("ERROR: stage is not valid - hangup", "other"),
        ("ERROR: Login incorrect, please try again: |u|p|BAD|", "login"),
        ("ERROR: Invalid Username/Password: |u|p|0|", "login"),
        ("ERROR: Anmeldung nicht m\u00f6glich: |u|p|LOCK|", "login"),
        (f"ERROR: falsches Kennwort - |u|{SECRET}|0|", "login"),
        ("ERROR: auth USER DOES NOT HAVE PERMISSION TO USE THIS FUNCTION - u", "perm"),
        ("ERROR: NO FUNCTION SPECIFIED", "unknown_function"),
        ("ERROR: System API NOT ACTIVE", "api_off"),
        ("ERROR: add_dnc_phone DNC NUMBER ALREADY EXISTS: 72755|S", "already"),
        ("ERROR: lead_all_info LEAD NOT FOUND: 7\nERROR: lead_all_info LEAD", "not_f"),
        ("ERROR: update_log_entry NO RECORDS UPDATED - x", "unchanged"),
        ("ERROR: update_lead NO MATCHES FOUND IN THE SYSTEM: u|7", "not_found"),
    ],
)
def test_errors_come_with_200_and_with_either_separator(text: str, reason: str) -> None:
    found = read(text)
    assert isinstance(found, Denied)
    assert found.reason.startswith(reason)
    assert "|" not in found.phrase


def test_only_notices_count_as_success() -> None:
    found = read("NOTICE: update_lead CUSTOM FIELDS VALUES UPDATED - 7275551212|1001\n")
    assert isinstance(found, Accepted)
    assert found.notices == ("update_lead CUSTOM FIELDS VALUES UPDATED",)


def test_an_error_behind_a_success_takes_nothing_back() -> None:
    found = read(
        "SUCCESS: add_lead LEAD HAS BEEN ADDED - 72|999|12|-5|u\n"
        "NOTICE: add_lead ADDED TO HOPPER - 12\nERROR: callback failed - x\n"
    )
    assert isinstance(found, Accepted)
    assert found.values[2] == "12"
    assert found.notices == ("add_lead ADDED TO HOPPER",)


@pytest.mark.parametrize("status", [301, 401, 404, 500, 502])
def test_http_failures_are_unusable_whatever_they_say(status: int) -> None:
    assert isinstance(read("SUCCESS: x - y", status), Unusable)


@pytest.mark.parametrize(
    "page",
    [
        "<!DOCTYPE html>\n<html><title>Login</title>",
        "\n\n  <HTML><BODY>",
        "<br />\n<b>Warning</b>: mysqli_connect(): failed in api.php",
    ],
)
def test_a_login_page_is_no_answer(page: str) -> None:
    found = read(page)
    assert isinstance(found, Unusable)
    assert "HTML" in found.why


def test_a_warning_of_php_does_not_hide_the_verdict() -> None:
    found = read("<br />\n<b>Notice</b>: Undefined index\nSUCCESS: update_lead X - 1\n")
    assert isinstance(found, Accepted)


def test_empty_body_is_no_data_and_no_success() -> None:
    assert read("\n\n") == Data(())
    assert data_lines("lead_field_info", Data(())) == ()
    with pytest.raises(VicidialUnavailable, match="empty answer"):
        accepted("ra_call_control", Data(()))


def test_login_errors_never_carry_what_was_sent() -> None:
    response = read_response(
        200, f"ERROR: Login incorrect: |api|{SECRET}|BAD|".encode(), secret=SECRET
    )
    assert SECRET not in repr(response)
    with pytest.raises(LoginRefused) as caught:
        data_lines("lead_all_info", response)
    assert SECRET not in repr(caught.value) + str(caught.value)
    assert not caught.value.retryable


def test_translated_phrases_can_be_told() -> None:
    words = Vocabulary(
        error="FEHLER", translations={"kein aktiver Anruf": Refusal.NO_ACTIVE_CALL}
    )
    found = read_response(200, b"FEHLER: Kein aktiver Anruf gefunden - V1", words)
    assert isinstance(found, Denied)
    assert found.reason is Refusal.NO_ACTIVE_CALL


def test_refusals_raise_with_their_reason() -> None:
    with pytest.raises(Refused) as caught:
        accepted("ra_call_control", Denied(Refusal.NO_ACTIVE_CALL, "no active call"))
    assert caught.value.reason is Refusal.NO_ACTIVE_CALL
    with pytest.raises(VicidialUnavailable, match="HTTP 500"):
        accepted("ra_call_control", Unusable("HTTP 500"))


def test_rows_are_read_by_name_in_any_order_with_new_columns() -> None:
    lines = ["new_one|lead_id|status", "x|7|NEW", "new_one|lead_id|status", "y|8|NA"]
    rows = rows_by_name("lead_all_info", lines, "lead_id")
    assert [(row["lead_id"], row["status"]) for row in rows] == [
        ("7", "NEW"),
        ("8", "NA"),
    ]


def test_a_pipe_in_a_value_is_noticed() -> None:
    with pytest.raises(ColumnsShifted):
        rows_by_name("lead_all_info", ["lead_id|comments", "7|a|b"], "lead_id")
    with pytest.raises(ColumnsShifted):
        rows_by_name("lead_all_info", ["7|NEW"], "lead_id")


def test_version_tells_the_servers_offset() -> None:
    found = read_version(
        ["VERSION: 2.14-194|BUILD: 241004-1518|DATE: 2024-10-04 10:00:02|"
         "EPOCH: 1728054001|DST: 1|TZ: -5|TZNOW: -4|"]
    )  # fmt: skip
    assert (found.version, found.build) == ("2.14-194", "241004-1518")
    assert found.utc_offset_s == -5 * 3600
    assert read_version(["VERSION: 2.4|BUILD: 1"]).utc_offset_s is None
    with pytest.raises(VicidialUnavailable):
        read_version(["hello"])


def test_call_info_by_name() -> None:
    found = read_call_info(
        ["call_id|custtime|call_date|phone|call_type|campaign_id|list_id|status|user",
         "Y1|12|2026-11-22 10:00:00|727|INBOUND|SALESLINE|999|INCALL|7001"]
    )  # fmt: skip
    assert found is not None
    assert (found.campaign_id, found.user) == ("SALESLINE", "7001")
    assert read_call_info([]) is None


@pytest.mark.parametrize("name", ["callid", "call_id"])
def test_agent_status_under_either_name(name: str) -> None:
    found = read_agent_status(
        [f"status|{name}|lead_id|campaign_id|phone_number|session_id",
         "INCALL|V1221015300000001001|1001|BOT|7275551212|8901"]
    )  # fmt: skip
    assert found is not None
    assert found.call_id == "V1221015300000001001"


def test_in_group_status_and_lead_search() -> None:
    found = read_in_group_status(["ingroup|total_calls|x|y", "SALESLINE|2|1|3|1|2"])
    assert found is not None
    assert (found.num_calls, found.num_waiting, found.num_agents) == (2, 1, 3)
    assert read_lead_search(["phone_numbercountlead_ids", "727|2|12-7"]) == (12, 7)
    assert read_lead_search(["727|0|"]) == ()


READERS = (
    read_version,
    read_call_info,
    read_agent_status,
    read_in_group_status,
    read_lead_search,
)
WORDS = st.sampled_from(
    ["SUCCESS:", "ERROR: ", "NOTICE:", "|", "\n", " - ", ": ", "<html>", "VERSION:",
     "lead_id", "campaign_id", "DATE: 9999-99-99", "EPOCH: 9e9", SECRET, "\u0664", "7"]
)  # fmt: skip
BODIES = st.one_of(
    st.binary(max_size=400),
    st.lists(st.one_of(WORDS, st.text(max_size=8)), max_size=30).map(
        lambda parts: "".join(parts).encode("utf-8", "surrogatepass")
    ),
)


@given(st.integers(100, 599), BODIES)
def test_any_bytes_become_a_result_or_a_typed_error(status: int, body: bytes) -> None:
    response = read_response(status, body, secret=SECRET)
    if isinstance(response, Denied):
        assert SECRET not in response.phrase
    said = [_error_of(reader, response) for reader in READERS]
    said.append(_error_of(None, response))
    assert not any(SECRET in text for text in said)


def _error_of(
    reader: Callable[[Sequence[str]], object] | None, response: Response
) -> str:
    """The message of the typed error; any other exception fails the test."""
    try:
        if reader is None:
            accepted("x", response)
        else:
            reader(data_lines("x", response))
    except VicidialError as exc:
        return str(exc)
    return ""


def test_vocabulary_is_read_from_the_setting() -> None:
    words = Vocabulary.parse(["error=FEHLER", "no_active_call=kein aktiver Anruf"])
    assert words.error == "FEHLER"
    assert words.reason_of("Kein aktiver Anruf da") is Refusal.NO_ACTIVE_CALL
    for wrong in ("nonsense=x", "error", "error="):
        with pytest.raises(ValueError, match=r"wanted|none of"):
            Vocabulary.parse([wrong])
