"""Asterisk's reading of commands, and the environment it sends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.caller.agi_wire import Channel, CommandReader, environment_block, parse_words

DATA = Path(__file__).parents[2] / "data" / "agi"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("NOOP", ["NOOP"]),
        ("  GET   VARIABLE\tA ", ["GET", "VARIABLE", "A"]),
        ('SET VARIABLE A ""', ["SET", "VARIABLE", "A", ""]),
        ('SET VARIABLE A "x y"', ["SET", "VARIABLE", "A", "x y"]),
        (
            r'SET VARIABLE A "say \"hi\" \\ x"',
            ["SET", "VARIABLE", "A", r'say "hi" \ x'],
        ),
        (r"SET VARIABLE A x\ y", ["SET", "VARIABLE", "A", "x y"]),
        ('EXEC Dial a"b c"d', ["EXEC", "Dial", "ab cd"]),
        ("", []),
    ],
)
def test_words(line: str, words: list[str]) -> None:
    assert parse_words(line) == words


class TestCommandReader:
    def test_a_line_is_taken_when_it_is_whole(self) -> None:
        reader = CommandReader()
        reader.receive_data(b"NO")
        assert reader.next_line() is None
        reader.receive_data(b"OP\r\n")
        assert reader.next_line() == "NOOP"
        assert reader.next_line() is None
        assert reader.problems == []

    def test_the_second_line_of_a_segment_stays_hidden(self) -> None:
        reader = CommandReader()
        reader.receive_data(b"NOOP\nGET VARIABLE A\n")
        assert reader.next_line() == "NOOP"
        assert reader.next_line() is None
        assert reader.problems == ["two commands in one segment"]

    def test_more_bytes_show_both(self) -> None:
        """What 16 and 22 were seen to do: the hidden line, then the new one."""
        reader = CommandReader()
        reader.receive_data(b"NOOP\nGET VARIABLE A\n")
        reader.next_line()
        reader.receive_data(b"NOOP\n")
        assert reader.next_line() == "GET VARIABLE A"
        assert reader.next_line() == "NOOP"

    def test_a_line_that_comes_while_one_is_worked_on_is_seen(self) -> None:
        reader = CommandReader()
        reader.receive_data(b"STREAM FILE a 1\n")
        assert reader.next_line() == "STREAM FILE a 1"
        reader.receive_data(b"NOOP\n")
        assert reader.is_awake
        assert reader.next_line() == "NOOP"
        assert reader.problems == []

    def test_a_reader_that_was_held_up_takes_each_line_by_itself(self) -> None:
        reader = CommandReader()
        reader.receive_data(b"STREAM FI")
        reader.receive_data(b"LE a 1\nNOOP\nNOOP", is_late=True)
        assert reader.next_line() == "STREAM FILE a 1"
        assert reader.is_awake
        assert reader.next_line() == "NOOP"
        assert reader.next_line() is None
        reader.receive_data(b"\n")
        assert reader.next_line() == "NOOP"
        assert reader.problems == []

    def test_a_long_line_is_cut_into_two_commands(self) -> None:
        reader = CommandReader()
        reader.receive_data(b"x" * 2100 + b"\n")
        assert reader.next_line() == "x" * 2047
        assert reader.next_line() == "x" * 53
        assert "more than 2047 bytes" in reader.problems[0]


@pytest.mark.parametrize("version", ["16", "22"])
def test_the_environment_has_the_lines_and_order_of_the_real_one(version: str) -> None:
    recorded = (DATA / f"environment_asterisk_{version}.txt").read_text()
    ours = environment_block(Channel(), "agi://h/bot", "bot").decode()

    def names(block: str) -> list[str]:
        return [line.partition(":")[0] for line in block.split("\n")]

    assert names(ours) == names(recorded)


def test_a_local_script_is_told_no_network() -> None:
    block = environment_block(
        Channel(), "/bin/bash", "", ["-c"], enhanced=True, is_fast=False
    )
    assert block.startswith(b"agi_request: /bin/bash\n")
    assert b"agi_enhanced: 1.0\n" in block
    assert b"agi_arg_1: -c\n\n" in block


def test_what_is_not_known_is_called_unknown() -> None:
    block = environment_block(Channel(callerid=""), "agi://h/bot", "bot")
    assert b"agi_callerid: unknown\n" in block
