"""The AGI dialogue: bytes in, events and bytes out."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agi_handlers.agi.protocol import (
    AgiEvent,
    AgiLimits,
    AgiProtocol,
    AgiRequest,
    AgiResponse,
    DialogueClosed,
    DialogueState,
    HangupNotice,
    PlaybackInterrupted,
)

DATA = Path(__file__).parents[2] / "data" / "agi"
ENVIRONMENT = (
    b"agi_network: yes\n"
    b"agi_network_script: ultravox?campaign=a\n"
    b"agi_uniqueid: 1795329931.0\n"
    b"agi_calleridname: Jane Q Roe\n"
    b"agi_accountcode: \n"
    b"agi_arg_1: one\n"
    b"\n"
)


def opened(limits: AgiLimits | None = None) -> AgiProtocol:
    """A dialogue whose environment has been read."""
    protocol = AgiProtocol(limits)
    protocol.receive_data(ENVIRONMENT)
    assert isinstance(protocol.events_received()[0], AgiRequest)
    return protocol


def commanded(line: str = "NOOP", *, interruptible: bool = False) -> AgiProtocol:
    """A dialogue with a command in flight."""
    protocol = opened()
    protocol.send_command(line, interruptible=interruptible)
    protocol.data_to_send()
    return protocol


def events_of(protocol: AgiProtocol, data: bytes) -> list[AgiEvent]:
    protocol.receive_data(data)
    return protocol.events_received()


def response_to(data: bytes) -> AgiResponse:
    """The one event that data is, after a command."""
    (event,) = events_of(commanded(), data)
    assert isinstance(event, AgiResponse)
    return event


def error_of(protocol: AgiProtocol) -> str:
    """Why the dialogue closed."""
    closed = protocol.events_received()[-1]
    assert isinstance(closed, DialogueClosed)
    assert protocol.state is DialogueState.CLOSED
    return str(closed.error) if closed.error else ""


class TestEnvironment:
    @pytest.mark.parametrize("version", ["16", "22"])
    def test_a_recorded_environment_is_a_request(self, version: str) -> None:
        protocol = AgiProtocol()
        recorded = (DATA / f"environment_asterisk_{version}.txt").read_bytes()
        (event,) = events_of(protocol, recorded)
        assert isinstance(event, AgiRequest)
        assert event.script == "bot"
        assert event.query == {"exten": "bot"}
        assert event.callerid == "5551234567"
        assert event.asterisk_version is not None
        assert event.asterisk_version[0] == int(version)
        assert protocol.state is DialogueState.IDLE

    def test_nothing_happens_before_the_blank_line(self) -> None:
        protocol = AgiProtocol()
        assert events_of(protocol, ENVIRONMENT[:-1]) == []
        assert protocol.state is DialogueState.ENVIRONMENT

    def test_a_name_that_is_no_utf8_does_not_end_the_call(self) -> None:
        protocol = AgiProtocol()
        (event,) = events_of(
            protocol, b"agi_network: yes\nagi_calleridname: J\xfcrgen\n\n"
        )
        assert isinstance(event, AgiRequest)
        assert event.calleridname == "J\ufffdrgen"

    def test_a_value_keeps_colons_and_inner_blanks(self) -> None:
        (event,) = events_of(AgiProtocol(), b"agi_request: agi://h:1/x\nagi_a:  b \n\n")
        assert isinstance(event, AgiRequest)
        assert event.environment["agi_request"] == "agi://h:1/x"
        assert event.environment["agi_a"] == " b "

    def test_eof_in_half_an_environment_is_an_error(self) -> None:
        protocol = AgiProtocol()
        protocol.receive_data(b"agi_network: yes\nagi_req")
        protocol.receive_eof()
        assert "before its environment was complete" in error_of(protocol)

    def test_eof_without_a_byte_is_a_port_probe(self) -> None:
        protocol = AgiProtocol()
        protocol.receive_eof()
        assert error_of(protocol) == ""

    @pytest.mark.parametrize(
        "junk",
        [
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
            b"\n",
            b"\x00\xff\xfe\n",
            b"200 result=0\n",
        ],
    )
    def test_what_is_no_agi_closes_at_its_first_line(self, junk: bytes) -> None:
        protocol = AgiProtocol()
        protocol.receive_data(junk)
        assert "AGI environment" in error_of(protocol)

    def test_an_endless_line_is_refused_without_its_end(self) -> None:
        protocol = AgiProtocol(AgiLimits(max_line_bytes=100))
        for _ in range(11):
            protocol.receive_data(b"x" * 10)
        assert "line of more than 100 bytes" in error_of(protocol)

    def test_too_many_environment_lines_are_refused(self) -> None:
        protocol = AgiProtocol(AgiLimits(max_environment_lines=10))
        protocol.receive_data(b"".join(b"agi_arg_%d: x\n" % n for n in range(12)))
        assert "too many lines" in error_of(protocol)

    def test_too_many_environment_bytes_are_refused(self) -> None:
        protocol = AgiProtocol(AgiLimits(max_environment_bytes=200))
        protocol.receive_data((b"agi_arg_1: " + b"x" * 80 + b"\n") * 3)
        assert "too many bytes" in error_of(protocol)

    def test_a_line_end_in_a_name_adds_no_line_of_its_own(self) -> None:
        (event,) = events_of(
            AgiProtocol(),
            b"agi_uniqueid: 1.0\nagi_calleridname: a\nx\nagi_uniqueid: 9.9\n\n",
        )
        assert isinstance(event, AgiRequest)
        assert event.uniqueid == "1.0"

    def test_hangup_before_the_blank_line_is_an_event(self) -> None:
        protocol = AgiProtocol()
        events = events_of(protocol, b"agi_network: yes\nHANGUP\n\n")
        assert events[0] == HangupNotice()
        assert isinstance(events[1], AgiRequest)
        assert protocol.hung_up


class TestCommands:
    def test_a_command_is_one_segment(self) -> None:
        protocol = opened()
        protocol.send_command("GET VARIABLE ünï")
        assert protocol.data_to_send() == ["GET VARIABLE ünï\n".encode()]
        assert protocol.data_to_send() == []

    def test_a_second_command_in_flight_raises(self) -> None:
        protocol = commanded()
        with pytest.raises(RuntimeError, match="awaiting_response"):
            protocol.send_command("NOOP")

    def test_a_command_before_the_environment_raises(self) -> None:
        with pytest.raises(RuntimeError, match="environment"):
            AgiProtocol().send_command("NOOP")

    def test_a_command_after_the_end_raises(self) -> None:
        protocol = opened()
        protocol.receive_eof()
        with pytest.raises(RuntimeError, match="closed"):
            protocol.send_command("NOOP")

    def test_a_line_end_in_a_command_is_our_bug(self) -> None:
        with pytest.raises(AssertionError):
            opened().send_command("NOOP\nHANGUP")

    def test_a_command_asterisk_would_split_is_our_bug(self) -> None:
        with pytest.raises(AssertionError):
            opened().send_command("SET VARIABLE A " + "x" * 2000)

    def test_after_the_response_the_next_command_may_go(self) -> None:
        protocol = commanded()
        protocol.receive_data(b"200 result=0\n")
        protocol.send_command("NOOP")
        assert protocol.data_to_send() == [b"NOOP\n"]


class TestResponses:
    def test_interim_lines_are_not_the_answer(self) -> None:
        protocol = commanded("GOSUB a,b,1")
        assert events_of(protocol, b"100 result=0 Trying...\n") == []
        assert protocol.state is DialogueState.AWAITING_RESPONSE
        (event,) = events_of(protocol, b"200 result=0 Gosub complete\n")
        assert isinstance(event, AgiResponse)
        assert event.code == 200

    def test_520_in_one_line(self) -> None:
        response = response_to(
            b"520 Invalid command syntax.  Proper usage not available.\n"
        )
        assert (response.code, response.usage) == (520, ())

    def test_520_in_a_block(self) -> None:
        protocol = commanded()
        block = (
            b"520-Invalid command syntax.  Proper usage follows:\n"
            b" Usage: GET VARIABLE <variablename>\n"
            b"\tReturns 0 if <variablename> is not set.\n"
            b" example return code: 200 result=1 (testvariable)\n"
            b"\n"
            b"520 End of proper usage.\n"
        )
        (event,) = events_of(protocol, block)
        assert isinstance(event, AgiResponse)
        assert event.code == 520
        assert event.usage[0] == " Usage: GET VARIABLE <variablename>"
        assert protocol.state is DialogueState.IDLE

    def test_520_block_whose_end_is_glued_to_the_text(self) -> None:
        """Usage texts made from XML have no line end of their own in some versions."""
        protocol = commanded()
        (event,) = events_of(
            protocol,
            b"520-Invalid command syntax.  Proper usage follows:\n"
            b"Returns the digits received.520 End of proper usage.\n",
        )
        assert isinstance(event, AgiResponse)
        assert protocol.state is DialogueState.IDLE

    def test_the_line_after_a_one_line_520_answers_the_next_command(self) -> None:
        """A parser that waits for a second 520 line would swallow it."""
        protocol = commanded()
        protocol.receive_data(b"520 Invalid command syntax.\n")
        protocol.send_command("NOOP")
        events = events_of(protocol, b"200 result=0\n")
        assert [e.code for e in events if isinstance(e, AgiResponse)] == [520, 200]

    @pytest.mark.parametrize("code", [510, 511])
    def test_refusals_are_answers(self, code: int) -> None:
        assert response_to(b"%d Command Not Permitted\n" % code).code == code

    def test_carriage_returns_are_tolerated(self) -> None:
        assert response_to(b"200 result=1 (x)\r\n").value == "x"

    def test_a_value_of_several_lines_is_one_value(self) -> None:
        protocol = commanded("GET FULL VARIABLE ${X}")
        assert events_of(protocol, b"200 result=1 (first\nsecond\n") == []
        (event,) = events_of(protocol, b"last)\n")
        assert isinstance(event, AgiResponse)
        assert event.value == "first\nsecond\nlast"

    def test_hangup_inside_a_value_is_text(self) -> None:
        protocol = commanded("GET FULL VARIABLE ${X}")
        (event,) = events_of(protocol, b"200 result=1 (a\nHANGUP\nb)\n")
        assert isinstance(event, AgiResponse)
        assert event.value == "a\nHANGUP\nb"
        assert not protocol.hung_up

    def test_the_rest_of_a_misleading_value_answers_nothing(self) -> None:
        protocol = commanded("GET FULL VARIABLE ${X}")
        (event,) = events_of(protocol, b"200 result=1 (a\nb (c)\nd)\n")
        assert isinstance(event, AgiResponse)
        assert event.value == "a\nb (c"
        protocol.send_command("NOOP")
        (event,) = events_of(protocol, b"200 result=7\n")
        assert isinstance(event, AgiResponse)
        assert event.result == "7"

    def test_a_value_without_end_is_refused(self) -> None:
        protocol = opened(AgiLimits(max_response_bytes=100))
        protocol.send_command("GET FULL VARIABLE ${X}")
        protocol.receive_data(b"200 result=1 (a\n" + b"x\n" * 60)
        assert "response of more than 100 bytes" in error_of(protocol)

    def test_a_usage_without_end_is_refused(self) -> None:
        protocol = opened(AgiLimits(max_response_bytes=100))
        protocol.send_command("NOOP")
        protocol.receive_data(b"520-Invalid\n" + b"x\n" * 60)
        assert "response of more than 100 bytes" in error_of(protocol)

    def test_a_response_nobody_asked_for_does_not_answer_the_next_command(self) -> None:
        """EXEC of an application that returned 1 is followed by a 520 block."""
        protocol = commanded("EXEC Something")
        protocol.receive_data(
            b"200 result=1\n"
            b"520-Invalid command syntax.  Proper usage follows:\n"
            b" Usage: EXEC <application> <options>\n"
            b"520 End of proper usage.\n"
        )
        assert len(protocol.events_received()) == 1
        protocol.send_command("NOOP")
        (event,) = events_of(protocol, b"200 result=0\n")
        assert isinstance(event, AgiResponse)
        assert event.result == "0"

    def test_junk_lines_are_passed_over_up_to_a_limit(self) -> None:
        protocol = opened(AgiLimits(max_stray_lines=5))
        protocol.send_command("NOOP")
        protocol.receive_data(b"junk\n\x00\xff\n\n" + b"200 result=0\n")
        assert len(protocol.events_received()) == 1
        protocol.receive_data(b"more junk\n" * 3)
        assert "answer nothing" in error_of(protocol)

    def test_eof_may_be_the_only_answer(self) -> None:
        protocol = commanded()
        protocol.receive_eof()
        assert error_of(protocol) == ""

    def test_half_a_line_before_eof_is_no_response(self) -> None:
        protocol = commanded()
        protocol.receive_data(b"200 result=1 (ha")
        protocol.receive_eof()
        assert protocol.events_received() == [DialogueClosed(None)]

    def test_nothing_is_read_after_the_end(self) -> None:
        protocol = commanded()
        protocol.receive_eof()
        protocol.events_received()
        assert events_of(protocol, b"200 result=0\nHANGUP\n") == []
        protocol.receive_eof()
        assert protocol.events_received() == []


class TestHangup:
    def test_hangup_between_responses_is_not_a_response(self) -> None:
        protocol = commanded()
        assert events_of(protocol, b"HANGUP\n") == [HangupNotice()]
        assert protocol.state is DialogueState.AWAITING_RESPONSE
        (event,) = events_of(protocol, b"200 result=0\n")
        assert isinstance(event, AgiResponse)

    def test_hangup_while_idle_is_an_event_and_the_dialogue_goes_on(self) -> None:
        protocol = opened()
        assert events_of(protocol, b"HANGUP\n") == [HangupNotice()]
        protocol.send_command("SET VARIABLE BOT_STATUS hangup")
        assert protocol.state is DialogueState.AWAITING_RESPONSE

    def test_hangup_is_told_once(self) -> None:
        """AGIEXITONHANGUP sends the line twice."""
        assert events_of(opened(), b"HANGUP\nHANGUP\n") == [HangupNotice()]

    def test_hangup_after_the_response_of_the_command_it_ended(self) -> None:
        first, second = events_of(commanded(), b"200 result=-1 endpos=9\nHANGUP\n")
        assert isinstance(first, AgiResponse)
        assert second == HangupNotice()

    def test_hangup_inside_a_usage_block_is_an_event(self) -> None:
        events = events_of(
            commanded(), b"520-Invalid\nHANGUP\nx\n520 End of proper usage.\n"
        )
        assert events[0] == HangupNotice()
        assert isinstance(events[1], AgiResponse)

    @pytest.mark.parametrize("line", [b"hangup\n", b"HANGUP now\n", b" HANGUP\n"])
    def test_only_the_bare_word_is_a_hangup(self, line: bytes) -> None:
        protocol = opened()
        protocol.receive_data(line)
        assert not protocol.hung_up


class TestInterrupt:
    """An interrupted STREAM FILE is never answered; the marker is."""

    @staticmethod
    def playing() -> AgiProtocol:
        return commanded('STREAM FILE hello "123"', interruptible=True)

    def test_the_marker_ends_the_playback(self) -> None:
        protocol = self.playing()
        assert protocol.send_interrupt("m1")
        assert protocol.data_to_send() == [b"GET FULL VARIABLE m1\n"]
        assert events_of(protocol, b"200 result=1 (m1)\n") == [
            PlaybackInterrupted(None)
        ]
        assert protocol.state is DialogueState.IDLE

    def test_a_playback_that_had_just_ended_answers_first(self) -> None:
        protocol = self.playing()
        protocol.send_interrupt("m1")
        assert events_of(protocol, b"200 result=0 endpos=8000\n") == []
        (event,) = events_of(protocol, b"200 result=1 (m1)\n")
        assert isinstance(event, PlaybackInterrupted)
        assert event.ended_first is not None
        assert event.ended_first.endpos == 8000

    def test_a_key_pressed_at_the_same_moment_is_not_lost(self) -> None:
        protocol = self.playing()
        protocol.send_interrupt("m1")
        (event,) = events_of(protocol, b"200 result=53 endpos=400\n200 result=1 (m1)\n")
        assert isinstance(event, PlaybackInterrupted)
        assert event.ended_first is not None
        assert event.ended_first.result == "53"

    def test_a_hangup_at_the_same_moment(self) -> None:
        protocol = self.playing()
        protocol.send_interrupt("m1")
        events = events_of(
            protocol, b"200 result=-1 endpos=400\nHANGUP\n200 result=1 (m1)\n"
        )
        assert events[0] == HangupNotice()
        assert isinstance(events[1], PlaybackInterrupted)

    def test_the_marker_stayed_unseen_and_was_sent_again(self) -> None:
        """Marker and STREAM FILE came in one segment: only more bytes wake Asterisk."""
        protocol = self.playing()
        protocol.send_interrupt("m1")
        protocol.send_interrupt("m2")
        assert events_of(protocol, b"200 result=1 (m1)\n") == []
        assert protocol.state is DialogueState.INTERRUPTING
        events = events_of(protocol, b"200 result=1 (m2)\n")
        assert events == [PlaybackInterrupted(None)]

    def test_the_marker_stayed_unseen_until_after_the_end(self) -> None:
        protocol = self.playing()
        protocol.send_interrupt("m1")
        protocol.receive_data(b"200 result=0 endpos=8000\n")
        protocol.send_interrupt("m2")
        (event,) = events_of(protocol, b"200 result=1 (m1)\n200 result=1 (m2)\n")
        assert isinstance(event, PlaybackInterrupted)
        assert event.ended_first is not None

    def test_nothing_is_running(self) -> None:
        protocol = opened()
        assert not protocol.send_interrupt("m1")
        assert protocol.data_to_send() == []

    def test_a_command_that_would_not_stop_is_not_interrupted(self) -> None:
        protocol = commanded("RECORD FILE a wav 1 1000")
        assert not protocol.send_interrupt("m1")
        assert protocol.state is DialogueState.AWAITING_RESPONSE

    def test_the_next_playback_knows_nothing_of_the_last_interrupt(self) -> None:
        protocol = self.playing()
        protocol.send_interrupt("m1")
        protocol.receive_data(b"200 result=0 endpos=1\n200 result=1 (m1)\n")
        protocol.events_received()
        protocol.send_command('STREAM FILE b ""', interruptible=True)
        (event,) = events_of(protocol, b"200 result=1 (m1)\n")
        assert isinstance(event, AgiResponse)

    def test_no_command_goes_while_interrupting(self) -> None:
        protocol = self.playing()
        protocol.send_interrupt("m1")
        with pytest.raises(RuntimeError):
            protocol.send_command("NOOP")

    def test_eof_while_interrupting(self) -> None:
        protocol = self.playing()
        protocol.send_interrupt("m1")
        protocol.receive_eof()
        assert protocol.events_received() == [DialogueClosed(None)]


# --- properties ---

ANSWERS = [
    b"200 result=0\n",
    b"200 result=1 (a (b) HANGUP)\n",
    b"200 result=1 (two\nlines)\n",
    b"100 result=0 Trying...\n200 result=0 Gosub complete\n",
    b"520-Invalid command syntax.\n Usage: x\n520 End of proper usage.\n",
    b"510 Invalid or unknown command\n",
    b"HANGUP\n511 Command Not Permitted on a dead channel\n",
    b"junk\n200 result=-1 endpos=12\nHANGUP\n",
    "200 result=1 (ünï\ufffd)\r\n".encode() + b"\xff\xfe\n",
]


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(at), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


def dialogue(streams: list[list[bytes]]) -> list[str]:
    """Events of an environment and answers, each in pieces; errors by their text."""
    protocol = AgiProtocol()
    events: list[AgiEvent] = []
    for pieces in streams:
        if protocol.state is DialogueState.IDLE:
            protocol.send_command("NOOP")
        for piece in pieces:
            protocol.receive_data(piece)
            events += protocol.events_received()
    protocol.receive_eof()
    return [repr(event) for event in events + protocol.events_received()]


@given(answers=st.lists(st.sampled_from(ANSWERS), max_size=6), data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_stream_cut_anywhere_gives_the_same_events(
    answers: list[bytes], data: st.DataObject
) -> None:
    streams = [ENVIRONMENT, *answers]
    pieces = [
        cut(s, data.draw(st.lists(st.integers(0, len(s)), max_size=10)))
        for s in streams
    ]
    assert dialogue(pieces) == dialogue([[s] for s in streams])


def test_a_stream_cut_at_every_byte_gives_the_same_events() -> None:
    streams = [ENVIRONMENT, *ANSWERS]
    bytewise = dialogue([cut(s, list(range(len(s)))) for s in streams])
    assert bytewise == dialogue([[s] for s in streams])
    assert sum("AgiResponse" in event for event in bytewise) == len(ANSWERS)


@given(st.lists(st.binary(max_size=200), max_size=20), st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_bytes_end_in_events_not_in_exceptions(
    pieces: list[bytes], is_open: bool
) -> None:
    limits = AgiLimits(max_line_bytes=300, max_stray_lines=3, max_response_bytes=900)
    protocol = opened(limits) if is_open else AgiProtocol(limits)
    for piece in pieces:
        if protocol.state is DialogueState.IDLE:
            protocol.send_command("STREAM FILE a 1", interruptible=True)
            protocol.send_interrupt("m1")
        protocol.receive_data(piece)
    protocol.receive_eof()
    assert isinstance(protocol.events_received()[-1], DialogueClosed)
