"""The measured part of a model card: python -m model.training.card REPORT.json.

The report is what `model.training.evaluate --report` wrote; prints Markdown.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

_NUM_CONFUSIONS = 15


def tables(report: dict[str, Any]) -> str:
    """Sets, whole calls, turn ends, what is not speech, and confusions."""
    lines = [
        "| set | what | clips | intent | reply | slots | WER |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in report.items():
        if isinstance(found, dict) and "intent" in found:
            figures = (found[k] for k in ("intent", "reply", "reply_with_slots", "wer"))
            row = [name, found["about"], found["clips"], *figures]
            lines.append("| " + " | ".join(str(cell) for cell in row) + " |")
    lines.append("")
    if calls := report.get("calls"):
        lines.append(
            f"* Whole calls: {calls['calls_all_right']} % of {calls['calls']} right "
            f"throughout, {calls['turns_right']} % of {calls['turns']} turns."
        )
    if ends := report.get("turn_end"):
        lines.append(
            f"* End of turn: area under the ROC {ends['auc']} ({ends['clips']} clips). "
            f"At 0.5 it knows {ends['over_known_at_0.5']} % of the ends and takes "
            f"{ends['cut_off_at_0.5']} % of broken-off turns for ended."
        )
    if noise := report.get("not_speech"):
        lines.append(
            f"* Noise, music, babble, other speech ({noise['clips']} clips): asks "
            f"again {noise['asked_again']} %, then offers a person "
            f"{noise['then_offered_a_person']} %; acts or names a number "
            f"{noise['acted_or_named_a_number']} %."
        )
    lines += ["", "| meant | answered | times |", "|---|---|---|"]
    for intent, got, count in report.get("confusions", [])[:_NUM_CONFUSIONS]:
        lines.append(f"| {intent} | {got} | {count} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    print(tables(json.loads(parser.parse_args().report.read_text())))


if __name__ == "__main__":
    main()
