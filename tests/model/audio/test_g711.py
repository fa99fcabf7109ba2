from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.audio import g711

with warnings.catch_warnings():
    # Deprecated since 3.11 and gone in 3.13, where audioop-lts takes its place.
    warnings.simplefilter("ignore", DeprecationWarning)
    audioop = pytest.importorskip("audioop", reason="neither audioop nor audioop-lts")

EVERY_SAMPLE = np.arange(-32768, 32768).astype("<i2").tobytes()
EVERY_OCTET = bytes(range(256))


def test_ulaw_decoding_equals_audioop_for_every_octet() -> None:
    assert g711.ulaw_decode(EVERY_OCTET) == audioop.ulaw2lin(EVERY_OCTET, 2)


def test_alaw_decoding_equals_audioop_for_every_octet() -> None:
    assert g711.alaw_decode(EVERY_OCTET) == audioop.alaw2lin(EVERY_OCTET, 2)


def test_ulaw_encoding_equals_audioop_for_every_sample() -> None:
    assert g711.ulaw_encode(EVERY_SAMPLE) == audioop.lin2ulaw(EVERY_SAMPLE, 2)


def test_alaw_encoding_equals_audioop_for_every_sample() -> None:
    assert g711.alaw_encode(EVERY_SAMPLE) == audioop.lin2alaw(EVERY_SAMPLE, 2)


def test_silence_octets_decode_to_the_smallest_samples() -> None:
    assert g711.ulaw_decode(bytes([g711.ULAW_SILENCE])) == b"\x00\x00"
    assert g711.alaw_encode(b"\x00\x00") == bytes([g711.ALAW_SILENCE])


@given(st.binary(max_size=400))
def test_a_line_coded_twice_sounds_as_coded_once(octets: bytes) -> None:
    once = g711.ulaw_decode(octets)
    assert g711.ulaw_decode(g711.ulaw_encode(once)) == once
    once = g711.alaw_decode(octets)
    assert g711.alaw_decode(g711.alaw_encode(once)) == once


@pytest.mark.parametrize("encode", [g711.ulaw_encode, g711.alaw_encode])
def test_half_a_sample_is_refused(encode: object) -> None:
    assert callable(encode)
    with pytest.raises(ValueError, match="buffer size"):
        encode(b"\x00\x01\x02")


def test_nothing_in_gives_nothing_out() -> None:
    assert g711.ulaw_decode(b"") == g711.alaw_encode(b"") == b""
