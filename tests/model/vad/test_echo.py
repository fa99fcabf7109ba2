"""The bot's own voice is told from the caller's, on real words."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from model.audio.frames import RATE_HZ
from model.audio.g711 import ulaw_decode, ulaw_encode
from model.audio.pcm import Wave, pcm16_from_wave
from model.vad.echo import EchoWatch

WINDOW = 2400


def voice(seed: int, seconds: float = 3.0) -> Wave:
    """Vowels of changing pitch and colour, in syllables."""
    rng = np.random.default_rng(seed)
    syllables = []
    for _ in range(int(seconds / 0.2)):
        at_s = np.arange(int(0.2 * RATE_HZ)) / RATE_HZ
        pitch_hz = rng.uniform(90, 240) * (1 + rng.uniform(-0.3, 0.3) * at_s)
        buzz = signal.sawtooth(2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ)
        for formant_hz in rng.uniform([300, 900, 2200], [800, 2000, 3200]):
            pole = 0.95 * np.exp(2j * np.pi * formant_hz / RATE_HZ)
            buzz = signal.lfilter([1], [1, -2 * pole.real, abs(pole) ** 2], buzz)
        buzz = buzz / np.abs(buzz).max() + rng.standard_normal(at_s.size) * 0.05
        syllables.append(buzz * np.sin(np.pi * at_s / 0.2))
    return np.asarray(0.3 * np.concatenate(syllables), dtype=np.float32)


def come_back(sent: Wave, delay_ms: int, level_db: float, seed: int = 0) -> Wave:
    """Through a telephone, late and soft, with its codec and a little noise."""
    band = signal.butter(4, [300, 3300], "bandpass", fs=RATE_HZ, output="sos")
    late = np.concatenate((np.zeros(delay_ms * 8), sent))[: sent.size]
    echo = signal.sosfilt(band, late) * 10 ** (level_db / 20)
    noise = np.random.default_rng(seed).standard_normal(sent.size) * 3e-4
    return np.asarray(echo + noise, dtype=np.float32)


def last(wave: Wave, num_samples: int) -> bytes:
    return ulaw_decode(ulaw_encode(pcm16_from_wave(wave[-num_samples:])))


@pytest.mark.parametrize("delay_ms", [20, 180, 600])
@pytest.mark.parametrize("level_db", [-12.0, -30.0])
def test_own_words_are_known_late_and_soft(delay_ms: int, level_db: float) -> None:
    watch, sent = EchoWatch(), voice(1)
    received = come_back(sent, delay_ms, level_db)
    needed = watch.sent_samples_needed(WINDOW)
    assert watch.is_echo(last(received, WINDOW), pcm16_from_wave(sent[-needed:]))
    assert watch.delay_ms == pytest.approx(delay_ms, abs=3)
    assert watch.level_db == pytest.approx(level_db, abs=4)


@pytest.mark.parametrize("seed", range(2, 12))
def test_another_voice_is_not_taken_for_an_echo(seed: int) -> None:
    watch, sent = EchoWatch(), voice(1)
    needed = watch.sent_samples_needed(WINDOW)
    ours = pcm16_from_wave(sent[-needed:])
    assert not watch.is_echo(last(voice(seed), WINDOW), ours)
    over_echo = voice(seed) + come_back(sent, 180, -20.0)
    assert not watch.is_echo(last(over_echo, WINDOW), ours)


def test_a_known_delay_makes_it_surer() -> None:
    sent = voice(1)
    watch = EchoWatch()
    needed = watch.sent_samples_needed(WINDOW)
    ours = pcm16_from_wave(sent[-needed:])
    rng = np.random.default_rng(5)
    hiss = rng.standard_normal(sent.size).astype(np.float32)
    buried = come_back(sent, 180, -20.0) + hiss * np.float32(0.005)
    assert not watch.is_echo(last(buried, WINDOW), ours)
    assert watch.is_echo(last(come_back(sent, 180, -20.0), WINDOW), ours)
    assert watch.is_echo(last(buried, WINDOW), ours)


def test_silence_on_either_side_is_no_echo() -> None:
    watch, sent = EchoWatch(), voice(1)
    assert not watch.is_echo(bytes(2 * WINDOW), pcm16_from_wave(sent))
    assert not watch.is_echo(pcm16_from_wave(sent[:WINDOW]), bytes(2 * 8800))
    assert not watch.is_echo(pcm16_from_wave(sent[:WINDOW]), b"")
    assert not watch.is_echo(b"", b"")
    assert watch.delay_ms is None
