from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.audio.pcm import Wave, level_dbfs
from model.audio.wav import (
    AudioLimits,
    read_audio,
    read_pcm16,
    wav_from_pcm16,
    wav_from_wave,
    write_wav,
)
from model.errors import InvalidAudio


def tone(rate_hz: int, duration_s: float = 0.5, frequency_hz: float = 440.0) -> Wave:
    at_s = np.arange(int(rate_hz * duration_s)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * frequency_hz * at_s)).astype(np.float32)


def encode(
    samples: NDArray[np.float32],
    rate_hz: int,
    format_name: str = "WAV",
    subtype: str | None = None,
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=format_name, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("format_name", "subtype", "rate_hz"),
    [
        ("WAV", "PCM_16", 8000),
        ("WAV", "PCM_24", 48_000),
        ("WAV", "FLOAT", 44_100),
        ("WAV", "PCM_U8", 11_025),
        ("WAV", "ULAW", 8000),
        ("WAV", "ALAW", 8000),
        ("WAV", "PCM_32", 8000),
        ("WAV", "DOUBLE", 8000),
        ("WAVEX", "PCM_16", 22_050),
        ("WAVEX", "PCM_24", 8000),
        ("WAVEX", "FLOAT", 8000),
        ("WAVEX", "ULAW", 8000),
        ("RF64", "PCM_16", 16_000),
        ("FLAC", "PCM_16", 16_000),
        ("OGG", "VORBIS", 48_000),
        ("OGG", "OPUS", 48_000),
        ("MP3", "MPEG_LAYER_III", 44_100),
        ("AIFF", "PCM_16", 16_000),
        ("AIFF", "PCM_24", 8000),
        ("AIFF", "PCM_S8", 8000),
        ("AIFF", "FLOAT", 8000),
        ("AIFF", "DOUBLE", 8000),
        ("AIFF", "ULAW", 8000),
        ("AIFF", "ALAW", 8000),
    ],
)
@pytest.mark.parametrize("wanted_hz", [8000, 16_000])
def test_a_tone_survives_every_format_and_rate(
    format_name: str, subtype: str, rate_hz: int, wanted_hz: int
) -> None:
    encoded = encode(tone(rate_hz), rate_hz, format_name, subtype)
    wave = read_audio(encoded, rate_hz=wanted_hz)
    assert wave.dtype == np.float32
    # MP3 pads with its encoder's delay.
    assert 0.5 * wanted_hz - 2 <= wave.size <= 0.65 * wanted_hz
    # 0.5 s in long frames (MP3) has some fade at its edges.
    assert level_dbfs(wave) == pytest.approx(-9.03, abs=1.2)


def test_channels_are_averaged() -> None:
    left, right = tone(8000), np.zeros(4000, dtype=np.float32)
    encoded = encode(np.stack([left, right], axis=1), 8000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(encoded, rate_hz=8000), left / 2, atol=1e-6)


def test_what_is_written_is_read_back_sample_for_sample(tmp_path: Path) -> None:
    pcm16 = np.arange(-32768, 32768, 7).astype("<i2").tobytes()
    path = tmp_path / "heard.wav"
    write_wav(path, pcm16, rate_hz=8000)
    assert path.read_bytes() == wav_from_pcm16(pcm16, rate_hz=8000)
    assert read_pcm16(path, rate_hz=8000) == pcm16
    assert soundfile.info(str(path)).subtype == "PCM_16"


def test_a_wave_written_too_loud_is_clipped() -> None:
    wave = np.array([0.0, 2.0, -2.0, np.nan], dtype=np.float32)
    pcm16 = read_pcm16(wav_from_wave(wave, rate_hz=8000), rate_hz=8000)
    assert struct.unpack("<4h", pcm16) == (0, 32767, -32768, 0)


def test_an_overshooting_float_file_is_clipped() -> None:
    encoded = encode(3 * tone(8000), 8000, subtype="FLOAT")
    wave = read_audio(encoded, rate_hz=8000)
    assert float(np.abs(wave).max()) == 1.0


@pytest.mark.parametrize(
    ("encoded", "says"),
    [
        (b"", "empty"),
        (b"hello, this is no audio", "not a readable audio file"),
        (b"RIFF\xff\xff\xff\xffWAVE", "not a readable audio file"),
        (encode(np.zeros(0, dtype=np.float32), 8000), "empty"),
        (encode(tone(8000) * 40_000, 8000, subtype="FLOAT"), "between -1 and 1"),
        (encode(tone(8000) * np.nan, 8000, subtype="FLOAT"), "not numbers"),
        (encode(np.full(80, np.inf, np.float32), 8000, subtype="FLOAT"), "not numbers"),
        (encode(tone(8000), 1000), "rate of 1000 Hz"),
        (encode(tone(8000), 400_000), "rate of 400000 Hz"),
        (encode(np.zeros((80, 12), dtype=np.float32), 8000), "12 channels"),
        *[
            (encode(tone(8000), 8000, name), "none of WAV, FLAC, OGG, MP3 and AIFF")
            for name in ("MAT4", "MAT5", "IRCAM", "NIST", "PAF", "W64", "AU", "CAF")
        ],
        *[
            (encode(tone(8000), 8000, "WAV", codec), "are not accepted")
            for codec in ("IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32")
        ],
        (encode(tone(8000), 8000, "AIFF", "IMA_ADPCM"), "are not accepted"),
    ],
)
def test_what_is_not_usable_audio_is_refused_in_one_line(
    encoded: bytes, says: str
) -> None:
    with pytest.raises(InvalidAudio, match=says) as refusal:
        read_audio(encoded, rate_hz=8000)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(InvalidAudio, match="No such file"):
        read_audio(Path("nowhere") / "nothing.wav", rate_hz=8000)


def test_a_long_recording_is_refused_however_small_its_file() -> None:
    """Ten minutes of silence are 10 kB of FLAC; decoding stops at the limit."""
    encoded = encode(np.zeros(600 * 8000, dtype=np.float32), 8000, "FLAC")
    assert len(encoded) < 100_000
    with pytest.raises(InvalidAudio, match="longer than 120 s"):
        read_audio(encoded, rate_hz=8000)


def test_a_recording_of_just_the_limit_is_read() -> None:
    encoded = encode(np.zeros(8000, dtype=np.float32), 8000)
    limits = AudioLimits(max_s=1.0)
    assert read_audio(encoded, rate_hz=8000, limits=limits).size == 8000
    with pytest.raises(InvalidAudio, match=r"longer than 0\.9 s"):
        read_audio(encoded, rate_hz=8000, limits=AudioLimits(max_s=0.9))


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.wav"
    write_wav(path, bytes(20_000), rate_hz=8000)
    limits = AudioLimits(max_encoded_bytes=10_000)
    for source in (path, path.read_bytes()):
        with pytest.raises(InvalidAudio, match="over 10000 bytes"):
            read_audio(source, rate_hz=8000, limits=limits)


@settings(max_examples=150)
@given(
    format_name=st.sampled_from(["WAV", "FLAC", "OGG", "MP3"]),
    cut_at=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
)
def test_a_damaged_file_is_audio_or_refused_but_nothing_else(
    format_name: str, cut_at: float, flips: list[tuple[float, int]]
) -> None:
    encoded = bytearray(encode(tone(16_000, 0.2), 16_000, format_name))
    for where, octet in flips:
        encoded[int(where * (len(encoded) - 1))] = octet
    damaged = bytes(encoded[: int(cut_at * len(encoded))])
    try:
        wave = read_audio(damaged, rate_hz=8000, limits=AudioLimits(max_s=5.0))
    except InvalidAudio:
        return
    assert 0 < wave.size <= 5 * 8000 + 1
    assert np.isfinite(wave).all()
