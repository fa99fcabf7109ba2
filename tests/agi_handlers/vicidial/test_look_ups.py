"""Look-ups: columns by name, whatever their order, and never a shifted one."""

from __future__ import annotations

import pytest

from agi_handlers.errors import VicidialUnavailable
from agi_handlers.vicidial.look_ups import (
    ColumnsShifted,
    read_agent_status,
    read_call_info,
    read_in_group_status,
    read_lead_search,
    read_version,
    rows_by_name,
)


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


def test_lead_search_has_no_use_for_its_header() -> None:
    assert read_lead_search(["phone_numbercountlead_ids", "727|2|12-7"]) == (12, 7)
    assert read_lead_search(["727|0|"]) == ()


# As 2.14 writes it; some builds have agents_in_dead_calls before agents_in_dispo.
IN_GROUP_HEADER = (
    "ingroups|total_calls|calls_waiting|agents_logged_in|agents_in_calls|"
    "agents_waiting|agents_paused|agents_in_dispo|agents_in_dial"
)


def test_agents_of_an_in_group_are_counted_by_the_headers_names() -> None:
    found = read_in_group_status([IN_GROUP_HEADER, "SALESLINE|31|4|75|54|2|20|1|0"])
    assert found is not None
    assert (found.num_calls, found.num_waiting, found.num_agents) == (31, 4, 75)
    assert found.num_agents_waiting == 2
    assert found.is_somebody_free
    other = IN_GROUP_HEADER.replace("|agents_in_dispo", "|agents_in_dead_calls|dispo")
    found = read_in_group_status([other, "SALESLINE|31|0|75|54|0|20|0|1|0"])
    assert found is not None
    assert not found.is_somebody_free


@pytest.mark.parametrize(
    "lines",
    [
        ["SALESLINE|31|4|75|54|2|20|1|0"],
        [IN_GROUP_HEADER, "SALESLINE|31|4|75"],
        [IN_GROUP_HEADER, "SALESLINE|31|4|75|54||20|1|0"],
    ],
)
def test_an_in_group_without_its_numbers_is_no_answer(lines: list[str]) -> None:
    with pytest.raises(ColumnsShifted):
        read_in_group_status(lines)
    assert read_in_group_status([]) is None
