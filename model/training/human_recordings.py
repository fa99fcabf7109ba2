"""A human voice to be honest with: Asterisk's own English prompts.

The Debian package `asterisk-core-sounds-en-wav` holds one American speaker at 8 kHz.
Digits, days and times are spliced into turns; a few whole prompts are turns as they
are. No human voice is in training.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from model.training.aligned import AlignedSpeech
from model.training.grammar import DIGITS, HOURS, Slots, Spoken

if TYPE_CHECKING:
    from pathlib import Path

    from model.training.aligned import Wave

_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
# File, words, intent.
_WHOLE = (
    ("hello.wav", "hello", "greeting"),
    ("goodbye.wav", "goodbye", "goodbye"),
    ("vm-goodbye.wav", "goodbye", "goodbye"),
    ("one-moment-please.wav", "one moment please", "hold"),
    ("vm-no.wav", "no", "no"),
    ("vm-nobodyavail.wav", "nobody is available to take your call", "voicemail"),
)


def turns(
    folder: Path, count: int, seed: int = 3
) -> list[tuple[Spoken, AlignedSpeech]]:
    """Turns with their waves; `folder` is the one that holds ``digits/``."""
    rng = random.Random(seed)
    made = []
    for file, text, intent in _WHOLE:
        if (folder / file).exists():
            made.append((_turn(text, intent, Slots()), _join([_read(folder / file)])))
    while len(made) < count:
        made.append(rng.choice((_number, _day, _time, _day_time))(folder, rng))
    return made


def _turn(text: str, intent: str, slots: Slots) -> Spoken:
    return Spoken(text, intent, slots, "", len(text.split()))


def _number(folder: Path, rng: random.Random) -> tuple[Spoken, AlignedSpeech]:
    digits = [rng.randrange(10) for _ in range(4)]
    words = " ".join(DIGITS[d] for d in digits)
    waves = [_read(folder / "digits" / f"{d}.wav") for d in digits]
    return _turn(words, "number", Slots(number=words)), _join(waves)


def _day(folder: Path, rng: random.Random) -> tuple[Spoken, AlignedSpeech]:
    name, wave = _any_day(folder, rng)
    return _turn(name, "day", Slots(day=name)), _join([wave])


def _time(folder: Path, rng: random.Random) -> tuple[Spoken, AlignedSpeech]:
    said, waves = _any_time(folder, rng)
    return _turn(said, "time", Slots(time=said)), _join(waves)


def _day_time(folder: Path, rng: random.Random) -> tuple[Spoken, AlignedSpeech]:
    name, wave = _any_day(folder, rng)
    said, waves = _any_time(folder, rng)
    at = _read(folder / "digits" / "at.wav")
    slots = Slots(day=name, time=said)
    return _turn(f"{name} at {said}", "day_time", slots), _join([wave, at, *waves])


def _any_day(folder: Path, rng: random.Random) -> tuple[str, Wave]:
    index = rng.randrange(9)
    if index < 7:
        return _DAYS[index], _read(folder / "digits" / f"day-{index}.wav")
    name = ("today", "tomorrow")[index - 7]
    return name, _read(folder / "digits" / f"{name}.wav")


def _any_time(folder: Path, rng: random.Random) -> tuple[str, list[Wave]]:
    hour = rng.choice((8, 9, 10, 11, 1, 2, 3, 4, 5, 6))
    half = "am" if 8 <= hour <= 11 else "pm"
    parts = [HOURS[hour - 1], half]
    files = [f"{hour}.wav", f"{half[0]}-m.wav"]
    if rng.random() < 0.4:
        parts.insert(1, "thirty")
        files.insert(1, "30.wav")
    return " ".join(parts), [_read(folder / "digits" / f) for f in files]


def _read(path: Path) -> Wave:
    """A prompt without the silence around it."""
    wave, rate_hz = soundfile.read(path, dtype="float32")
    if rate_hz != 8000:
        raise ValueError(f"{path} is at {rate_hz} Hz; 8000 is wanted")
    loud = np.flatnonzero(np.abs(wave) > 0.01)
    kept: Wave = wave[max(loud[0] - 160, 0) : loud[-1] + 160]
    return kept


def _join(waves: list[Wave]) -> AlignedSpeech:
    gap = np.zeros(400, np.float32)  # 50 ms
    parts = [p for wave in waves for p in (wave, gap)][:-1]
    return AlignedSpeech(np.concatenate(parts), 8000, (), ())
