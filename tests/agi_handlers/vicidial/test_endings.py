"""Endings: every outcome has one consequence and a status of six characters."""

from __future__ import annotations

import pytest

from agi_handlers.campaigns import Campaign, Dispositions, TransferTarget
from agi_handlers.conversation.outcome import CallOutcome, CallStatus
from agi_handlers.vicidial.api_text import is_status
from agi_handlers.vicidial.endings import (
    HangUp,
    LeaveToDialplan,
    TransferTo,
    comment_of,
    ending_of,
    for_dialplan,
    status_of,
    without_control,
)

CAMPAIGN = Campaign(name="c")
SHOP = Campaign(
    name="c",
    dispositions=Dispositions(completed="BOTOK", codes={"WN": "WRONG"}),
)
ALL: tuple[CallStatus, ...] = (
    "completed", "transfer", "no_input", "caller_hung_up", "failed", "refused",
)  # fmt: skip


@pytest.mark.parametrize("status", ["completed", "no_input", "caller_hung_up"])
def test_a_talk_that_is_over_is_hung_up(status: CallStatus) -> None:
    ending = ending_of(CallOutcome(status), CAMPAIGN, has_hung_up=False)
    assert isinstance(ending, HangUp)


@pytest.mark.parametrize("status", ALL)
def test_whatever_it_was_a_channel_that_is_gone_is_hung_up(status: CallStatus) -> None:
    outcome = CallOutcome(status, transfer_to="SALESLINE")
    assert isinstance(ending_of(outcome, CAMPAIGN, has_hung_up=True), HangUp)


@pytest.mark.parametrize("status", ["failed", "refused"])
def test_failures_are_left_to_the_dialplan(status: CallStatus) -> None:
    ending = ending_of(CallOutcome(status), CAMPAIGN, has_hung_up=False)
    assert ending == LeaveToDialplan()


def test_transfers_go_where_their_target_says() -> None:
    for text, kind in (("SALESLINE", "in_group"), ("917275559999", "extension")):
        outcome = CallOutcome("transfer", transfer_to=text)
        ending = ending_of(outcome, CAMPAIGN, has_hung_up=False)
        assert isinstance(ending, TransferTo)
        assert (ending.target.kind, ending.target.name) == (kind, text)
    to_people = CallOutcome("transfer")
    assert ending_of(to_people, CAMPAIGN, has_hung_up=False) == LeaveToDialplan()


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (CallOutcome("completed"), "BOTOK"),
        (CallOutcome("completed", disposition="wn"), "WRONG"),
        (CallOutcome("completed", disposition="NI"), "NI"),
        (CallOutcome("completed", disposition="not at all"), "BOTOK"),
        (CallOutcome("completed", callback="tomorrow"), "CALLBK"),
        (CallOutcome("completed", disposition="SALE", is_opt_out=True), "DNC"),
        (CallOutcome("caller_hung_up", is_opt_out=True, callback="x"), "DNC"),
        (CallOutcome("transfer", transfer_to="SALESLINE"), "XFER"),
        (CallOutcome("no_input"), "N"),
    ],
)
def test_the_status_is_the_shops(outcome: CallOutcome, status: str) -> None:
    assert status_of(outcome, SHOP) == status


@pytest.mark.parametrize("status", ALL)
def test_there_is_always_a_status(status: CallStatus) -> None:
    assert is_status(status_of(CallOutcome(status), CAMPAIGN))


def test_comment_is_short_ascii_and_says_who_wrote_it() -> None:
    outcome = CallOutcome("completed", notes=("caf\u00e9 at 5", "x" * 500))
    text = comment_of(outcome, is_callback_scheduled=True)
    assert text.startswith("bot: cafe at 5, xxx")
    assert len(text) <= 130
    assert comment_of(CallOutcome("completed"), is_callback_scheduled=False) == ""


def test_callback_that_was_not_scheduled_is_at_least_noted() -> None:
    outcome = CallOutcome("completed", callback="some day")
    text = comment_of(outcome, is_callback_scheduled=False)
    assert text == "bot: wants a call back some day"
    assert comment_of(outcome, is_callback_scheduled=True) == ""


@pytest.mark.parametrize(
    ("target", "plain", "after_failure"),
    [
        ("ingroup:100", "100", "100"),
        ("SALESLINE", "SALESLINE", "SALESLINE"),
        ("917275559999", "917275559999", "917275559999"),
        ("did:17275551000", "17275551000", "17275551000"),
        ("agent:1001", "1001", ""),
        ("DEFAULTINGROUP", "DEFAULTINGROUP", ""),
        ("", "", ""),
    ],
)
def test_the_dialplan_gets_an_in_group_or_its_own_people(
    target: str, plain: str, after_failure: str
) -> None:
    outcome = CallOutcome("transfer", transfer_to=target)
    assert for_dialplan(outcome).transfer_to == plain
    assert without_control(outcome).transfer_to == after_failure


def test_target_kinds() -> None:
    assert TransferTarget.parse("8600").kind == "extension"
