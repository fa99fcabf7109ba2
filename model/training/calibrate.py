"""What a checkpoint's end-of-turn probability is worth, written beside it.

python -m model.training.calibrate CHECKPOINT_DIR

Turns that are whole and turns broken off, by voices and in phrasings kept from
training. ``turn_end.json`` gets the ROC; when the probability is good for something,
`config.json` gets the bounds that calls act on (``"turn_end"``), else it loses them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from model.training import grammar, greedy, measures
from model.training.corpus import CorpusOptions, Studio
from model.training.dialogue import Policy, Turn
from model.training.prompts import DEMO_INSTRUCTIONS
from model.ultravox.checkpoint import Checkpoint, LoadOptions, load_checkpoint
from model.ultravox.clip import AudioClip
from model.ultravox.config import MARKER_KEY
from model.ultravox.inputs import Dialogue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CLIPS = 300  # of either kind: a share of 3 % is then known to about one point
SEED = 147
# Of broken-off turns so many may be taken for whole ones, and the other way round; and
# of those a bound should find, it must find so many to be worth having.
MAX_WRONG = 0.03
MIN_FOUND = 0.25
_TODAY = date(2026, 1, 5)


def opening_turn(spoken: grammar.Spoken) -> Turn:
    """A turn with the reply it should get at the start of a call."""
    reply = Policy().answer(spoken.intent, spoken.slots)
    return Turn("speech", spoken, spoken.intent, spoken.text, reply)


def turn_end_scores(
    checkpoint: Checkpoint, studio: Studio, count: int
) -> tuple[list[float], list[float]]:
    """P(over) of `count` whole turns, and of as many broken off."""
    rng = studio.rng
    whole: list[Turn] = []
    cut: list[Turn] = []
    while min(len(whole), len(cut)) < count:
        intent = rng.choice(grammar.INTENTS)
        spoken = grammar.draw(rng, intent, studio.options.split)
        points = grammar.cut_points(spoken)
        if points and len(cut) < count:
            words = spoken.text.split()
            at = rng.choice(points)
            said = " ".join(words[:at])
            cut.append(Turn("cut", spoken, "unfinished", said, "", words[at]))
        if len(whole) < count:
            whole.append(opening_turn(spoken))
    scores = []
    for turns in (whole, cut):
        prompts = []
        for turn in turns:
            voice, line = studio.draw_voice(), studio.draw_line()
            dialogue = Dialogue(checkpoint.chat, DEMO_INSTRUCTIONS, today=_TODAY)
            dialogue.append_user_clip(AudioClip(studio.record(turn, voice, line).wave))
            prompts.append(dialogue.prompt())
        scores.append(greedy.turn_end_probabilities(checkpoint, prompts))
    return scores[0], scores[1]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A ROC, and the bounds that are worth acting on; None where there is none."""

    auc: float
    clips: int
    over_from: float | None
    over_found: float
    more_below: float | None
    more_found: float
    roc: tuple[tuple[float, float, float], ...]  # threshold, wrongly over, rightly over

    @classmethod
    def measure(cls, over: Sequence[float], going_on: Sequence[float]) -> Calibration:
        """From P(over) of whole turns and of turns broken off."""
        high = measures.threshold_for(going_on, MAX_WRONG)
        found = _share(p > high for p in over)
        low = 1 - measures.threshold_for([1 - p for p in over], MAX_WRONG)
        more_found = _share(p < low for p in going_on)
        points = sorted({0.0, 1.0, *(round(p, 4) for p in (*over, *going_on))})
        chosen = points[:: max(len(points) // 20, 1)]
        roc = tuple(
            (t, _share(p >= t for p in going_on), _share(p >= t for p in over))
            for t in chosen
        )
        over_from = min(high + 1e-4, 1.0) if found >= MIN_FOUND else None
        low = round(low - 1e-4, 4)  # bounds are met by what equals them
        is_low = over_from is not None and 0 < low < over_from
        return cls(
            auc=round(measures.area_under_roc(over, going_on), 4),
            clips=len(over) + len(going_on),
            over_from=None if over_from is None else round(over_from, 4),
            over_found=found,
            more_below=low if is_low and more_found >= MIN_FOUND else None,
            more_found=more_found,
            roc=roc,
        )

    def write(self, checkpoint: Path) -> None:
        """`turn_end.json`, and the bounds in `config.json` or none there."""
        values: dict[str, Any] = {
            "calibrated": self.over_from is not None,
            "auc": self.auc,
            "clips": self.clips,
            "over_from": self.over_from,
            "over_found": self.over_found,
            "more_below": self.more_below,
            "more_found": self.more_found,
            "roc": [
                {"threshold": t, "wrongly_over": wrong, "rightly_over": right}
                for t, wrong, right in self.roc
            ],
        }
        text = json.dumps(values, indent=1) + "\n"
        (checkpoint / "turn_end.json").write_text(text)
        path = checkpoint / "config.json"
        config = json.loads(path.read_text())
        config[MARKER_KEY].pop("turn_end", None)
        if self.over_from is not None:
            bounds = {"over_from": self.over_from, "more_below": self.more_below}
            config[MARKER_KEY]["turn_end"] = bounds | {"auc": self.auc}
        path.write_text(json.dumps(config, indent=2) + "\n")


def _share(hits: Iterable[bool]) -> float:
    found = list(hits)
    return round(sum(found) / len(found), 4)


def calibrate(folder: Path, clips: int = CLIPS) -> Calibration:
    """Measure a checkpoint and write down what was found."""
    checkpoint = load_checkpoint(str(folder), LoadOptions(device="cpu"))
    options = CorpusOptions(voices="held_out_espeak", split="held_out")
    scores = turn_end_scores(checkpoint, Studio(SEED, options), clips)
    found = Calibration.measure(*scores)
    found.write(folder)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--clips", type=int, default=CLIPS, help="of either kind")
    chosen = parser.parse_args()
    torch.set_num_threads(2)
    found = calibrate(chosen.checkpoint, chosen.clips)
    print(
        json.dumps(
            {
                "auc": found.auc,
                "over_from": found.over_from,
                "over_found": found.over_found,
                "more_below": found.more_below,
                "more_found": found.more_found,
            }
        )
    )


if __name__ == "__main__":
    main()
