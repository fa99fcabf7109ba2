"""A run's curves: python -m model.training.curves RUN_DIR > curves.csv.

One line for each report of ``log.jsonl``: minutes, stage and every loss and share of
right answers, for any spreadsheet. To standard error, one line a curve in blocks.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_FIRST = ("minutes", "step", "stage", "lr", "clips_per_s", "processes", "dialogues")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Reports in order; a check's numbers join the report before it."""
    reports: list[dict[str, Any]] = []
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        if "check" in entry:
            if reports:
                reports[-1] |= {f"check_{k}": v for k, v in entry["check"].items()}
        else:
            reports.append(entry)
    return reports


def columns(reports: Sequence[dict[str, Any]]) -> list[str]:
    """Names of all numbers there are, the general ones first."""
    names = {name for report in reports for name in report}
    return [n for n in _FIRST if n in names] + sorted(names - set(_FIRST))


def blocks(values: Sequence[float], width: int = 60) -> str:
    """A curve as a row of blocks, from its least value to its greatest."""
    if not values:
        return ""
    count = min(width, len(values))
    means = []
    for i in range(count):
        part = values[i * len(values) // count : (i + 1) * len(values) // count]
        means.append(sum(part) / len(part))
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((m - low) * scale)] for m in means)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    reports = read_log(parser.parse_args().run / "log.jsonl")
    names = columns(reports)
    writer = csv.DictWriter(sys.stdout, names)
    writer.writeheader()
    writer.writerows(reports)
    for name in names:
        found = [r[name] for r in reports if isinstance(r.get(name), int | float)]
        if found and name not in _FIRST:
            line = f"{name:28} {found[0]:9.3f} {blocks(found)} {found[-1]:.3f}"
            print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
