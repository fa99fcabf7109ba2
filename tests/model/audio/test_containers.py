"""What libsndfile gets to see of a stranger's file."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from model.audio.containers import harmless, is_audio_file
from model.audio.wav import read_audio, wav_from_pcm16
from model.errors import InvalidAudio

SAMPLES = np.arange(-400, 400, dtype="<i2").tobytes()
PLAIN = wav_from_pcm16(SAMPLES, rate_hz=8000)
FMT = struct.pack("<HHIIHH", 1, 1, 8000, 16_000, 2, 16)
PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    length = len(content) if size is None else size
    return name + struct.pack("<I", length) + content + bytes(len(content) % 2)


def riff(*chunks: bytes, group: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return group + struct.pack("<I", len(body)) + body


def extensible(guid: bytes = PCM_GUID) -> bytes:
    head = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 8000, 16_000, 2, 16, 22, 16, 4)
    return chunk(b"fmt ", head + guid)


def id3(content: bytes, flags: int = 0) -> bytes:
    size = bytes(len(content) >> shift & 0x7F for shift in (21, 14, 7, 0))
    footer = bytes(10) if flags & 0x10 else b""
    return b"ID3\4\0" + bytes([flags]) + size + content + footer


DATA = chunk(b"data", SAMPLES)
ODD = chunk(b"LIST", b"INFOx")
DS64 = chunk(b"ds64", struct.pack("<QQQI", 1, len(SAMPLES), 400, 0))


@pytest.mark.parametrize(
    "encoded",
    [
        PLAIN,
        riff(ODD, chunk(b"fmt ", FMT + b"\0\0"), ODD, DATA, ODD),
        riff(extensible(), DATA),
        riff(
            DS64, chunk(b"fmt ", FMT), chunk(b"data", SAMPLES, 2**32 - 1) + ODD
        ).replace(b"RIFF", b"RF64"),
        riff(chunk(b"fmt ", FMT), chunk(b"data", SAMPLES, 2**32 - 1)),
        riff(chunk(b"fmt ", FMT), chunk(b"data", SAMPLES, 0)),
        riff(chunk(b"fmt ", FMT), chunk(b"data", SAMPLES + b"\1", 5000))[:-1],
        # what follows the samples is nobody's business, another `fmt ` neither
        riff(chunk(b"fmt ", FMT), DATA, chunk(b"fmt ", b"\x11" + FMT[1:])),
        id3(b"x" * 300) + id3(b"y", flags=0x10) + PLAIN,
    ],
)
def test_a_wav_is_written_anew(encoded: bytes) -> None:
    assert harmless(encoded) == PLAIN


@pytest.mark.parametrize(
    "fmt",
    [
        *[struct.pack("<H", tag) + FMT[2:] for tag in (0, 2, 0x11, 0x31, 0x55, 0x6771)],
        *[FMT[:14] + struct.pack("<H", bits) for bits in (0, 1, 12, 33, 64, 65_535)],
        *[FMT[:12] + struct.pack("<H", block) + FMT[14:] for block in (0, 1, 4, 36)],
        *[FMT[:2] + struct.pack("<H", ways) + FMT[4:] for ways in (0, 2, 65_535)],
        *[FMT[:size] for size in (0, 1, 15)],
        extensible(bytes(16))[8:],
        extensible(b"\x11" + PCM_GUID[1:])[8:],
        extensible()[8:47],
    ],
)
def test_a_wav_of_anything_but_plain_samples_is_refused(fmt: bytes) -> None:
    with pytest.raises(InvalidAudio):
        harmless(riff(chunk(b"fmt ", fmt), DATA))


@pytest.mark.parametrize(
    "encoded",
    [
        riff(),
        riff(DATA, chunk(b"fmt ", FMT)),
        riff(chunk(b"fmt ", FMT)),
        riff(*[chunk(b"junk", b"")] * 1500, chunk(b"fmt ", FMT), DATA),
        PLAIN[:20],
        b"FORM\0\0\0\4AIFF",
        b"FORM\0\0\0\x20AIFFCOMM\0\0\0\2\0\1SSND\0\0\0\0",
        id3(b"")[:9],
        id3(b"x" * 300)[:200],
        id3(b"") + b"\x64\xa3\2\0" + bytes(1024),  # IRCAM behind a tag
        id3(b"") + b"\0\0\3\xe8" + bytes(1024),  # MAT4 behind a tag
        id3(b"") * 2000 + PLAIN,
    ],
)
def test_what_has_no_sound_header_is_refused(encoded: bytes) -> None:
    with pytest.raises(InvalidAudio):
        read_audio(encoded, rate_hz=8000)


def test_a_file_of_a_kind_nobody_promised_is_not_taken_for_samples() -> None:
    for start in (b".snd", b"caff", b"riff", b"RIFX", b"NIST_1A\n", b"MATLAB 5.0"):
        assert is_audio_file(start + bytes(100))
