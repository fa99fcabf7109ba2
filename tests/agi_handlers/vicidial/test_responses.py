"""VICIdial's answers: every form seen, and any bytes at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agi_handlers.errors import VicidialError, VicidialUnavailable
from agi_handlers.vicidial.look_ups import (
    read_agent_status,
    read_call_info,
    read_in_group_status,
    read_lead_search,
    read_version,
)
from agi_handlers.vicidial.responses import (
    Accepted,
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
    read_response,
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


READERS = (
    read_version,
    read_call_info,
    read_agent_status,
    read_in_group_status,
    read_lead_search,
)
WORDS = st.sampled_from(
    ["SUCCESS:", "ERROR: ", "NOTICE:", "|", "\n", " - ", ": ", "<html>", "VERSION:",
     "lead_id", "campaign_id", "agents_waiting|total_calls\n",
     "DATE: 9999-99-99", "EPOCH: 9e9", SECRET, "\u0664", "7"]
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


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html>\n<html>",
        b"\n<HTML><head><title>Login</title>",
        b"<br />\n<b>Warning</b>: mysqli_connect() in /srv/www on line 1",
        b"Content-type: text/html\n<form action=login>",
    ],
)
def test_pages_and_warnings_are_no_answer(body: bytes) -> None:
    assert isinstance(read_response(200, body), Unusable)
    bare = read_response(200, body, bare_function="lead_field_info")
    assert isinstance(bare, Unusable)


def test_tags_in_what_people_wrote_are_data() -> None:
    row = b"lead_id|comments\n1001|<b>VIP</b> <form> sent"
    assert read_response(200, row) == Data(tuple(row.decode().split("\n")))
    row = "lead_id|comments\n1001|two\u2028lines\x85 more".encode()
    assert read_response(200, row) == Data(tuple(row.decode().split("\n")))
    text = b"ERROR: <b>he</b> said"
    bare = read_response(200, text, bare_function="lead_field_info")
    assert bare == Data((text.decode(),))
