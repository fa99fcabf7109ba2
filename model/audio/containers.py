"""Files of strangers: which kind they are, and what of them libsndfile may see.

libsndfile tries two dozen parsers on what it is given, some of them with holes that a
crafted header opens (CVE-2025-52194 in IRCAM's, CVE-2026-88372 in MAT4's), and behind
an ID3 tag it begins again.  So the kind is settled here, and of WAV and AIFF, which may
hold anything, it gets a file that was written here: plain samples below a header of
known fields (CVE-2026-37555 is in IMA ADPCM, CVE-2026-88386 in odd `fmt ` chunks).

Sources: RFC 2361 (WAV's tags), EBU Tech 3306 (RF64), AIFF-C (Apple, 1991), ID3v2.4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, Literal

from model.audio.mp3_frames import frame_bytes
from model.errors import InvalidAudio

_PCM: Final = 1
_EXTENSIBLE: Final = 0xFFFE
# Bits per sample by WAV's format tag.
_WAV_CODECS: Final = {
    _PCM: (8, 16, 24, 32),
    3: (32, 64),  # float
    6: (8,),  # A-law
    7: (8,),  # mu-law
}
_GUID_TAIL: Final = bytes.fromhex("000000001000800000aa00389b71")
"""What follows the tag in the GUID of WAVE_FORMAT_EXTENSIBLE."""
_AIFF_INTEGERS: Final = (8, 16, 24, 32)
# Bits per sample by AIFF-C's type; of the compressed ones COMM tells those before.
_AIFF_CODECS: Final = {
    **dict.fromkeys((b"NONE", b"twos", b"sowt"), _AIFF_INTEGERS),
    **dict.fromkeys((b"fl32", b"FL32"), (32,)),
    **dict.fromkeys((b"fl64", b"FL64"), (64,)),
    **dict.fromkeys((b"alaw", b"ALAW", b"ulaw", b"ULAW"), (8, 16)),
}
_MAX_CHUNKS: Final = 1000
_MAX_TAGS: Final = 4
_ID3_HEADER_BYTES: Final = 10
# No samples begin like that: sound files nobody promised to read.
_FOREIGN: Final = (b".snd", b"caff", b"riff", b"RIFX", b"NIST", b"MATL", b" paf")


def is_audio_file(encoded: bytes) -> bool:
    """Whether the bytes begin as a file that says its own format does.

    MP3 without a tag begins with a sync word, but samples may as well (-1 and one of
    few neighbours): the next frame has to be where the first one says.
    """
    if encoded[:3] == b"ID3" or encoded[:4] in _FOREIGN:
        return True
    first_bytes = frame_bytes(encoded[:4])
    if first_bytes:
        return bool(frame_bytes(encoded[first_bytes : first_bytes + 4]))
    return _kind(encoded) is not None


def harmless(encoded: bytes) -> bytes:
    """The file as libsndfile may have it: of a promised kind, with plain samples.

    WAV (RF64 as well) and AIFF are written anew; from the others tags are taken off.

    Raises:
        InvalidAudio: of another kind, another codec, or without a sound header.
    """
    untagged = _without_tags(encoded)
    match _kind(untagged):
        case "WAV":
            return _plain_wav(untagged)
        case "AIFF":
            return _plain_aiff(untagged)
        case None:
            raise InvalidAudio(
                "not a readable audio file: none of WAV, FLAC, OGG, MP3 and AIFF"
            )
    return untagged


def _kind(encoded: bytes) -> Literal["WAV", "AIFF", "other"] | None:
    head = encoded[:12]
    if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
        return "WAV"
    if head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        return "AIFF"
    if head[:4] in (b"fLaC", b"OggS") or frame_bytes(head[:4]):
        return "other"
    return None


def _without_tags(encoded: bytes) -> bytes:
    start = 0
    for _ in range(_MAX_TAGS):
        header = encoded[start : start + _ID3_HEADER_BYTES]
        if header[:3] != b"ID3" or len(header) < _ID3_HEADER_BYTES:
            break
        size = 0
        for octet in header[6:]:
            size = size << 7 | octet & 0x7F
        has_footer = bool(header[5] & 0x10)
        start += _ID3_HEADER_BYTES * (1 + has_footer) + size
    return encoded[start:] if start else encoded


def _chunks(
    encoded: bytes, order: Literal["<", ">"]
) -> Iterator[tuple[bytes, int, int]]:
    """Name, said length and start of each chunk behind the file's twelve bytes."""
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(encoded):
            return
        name, size = struct.unpack_from(f"{order}4sI", encoded, at)
        yield name, size, at + 8
        at += 8 + size + size % 2
    raise InvalidAudio(f"the file has more than {_MAX_CHUNKS} chunks")


def _plain_wav(encoded: bytes) -> bytes:
    fmt, said_bytes = b"", 0
    for name, size, start in _chunks(encoded, "<"):
        if name == b"ds64":  # RF64's lengths, which have no room in their chunks
            said_bytes = int.from_bytes(encoded[start + 8 : start + 16], "little")
        elif name == b"fmt ":
            fmt = encoded[start : start + min(size, 40)]
        elif name == b"data":
            if not fmt:
                break
            # A pipe's writer cannot know how long the file becomes: 0, or the most.
            length = said_bytes if size == 0xFFFFFFFF else size
            data = encoded[start : start + length] if length else encoded[start:]
            return _wav(fmt, data)
    raise InvalidAudio("not a readable audio file: a WAV without `fmt ` and `data`")


def _wav(fmt: bytes, data: bytes) -> bytes:
    if len(fmt) < 16:
        raise InvalidAudio("not a readable audio file: the WAV's `fmt ` is cut off")
    tag, channels, rate_hz, _, block_bytes, bits = struct.unpack_from("<HHIIHH", fmt)
    if tag == _EXTENSIBLE:
        if len(fmt) < 40 or fmt[26:] != _GUID_TAIL:
            raise InvalidAudio("WAV files of that extensible format are not accepted")
        (tag,) = struct.unpack_from("<H", fmt, 24)
    if bits not in _WAV_CODECS.get(tag, ()):
        raise InvalidAudio(
            f"WAV files with format tag {tag:#06x} and {bits} bits are not accepted"
        )
    frame = channels * bits // 8
    if not channels or block_bytes != frame:
        raise InvalidAudio(
            f"not a readable audio file: {channels} channels of {bits} bits in "
            f"blocks of {block_bytes} bytes"
        )
    rate_bytes = min(rate_hz * frame, 0xFFFFFFFF)
    plain = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_bytes, frame, bits)
    data = data[: len(data) - len(data) % frame]
    return _file(b"RIFF", b"WAVE", (b"fmt ", plain), (b"data", data))


def _plain_aiff(encoded: bytes) -> bytes:
    comm = data = None
    for name, size, start in _chunks(encoded, ">"):
        if name == b"COMM" and comm is None:
            comm = encoded[start : start + min(size, 22)]
        elif name == b"SSND" and data is None:
            (offset,) = struct.unpack(">I", encoded[start : start + 4].rjust(4, b"\0"))
            data = encoded[start + 8 + offset : start + size]
    if comm is None or data is None:
        raise InvalidAudio("not a readable audio file: an AIFF without COMM and SSND")
    is_compressed = encoded[8:12] == b"AIFC"
    if len(comm) < (22 if is_compressed else 18):
        raise InvalidAudio("not a readable audio file: the AIFF's COMM is cut off")
    codec = comm[18:22] if is_compressed else b"NONE"
    channels, _, bits = struct.unpack_from(">HIH", comm)
    if bits not in _AIFF_CODECS.get(codec, ()):
        raise InvalidAudio(
            f"AIFF files with codec {codec!r} and {bits} bits are not accepted"
        )
    frame = channels * (1 if codec.lower() in (b"alaw", b"ulaw") else bits // 8)
    if not channels:
        raise InvalidAudio("not a readable audio file: an AIFF without channels")
    plain = struct.pack(">HIH", channels, len(data) // frame, bits) + comm[8:18]
    data = data[: len(data) - len(data) % frame]
    return _file(
        b"FORM",
        b"AIFC",
        (b"COMM", plain + codec + b"\0\0"),  # and a name of no letters
        (b"SSND", bytes(8) + data),
    )


def _file(group: bytes, kind: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    order = "<" if group == b"RIFF" else ">"
    parts = [kind]
    for name, content in chunks:
        parts += [name, struct.pack(f"{order}I", len(content)), content]
        parts.append(bytes(len(content) % 2))
    length = sum(map(len, parts))
    return b"".join([group, struct.pack(f"{order}I", length), *parts])
