"""A telephone line for synthetic speech: band, level, noise, codec, loss.

`over_the_line` takes a wave at any rate and gives 16 kHz as the sidecar sees it, and
how times in the wave map to times on the line. Everything random comes from one
generator, so a seed gives one line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import scipy.fft

from model.audio.g711 import alaw_decode, alaw_encode, ulaw_decode, ulaw_encode
from model.audio.pcm import pcm16_from_wave, wave_from_pcm16

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.training.aligned import Wave

LINE_HZ = 8000
MODEL_HZ = 16000
_FRAME = 160  # samples of a 20 ms packet


@dataclass(frozen=True, slots=True)
class Line:
    """One call's line. `snr_db` of None means no noise but the codec's own."""

    low_hz: float
    high_hz: float
    tilt_db: float
    peak_db: float
    snr_db: float | None
    noise: str
    loss: float
    click_rate_hz: float
    is_alaw: bool


NOISES = ("white", "pink", "babble", "hum")


def draw_line(rng: np.random.Generator) -> Line:
    """A random line: from a good one to a bad one."""
    return Line(
        low_hz=float(rng.uniform(50, 350)),
        high_hz=float(rng.uniform(3000, 3900)),
        tilt_db=float(rng.uniform(-6, 6)),
        # Above 0 the line clips: someone shouts into the telephone.
        peak_db=float(
            rng.uniform(-26, -3) if rng.random() < 0.9 else rng.uniform(0, 12)
        ),
        snr_db=None if rng.random() < 0.2 else float(rng.uniform(5, 45)),
        noise=str(rng.choice(NOISES, p=(0.35, 0.25, 0.25, 0.15))),
        loss=float(rng.choice((0.0, 0.01, 0.03), p=(0.8, 0.12, 0.08))),
        click_rate_hz=float(rng.choice((0.0, 1.0), p=(0.9, 0.1))),
        is_alaw=bool(rng.random() < 0.3),
    )


def clean_line(snr_db: float | None = None) -> Line:
    """An ordinary good line, for measuring; white noise when `snr_db` is given."""
    return Line(200, 3500, 0, -9, snr_db, "white", 0.0, 0.0, is_alaw=False)


def to_line_rate(wave: Wave, rate_hz: int, line: Line, speed: float = 1.0) -> Wave:
    """Band-limit, tilt and resample to 8 kHz in one transform; peak at 1.

    `speed` above 1 shortens and raises the voice, as a faster tape would.
    """
    count = max(int(len(wave) * LINE_HZ / (rate_hz * speed)), 16)
    size = scipy.fft.next_fast_len(len(wave), real=True)
    out_size = max(round(size * LINE_HZ / (rate_hz * speed)), 16)
    spectrum = scipy.fft.rfft(wave, size)[: out_size // 2 + 1]
    hz = np.arange(len(spectrum)) * (LINE_HZ / out_size)
    gain = _edge(hz, line.low_hz, 0.5) * (1 - _edge(hz, line.high_hz, 0.12))
    octaves = np.log2(np.maximum(hz, 50.0) / 1000)
    gain = gain * 10 ** (line.tilt_db / 4 * octaves / 20)
    shaped = np.zeros(out_size // 2 + 1, np.complex64)
    shaped[: len(spectrum)] = spectrum * gain
    out = scipy.fft.irfft(shaped, out_size)[:count]
    return cast("Wave", (out / (np.abs(out).max() + 1e-9)).astype(np.float32))


def over_the_line(
    rng: np.random.Generator,
    speech: Wave,
    line: Line,
    *,
    lead_s: float,
    trail_s: float,
    babble: Sequence[Wave] = (),
) -> Wave:
    """8 kHz speech with its peak at 1 -> 16 kHz as the model hears it.

    Args:
        lead_s, trail_s: silence before and after, with the line's noise in it.
        babble: other people's speech at 8 kHz, for the noise of that name.
    """
    lead, trail = int(lead_s * LINE_HZ), int(trail_s * LINE_HZ)
    peak = 10 ** (line.peak_db / 20)
    wave = np.concatenate(
        [np.zeros(lead, np.float32), speech * peak, np.zeros(trail, np.float32)]
    )
    if line.snr_db is not None:
        loud = speech[np.abs(speech) > 0.02]
        level = float(np.sqrt(np.mean(loud**2))) * peak if len(loud) else peak * 0.1
        noise = make_noise(rng, line.noise, len(wave), babble)
        wave = wave + noise * level * 10 ** (-line.snr_db / 20)
    if line.click_rate_hz:
        for _ in range(rng.poisson(line.click_rate_hz * len(wave) / LINE_HZ)):
            at = int(rng.integers(0, len(wave) - 8))
            wave[at : at + 6] += rng.normal(0, 0.25, 6).astype(np.float32)
    if line.loss:
        for start in range(0, len(wave) - _FRAME, _FRAME):
            if rng.random() < line.loss:
                wave[start : start + _FRAME] = 0
    wave = through_codec(wave.astype(np.float32), is_alaw=line.is_alaw)
    return to_model_rate(wave)


def make_noise(
    rng: np.random.Generator, kind: str, num_samples: int, babble: Sequence[Wave] = ()
) -> Wave:
    """Noise of RMS 1 at 8 kHz: white, pink, babble or mains hum."""
    noise = rng.standard_normal(num_samples).astype(np.float32)
    if kind == "pink":
        spectrum = scipy.fft.rfft(noise)
        spectrum /= np.sqrt(np.arange(len(spectrum)) + 1).astype(np.float32)
        noise = scipy.fft.irfft(spectrum, num_samples)
    elif kind == "babble" and babble:
        noise *= 0.02
        for _ in range(int(rng.integers(3, 6))):
            voice = babble[int(rng.integers(0, len(babble)))]
            shift = int(rng.integers(0, len(voice)))
            noise += np.resize(np.roll(voice, shift), num_samples)
    elif kind == "hum":
        t = np.arange(num_samples, dtype=np.float32) / LINE_HZ
        base = 50.0 if rng.random() < 0.5 else 60.0
        noise *= 0.2
        for k in range(1, 12):
            phase = rng.uniform(0, 6.28)
            noise += np.sin(6.2832 * base * k * t + phase) * rng.uniform(0, 1) / k**0.5
    rms = float(np.sqrt(np.mean(noise**2))) + 1e-9
    return cast("Wave", (noise / rms).astype(np.float32))


def make_music(rng: np.random.Generator, num_samples: int) -> Wave:
    """A tune over chords, with or without a beat, RMS 1 at 8 kHz: music on hold."""
    t = np.arange(num_samples, dtype=np.float32) / LINE_HZ
    wave = np.zeros(num_samples, np.float32)
    beat_s = float(rng.uniform(0.2, 0.7))
    root_hz = float(rng.uniform(90, 260))
    scale = (0, 2, 4, 5, 7, 9, 11, 12)
    bright = float(rng.uniform(0.3, 1.2))
    for beat in range(int(num_samples / LINE_HZ / beat_s) + 1):
        since = t - beat * beat_s
        shape = np.where(since >= 0, np.exp(-np.abs(since) / (1.2 * beat_s)), 0)
        first = int(rng.integers(0, 5))
        for step in (first, first + 2, int(rng.integers(0, 8))):
            semitones = scale[step % 8] + 12 * int(rng.integers(0, 3))
            hz = root_hz * 2 ** (semitones / 12)
            for k in range(1, 5):
                if hz * k < 3600:
                    wave += (
                        shape * np.sin(6.2832 * hz * k * t) / k ** (2 * bright)
                    ).astype(np.float32)
        if bright > 0.7:
            hit = rng.standard_normal(num_samples).astype(np.float32)
            wave += hit * np.where(since >= 0, np.exp(-np.abs(since) / 0.03), 0) * 0.7
    rms = float(np.sqrt(np.mean(wave**2))) + 1e-9
    return cast("Wave", (wave / rms).astype(np.float32))


def through_codec(wave: Wave, *, is_alaw: bool = False) -> Wave:
    """G.711 there and back."""
    pcm16 = pcm16_from_wave(wave)
    if is_alaw:
        return wave_from_pcm16(alaw_decode(alaw_encode(pcm16)))
    return wave_from_pcm16(ulaw_decode(ulaw_encode(pcm16)))


def to_model_rate(wave: Wave) -> Wave:
    """8 kHz -> 16 kHz."""
    n = len(wave)
    size = scipy.fft.next_fast_len(n + 64, real=True)
    size += size % 2
    padded = np.zeros(size * 2 // 2 + 1, np.complex64)
    padded[: size // 2 + 1] = scipy.fft.rfft(wave, size)
    return cast("Wave", (scipy.fft.irfft(padded, size * 2)[: 2 * n] * 2).astype("f4"))


def _edge(hz: Wave, at_hz: float, width: float) -> Wave:
    """0 below, 1 above, half at `at_hz`; `width` is relative."""
    slope = (hz - at_hz) / (at_hz * width)
    return cast("Wave", (0.5 + 0.5 * np.tanh(2 * slope)).astype(np.float32))
