"""Audio that is not what was promised is noticed within a second and made right."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest

from agi_handlers.audio_leg.caller_format import CallerAudioReader, CallerFormat
from model.audio.g711 import alaw_encode, ulaw_encode
from model.audio.pcm import level_dbfs, pcm16_from_wave, wave_from_pcm16
from model.audio.resample import resample
from tests.model.vad.test_echo import voice


def speech() -> bytes:
    return pcm16_from_wave(voice(3, 4.0))


def hiss(level: float) -> bytes:
    noise = np.random.default_rng(2).standard_normal(32_000) * level
    smooth = np.convolve(noise, np.ones(3) / 3, "same")
    return pcm16_from_wave(smooth.astype(np.float32))


def frames(octets: bytes, bytes_per_s: int) -> Iterator[tuple[bytes, float]]:
    """Every 20 ms, a little early or late."""
    rng = np.random.default_rng(1)
    size = bytes_per_s // 50
    for index, at in enumerate(range(0, len(octets) - size + 1, size)):
        yield octets[at : at + size], index * 0.02 + rng.uniform(0, 0.015)


def read(octets: bytes, bytes_per_s: int) -> tuple[CallerAudioReader, bytes]:
    reader = CallerAudioReader()
    heard = b"".join(
        reader.read(chunk, at_s) for chunk, at_s in frames(octets, bytes_per_s)
    )
    return reader, heard


def wide(pcm16: bytes) -> bytes:
    return pcm16_from_wave(resample(wave_from_pcm16(pcm16), 8000, 16_000))


def swap(pcm16: bytes) -> bytes:
    return np.frombuffer(pcm16, dtype="<i2").astype(">i2").tobytes()


def test_what_was_promised_passes_untouched() -> None:
    reader, heard = read(speech(), 16_000)
    assert reader.format is CallerFormat.LINEAR
    assert heard == speech()


@pytest.mark.parametrize(
    ("sent", "bytes_per_s", "form"),
    [
        (wide(speech()), 32_000, CallerFormat.WIDE),
        (ulaw_encode(speech()), 8_000, CallerFormat.ULAW),
        (alaw_encode(speech()), 8_000, CallerFormat.ALAW),
        (swap(speech()), 16_000, CallerFormat.SWAPPED),
    ],
)
def test_another_format_is_noticed_within_a_second_and_read_right(
    sent: bytes,
    bytes_per_s: int,
    form: CallerFormat,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        reader = CallerAudioReader()
        noticed_s = [
            at_s
            for chunk, at_s in frames(sent, bytes_per_s)
            if reader.read(chunk, at_s) is not None and reader.format is form
        ]
    assert noticed_s[0] <= 1.0
    assert [record.msg for record in caplog.records] == ["caller_audio_is"]
    _, heard = read(sent, bytes_per_s)
    told, truth = wave_from_pcm16(heard[-32_000:]), wave_from_pcm16(speech()[-32_000:])
    spectra = [np.abs(np.fft.rfft(wave)) for wave in (told, truth)]
    assert level_dbfs(told) == pytest.approx(level_dbfs(truth), abs=1.5)
    assert np.corrcoef(spectra[0], spectra[1])[0, 1] > 0.8


@pytest.mark.parametrize("octets", [bytes(64_000), hiss(1e-4), hiss(0.05)])
def test_silence_and_noise_change_nothing(octets: bytes) -> None:
    reader, heard = read(octets, 16_000)
    assert reader.format is CallerFormat.LINEAR
    assert heard == octets


def test_a_burst_of_late_packets_is_no_other_rate() -> None:
    """Half a second of stillness, all of it at once, and again."""
    reader, octets = CallerAudioReader(), speech()
    heard = b""
    for chunk, at_s in frames(octets, 16_000):
        arrives_s = np.ceil(at_s / 0.5) * 0.5 + at_s / 1000
        heard += reader.read(chunk, arrives_s)
    assert reader.format is CallerFormat.LINEAR
    assert heard == octets


@pytest.mark.parametrize(
    "octets",
    [
        speech(),
        bytes(24_000) + speech(),  # the step in its level is no likeness of samples
        hiss(1e-4) + speech(),
        hiss(3e-5),  # a bit or two: of one sign, both octets of a sample look alike
        pcm16_from_wave(voice(3, 4.0) * np.float32(0.01)),
    ],
    ids=["speech", "silence first", "hiss first", "a quiet line", "a quiet caller"],
)
def test_half_the_packets_missing_are_no_other_law(octets: bytes) -> None:
    """So a busy caller's line sounds; read as a law he would be heard no more."""
    for wait_s in (0.0, 0.3, 0.7, 1.1):
        reader = CallerAudioReader()
        heard, sent = b"", b""
        for index, (chunk, at_s) in enumerate(frames(octets, 16_000)):
            if index % 2 and at_s >= wait_s:
                sent += chunk
                heard += reader.read(chunk, at_s)
        assert reader.format is CallerFormat.LINEAR
        assert heard == sent


def test_a_caller_at_half_speed_is_no_other_law() -> None:
    """Whole seconds of one frame in 40 ms: his telephone or our host is overloaded."""
    reader, heard = CallerAudioReader(), b""
    octets = bytes(24_000) + speech()
    for chunk, at_s in frames(octets, 16_000):
        heard += reader.read(chunk, 2 * at_s)
    assert reader.format is CallerFormat.LINEAR
    assert heard == octets


def test_a_law_that_becomes_linear_is_read_on() -> None:
    reader, heard = CallerAudioReader(), b""
    for chunk, at_s in frames(ulaw_encode(speech()), 8_000):
        reader.read(chunk, at_s)
    formats = [reader.format]
    for chunk, at_s in frames(speech(), 16_000):
        heard += reader.read(chunk, 4.0 + at_s)
    formats.append(reader.format)
    assert formats == [CallerFormat.ULAW, CallerFormat.LINEAR]
    assert heard[-32_000:] == speech()[-32_000:]


def test_what_a_line_catches_up_is_no_other_rate() -> None:
    """Two seconds of stillness, then all that was missed at twice the speed."""
    reader, heard = CallerAudioReader(), b""
    octets = bytes(8_000) + speech()
    for chunk, at_s in frames(octets, 16_000):
        late_s = 2.0 - (at_s - 0.5) / 2 if at_s >= 0.5 else 0.0
        heard += reader.read(chunk, at_s + max(0.0, late_s))
    assert reader.format is CallerFormat.LINEAR
    assert heard == octets


def test_calls_that_began_together_do_not_look_all_at_once() -> None:
    """A look that told nothing is repeated, by 200 calls of one burst not in step."""
    noise = np.random.default_rng(4).standard_normal(16_000).astype(np.float32) * 0.05
    octets = pcm16_from_wave(noise) + swap(speech() + speech())
    noticed_s = []
    for _ in range(40):
        reader = CallerAudioReader()
        for chunk, at_s in frames(octets, 16_000):
            reader.read(chunk, at_s)
            if reader.format is CallerFormat.SWAPPED:
                noticed_s.append(at_s)
                break
    assert len(noticed_s) == 40
    assert max(noticed_s) < 2.0 + 2.0
    assert np.ptp(noticed_s) > 0.2


def test_a_rate_that_is_declared_is_brought_to_ours() -> None:
    reader = CallerAudioReader()
    sent = wide(speech())
    heard = b"".join(
        reader.read(chunk, at_s, 16_000) for chunk, at_s in frames(sent, 32_000)
    )
    assert len(heard) == pytest.approx(len(speech()), abs=4000)
    assert reader.format is CallerFormat.LINEAR


def test_a_clock_that_jumps_does_no_harm() -> None:
    reader, heard = CallerAudioReader(), b""
    for index, (chunk, at_s) in enumerate(frames(speech(), 16_000)):
        jump_s = 3600.0 if index > 20 else 0.0
        heard += reader.read(chunk, at_s + jump_s - (5.0 if index > 60 else 0.0))
    assert reader.format is CallerFormat.LINEAR
    assert heard == speech()
