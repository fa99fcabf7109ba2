"""One outgoing SIP call without I/O: datagrams in, events and datagrams out.

A plain user agent over UDP on loopback: no registration, no password, G.711 mu-law
and telephone-event (payload 101). Source: RFC 3261, RFC 4566, RFC 4733.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

_ALLOW = "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, REFER, NOTIFY\r\n"


class State(Enum):
    CALLING = auto()
    UP = auto()
    ENDING = auto()
    ENDED = auto()


@dataclass(frozen=True, slots=True)
class Ringing:
    code: int


@dataclass(frozen=True, slots=True)
class Answered:
    rtp: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Refused:
    code: int


@dataclass(frozen=True, slots=True)
class RemoteHungUp:
    reason: str


@dataclass(frozen=True, slots=True)
class ReferReceived:
    to: str


@dataclass(frozen=True, slots=True)
class ByeAnswered:
    pass


SipEvent: TypeAlias = (
    Ringing | Answered | Refused | RemoteHungUp | ReferReceived | ByeAnswered
)


@dataclass(frozen=True, slots=True)
class Parties:
    """Who calls whom, from where to where."""

    extension: str
    server: tuple[str, int]
    local: tuple[str, int]
    rtp_port: int
    number: str = "5551234567"
    name: str = "Lab Caller"


class SipDialogue:
    """The caller's side of one call."""

    def __init__(self, parties: Parties) -> None:
        self._parties = parties
        self._target = (
            f"sip:{parties.extension}@{parties.server[0]}:{parties.server[1]}"
        )
        self._call_id = f"{random.getrandbits(64):x}@{parties.local[0]}"
        self._tag = f"{random.getrandbits(40):x}"
        self._to_tag = ""
        self._branch = self._new_branch()
        self._state = State.CALLING
        self._out: list[bytes] = []

    @property
    def state(self) -> State:
        return self._state

    def data_to_send(self) -> list[bytes]:
        """Datagrams for the server, in order."""
        out, self._out = self._out, []
        return out

    def invite(self) -> None:
        """Send INVITE; again for each retransmission."""
        self._request("INVITE", 1, self._branch, body=self._sdp(), extra=_ALLOW)

    def cancel(self) -> None:
        """Give up before the answer."""
        self._state = State.ENDED
        self._request("CANCEL", 1, self._branch)

    def hang_up(self) -> None:
        """Send BYE."""
        self._state = State.ENDING
        self._request("BYE", 2, self._new_branch())

    def receive(self, datagram: bytes) -> list[SipEvent]:
        """Take one datagram from the server."""
        message = datagram.decode(errors="replace")
        first = message.split("\r\n", 1)[0]
        if first.startswith("SIP/2.0"):
            return self._on_response(int(first.split()[1]), message)
        return self._on_request(first.split()[0], message)

    def _on_response(self, code: int, message: str) -> list[SipEvent]:
        method = _header(message, "cseq").split()[-1]
        if method == "BYE":
            self._state = State.ENDED
            return [ByeAnswered()]
        if method != "INVITE":
            return []
        if code < 200:
            return [Ringing(code)] if self._state is State.CALLING else []
        tag = re.search(r";tag=([^\s;>]+)", _header(message, "to"))
        self._to_tag = tag.group(1) if tag else ""
        if code >= 300:
            self._request("ACK", 1, self._branch)
            self._state = State.ENDED
            return [Refused(code)]
        contact = re.search(r"sip:[^>\s;]+", _header(message, "contact"))
        if contact:
            self._target = contact.group(0)
        self._request("ACK", 1, self._new_branch())
        rtp = _rtp_address(message)
        if self._state is not State.CALLING or rtp is None:
            return []  # a repeated 200: our ACK was late
        self._state = State.UP
        return [Answered(rtp)]

    def _on_request(self, method: str, message: str) -> list[SipEvent]:
        match method:
            case "BYE":
                self._respond(message, "200 OK")
                self._state = State.ENDED
                return [RemoteHungUp(_header(message, "reason"))]
            case "INVITE":  # re-INVITE: the same answer again
                self._respond(message, "200 OK", body=self._sdp())
                rtp = _rtp_address(message)
                return [Answered(rtp)] if rtp else []
            case "REFER":
                self._respond(message, "202 Accepted")
                return [ReferReceived(_header(message, "refer-to"))]
            case "ACK":
                return []
            case _:
                self._respond(message, "200 OK")
                return []

    def _request(
        self,
        method: str,
        sequence: int,
        branch: str,
        *,
        body: str = "",
        extra: str = "",
    ) -> None:
        who, (host, port) = self._parties, self._parties.local
        to_tag = f";tag={self._to_tag}" if self._to_tag else ""
        if body:
            extra += "Content-Type: application/sdp\r\n"
        self._out.append(
            (
                f"{method} {self._target} SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP {host}:{port};branch={branch};rport\r\n"
                "Max-Forwards: 70\r\n"
                f'From: "{who.name}" <sip:{who.number}@{host}>;tag={self._tag}\r\n'
                f"To: <sip:{who.extension}@{who.server[0]}>{to_tag}\r\n"
                f"Call-ID: {self._call_id}\r\n"
                f"CSeq: {sequence} {method}\r\n"
                f"Contact: <sip:{who.number}@{host}:{port}>\r\n"
                f"{extra}Content-Length: {len(body)}\r\n\r\n{body}"
            ).encode()
        )

    def _respond(self, request: str, status: str, body: str = "") -> None:
        kept = [
            line
            for line in request.split("\r\n")
            if re.match(r"(?i)(via|from|to|call-id|cseq|record-route):", line)
        ]
        if body:
            host, port = self._parties.local
            kept.append(f"Contact: <sip:{self._parties.number}@{host}:{port}>")
            kept.append("Content-Type: application/sdp")
        head = "\r\n".join([f"SIP/2.0 {status}", *kept])
        self._out.append(
            f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )

    def _sdp(self) -> str:
        host = self._parties.local[0]
        lines = (
            "v=0",
            f"o=- 1 1 IN IP4 {host}",
            "s=-",
            f"c=IN IP4 {host}",
            "t=0 0",
            f"m=audio {self._parties.rtp_port} RTP/AVP 0 101",
            "a=rtpmap:0 PCMU/8000",
            "a=rtpmap:101 telephone-event/8000",
            "a=fmtp:101 0-16",
            "a=ptime:20",
            "a=sendrecv",
        )
        return "\r\n".join(lines) + "\r\n"

    @staticmethod
    def _new_branch() -> str:
        return f"z9hG4bK{random.getrandbits(48):x}"


def _header(message: str, name: str) -> str:
    found = re.search(rf"(?im)^{name}:\s*(.*?)\r?$", message)
    return found.group(1) if found else ""


def _rtp_address(message: str) -> tuple[str, int] | None:
    host = re.search(r"(?m)^c=IN IP4 (\S+)", message)
    port = re.search(r"(?m)^m=audio (\d+)", message)
    return (host.group(1), int(port.group(1))) if host and port else None
