"""How commands are written, and what their responses mean."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agi_handlers.agi import commands
from agi_handlers.agi.commands import (
    ChannelState,
    Command,
    PlaybackEnd,
    PlaybackEnded,
    RecordingEnd,
    RecordingEnded,
)
from agi_handlers.agi.messages import parse_response
from agi_handlers.errors import AgiArgumentInvalid, AgiProtocolError, ChannelGone
from tools.caller.agi_wire import parse_words

T = TypeVar("T")
TEXT = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]))


def meaning(command: Command[T], response: str) -> T:
    parsed = parse_response(response)
    assert parsed is not None
    return command.interpret(parsed)


class TestWriting:
    @pytest.mark.parametrize(
        ("command", "line"),
        [
            (commands.answer(), "ANSWER"),
            (commands.hangup(), "HANGUP"),
            (commands.noop(), "NOOP"),
            (commands.channel_status(), "CHANNEL STATUS"),
            (commands.get_variable("CALLERID(name)"), "GET VARIABLE CALLERID(name)"),
            (
                commands.get_full_variable("${IFMODULE(app_audiosocket.so)}"),
                "GET FULL VARIABLE ${IFMODULE(app_audiosocket.so)}",
            ),
            (commands.set_variable("BOT_STATUS", ""), 'SET VARIABLE BOT_STATUS ""'),
            (commands.set_variable("A", "x y"), 'SET VARIABLE A "x y"'),
            (commands.set_context("default"), "SET CONTEXT default"),
            (commands.set_extension("8901"), "SET EXTENSION 8901"),
            (commands.set_priority(1), "SET PRIORITY 1"),
            (commands.stream_file("hello"), "STREAM FILE hello 0123456789*#"),
            (commands.stream_file("a b", "", 80), 'STREAM FILE "a b" "" 80'),
            (
                commands.record_file(
                    "/d/x", "wav", timeout_ms=9000, silence_s=2, beep=True
                ),
                "RECORD FILE /d/x wav 0123456789*# 9000 BEEP s=2",
            ),
            (commands.wait_for_digit(500), "WAIT FOR DIGIT 500"),
            (commands.exec_("NoOp"), "EXEC NoOp"),
            (
                commands.exec_("EAGI", "/bin/bash", "-c", "cat <&3 >&6"),
                'EXEC EAGI "/bin/bash,-c,cat <&3 >&6"',
            ),
            (
                commands.exec_audiosocket(UUID(int=1), "10.0.0.1:9092"),
                "EXEC AudioSocket 00000000-0000-0000-0000-000000000001,10.0.0.1:9092",
            ),
            (commands.verbose("a\nb"), 'VERBOSE "a b" 1'),
        ],
    )
    def test_line(self, command: Command[object], line: str) -> None:
        assert command.line == line

    def test_quotes_and_backslashes_are_escaped(self) -> None:
        line = commands.set_variable("A", 'say "hi" \\ there').line
        assert line == r'SET VARIABLE A "say \"hi\" \\ there"'

    @given(TEXT)
    def test_asterisk_reads_back_every_value(self, value: str) -> None:
        command = commands.set_variable("BOT_REASON", value, allow_commas=True)
        assert parse_words(command.line) == ["SET", "VARIABLE", "BOT_REASON", value]

    @given(TEXT)
    def test_one_argument_never_becomes_two(self, expression: str) -> None:
        command = commands.get_full_variable(expression)
        assert len(parse_words(command.line)) == 4

    @pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\0"])
    def test_a_line_end_in_an_argument_is_refused(self, end: str) -> None:
        with pytest.raises(AgiArgumentInvalid, match="line end"):
            commands.set_variable("A", f"x{end}EXEC System reboot")

    def test_2000_bytes_are_the_most(self) -> None:
        overhead = len("SET VARIABLE A ")
        commands.set_variable("A", "x" * (2000 - overhead))
        with pytest.raises(AgiArgumentInvalid, match="2001 bytes"):
            commands.set_variable("A", "x" * (2001 - overhead))

    def test_the_limit_counts_bytes_not_characters(self) -> None:
        with pytest.raises(AgiArgumentInvalid):
            commands.set_variable("A", "ü" * 1000)

    def test_text_that_is_no_unicode_is_refused(self) -> None:
        with pytest.raises(AgiArgumentInvalid, match="Unicode"):
            commands.get_full_variable("\udcff")

    def test_a_comma_in_a_variable_is_refused_unless_it_is_meant(self) -> None:
        with pytest.raises(AgiArgumentInvalid, match="comma"):
            commands.set_variable("BOT_REASON", "one, two")
        command = commands.set_variable(
            "TALK_DETECT(set)", "1200,128", allow_commas=True
        )
        assert command.line == "SET VARIABLE TALK_DETECT(set) 1200,128"

    def test_a_comma_within_an_exec_argument_is_refused(self) -> None:
        with pytest.raises(AgiArgumentInvalid, match="comma"):
            commands.exec_("Dial", "SIP/a,30")

    @pytest.mark.parametrize("name", ["", "A B", "1A", "A=B", "${A}", "A)", 'A"'])
    def test_what_is_no_variable_name_is_refused(self, name: str) -> None:
        with pytest.raises(AgiArgumentInvalid):
            commands.set_variable(name, "x")
        with pytest.raises(AgiArgumentInvalid):
            commands.get_variable(name)

    @pytest.mark.parametrize(
        "name", ["BOT_STATUS", "__INHERITED", "CDR(userfield)", "CHANNEL(linkedid)"]
    )
    def test_variables_and_functions_are_names(self, name: str) -> None:
        assert commands.get_variable(name).line.endswith(name)

    def test_what_is_no_application_is_refused(self) -> None:
        with pytest.raises(AgiArgumentInvalid):
            commands.exec_("System reboot")

    @pytest.mark.parametrize("keys", ["x", "1 2", ",", '"'])
    def test_what_is_no_key_is_refused(self, keys: str) -> None:
        with pytest.raises(AgiArgumentInvalid):
            commands.stream_file("a", keys)

    def test_a_recording_needs_a_limit(self) -> None:
        with pytest.raises(AgiArgumentInvalid):
            commands.record_file("a", "wav", timeout_ms=-1)
        with pytest.raises(AgiArgumentInvalid):
            commands.record_file("a", "wav", timeout_ms=1000, silence_s=0)
        with pytest.raises(AgiArgumentInvalid):
            commands.record_file("a", "wav 1", timeout_ms=1000)

    def test_a_wait_needs_a_limit(self) -> None:
        with pytest.raises(AgiArgumentInvalid):
            commands.wait_for_digit(-1)

    def test_only_a_playback_can_be_interrupted(self) -> None:
        assert commands.stream_file("a").interrupted is not None
        assert commands.record_file("a", "wav", timeout_ms=1).interrupted is None
        assert commands.exec_("Wait", "1").interrupted is None

    def test_console_text_is_cleaned_not_refused(self) -> None:
        line = commands.verbose("x" * 5000 + "\r\nHANGUP").line
        assert len(line.encode()) < 600
        assert "\n" not in line

    def test_the_name_for_logs_has_no_arguments(self) -> None:
        assert commands.set_variable("A", "secret").name == "SET VARIABLE"
        assert commands.exec_("Dial", "SIP/555").name == "EXEC Dial"


class TestDialplanText:
    @given(st.text())
    def test_any_text_becomes_a_value_that_can_be_set(self, text: str) -> None:
        safe = commands.dialplan_text(text)
        assert not set(safe) & set(',"\\${}[]\n\r\0')
        assert len(safe.encode()) <= 200
        commands.set_variable("BOT_REASON", safe)

    def test_what_people_read_stays(self) -> None:
        text = commands.dialplan_text("ValueError: a, b\n  at line 3")
        assert text == "ValueError: a; b   at line 3"


class TestMeaning:
    def test_answer(self) -> None:
        assert meaning(commands.answer(), "200 result=0") is True
        assert meaning(commands.answer(), "200 result=-1") is False

    def test_channel_status(self) -> None:
        status = commands.channel_status()
        assert meaning(status, "200 result=6") is ChannelState.UP
        assert meaning(status, "200 result=4") is ChannelState.RING
        with pytest.raises(AgiProtocolError):
            meaning(status, "200 result=77")

    def test_a_variable_that_is_not_set_is_none_and_an_empty_one_is_empty(
        self,
    ) -> None:
        get = commands.get_variable("A")
        assert meaning(get, "200 result=0") is None
        assert meaning(get, "200 result=1 ()") == ""
        assert meaning(get, "200 result=1 (x)") == "x"

    def test_playback_to_its_end(self) -> None:
        assert meaning(
            commands.stream_file("a"), "200 result=0 endpos=30713"
        ) == PlaybackEnded(PlaybackEnd.FINISHED, endpos_samples=30713)

    def test_playback_ended_by_a_key(self) -> None:
        assert meaning(
            commands.stream_file("a"), "200 result=53 endpos=8800"
        ) == PlaybackEnded(PlaybackEnd.DIGIT, "5", 8800)

    def test_playback_that_failed(self) -> None:
        ended = meaning(commands.stream_file("a"), "200 result=-1 endpos=0")
        assert ended.how is PlaybackEnd.FAILED

    @pytest.mark.parametrize(
        ("response", "ended"),
        [
            (
                "200 result=0 (timeout) endpos=24000",  # 16
                RecordingEnded(RecordingEnd.TIMEOUT, None, 24000),
            ),
            (
                "200 result=1 (timeout) endpos=24000",  # 22
                RecordingEnded(RecordingEnd.TIMEOUT, None, 24000),
            ),
            (
                "200 result=8522 (timeout) endpos=43840",
                RecordingEnded(RecordingEnd.SILENCE, None, 43840),
            ),
            (
                "200 result=35 (dtmf) endpos=30080",
                RecordingEnded(RecordingEnd.DIGIT, "#", 30080),
            ),
            (
                "200 result=-1 (hangup) endpos=38880",
                RecordingEnded(RecordingEnd.HANGUP, None, 38880),
            ),
            ("200 result=-1 (writefile)", RecordingEnded(RecordingEnd.WRITE_FAILED)),
            (
                "200 result=-1 (randomerror) endpos=0",
                RecordingEnded(RecordingEnd.FAILED),
            ),
            (
                "200 result=-1 (waitfor) endpos=80",
                RecordingEnded(RecordingEnd.FAILED, None, 80),
            ),
        ],
    )
    def test_recording(self, response: str, ended: RecordingEnded) -> None:
        record = commands.record_file("a", "wav", timeout_ms=1000)
        assert meaning(record, response) == ended

    def test_wait_for_digit(self) -> None:
        wait = commands.wait_for_digit(1000)
        assert meaning(wait, "200 result=0") is None
        assert meaning(wait, "200 result=49") == "1"
        assert meaning(wait, "200 result=1") is None  # a new command ended it
        with pytest.raises(ChannelGone):
            meaning(wait, "200 result=-1")

    def test_exec_tells_an_unknown_application(self) -> None:
        run = commands.exec_("AudioSocket")
        assert meaning(run, "200 result=-2").is_unknown_application
        assert not meaning(run, "200 result=-1").is_unknown_application

    def test_a_response_without_a_number_is_a_protocol_error(self) -> None:
        with pytest.raises(AgiProtocolError):
            meaning(commands.stream_file("a"), "200 result=x endpos=3")
