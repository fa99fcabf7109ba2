"""The manager's language, read: keys and talk, whatever else comes between."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agi_handlers.ami.messages import (
    AmiMessage,
    AmiProtocolError,
    AmiReader,
    KeyPressed,
    Response,
    TalkStarted,
    login,
    ping,
)

GREETING = b"Asterisk Call Manager/5.0.2\r\n"
STREAM = GREETING + b"".join(
    block.replace(b"\n", b"\r\n")
    for block in (
        b"Response: Success\nMessage: Authentication accepted\n\n",
        b"Event: FullyBooted\nPrivilege: system,all\nStatus: Fully Booted\n\n",
        b"Event: DTMFBegin\nChannel: PJSIP/a-1\nUniqueid: 1.1\nDigit: 5\n"
        b"Direction: Received\n\n",
        b"Event: DTMFEnd\nPrivilege: dtmf,all\nChannel: PJSIP/a-1\nUniqueid: 1.1\n"
        b"Digit: 5\nDurationMs: 120\nDirection: Received\n\n",
        b"Event: DTMFEnd\nChannel: PJSIP/a-1\nUniqueid: 1.1\nDigit: 7\n"
        b"Direction: Sent\n\n",
        b"Event: ChannelTalkingStart\nChannel: SIP/b-2\nCallerIDName: J\xe9r\xf4me\n"
        b"Uniqueid: 1.2\n\n",
        b"Event: ChannelTalkingStop\nChannel: SIP/b-2\nUniqueid: 1.2\nDuration: 9\n\n",
        b"Response: Error\nMessage: Permission denied\n\n",
    )
)
HEARD: list[AmiMessage] = [
    Response(True, "Authentication accepted"),
    KeyPressed("PJSIP/a-1", "1.1", "5"),
    TalkStarted("SIP/b-2", "1.2"),
    Response(False, "Permission denied"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_messages_do_not_depend_on_how_the_bytes_were_cut(cuts: list[int]) -> None:
    reader = AmiReader()
    edges = [0, *sorted(cuts), len(STREAM)]
    heard = [m for a, b in pairwise(edges) for m in reader.receive_data(STREAM[a:b])]
    assert heard == HEARD


@pytest.mark.parametrize(
    "junk",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"x" * 300, GREETING + b"Event: x" * 20_000],
)
def test_what_is_no_manager_is_refused(junk: bytes) -> None:
    with pytest.raises(AmiProtocolError):
        AmiReader().receive_data(junk)


@given(st.binary(max_size=400))
def test_junk_behind_the_greeting_never_raises_anything_else(junk: bytes) -> None:
    with contextlib.suppress(AmiProtocolError):
        AmiReader().receive_data(GREETING + junk)


def test_what_we_send() -> None:
    assert login("bot", "s3cret") == (
        b"Action: Login\r\nUsername: bot\r\nSecret: s3cret\r\nEvents: dtmf,call\r\n\r\n"
    )
    assert ping() == b"Action: Ping\r\n\r\n"


@pytest.mark.parametrize("value", ["a\r\nAction: Originate", "a\nb"])
def test_no_value_begins_a_line_of_its_own(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        login(value, "x")
    with pytest.raises(ValueError, match="line break"):
        login("x", value)
