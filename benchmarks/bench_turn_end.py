"""What the model's own judgement of the words is worth to endpointing.

    python -m benchmarks.bench_turn_end [--callers 60] [--snr-db 20] [--hint-ms 100]

Callers of the demo model's world, in voices and phrasings it was never trained on, say
six turns each. In half of the turns that have such a place they hesitate where the
words are not yet a whole turn, for 200 ms and a while more (exponential, mean 250 ms,
at most 1.5 s): people think with their mouth shut. The line is heard in 20 ms frames by
the live ear. At each suspected end the model is given what was said so far, as a call
does, and its end-of-turn probability, taken by the checkpoint's own bounds, is told to
the ear `--hint-ms` later.

Side by side on the same lines: one wait of 600 ms for all, our waits without the model,
and with it. The model must be calibrated (`model.training.calibrate`).

Prints a table and, as the last line, JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from benchmarks.provenance import provenance
from benchmarks.segment import segments_of
from benchmarks.turn_score import Turn, TurnScore
from model.audio.frames import FRAME_BYTES, FRAME_MS, RATE_HZ, samples_from_ms
from model.audio.pcm import Wave, pcm16_from_wave, wave_from_pcm16
from model.audio.resample import resample
from model.errors import ModelLoadError
from model.training import greedy, telephone
from model.training.corpus import CorpusOptions, Studio
from model.training.grammar import INTENTS, Spoken, cut_points, draw
from model.training.prompts import DEMO_INSTRUCTIONS
from model.ultravox.checkpoint import Checkpoint, LoadOptions, load_checkpoint
from model.ultravox.clip import AudioClip
from model.ultravox.inputs import Dialogue
from model.ultravox.lengths import RATE_HZ as MODEL_RATE_HZ
from model.vad.detector import SpeechDetector, load_detector
from model.vad.events import SpeechEvent, SpeechSuspectedEnd
from model.vad.listener import CallerEar
from model.vad.options import EndpointingOptions

_DEMO: Final = Path(__file__).parent.parent / "model" / "checkpoints" / "demo"
_TURNS_A_CALLER: Final = 6
_HESITATES: Final = 0.5
_SHORTEST_PAUSE_S: Final = 0.2
_MEAN_BEYOND_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 1.5
_TODAY: Final = date(2026, 1, 5)

# What was said so far (8 kHz) -> 1.0 it is over, 0.0 more will come, None no idea.
Judge: TypeAlias = Callable[[bytes], float | None]


@dataclass(frozen=True, slots=True)
class Call:
    """What one caller says (8 kHz), his true turns in seconds, and his pauses."""

    pcm16: bytes
    turns: tuple[Turn, ...]
    pauses_ms: tuple[float, ...]


def record_call(studio: Studio, snr_db: float | None) -> Call:
    """One caller's turns, one after the other."""
    rng = studio.rng
    voice, line = studio.draw_voice(), telephone.clean_line(snr_db)
    parts: list[Wave] = [_silence(rng.uniform(0.8, 1.6))]
    bounds: list[tuple[int, int]] = []
    pauses_ms: list[float] = []
    at = parts[0].size
    for _ in range(_TURNS_A_CALLER):
        spoken = draw(rng, rng.choice(INTENTS), studio.options.split)
        said = studio.speak(spoken.text, voice)
        first_s, last_s = said.words[0].start_s, said.words[-1].end_s
        cuts_s = _hesitations(studio, spoken)
        edges_s = [first_s, *(said.words[n].start_s for n in cuts_s), last_s]
        begun = at
        speech = telephone.to_line_rate(said.wave, said.rate_hz, line)
        for number, (start_s, end_s) in enumerate(pairwise(edges_s)):
            if number:
                beyond_s = rng.expovariate(1 / _MEAN_BEYOND_S)
                pause_s = min(_SHORTEST_PAUSE_S + beyond_s, _LONGEST_PAUSE_S)
                pauses_ms.append(1000 * pause_s)
                parts.append(_silence(pause_s))
                at += parts[-1].size
            first, last = int(start_s * RATE_HZ), int(end_s * RATE_HZ)
            parts.append(_faded(speech[first:last]))
            at += parts[-1].size
        bounds.append((begun, at))
        parts.append(_silence(rng.uniform(2.0, 3.0)))
        at += parts[-1].size
    heard = telephone.over_the_line(
        studio.numbers, np.concatenate(parts), line, lead_s=0.0, trail_s=0.0
    )
    pcm16 = pcm16_from_wave(resample(heard, MODEL_RATE_HZ, RATE_HZ))
    turns = tuple((a / RATE_HZ, b / RATE_HZ) for a, b in bounds)
    return Call(pcm16, turns, tuple(pauses_ms))


def _hesitations(studio: Studio, spoken: Spoken) -> list[int]:
    """Before which word the caller stops to think, if he does."""
    places = cut_points(spoken)
    if not places or studio.rng.random() >= _HESITATES:
        return []
    return [studio.rng.choice(places)]


def _silence(seconds: float) -> Wave:
    return np.zeros(int(seconds * RATE_HZ), dtype=np.float32)


def _faded(wave: Wave) -> Wave:
    """Cut in the middle of a sound it would click."""
    fade = np.linspace(0.0, 1.0, min(samples_from_ms(8), wave.size // 2))
    wave = wave.copy()
    wave[: fade.size] *= fade.astype(np.float32)
    wave[wave.size - fade.size :] *= fade[::-1].astype(np.float32)
    return wave


class Model:
    """The checkpoint's judgement of what was said so far."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Raises ModelLoadError where it has no bounds."""
        bounds = checkpoint.config.turn_end
        if bounds is None:
            raise ModelLoadError(
                "its end of turn is not calibrated", subject="turn_end"
            )
        self._checkpoint, self._bounds = checkpoint, bounds
        self.took_ms: list[float] = []

    def judge(self, pcm16: bytes) -> float | None:
        """As a call takes it."""
        wave = resample(wave_from_pcm16(pcm16), RATE_HZ, MODEL_RATE_HZ)
        dialogue = Dialogue(self._checkpoint.chat, DEMO_INSTRUCTIONS, today=_TODAY)
        dialogue.append_user_clip(AudioClip(wave))
        begun_s = time.perf_counter()
        [found] = greedy.turn_end_probabilities(self._checkpoint, [dialogue.prompt()])
        self.took_ms.append(1000 * (time.perf_counter() - begun_s))
        if found >= self._bounds.over_from:
            return 1.0
        if self._bounds.more_below is not None and found <= self._bounds.more_below:
            return 0.0
        return None


def hear(
    call: Call,
    detector: SpeechDetector,
    options: EndpointingOptions,
    judge: Judge | None,
    hint_ms: int,
) -> list[SpeechEvent]:
    """The live ear on one call; a judgement arrives so much after it was asked for.

    One that comes when the caller has gone on is dropped, as in a call.
    """
    ear = CallerEar(detector, options)
    events: list[SpeechEvent] = []
    due: tuple[int, float] | None = None
    for number, start in enumerate(range(0, len(call.pcm16), FRAME_BYTES)):
        if due is not None and number >= due[0]:
            ear.hint_turn_over(due[1])
            due = None
        found = ear.feed(call.pcm16[start : start + FRAME_BYTES])
        events += found
        for event in found:
            due = None
            if judge is not None and isinstance(event, SpeechSuspectedEnd):
                hint = judge(event.pcm16)
                if hint is not None:
                    due = number + 1 + hint_ms // FRAME_MS, hint
    return events + ear.force_end()


def measure(
    calls: Sequence[Call],
    detector: SpeechDetector,
    options: EndpointingOptions,
    judge: Judge | None,
    hint_ms: int,
) -> dict[str, float]:
    """Score one way of waiting over all calls."""
    score = TurnScore()
    for call in calls:
        events = hear(call, detector, options, judge, hint_ms)
        score.add(call.turns, segments_of(events), len(call.pcm16) / 2 / RATE_HZ)
    mean_ms = float(np.mean(score.end_known_ms or [float("nan")]))
    return {**score.summary(), "end_known_mean_ms": round(mean_ms)}


def table(results: dict[str, dict[str, float]]) -> str:
    """For people."""
    lines = [f"{'':<24}{'missed':>8}{'cut':>8}{'end known p50 / mean / p95':>30}"]
    for name, found in results.items():
        delays = " / ".join(
            f"{found[f'end_known_{kind}_ms']:.0f}" for kind in ("p50", "mean", "p95")
        )
        lines.append(
            f"{name:<24}{found['missed_pct']:>7.1f}%{found['cut_pct']:>7.1f}%"
            f"{delays + ' ms':>30}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0, or 2 when the checkpoint can't be used."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_turn_end",
        description="Endpointing with and without the model's end of turn.",
    )
    parser.add_argument("--checkpoint", type=Path, default=_DEMO, help="%(default)s")
    parser.add_argument("--callers", type=int, default=60, help="%(default)s")
    parser.add_argument("--snr-db", type=float, help="white noise on the line")
    parser.add_argument(
        "--hint-ms",
        type=int,
        default=100,
        help="from the suspected end to the model's judgement; %(default)s",
    )
    parser.add_argument("--seed", type=int, default=21, help="%(default)s")
    given = parser.parse_args(arguments)
    try:
        model = Model(load_checkpoint(str(given.checkpoint), LoadOptions(device="cpu")))
    except ModelLoadError as exc:
        print(f"bench_turn_end: {exc}", file=sys.stderr)
        return 2
    options = CorpusOptions(voices="held_out_espeak", split="held_out", is_clean=True)
    studio = Studio(given.seed, options)
    calls = [record_call(studio, given.snr_db) for _ in range(given.callers)]
    detector = load_detector("silero")
    ours = EndpointingOptions()
    results = {
        name: measure(calls, detector, waits, judge, given.hint_ms)
        for name, waits, judge in (
            ("600 ms", EndpointingOptions.fixed(600), None),
            ("ours, without the model", ours, None),
            ("ours, with the model", ours, model.judge),
        )
    }
    print(table(results))
    pauses_ms = [pause for call in calls for pause in call.pauses_ms]
    report = {
        "results": results,
        "num_turns": sum(len(call.turns) for call in calls),
        "num_pauses": len(pauses_ms),
        "pause_p50_ms": round(float(np.median(pauses_ms))) if pauses_ms else None,
        "pauses_beyond_600_ms": sum(pause > 600 for pause in pauses_ms),
        "judged": len(model.took_ms),
        "judged_in_p50_ms": round(float(np.median(model.took_ms))),
        "judged_in_p95_ms": round(float(np.percentile(model.took_ms, 95))),
        "hint_ms": given.hint_ms,
        "snr_db": given.snr_db,
        "callers": given.callers,
        "seed": given.seed,
        **provenance("numpy", "torch", "silero-vad"),
    }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
