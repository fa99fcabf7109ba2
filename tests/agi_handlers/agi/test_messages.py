"""Reading Asterisk's request and responses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agi_handlers.agi.messages import AgiRequest, parse_response


def request(**environment: str) -> AgiRequest:
    return AgiRequest.from_environment(
        {f"agi_{name}": value for name, value in environment.items()}
    )


class TestRequest:
    def test_script_has_no_query_and_no_outer_slashes(self) -> None:
        assert request(network_script="path/to/bot/?x=1").script == "path/to/bot"

    def test_query_is_decoded_for_us_because_asterisk_does_not(self) -> None:
        query = request(network_script="bot?name=J%20D+x&empty=&campaign=a%2Cb").query
        assert query == {"name": "J D x", "empty": "", "campaign": "a,b"}

    def test_last_of_equal_query_names_wins(self) -> None:
        assert request(network_script="bot?a=1&a=2").query == {"a": "2"}

    def test_query_bytes_that_are_no_utf8_are_replaced(self) -> None:
        assert request(network_script="b%ff?n=%ff").query == {"n": "\ufffd"}

    def test_script_is_empty_without_a_path(self) -> None:
        assert request(request="agi://bot").script == ""

    def test_arguments_are_taken_in_order_up_to_the_first_gap(self) -> None:
        numbered = {"arg_2": "b", "arg_1": "a one", "arg_4": "d"}
        assert request(**numbered).args == ("a one", "b")

    def test_ten_arguments_are_ordered_by_number_not_by_name(self) -> None:
        numbered = {f"arg_{n}": str(n) for n in range(1, 12)}
        assert request(**numbered).args == tuple(str(n) for n in range(1, 12))

    def test_unknown_numbers_are_empty_but_kept_in_the_environment(self) -> None:
        caller = request(callerid="unknown", calleridname="unknown", dnid="unknown")
        assert (caller.callerid, caller.calleridname, caller.dnid) == ("", "", "")
        assert caller.environment["agi_callerid"] == "unknown"

    def test_enhanced_is_eagi(self) -> None:
        assert request(enhanced="1.0").enhanced
        assert not request(enhanced="0.0").enhanced

    @pytest.mark.parametrize(
        ("version", "numbers"),
        [
            ("16.28.0~dfsg-0+deb11u4", (16, 28, 0)),
            ("22.10.1+dfsg+~cs6.17.60671434-1", (22, 10, 1)),
            ("11.25.3-vici", (11, 25, 3)),
            ("certified/18.9-cert1", (18, 9, 0)),
            ("GIT-master-1a2b3c", None),
            ("", None),
        ],
    )
    def test_version_numbers(
        self, version: str, numbers: tuple[int, int, int] | None
    ) -> None:
        assert request(version=version).asterisk_version == numbers

    def test_request_without_any_line_still_has_every_field(self) -> None:
        empty = request()
        assert (empty.uniqueid, empty.priority, empty.args) == ("", 0, ())

    def test_priority_that_is_no_number_is_zero(self) -> None:
        assert request(priority="n").priority == 0

    def test_repr_leaves_the_environment_out(self) -> None:
        assert "agi_dnid" not in repr(request(dnid="5551234567"))


class TestResponse:
    @pytest.mark.parametrize(
        ("line", "result", "value", "endpos"),
        [
            ("200 result=1 (value)", "1", "value", None),
            ("200 result=0", "0", None, None),
            ("200 result=-1", "-1", None, None),
            ("200 result=0 endpos=30713", "0", None, 30713),
            ("200 result=0 endpos=-1", "0", None, -1),
            ("200 result=53 endpos=8800", "53", None, 8800),
            ("200 result=0 (timeout) endpos=24000", "0", "timeout", 24000),
            ("200 result=8522 (timeout) endpos=43840", "8522", "timeout", 43840),
            ("200 result=-1 (writefile)", "-1", "writefile", None),
            ("200 result= (timeout)", "", "timeout", None),
            ("200 result=1 ()", "1", "", None),
            ("200 result=0 Gosub complete", "0", None, None),
        ],
    )
    def test_result_bracket_text_and_endpos_are_three_things(
        self, line: str, result: str, value: str | None, endpos: int | None
    ) -> None:
        response = parse_response(line)
        assert response is not None
        assert (response.code, response.result) == (200, result)
        assert (response.value, response.endpos) == (value, endpos)

    @pytest.mark.parametrize(
        "value",
        [
            "a (nested) one",
            ")(",
            "HANGUP",
            "hangup) endpos=12",
            " blanks ",
            "200 result=1 (x)",
            "520-Invalid",
        ],
    )
    def test_a_value_may_hold_brackets_and_any_word(self, value: str) -> None:
        response = parse_response(f"200 result=1 ({value})")
        assert response is not None
        assert response.value == value
        assert response.endpos is None

    @given(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])))
    def test_every_value_of_one_line_comes_back(self, value: str) -> None:
        response = parse_response(f"200 result=1 ({value})")
        assert response is not None
        assert response.value == value

    def test_a_code_without_result_keeps_its_text(self) -> None:
        response = parse_response("510 Invalid or unknown command")
        assert response is not None
        assert (response.code, response.result_number) == (510, None)
        assert str(response) == "510 Invalid or unknown command"

    @pytest.mark.parametrize("line", ["", "HANGUP", "20 result=1", "2000", "x200 a"])
    def test_a_line_without_a_code_is_no_response(self, line: str) -> None:
        assert parse_response(line) is None
