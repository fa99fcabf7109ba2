"""Telephone lines made from clean recordings, with the truth about who spoke when.

A line is one caller for a minute: recordings of one speaker as his turns, at his level
and with pauses stretched to his pace, gaps between the turns, something in the
background, the telephone's band, and a codec.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import soundfile
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import signal

from model.audio.frames import RATE_HZ, samples_from_ms
from model.audio.g711 import ulaw_decode, ulaw_encode
from model.audio.pcm import Wave, pcm16_from_wave

# Before it is a telephone's, sound is mixed in double precision.
Mix: TypeAlias = NDArray[np.float64]

_RUN_FRAME_SAMPLES: Final = samples_from_ms(10)
_MIN_RUN_FRAMES: Final = 4
# Shorter silences are stops within words ("cat", "apple").
_MIN_PAUSE_FRAMES: Final = 10
_LONGEST_PAUSE_SAMPLES: Final = samples_from_ms(710)
_EDGE_SAMPLES: Final = samples_from_ms(50)


@dataclass(frozen=True, slots=True)
class Recording:
    """One clean turn of a speaker, and where in it he speaks."""

    speaker: str
    wave: Wave
    runs: tuple[tuple[int, int], ...]
    """Bounds of speech between pauses, in samples."""

    @property
    def bounds(self) -> tuple[int, int]:
        """First to last sample of speech."""
        return self.runs[0][0], self.runs[-1][1]


@dataclass(frozen=True, slots=True)
class Background:
    """What else is on the line, so many dB below the caller; None: nothing but hiss."""

    kind: str
    snr_db: float | None


@dataclass(frozen=True, slots=True)
class Line:
    """A minute of a caller's audio (8 kHz) and the turns that are truly in it."""

    background: Background
    pcm16: bytes
    turns: tuple[tuple[int, int], ...]


BACKGROUNDS: Final = (
    *(Background("quiet", None),) * 5,
    *(
        Background(kind, snr_db)
        for kind in ("hiss", "babble", "hum")
        for snr_db in (20.0, 15.0, 10.0, 5.0)
    ),
    *(Background("street", snr_db) for snr_db in (15.0, 10.0)),
    Background("voice", 15.0),
)
# What a good line has, for callers whose pauses are as recorded.
GOOD_LINES: Final = (Background("quiet", None), Background("hiss", 20.0))
# Of the caller's speech on the line: a whisper into a hand set, a shout into a mobile.
LEVELS_DBFS: Final = (-40.0, -8.0)
# How often a turn is one of the caller's long ones, and how often several recordings
# with a pause of thought between them: people hesitate where readers of prompts don't.
_LONG_SHARE: Final = 0.35
_HESITANT_SHARE: Final = 0.1
_LONG_SAMPLES: Final = RATE_HZ * 7 // 4


def find_runs(wave: Wave) -> tuple[tuple[int, int], ...]:
    """Where a clean recording is speech: by level, against its own loud and quiet."""
    num_frames = wave.size // _RUN_FRAME_SAMPLES
    if not num_frames:
        return ()
    frames = wave[: num_frames * _RUN_FRAME_SAMPLES].reshape(num_frames, -1)
    levels_db = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    loud_db, floor_db = np.percentile(levels_db, [95, 3])
    threshold_db = max(loud_db - 38, min(floor_db + 8, loud_db - 25), -58.0)
    edges = np.diff((levels_db > threshold_db).astype(int), prepend=0, append=0)
    runs: list[tuple[int, int]] = []
    for start, end in zip(
        np.flatnonzero(edges > 0), np.flatnonzero(edges < 0), strict=True
    ):
        if runs and start - runs[-1][1] < _MIN_PAUSE_FRAMES:
            runs[-1] = (runs[-1][0], int(end))
        else:
            runs.append((int(start), int(end)))
    return tuple(
        (start * _RUN_FRAME_SAMPLES, end * _RUN_FRAME_SAMPLES)
        for start, end in runs
        if end - start >= _MIN_RUN_FRAMES
    )


def make_line(
    rng: Generator,
    caller: Sequence[Recording],
    others: Sequence[Recording],
    background: Background,
    length_s: float,
    *,
    hesitates: bool = True,
) -> Line:
    """A caller's minute; `others` speak in the background.

    Unless he `hesitates`, his pauses are those of the recordings.
    """
    num_samples = int(length_s * RATE_HZ)
    level_db = rng.uniform(*LEVELS_DBFS)
    long = [one for one in caller if one.bounds[1] - one.bounds[0] > _LONG_SAMPLES]
    pace = rng.uniform(1.0, 2.2) if hesitates else 1.0
    hesitant_share = _HESITANT_SHARE if hesitates else 0.0
    wave = np.zeros(num_samples, dtype=np.float32)
    turns: list[tuple[int, int]] = []
    at = int(rng.uniform(0.5, 2.0) * RATE_HZ)
    while True:
        turn = _next_turn(rng, caller, long or caller, pace, hesitant_share)
        loudness = 10 ** ((level_db + rng.uniform(-2, 2)) / 20) / _speech_level(turn)
        first, last = turn.bounds
        start = at - first
        if start < 0 or start + turn.wave.size > num_samples:
            break
        wave[start : start + turn.wave.size] += loudness * turn.wave
        turns.append((start + first, start + last))
        at = start + last + int(rng.uniform(0.9, 2.6) * RATE_HZ)
    wave += _background(rng, background, level_db, others, num_samples)
    return Line(background, through_line(rng, wave), tuple(turns))


def _next_turn(
    rng: Generator,
    caller: Sequence[Recording],
    long: Sequence[Recording],
    pace: float,
    hesitant_share: float,
) -> Recording:
    kind = rng.random()
    if kind < _LONG_SHARE:
        return _slowed(_any_of(rng, long), pace)
    if kind < _LONG_SHARE + hesitant_share:
        return _hesitant(rng, [_any_of(rng, caller), _any_of(rng, caller)])
    return _slowed(_any_of(rng, caller), pace)


def _any_of(rng: Generator, recordings: Sequence[Recording]) -> Recording:
    return recordings[int(rng.integers(len(recordings)))]


def _hesitant(rng: Generator, recordings: Sequence[Recording]) -> Recording:
    """Several recordings as one turn, with pauses of thought between them."""
    parts: list[Wave] = []
    runs: list[tuple[int, int]] = []
    length = 0
    for one in recordings:
        if runs:
            pause = int(RATE_HZ * (0.2 + rng.exponential(0.15)))
            parts.append(np.zeros(min(pause, _LONGEST_PAUSE_SAMPLES), np.float32))
            length += parts[-1].size
        first, last = one.bounds
        parts.append(one.wave[first:last] * np.float32(0.1 / _speech_level(one)))
        runs += [(length + s - first, length + e - first) for s, e in one.runs]
        length += last - first
    return Recording(recordings[0].speaker, np.concatenate(parts), tuple(runs))


def _speech_level(recording: Recording) -> float:
    speech = np.concatenate([recording.wave[s:e] for s, e in recording.runs])
    return float(np.sqrt(np.mean(speech**2))) + 1e-9


def _slowed(recording: Recording, pace: float) -> Recording:
    """Stretch the pauses within a turn, trim what is around it."""
    parts: list[Wave] = []
    runs: list[tuple[int, int]] = []
    first, last = recording.bounds
    at = max(first - _EDGE_SAMPLES, 0)
    length = 0
    for start, end in recording.runs:
        pause = recording.wave[at:start]
        if runs and pause.size < _LONGEST_PAUSE_SAMPLES:
            wanted = min(int(pace * pause.size), _LONGEST_PAUSE_SAMPLES)
            silence = np.zeros(wanted - pause.size, dtype=np.float32)
            pause = np.insert(pause, pause.size // 2, silence)
        parts += [pause, recording.wave[start:end]]
        length += pause.size
        runs.append((length, length + end - start))
        length += end - start
        at = end
    parts.append(recording.wave[last : last + _EDGE_SAMPLES])
    wave = np.concatenate(parts)
    # Recordings cut in the middle of a breath would click.
    fade = np.linspace(0.0, 1.0, min(160, wave.size // 2), dtype=np.float32)
    wave[: fade.size] *= fade
    wave[wave.size - fade.size :] *= fade[::-1]
    return Recording(recording.speaker, wave, tuple(runs))


def _background(
    rng: Generator,
    background: Background,
    caller_db: float,
    others: Sequence[Recording],
    num_samples: int,
) -> Wave:
    hiss: Mix = rng.standard_normal(num_samples)
    noise: Mix
    if background.snr_db is None:
        return (10 ** (rng.uniform(-75, -58) / 20) * hiss).astype(np.float32)
    match background.kind:
        case "hiss":
            noise = hiss
        case "hum":
            at_s = np.arange(num_samples) / RATE_HZ
            tones = [
                np.sin(2 * np.pi * 50 * k * at_s + k * k) / k for k in range(1, 12)
            ]
            noise = sum(tones, start=0.3 * hiss)
        case "street":
            noise = _pink(hiss) * _swell(rng, num_samples)
        case "babble":
            noise = sum(
                (_talk(rng, others, num_samples, 0.0) for _ in range(6)),
                start=np.zeros(num_samples),
            )
        case "voice":
            noise = _talk(rng, others, num_samples, 5.0)
            # A lone voice pauses: its level is that of its speech, as the caller's.
            return (10 ** ((caller_db - background.snr_db) / 20) * noise).astype(
                np.float32
            )
        case _:
            raise ValueError(f"no background called {background.kind}")
    level = 10 ** ((caller_db - background.snr_db) / 20) / np.sqrt(np.mean(noise**2))
    return np.asarray(level * noise, dtype=np.float32)


def _pink(white: Mix) -> Mix:
    spectrum = np.fft.rfft(white)
    spectrum /= np.sqrt(np.maximum(np.arange(spectrum.size), spectrum.size / 80))
    return np.asarray(np.fft.irfft(spectrum, white.size))


def _swell(rng: Generator, num_samples: int) -> Mix:
    """Traffic comes and goes within half a second."""
    steps = np.arange(0, num_samples + RATE_HZ, RATE_HZ // 2)
    heights = rng.uniform(0.3, 1.6, steps.size)
    return np.asarray(np.interp(np.arange(num_samples), steps, heights))


def _talk(
    rng: Generator, others: Sequence[Recording], num_samples: int, max_gap_s: float
) -> Mix:
    """Somebody else, at level one while he speaks."""
    wave = np.zeros(num_samples)
    at = int(rng.uniform(0, 1) * RATE_HZ)
    while at < num_samples:
        other = others[int(rng.integers(len(others)))]
        said = other.wave[: num_samples - at] / _speech_level(other)
        wave[at : at + said.size] += said
        at += said.size + int(rng.uniform(0.1, 0.3 + max_gap_s) * RATE_HZ)
    return wave


def line_noise(
    rng: Generator,
    background: Background,
    caller_db: float,
    others: Sequence[Wave],
    num_samples: int,
) -> Wave:
    """What else is on a caller's line; `others` are voices in the background."""
    voices = [Recording("", wave, ((0, wave.size),)) for wave in others]
    return _background(rng, background, caller_db, voices, num_samples)


def through_line(rng: Generator, wave: Wave) -> bytes:
    """Band-pass, codec (mu-law, sometimes GSM), sometimes lost packets."""
    band_hz = [rng.uniform(200, 350), rng.uniform(3100, 3600)]
    filter_ = signal.butter(4, band_hz, "bandpass", fs=RATE_HZ, output="sos")
    pcm16 = pcm16_from_wave(signal.sosfilt(filter_, wave).astype(np.float32))
    pcm16 = _gsm(pcm16) if rng.random() < 0.25 else ulaw_decode(ulaw_encode(pcm16))
    if rng.random() < 0.25:
        pcm16 = _lossy(rng, pcm16, rng.uniform(0.01, 0.03))
    return pcm16


def _gsm(pcm16: bytes) -> bytes:
    """To a mobile phone's codec and back."""
    file = io.BytesIO()
    samples = np.frombuffer(pcm16, dtype="<i2")
    soundfile.write(file, samples, RATE_HZ, format="WAV", subtype="GSM610")
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="int16")
    return bytes(decoded[: samples.size].astype("<i2").data)


def _lossy(rng: Generator, pcm16: bytes, share: float) -> bytes:
    """So many of the packets are lost and played as silence."""
    samples = np.frombuffer(pcm16, dtype="<i2").copy()
    packets = samples[: samples.size // 160 * 160].reshape(-1, 160)
    packets[rng.random(len(packets)) < share] = 0
    return bytes(samples.data)
