"""Answered calls, made from voices and tones, with the truth about who answered.

A call is what the far end says and sounds in its first 32 seconds, through the line of
`telephone_line`.  People say hello, wait for the bot, answer it; machines speak on
whatever the bot says.  Voices: espeak, flite and festival where installed, and a folder
of human recordings, of which short ones serve as short answers and long ones as long.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.random import Generator

from agi_handlers.conversation.answer_rules import AnsweredBy
from benchmarks.telephone_line import Background, find_runs, line_noise, through_line
from model.audio.frames import RATE_HZ, samples_from_ms
from model.audio.pcm import Wave
from model.audio.resample import resample
from model.audio.wav import read_audio

_CALL_S: Final = 32.0
_BEEPS_HZ: Final = (440, 480, 620, 700, 853, 960, 1000, 1004, 1100, 1400, 1633)
# Kitchens, smoke alarms, cars; hardly any is as low as an answering machine's.
_ALARMS_HZ: Final = (1000.0, 1975.0, 2048.0, 2093.0, 2400.0, 2700.0, 3000.0, 3150.0)
_BACKGROUNDS: Final = (
    *(Background("quiet", None),) * 3,
    *(Background("hiss", snr_db) for snr_db in (25.0, 15.0)),
    *(Background("street", snr_db) for snr_db in (20.0, 10.0)),
    *(Background("hum", 15.0), Background("babble", 15.0), Background("babble", 10.0)),
)
_FLITE_VOICES: Final = ("kal", "awb", "rms", "slt")

SHORT: Final = (
    "Hello?", "Hello.", "Yes?", "Hi.", "Speaking.", "Hello, John speaking.",
    "Good morning.", "Yes, hello?", "Smith residence.", "Who is this?", "Anna Brown.",
)  # fmt: skip
LONG: Final = (
    "Good morning, Riverside Services, this is Anna speaking, how can I help you?",
    "Thank you for calling Smith and Sons plumbing, you are speaking with Mary.",
    "Hello, this is Peter, I am in the car right now so the line may be bad.",
    "Yes hello, who is calling please, I can hardly hear you, is anybody there?",
    "He can't come to the phone right now, he is in the garden, can I take a message?",
    "Hello, hello, sorry, I was just looking for my glasses, who did you want to speak "
    "to?",
    "Doctor Brown's office, this is Linda, can you hold for one moment please?",
)
REPLIES: Final = (
    "Yes, that is me.", "What is this about?", "I am sorry, I have no time.",
    "No thank you, I am not interested in that at all.",
    "Well, I already talked to your colleague last week and he told me that somebody "
    "would send me the papers, but nothing has come so far.",
    "All right, go on.", "Could you call me back tomorrow?",
)  # fmt: skip
MACHINES: Final = (
    "Hi, you have reached Bob. I can't come to the phone right now. Please leave a "
    "message after the tone.",
    "Hello, this is Susan. I am not available right now. Leave your name and number "
    "and I will call you back as soon as possible.",
    "Your call has been forwarded to an automatic voice message system. The person "
    "you are calling is not available. At the tone, please record your message.",
    "You have reached the voicemail of five five five, one two three four. Please "
    "leave a message after the beep.",
    "Hi, it's Mike. You know what to do.",
    "We are not able to take your call. Our office hours are Monday to Friday, from "
    "nine to five. Please leave your name and number after the tone and we will return "
    "your call.",
    "Nobody is available to take your call. Please leave a message after the tone.",
)
MENUS: Final = (
    "Thank you for calling Riverside Services. For sales, press one. For service, "
    "press two. To hear these options again, press star.",
    "Welcome. Please listen carefully, as our menu options have changed. If you "
    "know your party's extension, you may dial it at any time. For all other questions "
    "press zero.",
)


@dataclass(frozen=True, slots=True)
class Spoken:
    """One text by one voice; 8 kHz, without silence around it."""

    voice: str
    text: str
    wave: Wave


@dataclass(frozen=True, slots=True)
class Said:
    """What is said in a call from here to there, in samples."""

    start: int
    end: int
    text: str
    """Empty where nobody wrote it down (human recordings)."""


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """One call: the truth, and what the bot hears of it."""

    truth: AnsweredBy
    kind: str
    """Finer than the truth: "short answer", "greeting without a beep"."""
    voice: str
    background: str
    pcm16: bytes
    said: tuple[Said, ...]
    beep_end: int | None = None


class Voices:
    """Everything that was spoken, by what it is good for."""

    def __init__(self, recordings: Path | None, *, num_voices: int) -> None:
        """recordings: a folder of human speech at any rate; `num_voices` of espeak."""
        texts = (*SHORT, *LONG, *REPLIES, *MACHINES, *MENUS)
        self.spoken: list[Spoken] = [
            *_espeak(texts, num_voices),
            *_flite(texts),
            *_festival(texts),
        ]
        self.human = list(_human(recordings)) if recordings is not None else []

    def saying(self, texts: Sequence[str]) -> list[Spoken]:
        return [spoken for spoken in self.spoken if spoken.text in texts]

    def of_length(self, min_s: float, max_s: float) -> list[Spoken]:
        """Human recordings by their length, which is all that serves here."""
        return [s for s in self.human if min_s <= s.wave.size / RATE_HZ <= max_s]


def make_calls(voices: Voices, num_each: int, seed: int) -> Iterator[AnsweredCall]:
    """`num_each` calls of every kind that the voices allow."""
    rng = np.random.default_rng(seed)
    for kind, make in _KINDS.items():
        for _ in range(num_each):
            background = _BACKGROUNDS[int(rng.integers(len(_BACKGROUNDS)))]
            plan = make(rng, voices)
            if plan is not None:
                yield plan.call(rng, voices, kind, background)


class _Plan:
    """What sounds at the far end, one thing after another."""

    def __init__(self, truth: AnsweredBy, start_s: float) -> None:
        self.truth = truth
        self.voice = ""
        self.wave = np.zeros(int(_CALL_S * RATE_HZ), dtype=np.float32)
        self.said: list[Said] = []
        self.at = int(start_s * RATE_HZ)
        self.beep_end: int | None = None

    def say(self, spoken: Spoken) -> _Plan:
        self.voice = self.voice or spoken.voice
        self._add(spoken.wave)
        self.said.append(Said(self.at - spoken.wave.size, self.at, spoken.text))
        return self

    def wait(self, seconds: float) -> _Plan:
        self.at += int(seconds * RATE_HZ)
        return self

    def tone(self, hz: float, ms: float, *, is_beep: bool = False) -> _Plan:
        at_s = np.arange(samples_from_ms(round(ms))) / RATE_HZ
        edge = np.minimum(1.0, np.minimum(at_s, at_s[::-1]) / 0.004)
        self._add((0.15 * edge * np.sin(2 * np.pi * hz * at_s)).astype(np.float32))
        if is_beep:
            self.beep_end = self.at
        return self

    def _add(self, wave: Wave) -> None:
        part = wave[: max(0, self.wave.size - self.at)]
        self.wave[self.at : self.at + part.size] += part
        self.at += wave.size

    def call(
        self, rng: Generator, voices: Voices, kind: str, background: Background
    ) -> AnsweredCall:
        level_db = rng.uniform(-32, -18)
        others = [*voices.spoken, *voices.human]
        # measured at level 0.1 RMS of speech: see `_levelled`
        wave = self.wave * np.float32(10 ** ((level_db + 20) / 20))
        wave = wave + line_noise(
            rng, background, level_db, [o.wave for o in others], wave.size
        )
        snr = "" if background.snr_db is None else f" {background.snr_db:g} dB"
        return AnsweredCall(
            self.truth,
            kind,
            self.voice,
            background.kind + snr,
            through_line(rng, wave),
            tuple(self.said),
            self.beep_end,
        )


def _pick(rng: Generator, spoken: Sequence[Spoken]) -> Spoken | None:
    return spoken[int(rng.integers(len(spoken)))] if spoken else None


def _talk(rng: Generator, voices: Voices, answer: Spoken | None) -> _Plan | None:
    """A person: an answer, then two replies to the bot, each after it has spoken."""
    if answer is None:
        return None
    plan = _Plan("person", rng.uniform(0.2, 1.6)).say(answer)
    same = [s for s in voices.saying(REPLIES) if s.voice == answer.voice]
    for _ in range(2):
        reply = _pick(rng, same or voices.of_length(1.0, 8.0))
        if reply is not None:
            plan.wait(rng.uniform(3.5, 7.0)).say(reply)
    return plan


def _short(rng: Generator, voices: Voices) -> _Plan | None:
    return _talk(rng, voices, _pick(rng, voices.saying(SHORT)))


def _short_human(rng: Generator, voices: Voices) -> _Plan | None:
    return _talk(rng, voices, _pick(rng, voices.of_length(0.35, 2.4)))


def _long(rng: Generator, voices: Voices) -> _Plan | None:
    return _talk(rng, voices, _pick(rng, voices.saying(LONG)))


def _long_human(rng: Generator, voices: Voices) -> _Plan | None:
    return _talk(rng, voices, _pick(rng, voices.of_length(2.6, 8.0)))


def _hellos(rng: Generator, voices: Voices) -> _Plan | None:
    """Who hears nothing says it again."""
    first = _pick(rng, voices.saying(SHORT[:4]))
    if first is None:
        return None
    plan = _Plan("person", rng.uniform(0.2, 1.2)).say(first)
    for _ in range(3):
        plan.wait(rng.uniform(0.8, 2.0)).say(first)
    return plan


def _person_and_beep(rng: Generator, voices: Voices) -> _Plan | None:
    """A person beside something that beeps, and goes on talking."""
    plan = _talk(rng, voices, _pick(rng, voices.saying((*SHORT, *LONG))))
    if plan is not None:
        end = plan.at
        plan.at = plan.said[0].end + int(rng.uniform(0.1, 1.0) * RATE_HZ)
        plan.tone(float(rng.choice(_ALARMS_HZ)), rng.uniform(80, 300))
        plan.at = end
    return plan


def _recorded_line(rng: Generator, voices: Voices) -> _Plan | None:
    """A person whose line beeps every 15 s: the call is recorded."""
    plan = _talk(rng, voices, _pick(rng, voices.saying((*SHORT, *LONG))))
    if plan is not None:
        for at_s in (8.0, 23.0, 38.0):
            plan.at = int((at_s + rng.uniform(0, 2)) * RATE_HZ)
            plan.tone(1400, 200)
    return plan


def _machine(rng: Generator, voices: Voices) -> _Plan | None:
    greeting = _pick(rng, voices.saying(MACHINES))
    if greeting is None:
        return None
    plan = _Plan("machine", rng.uniform(0.1, 1.5)).say(greeting)
    hz = float(rng.choice(_BEEPS_HZ))
    return plan.wait(rng.uniform(0.2, 1.8)).tone(
        hz, rng.uniform(240, 1000), is_beep=True
    )


def _machine_human(rng: Generator, voices: Voices) -> _Plan | None:
    """Two or three recordings in a row make a greeting."""
    parts = voices.of_length(1.5, 7.0)
    if not parts:
        return None
    plan = _Plan("machine", rng.uniform(0.1, 1.5))
    for _ in range(int(rng.integers(2, 4))):
        spoken = _pick(rng, parts)
        assert spoken is not None
        plan.say(spoken).wait(rng.uniform(0.2, 0.9))
    hz = float(rng.choice(_BEEPS_HZ))
    return plan.wait(rng.uniform(0.2, 1.0)).tone(
        hz, rng.uniform(240, 1000), is_beep=True
    )


def _machine_without_beep(rng: Generator, voices: Voices) -> _Plan | None:
    greeting = _pick(rng, voices.saying(MACHINES))
    if greeting is None:
        return None
    return _Plan("machine", rng.uniform(0.1, 1.5)).say(greeting)


def _menu(rng: Generator, voices: Voices) -> _Plan | None:
    menu = _pick(rng, voices.saying(MENUS))
    if menu is None:
        return None
    plan = _Plan("menu", rng.uniform(0.1, 1.5)).say(menu)
    return plan.wait(rng.uniform(2, 4)).say(menu)


def _fax(rng: Generator, _voices: Voices) -> _Plan:
    return _Plan("fax", rng.uniform(0.2, 2.0)).tone(2100, rng.uniform(2600, 3900))


def _calling_fax(rng: Generator, _voices: Voices) -> _Plan:
    plan = _Plan("fax", rng.uniform(0.2, 2.0))
    for _ in range(6):
        plan.tone(1100 + rng.uniform(-30, 30), 500).wait(3.0)
    return plan


def _no_service(rng: Generator, voices: Voices) -> _Plan:
    plan = _Plan("no_service", rng.uniform(0.1, 1.0))
    for hz, ms in ((985.2, 380), (1370.6, 276), (1776.7, 380)):
        plan.tone(hz, ms)
    spoken = _pick(rng, voices.saying(MENUS))
    return plan.wait(0.3).say(spoken) if spoken is not None else plan


def _nobody(rng: Generator, _voices: Voices) -> _Plan:
    return _Plan("unsure", 0.0)


_KINDS: Final = {
    "short answer": _short,
    "short answer, human voice": _short_human,
    "long answer": _long,
    "long answer, human voice": _long_human,
    "hello, hello, hello": _hellos,
    "person, something beeps": _person_and_beep,
    "person, recorded line": _recorded_line,
    "greeting and beep": _machine,
    "greeting and beep, human voice": _machine_human,
    "greeting without a beep": _machine_without_beep,
    "menu": _menu,
    "answering fax": _fax,
    "calling fax": _calling_fax,
    "network tones": _no_service,
    "nobody speaks": _nobody,
}


def _espeak(texts: Sequence[str], num_voices: int) -> Iterator[Spoken]:
    # One global state: in this process nothing else may use the library.
    from model.tts.espeak_library import EspeakLibrary
    from model.tts.voice import Voice

    library = EspeakLibrary()
    names = ("en-us", "en-us+f3", "en-gb+m3", "en-us+f5", "en-us+m7", "en-gb+f2")
    for name in names[:num_voices]:
        voice = Voice(language=name.partition("+")[0], name=name)
        for text in texts:
            chunks: list[tuple[Wave, int]] = []
            library.speak(
                text,
                voice,
                lambda wave, rate_hz, kept=chunks: (  # type: ignore[misc]
                    kept.append((wave.copy(), rate_hz)) or True
                ),
            )
            wave = np.concatenate([wave for wave, _ in chunks])
            spoken = resample(wave, chunks[0][1], RATE_HZ)
            yield from _usable(f"espeak {name}", text, spoken)


def _flite(texts: Sequence[str]) -> Iterator[Spoken]:
    if shutil.which("flite") is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        for name in _FLITE_VOICES:
            for text in texts:
                subprocess.run(
                    ["flite", "-voice", name, "-t", text, "-o", str(path)],
                    check=True,
                    capture_output=True,
                )
                spoken = read_audio(path, rate_hz=RATE_HZ)
                yield from _usable(f"flite {name}", text, spoken)


def _festival(texts: Sequence[str]) -> Iterator[Spoken]:
    if shutil.which("text2wave") is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        for text in texts:
            subprocess.run(
                ["text2wave", "-o", str(path)],
                input=text,
                text=True,
                check=True,
                capture_output=True,
            )
            yield from _usable("festival", text, read_audio(path, rate_hz=RATE_HZ))


def _human(folder: Path) -> Iterator[Spoken]:
    for path in sorted(folder.rglob("*.wav")):
        if any(word in path.name for word in ("beep", "tone", "silence", "monkey")):
            continue
        yield from _usable("human", "", read_audio(path, rate_hz=RATE_HZ))


def _usable(voice: str, text: str, wave: Wave) -> Iterator[Spoken]:
    """Trimmed, at one level; what is no speech is left out."""
    wave = wave - wave.mean()
    runs = find_runs(wave)
    if not runs:
        return
    start, end = runs[0][0], runs[-1][1]
    speech = np.concatenate([wave[s:e] for s, e in runs])
    level = float(np.sqrt(np.mean(speech**2))) + 1e-9
    yield Spoken(voice, text, (wave[start:end] * (0.1 / level)).astype(np.float32))
