"""Call ids: every form VICIdial writes, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agi_handlers.vicidial.call_ids import LineState, identify, parse_call_id, recover

V = "V1221015300000001001"
Y = "Y1221015310000001002"


@pytest.mark.parametrize(
    ("name", "kind", "lead_id"),
    [
        (V, "V", 1001),
        ("M1221015300000001001", "M", 1001),
        (Y, "Y", 1002),
        ("J1221015300000001001", "J", 1001),
        ("DC101530W0000001001W", "DC", 1001),
        ("Y1221015300000000000", "Y", None),
        ("V1221015309999999999", "V", 9999999999),
    ],
)
def test_forms_of_a_call_id(name: str, kind: str, lead_id: int | None) -> None:
    found = parse_call_id(name)
    assert found is not None
    assert (found.text, found.kind, found.lead_id) == (name, kind, lead_id)


@pytest.mark.parametrize(
    "name", [f"{V} 8901", f"{V} 7001 BOTCAMP", f" {V}", f'"{V}" <7275551212>']
)
def test_what_stands_behind_the_id_is_cut_off(name: str) -> None:
    found = parse_call_id(name)
    assert found is not None
    assert found.text == V


@pytest.mark.parametrize(
    "name",
    [
        *("", "GARCIA", "7275551212", "V12210153", V + "0", V[:-1], "X" + V[1:]),
        *(V.lower(), "V12210153٠0000001001", f"MR {V}", "DC101530W0000001001", "<1>"),
    ],
)
def test_anything_else_is_no_call_id(name: str) -> None:
    assert parse_call_id(name) is None


@given(st.text(max_size=60))
def test_an_id_is_never_longer_than_twenty_characters(name: str) -> None:
    found = parse_call_id(name)
    assert found is None or len(found.text) == 20


def test_name_wins_over_the_arguments() -> None:
    found = identify(V, (Y,))
    assert found is not None
    assert (found.text, found.source) == (V, "name")


def test_argument_is_used_when_the_name_is_a_customer() -> None:
    found = identify("GARCIA", ("GARCIA", Y))
    assert found is not None
    assert (found.text, found.source) == (Y, "argument")


def test_without_any_id_there_is_none() -> None:
    assert identify("GARCIA", ("GARCIA", "")) is None


def test_three_way_leg_is_not_the_bots_to_control() -> None:
    leg = parse_call_id("DC101530W0000001001W")
    assert leg is not None
    assert not leg.is_controllable


def test_one_line_with_the_callers_number_is_the_call() -> None:
    lines = [
        LineState("7001", V, "7275551212"),
        LineState("7002", Y, "7275559999"),
        LineState("7003", "", ""),
    ]
    found = recover("+7275551212", lines, frozenset())
    assert found is not None
    assert (found[0].text, found[0].source, found[1]) == (V, "line", "7001")


def test_two_lines_with_the_number_are_not_told_apart() -> None:
    lines = [LineState("7001", V, "7275551212"), LineState("7002", Y, "7275551212")]
    assert recover("7275551212", lines, frozenset()) is None


def test_a_call_another_session_has_is_not_taken() -> None:
    lines = [LineState("7001", V, "7275551212"), LineState("7002", Y, "7275551212")]
    found = recover("7275551212", lines, frozenset({V}))
    assert found is not None
    assert found[0].text == Y
    assert recover("7275551212", lines[:1], frozenset({V})) is None


@pytest.mark.parametrize("number", ["", "anonymous", "8901", "9999"])
def test_number_that_is_none_recovers_nothing(number: str) -> None:
    assert recover(number, [LineState("7001", V, number)], frozenset()) is None
