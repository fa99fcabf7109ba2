"""The wire protocol of /chat/live: there and back, and everything that is refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.live_messages import (
    MAX_AUDIO_BYTES,
    MAX_TEXT_CHARS,
    Cancel,
    ClientMessage,
    End,
    Forget,
    Identified,
    Identify,
    LiveError,
    LiveProtocolError,
    Past,
    Ready,
    Say,
    ServerMessage,
    Settle,
    Start,
    UserTurnSent,
)
from model.live_wire import ClientMessages, ServerMessages, encode_client, encode_server
from model.speech import (
    Judged,
    ReplyAction,
    ReplyAudio,
    ReplyDone,
    ReplyText,
    SessionOptions,
    Timings,
    Transcript,
    TurnEnd,
    TypedTurn,
    Usage,
    Utterance,
)

# JSON text has no lone surrogates
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NAMES = st.text("abcxyz", min_size=1, max_size=10)
TURNS = st.integers(0, 2**31)
MS = st.integers(0, 2**31)
RATES = st.sampled_from([8000, 16_000, 24_000])
PCM16 = st.binary(max_size=50).map(lambda data: data * 2)
FLOATS = st.floats(0, 1e6)

CLIENT_MESSAGES: st.SearchStrategy[ClientMessage] = st.one_of(
    st.builds(
        Start,
        st.builds(
            SessionOptions,
            call_id=NAMES,
            instructions=TEXT,
            campaign=NAMES,
            language=NAMES,
            voice=TEXT,
            rate_hz=RATES,
            max_new_tokens=st.integers(1, 4096),
            temperature=st.floats(0, 2),
            actions=st.lists(NAMES, max_size=3).map(tuple),
        ),
    ),
    st.builds(
        UserTurnSent,
        TURNS,
        st.builds(Utterance, PCM16.filter(bool), RATES, MS, MS)
        | st.builds(TypedTurn, TEXT),
    ),
    st.builds(Say, TURNS, TEXT),
    st.builds(Cancel, TURNS),
    st.builds(Settle, TURNS, st.none() | MS),
    st.builds(Forget, TURNS),
    st.builds(
        Past,
        st.none()
        | st.builds(TypedTurn, TEXT)
        | st.builds(Utterance, PCM16.filter(bool), RATES),
        TEXT,
    ),
    st.builds(
        Identify, TURNS, st.builds(Utterance, PCM16.filter(bool), RATES), st.booleans()
    ),
    st.just(End()),
)
SERVER_MESSAGES: st.SearchStrategy[ServerMessage] = st.one_of(
    st.builds(Ready, TEXT, st.sampled_from(["random", "demo", "published"]), RATES),
    st.builds(ReplyText, TURNS, TEXT),
    st.builds(Transcript, TURNS, TEXT),
    st.builds(Identified, TURNS, st.sampled_from(get_args(Judged)), st.none() | TEXT),
    st.builds(TurnEnd, TURNS, *[st.floats(0, 1)] * 3),
    st.builds(TurnEnd, TURNS, st.floats(0, 1), st.none(), st.none()),
    st.builds(ReplyAudio, TURNS, st.integers(0, 99), TEXT, PCM16),
    st.builds(ReplyAction, TURNS, NAMES, TEXT),
    st.builds(
        ReplyDone,
        TURNS,
        TEXT,
        st.sampled_from(["stop", "length", "cancelled"]),
        st.builds(Usage, *[st.integers(0, 9999)] * 4),
        st.builds(Timings, *[FLOATS] * 5),
        st.none() | st.floats(0, 1),
    ),
    st.builds(LiveError, st.none() | TURNS, NAMES, TEXT, NAMES),
)


@given(st.lists(CLIENT_MESSAGES, max_size=4))
def test_what_a_client_says_arrives(sent: list[ClientMessage]) -> None:
    decoder = ClientMessages()
    received = [decoder.receive(w) for message in sent for w in encode_client(message)]
    assert [message for message in received if message is not None] == sent


@given(st.lists(SERVER_MESSAGES, max_size=4))
def test_what_a_server_says_arrives(sent: list[ServerMessage]) -> None:
    decoder = ServerMessages()
    received = [decoder.receive(w) for message in sent for w in encode_server(message)]
    assert [message for message in received if message is not None] == sent


START = {"type": "start", "call_id": "c", "instructions": ""}
UTTERANCE = {"type": "utterance", "turn": 1, "n_bytes": 4}


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"turn": 1}, "type"),
        ({"type": "dance"}, "type"),
        ({"type": 5}, "type"),
        ({"type": None}, "type"),
        ({"type": "cancel"}, "turn"),
        ({"type": "cancel", "turn": "1"}, "turn"),
        ({"type": "cancel", "turn": -1}, "turn"),
        ({"type": "cancel", "turn": 1.5}, "turn"),
        ({"type": "cancel", "turn": True}, "turn"),
        ({"type": "cancel", "turn": 2**40}, "turn"),
        ({"type": "text", "turn": 1}, "text"),
        ({"type": "say", "turn": 1, "text": None}, "text"),
        ({"type": "settle", "turn": 1, "heard_ms": -1}, "heard_ms"),
        ({"type": "start", "instructions": ""}, "call_id"),
        ({**START, "call_id": ""}, "call_id"),
        ({**START, "rate_hz": 1}, "rate_hz"),
        ({**START, "actions": "hangup"}, "actions"),
        ({**START, "actions": [1]}, "actions[0]"),
        ({**START, "temperature": 9}, "temperature"),
        ({**START, "max_new_tokens": 0}, "max_new_tokens"),
        ({**START, "protocol": 2}, "protocol"),
        ({"type": "past"}, "heard"),
        ({"type": "past", "heard": "", "n_bytes": 3}, "n_bytes"),
        ({**UTTERANCE, "n_bytes": 0}, "n_bytes"),
        ({**UTTERANCE, "n_bytes": 3}, "n_bytes"),
        ({**UTTERANCE, "n_bytes": MAX_AUDIO_BYTES + 2}, "n_bytes"),
        ({**UTTERANCE, "rate_hz": 10**9}, "rate_hz"),
    ],
)
def test_a_wrong_field_is_named(message: dict[str, Any], field: str) -> None:
    with pytest.raises(LiveProtocolError) as caught:
        ClientMessages().receive(json.dumps(message))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "1", '"start"', "[" * 100_000, '{"type": NaN}', "\ud800"],
)
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(LiveProtocolError):
        ClientMessages().receive(text)


def test_an_oversize_message_is_refused_unread() -> None:
    message = json.dumps({**START, "instructions": "x" * MAX_TEXT_CHARS})
    with pytest.raises(LiveProtocolError, match="longer than"):
        ClientMessages().receive(message)


def test_unknown_fields_are_ignored_so_that_either_side_may_be_newer() -> None:
    message = json.dumps({"type": "cancel", "turn": 3, "why": "later version"})
    assert ClientMessages().receive(message) == Cancel(3)


def test_audio_of_another_size_than_announced_is_refused() -> None:
    decoder = ClientMessages()
    decoder.receive(json.dumps(UTTERANCE))
    with pytest.raises(LiveProtocolError) as caught:
        decoder.receive(b"\0\0")
    assert caught.value.field == "n_bytes"


def test_a_binary_message_out_of_the_blue_is_refused() -> None:
    with pytest.raises(LiveProtocolError):
        ClientMessages().receive(b"\0\0")
    with pytest.raises(LiveProtocolError):
        ServerMessages().receive(b"\0\0")


def test_another_message_in_place_of_the_audio_is_refused() -> None:
    decoder = ClientMessages()
    decoder.receive(json.dumps(UTTERANCE))
    with pytest.raises(LiveProtocolError):
        decoder.receive(json.dumps({"type": "end"}))


@given(st.text() | st.binary())
def test_junk_never_raises_anything_else(junk: str | bytes) -> None:
    for decoder in (ClientMessages(), ServerMessages()):
        with contextlib.suppress(LiveProtocolError):
            decoder.receive(junk)


@given(
    st.dictionaries(
        st.sampled_from(["type", "turn", "text", "n_bytes", "usage", "call_id"]),
        st.sampled_from(["done", "audio", "start", "settle", "error"])
        | st.integers()
        | st.none()
        | st.lists(st.integers(), max_size=2),
    )
)
def test_junk_with_the_right_keys_never_raises_anything_else(
    values: dict[str, Any],
) -> None:
    for decoder in (ClientMessages(), ServerMessages()):
        with contextlib.suppress(LiveProtocolError):
            decoder.receive(json.dumps(values))
