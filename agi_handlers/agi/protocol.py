"""The AGI dialogue without I/O: bytes in, events out; commands in, bytes out.

::

    ENVIRONMENT ──blank line──▶ IDLE ──send_command──▶ AWAITING_RESPONSE
                                 ▲ ▲                    │           │
                                 │ └───────2xx/5xx──────┘    send_interrupt
                                 │                                  ▼
                                 └──marker's response────────  INTERRUPTING
    any state: a "HANGUP" line sets hung_up, the dialogue goes on;  EOF ▶ CLOSED

Asterisk takes one command at a time. A second one is allowed only to interrupt a
playback: STREAM FILE stops within a frame when any command arrives, and gets **no
response of its own** (res_agi.c: "no result line, as a new command came"). So the
interrupt is a marker command whose response cannot be mistaken, and everything up to
that response belongs to the playback. When the playback had just ended by itself its
own response comes first. When the marker reached Asterisk together with the playback's
own line it stays unseen, so a marker that is not answered soon is followed by another
one: the bytes that wake Asterisk up. The last marker's response ends the interrupt.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from agi_handlers.agi.messages import (
    AgiRequest,
    AgiResponse,
    HangupNotice,
    PlaybackInterrupted,
    closes_usage,
    continues_value,
    opens_usage,
    opens_value,
    parse_response,
    response_code,
)
from agi_handlers.errors import AgiProtocolError

__all__ = [
    "MAX_COMMAND_BYTES",
    "AgiEvent",
    "AgiLimits",
    "AgiProtocol",
    "AgiRequest",
    "AgiResponse",
    "DialogueClosed",
    "DialogueState",
    "HangupNotice",
    "PlaybackInterrupted",
]

# Asterisk up to 16 splits a longer line into two commands at 2,047 bytes (18: 2,048).
MAX_COMMAND_BYTES = 2000


@dataclass(frozen=True, slots=True)
class AgiLimits:
    """How much we read before we call it an attack or a mistake."""

    max_line_bytes: int = 65_536  # the longest variable anyone should ask for
    max_environment_lines: int = 256  # ~20 of Asterisk's own, at most 127 arguments
    max_environment_bytes: int = 65_536
    max_response_bytes: int = 262_144  # a value or usage text of several lines
    max_stray_lines: int = 64  # lines that are no answer to anything, per dialogue


class DialogueState(Enum):
    ENVIRONMENT = "environment"
    IDLE = "idle"
    AWAITING_RESPONSE = "awaiting_response"
    INTERRUPTING = "interrupting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class DialogueClosed:
    """No more will come: the peer closed, or its bytes made no sense (error)."""

    error: AgiProtocolError | None = None


AgiEvent: TypeAlias = (
    AgiRequest | AgiResponse | PlaybackInterrupted | HangupNotice | DialogueClosed
)


class AgiProtocol:
    """Our side of one AGI dialogue.

    Bad bytes never raise out of ``receive_data``: the dialogue closes and
    ``DialogueClosed.error`` says why.
    """

    def __init__(self, limits: AgiLimits | None = None) -> None:
        self.state = DialogueState.ENVIRONMENT
        self.hung_up = False
        self.num_stray_lines = 0
        self.num_bytes_received = 0
        self._limits = limits or AgiLimits()
        self._buffer = bytearray()
        self._scanned_bytes = 0
        self._events: list[AgiEvent] = []
        self._to_send: list[bytes] = []
        self._environment: dict[str, str] = {}
        self._num_environment_lines = 0
        self._environment_bytes = 0
        # Lines of a response that spans several; None while none does.
        self._usage: list[str] | None = None
        self._value: list[str] | None = None
        self._response_bytes = 0
        self._interruptible = False
        self._markers: list[str] = []
        self._ended_first: AgiResponse | None = None

    @property
    def is_closed(self) -> bool:
        return self.state is DialogueState.CLOSED

    # --- the network's side ---

    def receive_data(self, data: bytes) -> None:
        """Take any number of bytes, cut anywhere."""
        if self.is_closed:
            return
        self.num_bytes_received += len(data)
        self._buffer += data
        while not self.is_closed:
            end = self._buffer.find(b"\n", self._scanned_bytes)
            length_bytes = len(self._buffer) if end < 0 else end
            if length_bytes > self._limits.max_line_bytes:
                self._fail(f"line of more than {self._limits.max_line_bytes} bytes")
                return
            if end < 0:
                self._scanned_bytes = len(self._buffer)
                return
            raw = bytes(self._buffer[:end]).removesuffix(b"\r")
            del self._buffer[: end + 1]
            self._scanned_bytes = 0
            # Caller names come in any encoding; a broken one must not end the call.
            self._receive_line(raw.decode("utf-8", errors="replace"), len(raw))

    def receive_eof(self) -> None:
        """The peer closed its side."""
        if self.is_closed:
            return
        error = None
        if self.state is DialogueState.ENVIRONMENT and self.num_bytes_received:
            error = AgiProtocolError("closed before its environment was complete")
        self._close(error)

    def events_received(self) -> list[AgiEvent]:
        """Events since the last call, in order."""
        events, self._events = self._events, []
        return events

    # --- our side ---

    def send_command(self, line: str, *, interruptible: bool = False) -> None:
        """Send a command line (no line end). Only one may be in flight.

        interruptible: Asterisk stops this command when another one arrives.
        """
        if self.state is not DialogueState.IDLE:
            raise RuntimeError(f"a command may not be sent now: {self.state.value}")
        self._write(line)
        self._interruptible = interruptible
        self.state = DialogueState.AWAITING_RESPONSE

    @property
    def can_interrupt(self) -> bool:
        """A command is in flight that another one would stop."""
        is_waiting = self.state is DialogueState.AWAITING_RESPONSE
        return is_waiting and self._interruptible

    def send_interrupt(self, marker: str) -> bool:
        """Stop the playback in flight; False if nothing interruptible is running.

        marker: letters and digits no other value consists of, new each time. Sent
        again when it was not answered; the event to wait for is PlaybackInterrupted.
        """
        if self.can_interrupt:
            self.state = DialogueState.INTERRUPTING
        elif self.state is not DialogueState.INTERRUPTING:
            return False
        # GET FULL VARIABLE gives back plain text as it is, also after a hang-up.
        self._write(f"GET FULL VARIABLE {marker}")
        self._markers.append(marker)
        return True

    def data_to_send(self) -> list[bytes]:
        """Bytes to write; each item must go out in one write of its own.

        Asterisk reads ahead but waits on the raw socket: the second of two lines in
        one segment stays unseen until more bytes come.
        """
        to_send, self._to_send = self._to_send, []
        return to_send

    def _write(self, line: str) -> None:
        raw = line.encode("utf-8")
        assert b"\n" not in raw, "a line end would begin a second command"
        assert len(raw) <= MAX_COMMAND_BYTES, "Asterisk would split the command"
        self._to_send.append(raw + b"\n")

    # --- lines ---

    def _receive_line(self, line: str, length_bytes: int) -> None:
        if self._value is not None:
            self._receive_value_line(line, length_bytes)
        elif line == "HANGUP":
            self._receive_hangup()
        elif self._usage is not None:
            self._receive_usage_line(line, length_bytes)
        elif self.state is DialogueState.ENVIRONMENT:
            self._receive_environment_line(line, length_bytes)
        else:
            self._receive_response_line(line, length_bytes)

    def _receive_hangup(self) -> None:
        if not self.hung_up:  # AGIEXITONHANGUP sends it twice
            self.hung_up = True
            self._events.append(HangupNotice())

    def _receive_environment_line(self, line: str, length_bytes: int) -> None:
        self._num_environment_lines += 1
        self._environment_bytes += length_bytes + 1
        if self._num_environment_lines > self._limits.max_environment_lines:
            self._fail("environment of too many lines")
        elif self._environment_bytes > self._limits.max_environment_bytes:
            self._fail("environment of too many bytes")
        elif line:
            name, colon, value = line.partition(":")
            if colon and name.startswith("agi_"):
                # The first wins: a later one can only be a line end in a name.
                self._environment.setdefault(name, value.removeprefix(" "))
            elif self._environment:
                self._receive_stray_line()
            else:  # HTTP, TLS, a port scan: not worth another line
                self._fail("not an AGI environment")
        elif self._environment:
            self.state = DialogueState.IDLE
            self._events.append(AgiRequest.from_environment(self._environment))
        else:
            self._fail("empty AGI environment")

    def _receive_response_line(self, line: str, length_bytes: int) -> None:
        code = response_code(line)
        if code is None:
            self._receive_stray_line()
        elif code < 200:
            pass  # "100 result=0 Trying...": the answer is still to come
        elif opens_usage(line):
            self._usage, self._response_bytes = [], length_bytes
        elif opens_value(line):
            self._value, self._response_bytes = [line], length_bytes
        else:
            self._receive_response(parse_response(line))

    def _receive_usage_line(self, line: str, length_bytes: int) -> None:
        assert self._usage is not None
        self._usage.append(line)
        if self._is_response_too_long(length_bytes):
            return
        if closes_usage(line):
            usage, self._usage = tuple(self._usage), None
            text = "Invalid command syntax"
            self._receive_response(AgiResponse(520, text=text, usage=usage))

    def _receive_value_line(self, line: str, length_bytes: int) -> None:
        # No HANGUP can be in here: the thread that sends it writes this value.
        assert self._value is not None
        self._value.append(line)
        if self._is_response_too_long(length_bytes) or continues_value(line):
            return
        whole, self._value = "\n".join(self._value), None
        self._receive_response(parse_response(whole))

    def _is_response_too_long(self, length_bytes: int) -> bool:
        self._response_bytes += length_bytes + 1
        if self._response_bytes <= self._limits.max_response_bytes:
            return False
        self._fail(f"response of more than {self._limits.max_response_bytes} bytes")
        return True

    def _receive_response(self, response: AgiResponse | None) -> None:
        assert response is not None, "only lines with a code come here"
        if self.state is DialogueState.AWAITING_RESPONSE:
            self.state = DialogueState.IDLE
            self._events.append(response)
        elif self.state is DialogueState.INTERRUPTING:
            self._receive_while_interrupting(response)
        else:
            # An application that returned 1 gets a 520 block after its 200.
            self._receive_stray_line()

    def _receive_while_interrupting(self, response: AgiResponse) -> None:
        is_marker = response.code == 200 and response.value in self._markers
        if not is_marker and self._ended_first is None:
            self._ended_first = response
        elif not is_marker or response.value == self._markers[-1]:
            ended_first, self._ended_first = self._ended_first, None
            self._markers.clear()
            self.state = DialogueState.IDLE
            self._events.append(PlaybackInterrupted(ended_first))

    def _receive_stray_line(self) -> None:
        self.num_stray_lines += 1
        if self.num_stray_lines > self._limits.max_stray_lines:
            self._fail("too many lines that answer nothing")

    def _fail(self, reason: str) -> None:
        self._close(AgiProtocolError(reason))

    def _close(self, error: AgiProtocolError | None) -> None:
        self.state = DialogueState.CLOSED
        self._buffer.clear()
        self._events.append(DialogueClosed(error))
