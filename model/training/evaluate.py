"""Measure a checkpoint: python -m model.training.evaluate CHECKPOINT_DIR.

Everything is heard through one telephone line (G.711 mu-law, band-limited) and goes
through the served path, decoded greedily. Sets A to F differ in who speaks and which
phrasings; the noisy ones repeat set C. The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from model.training import festival, grammar, greedy, human_recordings, measures
from model.training.calibrate import Calibration, opening_turn, turn_end_scores
from model.training.corpus import CorpusOptions, Studio
from model.training.dialogue import (
    GREETING,
    NOT_HEARD,
    NOT_UNDERSTOOD,
    STILL_NOT_HEARD,
    STILL_NOT_UNDERSTOOD,
    Turn,
    draw_dialogue,
)
from model.training.dialogue import Dialogue as Script
from model.training.prompts import (
    DEMO_INSTRUCTIONS,
    TRANSCRIBE_PROMPTS,
    default_instructions,
)
from model.ultravox.checkpoint import Checkpoint, LoadOptions, load_checkpoint
from model.ultravox.clip import AudioClip
from model.ultravox.inputs import Dialogue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.training.aligned import AlignedSpeech

_TODAY = date(2026, 1, 5)
ASKS_AGAIN = frozenset({NOT_HEARD, NOT_UNDERSTOOD})
OFFERS_A_PERSON = frozenset({STILL_NOT_HEARD, STILL_NOT_UNDERSTOOD})


@dataclass(frozen=True, slots=True)
class Sample:
    """A turn that opens a call, and its audio."""

    turn: Turn
    clip: AudioClip


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """How much to measure: 300 a set tells 5 points apart at 80 %."""

    clips: int = 300
    dialogues: int = 80
    seed: int = 77
    sets: tuple[str, ...] = ()  # names; none given: all

    def wants(self, name: str) -> bool:
        """Whether this set is to be measured."""
        return not self.sets or name in self.sets


SETS: tuple[tuple[str, str, CorpusOptions], ...] = (
    ("A", "seen voices, seen phrasings", CorpusOptions(is_clean=True)),
    (
        "B",
        "seen voices, held-out phrasings",
        CorpusOptions(is_clean=True, split="held_out"),
    ),
    (
        "C",
        "held-out espeak voices, seen phrasings",
        CorpusOptions(is_clean=True, voices="held_out_espeak"),
    ),
    (
        "D",
        "held-out espeak voices, held-out phrasings",
        CorpusOptions(is_clean=True, voices="held_out_espeak", split="held_out"),
    ),
    (
        "E",
        "held-out flite voice rms, seen phrasings",
        CorpusOptions(is_clean=True, voices="held_out_flite"),
    ),
    *(
        (
            f"C{snr}",
            f"as C, white noise at {snr} dB",
            CorpusOptions(is_clean=True, voices="held_out_espeak", snr_db=float(snr)),
        )
        for snr in (20, 10, 5)
    ),
    (
        "L",
        "as C, random bad lines (noise 5-45 dB, babble, hum, clicks, loss)",
        CorpusOptions(voices="held_out_espeak"),
    ),
)


def draw_turns(rng: random.Random, count: int, split: grammar.Split) -> list[Turn]:
    """Opening turns with every intent equally often."""
    intents = grammar.INTENTS
    drawn = [grammar.draw(rng, intents[i % len(intents)], split) for i in range(count)]
    return [opening_turn(spoken) for spoken in drawn]


def record(studio: Studio, turns: Sequence[Turn]) -> list[Sample]:
    """Each turn said by another caller on another line."""
    return [
        Sample(
            t, AudioClip(studio.record(t, studio.draw_voice(), studio.draw_line()).wave)
        )
        for t in turns
    ]


def send(studio: Studio, pairs: Sequence[tuple[Turn, AlignedSpeech]]) -> list[Sample]:
    """Speech from elsewhere over the line."""
    return [
        Sample(
            turn,
            AudioClip(studio.send(said, turn, studio.draw_line(), is_flite=False).wave),
        )
        for turn, said in pairs
    ]


class Examiner:
    """Asks one checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.confusions: Counter[tuple[str, str]] = Counter()

    def _dialogue(self, instructions: str = DEMO_INSTRUCTIONS) -> Dialogue:
        return Dialogue(self.checkpoint.chat, instructions, today=_TODAY)

    def single_turns(
        self, samples: Sequence[Sample], instructions: str = DEMO_INSTRUCTIONS
    ) -> dict[str, float]:
        """Intent, whole reply, slots and word error rate, in per cent."""
        before, after = TRANSCRIBE_PROMPTS[0]
        prompts, transcripts = [], []
        for sample in samples:
            dialogue = self._dialogue(instructions)
            dialogue.append_user_clip(sample.clip)
            prompts.append(dialogue.prompt())
            dialogue = Dialogue(self.checkpoint.chat, None, today=_TODAY)
            dialogue.append_user_clip(sample.clip, before, after)
            transcripts.append(dialogue.prompt())
        decode = self.checkpoint.chat.decode
        replies = [decode(ids) for ids in greedy.reply(self.checkpoint, prompts)]
        heard = [decode(ids) for ids in greedy.reply(self.checkpoint, transcripts)]
        intents = exact = slots = with_slots = errors = words = 0
        for sample, got, text in zip(samples, replies, heard, strict=True):
            turn = sample.turn
            is_intent = measures.sense(got) == measures.sense(turn.reply)
            intents += is_intent
            exact += got == turn.reply
            assert turn.spoken is not None
            if turn.spoken.slots != grammar.Slots():
                with_slots += 1
                slots += got == turn.reply
            if not is_intent:
                self.confusions[turn.intent, got] += 1
            errors += measures.word_errors(turn.transcript, text)
            words += len(turn.transcript.split())
        count = len(samples)
        return {
            "clips": count,
            "intent": _percent(intents, count),
            "reply": _percent(exact, count),
            "reply_with_slots": _percent(slots, with_slots),
            "wer": _percent(errors, words),
        }

    def dialogues(self, studio: Studio, count: int) -> dict[str, float]:
        """Whole calls of two to four turns, the model's own replies in its history."""
        open_calls: list[tuple[Script, list[AudioClip], Dialogue]] = []
        while len(open_calls) < count:
            drawn = draw_dialogue(studio.rng, studio.options.split)
            spoken = all(t.kind == "speech" for t in drawn.turns)
            if len(drawn.turns) < 2 or not spoken:
                continue
            voice, line = studio.draw_voice(), studio.draw_line()
            clips = [AudioClip(studio.record(t, voice, line).wave) for t in drawn.turns]
            dialogue = self._dialogue()
            if drawn.opening:
                dialogue.append_assistant_text(drawn.opening)
            open_calls.append((drawn, clips, dialogue))
        right = [True] * count
        turns = right_turns = 0
        for number in range(4):
            going = [i for i, c in enumerate(open_calls) if number < len(c[0].turns)]
            if not going:
                break
            for i in going:
                open_calls[i][2].append_user_clip(open_calls[i][1][number])
            prompts = [open_calls[i][2].prompt() for i in going]
            found = greedy.reply(self.checkpoint, prompts)
            for i, ids in zip(going, found, strict=True):
                drawn, _, dialogue = open_calls[i]
                dialogue.append_assistant_tokens(ids)
                is_right = self.checkpoint.chat.decode(ids) == drawn.turns[number].reply
                turns, right_turns = turns + 1, right_turns + is_right
                right[i] = right[i] and is_right
        return {
            "calls": count,
            "calls_all_right": _percent(sum(right), count),
            "turns": turns,
            "turns_right": _percent(right_turns, turns),
        }

    def turn_ends(self, studio: Studio, count: int) -> dict[str, float | None]:
        """How well P(turn over) tells whole turns from turns broken off."""
        scores = turn_end_scores(self.checkpoint, studio, count)
        at_half = [sum(s >= 0.5 for s in part) for part in scores]
        found = Calibration.measure(*scores)
        return {
            "clips": found.clips,
            "auc": found.auc,
            "over_known_at_0.5": _percent(at_half[0], count),
            "cut_off_at_0.5": _percent(at_half[1], count),
            "over_from": found.over_from,
            "over_found_percent": round(100 * found.over_found, 1),
        }

    def not_speech(self, studio: Studio, count: int) -> dict[str, float]:
        """What is no turn at all: asked again, a person offered, nothing invented."""
        rng = studio.rng
        right = offered = invented = 0
        for index in range(count):
            kind = "noise" if index % 2 else "outside"
            spoken = grammar.outside(rng, "held_out") if kind == "outside" else None
            turn = Turn(kind, spoken, kind, "", "")
            dialogue = self._dialogue()
            dialogue.append_assistant_text(GREETING)
            voice, line = studio.draw_voice(), studio.draw_line()
            replies = []
            for _ in range(2):
                wave = studio.record(turn, voice, line).wave
                dialogue.append_user_clip(AudioClip(wave))
                (ids,) = greedy.reply(self.checkpoint, [dialogue.prompt()])
                dialogue.append_assistant_tokens(ids)
                replies.append(self.checkpoint.chat.decode(ids))
            right += replies[0] in ASKS_AGAIN
            offered += replies[1] in OFFERS_A_PERSON
            invented += any("[[" in r or measures.sense(r) != r for r in replies)
        return {
            "clips": 2 * count,
            "asked_again": _percent(right, count),
            "then_offered_a_person": _percent(offered, count),
            "acted_or_named_a_number": _percent(invented, count),
        }


def examine(
    checkpoint: Checkpoint, options: EvaluateOptions, human: Path | None
) -> dict[str, Any]:
    """The whole report."""
    examiner = Examiner(checkpoint)
    report: dict[str, Any] = {"parameters": checkpoint.num_parameters}
    for name, about, _ in SETS:
        if not options.wants(name):
            continue
        report[name] = {"about": about} | examiner.single_turns(_samples(name, options))
        print(name, json.dumps(report[name]), flush=True)
    held_out = CorpusOptions(is_clean=True, voices="held_out_espeak", split="held_out")
    calls = CorpusOptions(is_clean=True, voices="held_out_espeak")

    def note(name: str, measure: Callable[[], dict[str, Any]]) -> None:
        if options.wants(name):
            report[name] = measure()
            print(name, json.dumps(report[name]), flush=True)

    note("I", lambda: _by_default(examiner, options))
    note("F", lambda: _festival(examiner, Studio(options.seed + 50, held_out), options))
    note(
        "calls",
        lambda: examiner.dialogues(Studio(options.seed + 60, calls), options.dialogues),
    )
    note(
        "turn_end",
        lambda: examiner.turn_ends(
            Studio(options.seed + 70, held_out), options.clips // 2
        ),
    )
    note(
        "not_speech",
        lambda: examiner.not_speech(
            Studio(options.seed + 75, CorpusOptions(voices="held_out_espeak")),
            options.clips // 4,
        ),
    )
    report["confusions"] = [
        [intent, got, count]
        for (intent, got), count in examiner.confusions.most_common(40)
    ]
    if human is not None:
        note("H", lambda: _human(examiner, human, options))
    return report


def _samples(name: str, options: EvaluateOptions) -> list[Sample]:
    """The clips of one of `SETS`, the same whenever they are asked for."""
    index = [known for known, _, _ in SETS].index(name)
    corpus = SETS[index][2]
    studio = Studio(options.seed + index, corpus)
    return record(studio, draw_turns(studio.rng, options.clips, corpus.split))


def _by_default(examiner: Examiner, options: EvaluateOptions) -> dict[str, Any]:
    about = "as C, told the default campaign's instructions"
    found = examiner.single_turns(_samples("C", options), default_instructions())
    return {"about": about} | found


def _festival(
    examiner: Examiner, studio: Studio, options: EvaluateOptions
) -> dict[str, Any]:
    turns = draw_turns(studio.rng, options.clips // 2, "held_out")
    texts = [t.spoken.text for t in turns if t.spoken is not None]
    try:
        said = festival.speak_all(texts)
    except FileNotFoundError:
        return {"about": "festival is not installed: not measured"}
    samples = send(studio, list(zip(turns, said, strict=True)))
    about = "Festival ked, never trained on, held-out phrasings"
    return {"about": about} | examiner.single_turns(samples)


def _human(
    examiner: Examiner, folder: Path, options: EvaluateOptions
) -> dict[str, Any]:
    studio = Studio(options.seed + 80, CorpusOptions(is_clean=True))
    pairs = [
        (opening_turn(spoken), speech)
        for spoken, speech in human_recordings.turns(folder, options.clips // 3)
    ]
    about = "one human voice, digits, days and times spliced from prompts"
    return {"about": about} | examiner.single_turns(send(studio, pairs))


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 0.0


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--clips", type=int, default=EvaluateOptions().clips)
    parser.add_argument("--dialogues", type=int, default=EvaluateOptions().dialogues)
    parser.add_argument("--report", type=Path, help="file for the numbers")
    parser.add_argument("--sets", default="", help="names with commas; default: all")
    parser.add_argument("--human", type=Path, help="folder of Asterisk's prompts")
    chosen = parser.parse_args()
    torch.set_num_threads(2)
    checkpoint = load_checkpoint(str(chosen.checkpoint), LoadOptions(device="cpu"))
    sets = tuple(name for name in chosen.sets.split(",") if name)
    options = EvaluateOptions(chosen.clips, chosen.dialogues, sets=sets)
    report = examine(checkpoint, options, chosen.human)
    if chosen.report is not None:
        chosen.report.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
