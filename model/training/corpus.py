"""Synthetic calls on disk: dialogues with log-mels, phonemes and word times.

A shard is three files: ``N.json`` (the dialogues), ``N.mel.npy`` (all clips end to
end, float16) and ``N.phones.npy`` (a phoneme class for each 20 ms, uint8). Shards
appear whole (written aside, then renamed), so training may start on the first ones.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from model.training import phones, telephone
from model.training.aligned import AlignedSpeech, Span
from model.training.dialogue import Dialogue, Turn, draw_dialogue, words_only
from model.training.espeak import ACCENTS, Espeak, EspeakVoice, variants
from model.training.flite import HELD_OUT_VOICES, TRAINING_VOICES, Flite
from model.training.logmel import log_mel

if TYPE_CHECKING:
    import numpy.typing as npt

    from model.training.aligned import Wave
    from model.training.grammar import Split

Voices = Literal["train", "held_out_espeak", "held_out_flite"]
FRAMES_PER_S = 100
_BABBLE_VOICES = 40
NOISE_KINDS = ("quiet", "burst", "steady", "keys", "babble", "babble", "music", "music")


@dataclass(frozen=True, slots=True)
class CorpusOptions:
    """What to make. Shares were chosen by cost: flite's good voices are slow."""

    split: Split = "train"
    voices: Voices = "train"
    flite_share: float = 0.12
    is_clean: bool = False
    snr_db: float | None = None
    words_only: bool = False
    dialogues_a_shard: int = 500


@dataclass(frozen=True, slots=True)
class Clip:
    """One turn's audio: log-mel (F, 80), phoneme classes (F/2,), word spans."""

    mel: npt.NDArray[np.float32]
    phone_classes: npt.NDArray[np.uint8]
    words: tuple[Span, ...]
    wave: Wave


class Studio:
    """Speaks and sends over the line; one a process."""

    def __init__(self, seed: int, options: CorpusOptions) -> None:
        self.options = options
        self.rng = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self._espeak = Espeak()
        self._flite: Flite | None = None
        self._babble: list[Wave] = []
        self._variants = variants(held_out=options.voices == "held_out_espeak")

    def draw_voice(self) -> EspeakVoice | str:
        """A caller: an espeak voice, or the name of one of flite's."""
        rng = self.rng
        voices = self.options.voices
        if voices == "held_out_flite":
            return HELD_OUT_VOICES[0]
        if voices == "train" and rng.random() < self.options.flite_share:
            return rng.choice(TRAINING_VOICES + TRAINING_VOICES[2:])
        return EspeakVoice(
            rng.choice(ACCENTS),
            rng.choice(self._variants),
            rng.randint(120, 205),
            rng.randint(20, 80),
            rng.randint(25, 75),
        )

    def _foreign_voice(self, language: str) -> EspeakVoice:
        rng = self.rng
        variant = rng.choice(self._variants)
        return EspeakVoice(language, variant, rng.randint(130, 200))

    def draw_line(self) -> telephone.Line:
        """A line for a call."""
        if self.options.is_clean:
            return telephone.clean_line(self.options.snr_db)
        return telephone.draw_line(self.numbers)

    def speak(self, text: str, voice: EspeakVoice | str) -> AlignedSpeech:
        """Say it."""
        if isinstance(voice, str):
            if self._flite is None:
                self._flite = Flite()
            return self._flite.speak(text, voice)
        return self._espeak.speak(text, voice)

    def record(
        self, turn: Turn, voice: EspeakVoice | str, line: telephone.Line
    ) -> Clip:
        """One turn as it arrives."""
        if turn.kind == "noise" or turn.spoken is None:
            return self._noise(line)
        if turn.spoken.language != "en":
            voice = self._foreign_voice(turn.spoken.language)
        said = self.speak(turn.spoken.text, voice)
        return self.send(said, turn, line, is_flite=isinstance(voice, str))

    def send(
        self, said: AlignedSpeech, turn: Turn, line: telephone.Line, *, is_flite: bool
    ) -> Clip:
        """Speech over the line, cut short if the turn is."""
        rng = self.rng
        words = said.words
        wave = said.wave
        begin_s = max(words[0].start_s - 0.05, 0.0) if words else 0.0
        end_s = len(wave) / said.rate_hz
        if turn.kind == "cut" and words:
            count = len(turn.transcript.split())
            # A little into the next word or before its start: callers stop anywhere.
            end_s = words[count - 1].end_s + rng.uniform(-0.02, 0.02)
            words = words[:count]
        elif words:
            end_s = min(words[-1].end_s + 0.08, end_s)
        wave = wave[int(begin_s * said.rate_hz) : int(end_s * said.rate_hz)].copy()
        fade = min(int(0.012 * said.rate_hz), len(wave))
        wave[len(wave) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
        spread = 0.13 if is_flite else 0.08
        speed = 1.0 if self.options.is_clean else rng.uniform(1 - spread, 1 + spread)
        speech = telephone.to_line_rate(wave, said.rate_hz, line, speed)

        def on_line(spans: tuple[Span, ...], offset_s: float) -> list[Span]:
            out = []
            for s in spans:
                start = (s.start_s - begin_s) / speed
                stop = (min(s.end_s, end_s) - begin_s) / speed
                if stop > start:
                    out.append(Span(s.label, start + offset_s, stop + offset_s))
            return out

        phones_at, words_at = on_line(said.phones, 0.0), on_line(words, 0.0)
        if len(words_at) > 2 and rng.random() < 0.12:
            speech, words_at, phones_at = self._pause(speech, words_at, phones_at)
        lead_s, trail_s = rng.uniform(0.04, 0.5), rng.uniform(0.06, 0.6)
        if rng.random() < 0.04:  # the detector opened late
            lost = int(rng.uniform(0.0, 0.06) * telephone.LINE_HZ)
            speech = speech[lost:]
            lead_s = lost / telephone.LINE_HZ
            lead_s = 0.0 if lost else lead_s
            shift = -lost / telephone.LINE_HZ
        else:
            shift = lead_s
        if len(self._babble) < _BABBLE_VOICES:
            self._babble.append(speech)
        elif rng.random() < 0.05:
            self._babble[rng.randrange(_BABBLE_VOICES)] = speech
        wave16 = telephone.over_the_line(
            self.numbers,
            speech,
            line,
            lead_s=lead_s,
            trail_s=trail_s,
            babble=self._babble,
        )
        moved = [Span(s.label, s.start_s + shift, s.end_s + shift) for s in words_at]
        labels = [Span(s.label, s.start_s + shift, s.end_s + shift) for s in phones_at]
        return _clip(wave16, tuple(moved), labels, is_flite=is_flite)

    def _pause(
        self, speech: Wave, words: list[Span], labels: list[Span]
    ) -> tuple[Wave, list[Span], list[Span]]:
        """A hesitation between two words, so that a pause alone is no end."""
        at_s = words[self.rng.randrange(1, len(words))].start_s
        long_s = self.rng.uniform(0.15, 0.7)
        cut = int(at_s * telephone.LINE_HZ)
        gap = np.zeros(int(long_s * telephone.LINE_HZ), np.float32)

        def later(spans: list[Span]) -> list[Span]:
            return [
                Span(s.label, s.start_s + long_s, s.end_s + long_s)
                if s.start_s >= at_s - 0.005
                else Span(s.label, s.start_s, min(s.end_s, at_s))
                for s in spans
            ]

        joined = np.concatenate([speech[:cut], gap, speech[cut:]])
        return joined, later(words), later(labels)

    def _noise(self, line: telephone.Line) -> Clip:
        rng = self.rng
        kind = rng.choice(NOISE_KINDS)
        longest_s = 10.0 if kind in {"babble", "music"} and rng.random() < 0.2 else 2.4
        return self.noise(kind, rng.uniform(0.4, longest_s), is_alaw=line.is_alaw)

    def noise(self, kind: str, seconds: float, *, is_alaw: bool = False) -> Clip:
        """Something that opened the detector and is no speech, of `NOISE_KINDS`."""
        rng, numbers = self.rng, self.numbers
        count = int(seconds * telephone.LINE_HZ)
        wave = numbers.normal(0, 10 ** rng.uniform(-3.5, -2), count).astype(np.float32)
        t = np.arange(count, dtype=np.float32) / telephone.LINE_HZ
        if kind == "burst":
            for _ in range(rng.randint(1, 4)):
                at = rng.uniform(0, float(t[-1]))
                shape = np.exp(-np.abs(t - at) / rng.uniform(0.004, 0.12))
                loud = 10 ** rng.uniform(-1.5, -0.3)
                noise = telephone.make_noise(numbers, "pink", count)
                wave += (noise * shape * loud).astype(np.float32)
        elif kind == "steady":
            noise_kind = rng.choice(("white", "pink", "hum"))
            noise = telephone.make_noise(numbers, noise_kind, count)
            wave += noise * 10 ** rng.uniform(-2, -0.7)
        elif kind == "keys":
            tone = np.sin(6.2832 * rng.choice((697, 770, 852, 941)) * t)
            tone = tone + np.sin(6.2832 * rng.choice((1209, 1336, 1477)) * t)
            on = (t > 0.1) & (t < 0.1 + rng.uniform(0.08, 0.5))
            wave += (tone * on * 0.2).astype(np.float32)
        elif kind == "babble":
            noise = telephone.make_noise(numbers, "babble", count, self._babble)
            wave += noise * 10 ** rng.uniform(-2.5, -0.8)
        elif kind == "music":
            tune = telephone.make_music(numbers, count)
            wave += tune * 10 ** rng.uniform(-2, -0.6)
        wave = telephone.through_codec(wave, is_alaw=is_alaw)
        return _clip(telephone.to_model_rate(wave), (), [], is_flite=False)


def _clip(
    wave: Wave, words: tuple[Span, ...], labels: list[Span], *, is_flite: bool
) -> Clip:
    mel = log_mel(wave)
    classes = np.full(-(-len(mel) // 2), phones.SILENCE, np.uint8)
    for span in labels:
        first = round(span.start_s * FRAMES_PER_S / 2)
        last = round(span.end_s * FRAMES_PER_S / 2)
        index = phones.phone_class(span.label, is_flite=is_flite)
        classes[max(first, 0) : max(last, 0)] = index
    return Clip(mel, classes, words, wave)


def record_dialogue(studio: Studio) -> tuple[Dialogue, list[Clip]]:
    """One conversation and its clips: one caller, one line."""
    if studio.options.words_only:
        dialogue = words_only(studio.rng)
    else:
        dialogue = draw_dialogue(studio.rng, studio.options.split)
    voice, line = studio.draw_voice(), studio.draw_line()
    return dialogue, [studio.record(t, voice, line) for t in dialogue.turns]


def write_shard(folder: Path, index: int, seed: int, options: CorpusOptions) -> None:
    """Make one shard."""
    studio = Studio(seed, options)
    dialogues: list[dict[str, Any]] = []
    mels: list[npt.NDArray[np.float16]] = []
    labels: list[npt.NDArray[np.uint8]] = []
    for _ in range(options.dialogues_a_shard):
        dialogue, clips = record_dialogue(studio)
        entry: dict[str, Any] = {"opening": dialogue.opening, "turns": []}
        for turn, clip in zip(dialogue.turns, clips, strict=True):
            fields = asdict(turn)
            fields.pop("spoken")
            fields["num_frames"] = len(clip.mel)
            fields["words"] = [
                (w.label, round(w.start_s, 3), round(w.end_s, 3)) for w in clip.words
            ]
            entry["turns"].append(fields)
            mels.append(clip.mel.astype(np.float16))
            labels.append(clip.phone_classes)
        dialogues.append(entry)
    aside = folder / f".{index:05d}"
    np.save(f"{aside}.mel.npy", np.concatenate(mels))
    np.save(f"{aside}.phones.npy", np.concatenate(labels))
    Path(f"{aside}.json").write_text(json.dumps(dialogues))
    for suffix in (".mel.npy", ".phones.npy", ".json"):
        Path(f"{aside}{suffix}").rename(folder / f"{index:05d}{suffix}")


def _work(job: tuple[Path, int, int, CorpusOptions]) -> int:
    folder, index, seed, options = job
    write_shard(folder, index, seed, options)
    return index


_FIRST_WORD_SHARD = 90_000  # so that more of either can be added later


def make_corpus(
    out: Path,
    *,
    shards: int = 100,
    word_shards: int = 50,
    workers: int = 2,
    seed: int = 7,
    stop_after_s: float = math.inf,
    dialogues_a_shard: int = 500,
) -> bool:
    """Make the shards that are not there yet; says whether all are there now.

    Every shard comes from the seed and its number: more workers or a second call give
    the same words. Stops between two shards when the time is over.
    """
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    sentences = CorpusOptions(dialogues_a_shard=dialogues_a_shard)
    words = replace(sentences, words_only=True)
    numbers = [(i, sentences) for i in range(shards)]
    # Evenly between the others: training may begin on the first ones.
    every = max(shards // max(word_shards, 1), 1)
    for i in range(word_shards):
        numbers.insert(i * (every + 1) + 1, (_FIRST_WORD_SHARD + i, words))
    jobs = [
        (out, i, seed * 100_003 + i, o)
        for i, o in numbers
        if not (out / f"{i:05d}.json").exists()
    ]
    done = 0
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for start in range(0, len(jobs), 4 * workers):
            if time.monotonic() - began > stop_after_s:
                break
            for index in pool.imap_unordered(_work, jobs[start : start + 4 * workers]):
                done += 1
                left = len(jobs) - done
                print(json.dumps({"shard": index, "left": left}), flush=True)
    return done == len(jobs)


def main() -> None:
    """Make shards until there are enough; those already there are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--word-shards", type=int, default=50, help="no sentences")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    make_corpus(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
