"""Draw the results that are kept: one PNG for each question.

    python -m benchmarks.plot                 # benchmarks/results/*.json -> *.png there
    python -m benchmarks.plot --results DIR

delay.png     load_calls.json (and load_sip.json): response delay over calls at once
soak.png      load_soak.json: response delay and memory over the minutes of a soak
lateness.png  media.json: how late audio frames are over calls at once
memory.png    leaks.json: memory of each part over calls taken
tokens.png    engine_calls.json: tokens per CPU second over calls at once
training.png  training.json: the demo model's curve

What is not there is not drawn, and said.  Exit status: 0 all drawn, 1 some missing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")  # no screen

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_RESULTS: Final = Path(__file__).parent / "results"
_COLOURS: Final = ("#2a6fbb", "#d1642e", "#3b8f5a", "#7d5ba6")
"""Told apart in print and by the colour-blind: lightness differs as well as hue."""
_BAR_COLOUR: Final = "#9a3324"

Result = dict[str, Any]


def _over(
    axes: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    name: str,
    number: int,
    style: str = "-",
) -> None:
    colour = _COLOURS[number % len(_COLOURS)]
    axes.plot(xs, ys, style, marker="o", markersize=4, color=colour, label=name)


def _bar(axes: Axes, value: float, name: str) -> None:
    """The bar that the figures are held against."""
    axes.axhline(value, color=_BAR_COLOUR, linestyle=":", linewidth=1.2)
    axes.annotate(
        name,
        xy=(1.0, value),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        color=_BAR_COLOUR,
        fontsize=8,
    )


def _percentiles(axes: Axes, rows: Sequence[Result], name: str, key: str) -> None:
    for number, (which, style) in enumerate(
        (("p50", "-"), ("p95", "--"), ("p99", "-."))
    ):
        measured = [row for row in rows if row["response_ms"]]
        xs = [row[key] for row in measured]
        ys = [row["response_ms"][which] for row in measured]
        _over(axes, xs, ys, f"{name}, {which}", number, style)


def draw_delay(axes: Axes, result: Result) -> None:
    """End of the caller's speech to the first sound of the reply."""
    if "phases" in result:
        rows = [row for row in result["phases"] if row["phase"] == "hold"]
        _percentiles(axes, rows, "AGI and AudioSocket", "calls_at_once")
    else:
        leg = {"audiosocket": "AudioSocket", "eagi": "EAGI relay"}[result["leg"]]
        name = f"SIP, Asterisk {result['asterisk']}, {leg}"
        _percentiles(axes, result["holds"], name, "calls_at_once")
    _bar(axes, 500, "bar for p50")
    _bar(axes, 700, "bar for p95")
    axes.set(xlabel="calls at once", ylabel="response delay, ms")


def draw_soak(axes: Axes, result: Result) -> None:
    """Delay minute by minute, and what both halves hold second by second."""
    (phase,) = (row for row in result["phases"] if row["phase"] == "soak")
    measured = [row for row in phase["minutes"] if row["response_ms"]]
    ends = [row["ends_at_s"] / 60 for row in measured]
    for number, (which, style) in enumerate((("p50", "-"), ("p95", "--"))):
        ys = [row["response_ms"][which] for row in measured]
        _over(axes, ends, ys, f"response, {which}", number, style)
    memory = axes.twinx()
    at_min = [row["at_s"] / 60 for row in phase["samples"]]
    for number, half in enumerate(("phone", "speech"), start=2):
        ys = [row[f"{half}_rss_mb"] for row in phase["samples"]]
        memory.plot(at_min, ys, color=_COLOURS[number], linewidth=1.0)
        axes.plot([], [], color=_COLOURS[number], label=f"{half} half, MB (right)")
    memory.set(ylabel="resident memory, MB", ylim=(0, None))
    at_once = phase["calls_at_once"]
    axes.set(xlabel=f"minutes, {at_once} calls at once", ylabel="response delay, ms")


def draw_lateness(axes: Axes, result: Result) -> None:
    """Audio frames against their schedule."""
    for number, (what, run) in enumerate(sorted(result.items())):
        rows = run["results"]
        xs = [row["calls"] for row in rows]
        for which, style in (("p50", "-"), ("p99", "--")):
            ys = [row[f"late_{which}_ms"] for row in rows]
            _over(axes, xs, ys, f"{what}, {which}", number, style)
    _bar(axes, 10, "bar for p99 at 200 calls")
    axes.set(xlabel="calls at once, one core", ylabel="frame lateness, ms")


def draw_memory(axes: Axes, result: Result) -> None:
    """Resident memory of each process, looked at while nothing ran."""
    samples = result["samples"]
    for number, part in enumerate(samples[0]["parts"]):
        ys = [sample["parts"][part]["rss_mb"] for sample in samples]
        _over(axes, [sample["calls"] for sample in samples], ys, part, number)
    axes.set(xlabel="calls taken since the start", ylabel="resident memory, MB")


def draw_tokens(axes: Axes, result: Result) -> None:
    """The engine against the same model used without it."""
    rows = result["results"]
    xs = [row["calls"] for row in rows]
    _over(axes, xs, [row["tokens_per_cpu_s"] for row in rows], "this engine", 0)
    names = dict.fromkeys(row["name"] for row in result["baselines"])
    for number, name in enumerate(names, start=1):
        found = [row for row in result["baselines"] if row["name"] == name]
        ys = [row["tokens_per_cpu_s"] for row in found]
        _over(axes, [row["calls"] for row in found], ys, name, number)
    axes.set(xlabel="calls at once", ylabel="tokens per CPU second, all calls")


def draw_training(axes: Axes, result: Result) -> None:
    """What the demo model got right while it learned."""
    curve = result["curve"]
    keys = dict.fromkeys(key for row in curve for key in row)
    for number, key in enumerate(k for k in keys if k not in ("minutes", "step")):
        found = [row for row in curve if key in row]  # not every stage has it
        xs = [row["minutes"] for row in found]
        _over(axes, xs, [row[key] for row in found], key, number)
    axes.set(xlabel="minutes of training", ylabel="right, per cent")


_DRAWINGS: Final[dict[str, tuple[str, Callable[[Axes, Result], None]]]] = {
    "load_calls": ("delay.png", draw_delay),
    "load_sip": ("delay_sip.png", draw_delay),
    "load_soak": ("soak.png", draw_soak),
    "media": ("lateness.png", draw_lateness),
    "leaks": ("memory.png", draw_memory),
    "engine_calls": ("tokens.png", draw_tokens),
    "training": ("training.png", draw_training),
}


def draw(result: Result, path: Path, drawing: Callable[[Axes, Result], None]) -> None:
    """One figure."""
    figure, axes = plt.subplots(figsize=(7.2, 3.8), dpi=110)
    try:
        drawing(axes, result)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
        figure.tight_layout()
        # no date and no version inside: the same figures, the same file
        figure.savefig(path, metadata={"Software": None})
    finally:
        plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """0 all drawn, 1 some had no results."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results", type=Path, default=_RESULTS, help="folder")
    folder = parser.parse_args(arguments).results
    missing = 0
    for name, (picture, drawing) in _DRAWINGS.items():
        source = folder / f"{name}.json"
        if not source.exists():
            print(f"no {source.name}: {picture} is not drawn", file=sys.stderr)
            missing += 1
            continue
        draw(json.loads(source.read_text()), folder / picture, drawing)
        print(folder / picture)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
