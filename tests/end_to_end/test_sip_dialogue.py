"""The caller's side of SIP, datagram by datagram, without a socket."""

from __future__ import annotations

import re

import pytest

from tests.end_to_end.sip_dialogue import (
    Answered,
    ByeAnswered,
    Parties,
    Refused,
    RemoteHungUp,
    Ringing,
    SipDialogue,
    State,
)

SDP = "v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio 15102 RTP/AVP 0 101\r\n"


def _dialogue() -> SipDialogue:
    return SipDialogue(
        Parties("bot", ("127.0.0.1", 15000), ("127.0.0.1", 40000), rtp_port=40002)
    )


def _response(request: str, status: str, body: str = "") -> bytes:
    kept = re.findall(r"(?m)^(?:Via|From|Call-ID|CSeq): .*$", request)
    lines = [f"SIP/2.0 {status}", *(line.strip() for line in kept)]
    lines += ["To: <sip:bot@127.0.0.1>;tag=abc", "Contact: <sip:127.0.0.1:15000>"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def _sent(dialogue: SipDialogue) -> list[str]:
    return [datagram.decode() for datagram in dialogue.data_to_send()]


def _answered() -> SipDialogue:
    dialogue = _dialogue()
    dialogue.invite()
    (invite,) = _sent(dialogue)
    dialogue.receive(_response(invite, "200 OK", SDP))
    dialogue.data_to_send()
    return dialogue


def test_an_answer_is_acknowledged_and_names_the_audio_address() -> None:
    dialogue = _dialogue()
    dialogue.invite()
    (invite,) = _sent(dialogue)
    assert invite.startswith("INVITE sip:bot@127.0.0.1:15000 SIP/2.0\r\n")
    assert "m=audio 40002 RTP/AVP 0 101" in invite
    assert dialogue.receive(_response(invite, "100 Trying")) == [Ringing(100)]
    events = dialogue.receive(_response(invite, "200 OK", SDP))
    assert events == [Answered(("127.0.0.1", 15102))]
    (ack,) = _sent(dialogue)
    assert ack.startswith("ACK sip:127.0.0.1:15000 ")
    assert dialogue.state is State.UP


def test_a_repeated_answer_is_acknowledged_again_and_is_no_news() -> None:
    dialogue = _dialogue()
    dialogue.invite()
    (invite,) = _sent(dialogue)
    dialogue.receive(_response(invite, "200 OK", SDP))
    assert dialogue.receive(_response(invite, "200 OK", SDP)) == []
    assert [message.split()[0] for message in _sent(dialogue)] == ["ACK", "ACK"]


def test_a_refusal_ends_the_dialogue() -> None:
    dialogue = _dialogue()
    dialogue.invite()
    (invite,) = _sent(dialogue)
    assert dialogue.receive(_response(invite, "486 Busy Here")) == [Refused(486)]
    assert dialogue.state is State.ENDED


def test_hanging_up_waits_for_its_answer() -> None:
    dialogue = _answered()
    dialogue.hang_up()
    (bye,) = _sent(dialogue)
    assert "CSeq: 2 BYE" in bye
    assert "tag=abc" in bye
    assert dialogue.receive(_response(bye, "200 OK")) == [ByeAnswered()]
    assert dialogue.state is State.ENDED


@pytest.mark.parametrize("reason", ["", "Q.850;cause=16"])
def test_the_other_side_hangs_up(reason: str) -> None:
    dialogue = _answered()
    bye = "BYE sip:me SIP/2.0\r\nVia: v\r\nCall-ID: c\r\nCSeq: 1 BYE\r\n"
    bye += f"Reason: {reason}\r\n\r\n" if reason else "\r\n"
    assert dialogue.receive(bye.encode()) == [RemoteHungUp(reason)]
    (answer,) = _sent(dialogue)
    assert answer.startswith("SIP/2.0 200 OK\r\nVia: v\r\n")
    assert dialogue.state is State.ENDED
