"""AudioSocket framing: any cut of the stream gives the same messages."""

from __future__ import annotations

import struct
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agi_handlers.audio_leg.audiosocket_protocol import (
    HANGUP_MESSAGE,
    HEADER_BYTES,
    KEYS,
    MAX_PAYLOAD_BYTES,
    SILENCE_MESSAGE,
    Audio,
    AudioSocketDecoder,
    AudioSocketMessage,
    CallId,
    Digit,
    Hangup,
    PeerError,
    audio_message,
    call_id_message,
    digit_message,
)

CALL_ID = UUID("40325ec2-5efd-4bd3-805f-53576e581d13")


def raw(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BH", kind, len(payload)) + payload


def decode(*chunks: bytes) -> list[AudioSocketMessage]:
    decoder = AudioSocketDecoder()
    for chunk in chunks:
        decoder.receive_data(chunk)
    return decoder.events_received()


wire_messages = st.one_of(
    st.uuids().map(lambda uuid: (call_id_message(uuid), CallId(uuid))),
    st.binary(min_size=1, max_size=400).map(
        lambda half: (audio_message(half * 2), Audio(half * 2))
    ),
    st.sampled_from(sorted(KEYS)).map(lambda key: (digit_message(key), Digit(key))),
    st.just((HANGUP_MESSAGE, Hangup())),
    st.integers(0, 255).map(lambda code: (raw(0xFF, bytes((code,))), PeerError(code))),
    st.binary(max_size=50).map(lambda payload: (raw(0x42, payload), None)),
)


@given(messages=st.lists(wire_messages, max_size=8), data=st.data())
def test_a_stream_cut_anywhere_gives_the_same_messages(
    messages: list[tuple[bytes, AudioSocketMessage | None]], data: st.DataObject
) -> None:
    stream = b"".join(wire for wire, _ in messages)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    edges = [0, *sorted(cuts), len(stream)]
    expected = [message for _, message in messages if message is not None]
    assert decode(*(stream[a:b] for a, b in pairwise(edges))) == expected


def test_every_single_cut_of_a_short_stream() -> None:
    stream = call_id_message(CALL_ID) + audio_message(b"\1\2" * 4) + digit_message("#")
    expected = [CallId(CALL_ID), Audio(b"\1\2" * 4), Digit("#")]
    for cut in range(len(stream) + 1):
        assert decode(stream[:cut], stream[cut:]) == expected
    assert decode(*(bytes((byte,)) for byte in stream)) == expected


@given(chunks=st.lists(st.binary(max_size=2000), max_size=20))
def test_any_bytes_at_all_are_taken_without_raising_or_growing(
    chunks: list[bytes],
) -> None:
    decoder = AudioSocketDecoder()
    for chunk in chunks:
        decoder.receive_data(chunk)
        assert len(decoder._buffer) <= HEADER_BYTES + MAX_PAYLOAD_BYTES
    decoder.receive_eof()


def test_the_length_is_big_endian_and_asterisks_frame_is_323_bytes() -> None:
    assert b"\x10\x01\x40" + bytes(320) == SILENCE_MESSAGE
    assert HANGUP_MESSAGE == b"\x00\x00\x00"
    assert call_id_message(CALL_ID) == b"\x01\x00\x10" + CALL_ID.bytes


def test_unknown_kinds_are_stepped_over_and_counted() -> None:
    decoder = AudioSocketDecoder()
    decoder.receive_data(raw(0x19, bytes(640)) + raw(0x77, b"") + digit_message("5"))
    assert decoder.events_received() == [Digit("5")]
    assert decoder.num_unknown == 2
    assert decoder.fault is None


def test_audio_at_another_rate_says_so() -> None:
    assert decode(raw(0x12, bytes(640))) == [Audio(bytes(640), 16_000)]
    assert decode(raw(0x18, bytes(2))) == [Audio(bytes(2), 192_000)]


def test_a_digit_that_is_no_key_is_counted_not_reported() -> None:
    decoder = AudioSocketDecoder()
    decoder.receive_data(raw(0x03, b"x") + raw(0x03, b"12") + raw(0x03, b"\xff"))
    decoder.receive_data(raw(0x03, b"") + raw(0x03, b"d"))
    assert decoder.events_received() == [Digit("D")]
    assert decoder.num_unknown == 4


def test_audio_without_samples_is_nothing() -> None:
    assert decode(raw(0x10, b"") + audio_message(b"\0\0")) == [Audio(b"\0\0")]


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (raw(0x10, bytes(321)), "half a sample"),
        (raw(0x01, bytes(15)), "call id of 15 bytes"),
        (b"\x10\xff\xff", "message of 65535 bytes"),
        (struct.pack(">BH", 0x42, MAX_PAYLOAD_BYTES + 1), "message of 8193 bytes"),
    ],
)
def test_a_broken_message_is_a_fault_and_ends_reading(wire: bytes, reason: str) -> None:
    decoder = AudioSocketDecoder()
    decoder.receive_data(digit_message("1") + wire + digit_message("2"))
    decoder.receive_data(digit_message("3"))
    assert decoder.events_received() == [Digit("1")]
    assert decoder.fault is not None
    assert reason in decoder.fault


def test_the_longest_message_allowed_is_taken() -> None:
    pcm16 = bytes(MAX_PAYLOAD_BYTES)
    assert decode(audio_message(pcm16)) == [Audio(pcm16)]


def test_an_end_inside_a_message_is_a_fault_and_between_messages_is_not() -> None:
    decoder = AudioSocketDecoder()
    decoder.receive_data(SILENCE_MESSAGE)
    decoder.receive_eof()
    assert decoder.fault is None
    decoder = AudioSocketDecoder()
    decoder.receive_data(SILENCE_MESSAGE[:-1])
    decoder.receive_eof()
    assert decoder.fault == "the stream ended inside a message"


def test_an_error_message_without_a_code_is_an_error_all_the_same() -> None:
    assert decode(raw(0xFF, b"")) == [PeerError(0)]
