"""Who answered: verdicts against the truth, and how long they take.

    python -m benchmarks.bench_answer [--speech DIR] [--calls 40]

Made calls (`benchmarks.answers`): people, machines, menus, faxes, network tones and
nobody, on clean and noisy lines.  Every call goes through the live path: ear, tones,
rules.  Once a verdict says that nobody is a machine the bot greets, and the rules go on
watching, as in a call.  Two judges are compared on the same calls:

    none      cadence and tones alone
    written   the true words of each utterance, 600 ms later: a perfect transcript

Delay: of a person, from the end of his answer to the greeting; of a machine, from the
answer of the call.  What bounds it: the pause that ends an answer (0.45 s), and for a
machine without words its beep.  A person is never to be hung up on: `persons_lost_pct`.

Prints a table a judge and, as the last line, JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from agi_handlers.conversation.answer_listener import AnswerListener
from agi_handlers.conversation.answer_rules import MACHINES, Verdict
from benchmarks.answers import AnsweredCall, Voices, make_calls
from benchmarks.provenance import provenance
from model.audio.frames import FRAME_BYTES, SAMPLES_PER_MS
from model.speech import Answerer, Utterance
from model.vad.detector import SpeechDetector, load_detector
from model.vad.listener import CallerEar

Judge: TypeAlias = Callable[[AnsweredCall, Utterance], Answerer]
_JUDGE_MS: Final = 600


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call."""

    call: AnsweredCall
    first: Verdict | None
    last: Verdict | None
    cpu_s: float

    @property
    def answered_by(self) -> str:
        return self.last.answered_by if self.last is not None else "unsure"

    @property
    def is_person_lost(self) -> bool:
        return self.call.truth == "person" and self.answered_by in MACHINES

    @property
    def delay_ms(self) -> float:
        """Of the verdict that counts; people: from the end of their answer."""
        verdict = self.last if self.answered_by in MACHINES else self.first
        if verdict is None:
            return float("nan")
        if self.call.truth != "person":
            return float(verdict.at_ms)
        return verdict.at_ms - self.call.said[0].end / SAMPLES_PER_MS


def run_call(
    call: AnsweredCall, detector: SpeechDetector, judge: Judge | None
) -> Outcome:
    """One call through the live path, in frames of 20 ms."""
    listener = AnswerListener(CallerEar(detector))
    answers: list[tuple[int, Answerer]] = []
    first: Verdict | None = None
    cpu_s = 0.0
    for at in range(0, len(call.pcm16), FRAME_BYTES):
        if not listener.is_watching:
            break
        began = time.process_time()
        questions = listener.feed(call.pcm16[at : at + FRAME_BYTES])
        cpu_s += time.process_time() - began
        for question in questions:
            if judge is not None:
                answerer = judge(call, question.said)
                answers.append((listener.at_ms + _JUDGE_MS, answerer))
        while answers and answers[0][0] <= listener.at_ms:
            listener.on_judgement(answers.pop(0)[1])
        if listener.verdict is not None and first is None:
            first = listener.verdict
            if not first.is_machine:
                listener.on_bot_spoke()
    return Outcome(call, first, listener.verdict, cpu_s)


def written(call: AnsweredCall, said: Utterance) -> Answerer:
    """The true words that lie in the utterance."""
    words: list[str] = []
    for part in call.said:
        start_ms, end_ms = part.start / SAMPLES_PER_MS, part.end / SAMPLES_PER_MS
        of_part = part.text.split()
        for index, word in enumerate(of_part):
            at_ms = start_ms + (index + 0.9) / len(of_part) * (end_ms - start_ms)
            if said.started_ms - 100 <= at_ms <= said.ended_ms + 100:
                words.append(word)
    return Answerer("unsure", " ".join(words))


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The confusion table and the delays; what the last line holds."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    delays: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        table[outcome.call.kind][outcome.answered_by] += 1
        delays[outcome.call.kind].append(outcome.delay_ms)
    people = [o for o in outcomes if o.call.truth == "person"]
    machines = [o for o in outcomes if o.call.truth in MACHINES]
    lost = [o for o in people if o.is_person_lost]
    found = [o for o in machines if o.answered_by in MACHINES]
    print(f"{'':<32} {'n':>4}  delay ms p50/p95   verdicts")
    for kind, verdicts in table.items():
        p50, p95 = np.nanpercentile(delays[kind], [50, 95])
        shown = ", ".join(f"{name} {num}" for name, num in verdicts.most_common())
        num = sum(verdicts.values())
        print(f"{kind:<32} {num:>4}  {p50:>6.0f} / {p95:>6.0f}   {shown}")
    for outcome in lost:
        assert outcome.last is not None
        print(
            f"lost: {outcome.call.kind}, {outcome.call.voice}, "
            f"{outcome.call.background}: {outcome.last}"
        )
    audio_s = sum(len(o.call.pcm16) / 16_000 for o in outcomes)
    return {
        "num_people": len(people),
        "num_machines": len(machines),
        "persons_lost_pct": _pct(len(lost), len(people)),
        "machines_found_pct": _pct(len(found), len(machines)),
        "persons_greeted_ms": _percentiles([o.delay_ms for o in people]),
        "machines_known_ms": _percentiles([o.delay_ms for o in found]),
        "cpu_ms_per_audio_s": round(1000 * sum(o.cpu_s for o in outcomes) / audio_s, 2),
        "verdicts": {kind: dict(verdicts) for kind, verdicts in table.items()},
    }


def _pct(num: int, total: int) -> float:
    return round(100 * num / total, 2) if total else 0.0


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    found = np.nanpercentile(values, [50, 95])
    return {"p50": round(float(found[0])), "p95": round(float(found[1]))}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    voices = Voices(arguments.speech, num_voices=arguments.espeak_voices)
    calls = list(make_calls(voices, arguments.calls, arguments.seed))
    detector = load_detector(arguments.vad)
    judges: dict[str, Judge | None] = {"none": None, "written": written}
    results = {}
    for name, judge in judges.items():
        print(f"\njudge: {name}")
        outcomes = [run_call(call, detector, judge) for call in calls]
        results[name] = summary(outcomes)
    return {
        "benchmark": "answer",
        **provenance("numpy", "onnxruntime"),
        "vad": arguments.vad,
        "seed": arguments.seed,
        "human_recordings": len(voices.human),
        "results": results,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--speech", type=Path, help="folder of human recordings")
    parser.add_argument("--calls", type=int, default=40, help="of each kind")
    parser.add_argument("--espeak-voices", type=int, default=6, metavar="N")
    parser.add_argument("--vad", default="silero", choices=("silero", "webrtc"))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    if arguments.speech is not None and not arguments.speech.is_dir():
        print(f"bench_answer: no folder {arguments.speech}", file=sys.stderr)
        return 1
    print(json.dumps(measure(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
