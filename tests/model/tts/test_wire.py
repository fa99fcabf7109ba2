"""Messages to and from synthesiser processes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tts import wire
from model.tts.voice import Voice

MESSAGES: list[wire.Message] = [
    wire.Speak(7, "¿Qué?", Voice("es", "es+f3", 180, 40), 8000),
    wire.Cancel(7),
    wire.Ready("espeak-ng 1.52"),
    wire.Audio(7, b"\x01\x02" * 50),
    wire.Audio(8, b""),
    wire.Done(7),
    wire.Failed(9, "voice_unknown", "no such voice"),
]


@settings(deadline=None)
@given(st.lists(st.integers(0, 600), max_size=20))
def test_messages_survive_any_cutting(cuts: list[int]) -> None:
    data = b"".join(map(wire.encode, MESSAGES))
    reader = wire.MessageReader()
    received: list[wire.Message] = []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        received += reader.receive_data(data[start:end])
    assert received == MESSAGES


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 9,
        b"\x03\x00\x00\x00\x01\xff\xff\xff\xff",
        b"\x05\x00\x00\x00\x01\x00\x00\x00\x02no",
        b"\x00\x00\x00\x00\x01\x00\x00\x00\x02{}",
    ],
    ids=["kind", "length", "json", "fields"],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.MessageReader().receive_data(data)
