"""Turn detection on telephone lines: what is missed, cut, merged, and how late.

    python -m benchmarks.bench_vad [--speech DIR] [--natural] [--lines 34]

The lines are made from clean recordings (`telephone_line`): any folder of audio files,
each one turn, the folder next above a file taken for its speaker; or, without one, from
sentences by espeak. Every configuration hears the same lines, in 20 ms frames, through
the live path.

What bounds it. A pause within a turn that is longer than the wait cuts it, so the share
of cut turns falls only as the delay grows; nothing in the sound of these recordings
tells a pause from an end. The delay is the wait plus 30 to 40 ms: the detector's lag
and half a frame. Espeak pauses like a machine: its lines rank detectors, not waits.

Prints a table and, as the last line, JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.provenance import provenance
from benchmarks.segment import segment
from benchmarks.telephone_line import (
    BACKGROUNDS,
    GOOD_LINES,
    Line,
    Recording,
    find_runs,
    make_line,
)
from benchmarks.turn_score import TurnScore
from model.audio.frames import RATE_HZ
from model.audio.pcm import Wave
from model.audio.resample import resample
from model.audio.wav import read_audio
from model.errors import InvalidAudio, SpeechError
from model.vad.detector import DetectorName, SpeechDetector, load_detector
from model.vad.options import EndpointingOptions

_AUDIO_FILES: Final = {".wav", ".flac", ".ogg", ".mp3"}
# Prompt collections hold signals and silence too.
_NOT_SPEECH: Final = r"beep|tone|silence|monkey|ring|busy|music"
_MIN_TURN_SAMPLES: Final = RATE_HZ * 3 // 20
_MAX_TURN_SAMPLES: Final = RATE_HZ * 12

_VOICES: Final = ("en-us", "en-us+f3", "en-gb+m3", "es", "fr+f2", "de")
_SENTENCES: Final = {
    "en": (
        "Yes.",
        "No, thank you.",
        "Hello?",
        "Speaking.",
        "I would like to change my delivery address, please.",
        "My number is five five five, oh one nine nine.",
        "Who is calling? What is this about?",
        "Well, let me think. Next Tuesday would suit me, or perhaps Friday.",
        "I already told your colleague that I am not interested.",
        "Can you call me back tomorrow afternoon, after three?",
    ),
    "es": (
        "Sí.",
        "No, gracias.",
        "¿Quién habla?",
        "Quisiera cambiar la dirección de entrega, por favor.",
        "Llámeme mañana por la tarde, después de las tres.",
    ),
    "fr": (
        "Oui.",
        "Non merci.",
        "Qui est à l'appareil ?",
        "Je voudrais changer mon adresse de livraison, s'il vous plaît.",
        "Rappelez-moi demain après-midi, après trois heures.",
    ),
    "de": (
        "Ja.",
        "Nein danke.",
        "Wer spricht da?",
        "Ich möchte bitte meine Lieferadresse ändern.",
        "Rufen Sie mich morgen Nachmittag an, nach drei Uhr.",
    ),
}


@dataclass(frozen=True, slots=True)
class Configuration:
    """A detector with its endpointing."""

    name: str
    detector: DetectorName
    options: EndpointingOptions


def plain(hangover_ms: int) -> EndpointingOptions:
    """Endpointing as it is usually done: one wait, no regard to whose voice it is."""
    return replace(
        EndpointingOptions.fixed(hangover_ms),
        speech_probability=0.4,
        silence_probability=0.25,
        open_speech_ms=96,
        open_within_ms=160,
        detector_lag_ms=0,
        loud_drop_db=200.0,
        above_floor_db=-200.0,
        open_drop_db=200.0,
    )


CONFIGURATIONS: Final = (
    Configuration("webrtc, 600 ms", "webrtc", plain(600)),
    Configuration("silero, 600 ms", "silero", plain(600)),
    Configuration("silero, 200 ms", "silero", plain(200)),
    Configuration("ours, 600 ms", "silero", EndpointingOptions.fixed(600)),
    Configuration("ours", "silero", EndpointingOptions()),
)


def read_recordings(folder: Path, not_speech: str) -> list[Recording]:
    """Every usable turn in a folder; a speaker is a folder just below it."""
    recordings = []
    for path in sorted(folder.rglob("*")):
        unwanted = re.search(not_speech, path.name, re.IGNORECASE)
        if path.suffix.lower() not in _AUDIO_FILES or unwanted:
            continue
        try:
            wave = read_audio(path, rate_hz=RATE_HZ)
        except InvalidAudio as exc:
            print(f"left out {path}: {exc}", file=sys.stderr)
            continue
        speaker = path.relative_to(folder).parts[0]
        recordings += _usable(speaker if speaker != path.name else "", wave)
    return recordings


def speak_sentences() -> list[Recording]:
    """Sentences by espeak, in several voices and languages."""
    # One global state: in this process nothing else may use the library.
    from model.tts.espeak_library import EspeakLibrary
    from model.tts.voice import Voice

    library = EspeakLibrary()
    recordings = []
    for name in _VOICES:
        language = name.partition("+")[0]
        for sentence in _SENTENCES[language[:2]]:
            chunks: list[tuple[Wave, int]] = []
            library.speak(
                sentence,
                Voice(language=language, name=name),
                lambda wave, rate_hz, kept=chunks: (  # type: ignore[misc]
                    kept.append((wave.copy(), rate_hz)) or True
                ),
            )
            wave = np.concatenate([wave for wave, _ in chunks])
            recordings += _usable(name, resample(wave, chunks[0][1], RATE_HZ))
    return recordings


def _usable(speaker: str, wave: Wave) -> list[Recording]:
    recording = Recording(speaker, wave - wave.mean(), find_runs(wave))
    if not recording.runs:
        return []
    start, end = recording.bounds
    return [recording] if _MIN_TURN_SAMPLES <= end - start <= _MAX_TURN_SAMPLES else []


def make_lines(
    recordings: Sequence[Recording],
    num_lines: int,
    length_s: float,
    seed: int,
    *,
    natural: bool = False,
) -> list[Line]:
    """Lines of all speakers in turn, over backgrounds drawn for each.

    The `natural` ones have the recordings' own pauses, and are good lines.
    """
    rng = np.random.default_rng(seed)
    by_speaker: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        by_speaker[recording.speaker].append(recording)
    speakers = sorted(by_speaker)
    backgrounds = GOOD_LINES if natural else BACKGROUNDS
    lines = []
    for index in range(num_lines):
        caller = speakers[index % len(speakers)]
        others = [r for r in recordings if r.speaker != caller] or list(recordings)
        background = backgrounds[int(rng.integers(len(backgrounds)))]
        line = make_line(
            *(rng, by_speaker[caller], others, background, length_s),
            hesitates=not natural,
        )
        lines.append(line)
    return lines


def measure(
    configuration: Configuration, detector: SpeechDetector, lines: Sequence[Line]
) -> dict[str, float]:
    """Score one configuration over all lines; CPU is the process's own time."""
    score = TurnScore()
    cpu_s = 0.0
    for line in lines:
        heard_s = len(line.pcm16) / 2 / RATE_HZ
        begun_s = time.process_time()
        segments = segment(line.pcm16, detector, configuration.options)
        cpu_s += time.process_time() - begun_s
        turns = [(start / RATE_HZ, end / RATE_HZ) for start, end in line.turns]
        score.add(turns, segments, heard_s)
    return {
        **score.summary(),
        "cpu_ms_per_s": round(1000 * cpu_s / max(score.heard_s, 1e-9), 2),
    }


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    """For people."""
    lines = [
        f"{'':<16}{'missed':>8}{'cut':>8}{'merged':>8}{'false/min':>11}"
        f"{'end known p50/p95':>20}{'CPU ms/s':>10}"
    ]
    for name, found in results.items():
        delays = f"{found['end_known_p50_ms']:.0f} / {found['end_known_p95_ms']:.0f} ms"
        lines.append(
            f"{name:<16}{found['missed_pct']:>7.1f}%{found['cut_pct']:>7.1f}%"
            f"{found['merged_pct']:>7.1f}%{found['false_starts_per_minute']:>11.2f}"
            f"{delays:>20}{found['cpu_ms_per_s']:>10.2f}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0, or 2 when there is nothing to hear or no detector."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_vad",
        description="Turn detection on simulated telephone lines.",
    )
    parser.add_argument("--speech", type=Path, help="a folder of clean recordings")
    parser.add_argument(
        "--exclude", default=_NOT_SPEECH, help="file names; %(default)s"
    )
    parser.add_argument("--lines", type=int, default=34, help="%(default)s")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="%(default)s a line"
    )
    parser.add_argument("--seed", type=int, default=1, help="%(default)s")
    parser.add_argument(
        "--natural", action="store_true", help="pauses as recorded, on good lines"
    )
    given = parser.parse_args(arguments)
    try:
        if given.speech is None:
            recordings = speak_sentences()
        else:
            recordings = read_recordings(given.speech, given.exclude)
        if not recordings:
            print(f"bench_vad: no usable speech in {given.speech}", file=sys.stderr)
            return 2
        lines = make_lines(
            *(recordings, given.lines, given.seconds, given.seed),
            natural=given.natural,
        )
        results = {
            one.name: measure(one, load_detector(one.detector), lines)
            for one in CONFIGURATIONS
        }
    except SpeechError as exc:
        print(f"bench_vad: {exc}", file=sys.stderr)
        return 2
    print(table(results))
    report = {
        "results": results,
        "num_turns": sum(len(line.turns) for line in lines),
        "num_recordings": len(recordings),
        "speech": "files" if given.speech else "espeak",
        "lines": given.lines,
        "seconds": given.seconds,
        "seed": given.seed,
        "natural": given.natural,
        **provenance("numpy", "onnxruntime", "silero-vad", "webrtcvad-wheels"),
    }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
