"""The one command that makes the whole model, small; its curves; its calibration."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from model.training.calibrate import Calibration
from model.training.card import tables
from model.training.curves import blocks, columns, read_log
from model.training.make import Making, Size
from model.ultravox.checkpoint import LoadOptions, load_checkpoint
from model.ultravox.config import UltravoxConfig

TINY = Size(1, 1, evaluate_clips=4, evaluate_sets="A", dialogues_a_shard=8)


def _making(out: Path, stop_after_s: float = math.inf) -> Making:
    arguments: tuple[str, ...] = (
        "--max-steps",
        "4",
        "--tokenizer-dialogues",
        "500",
        "--workers",
        "1",
    )
    arguments += ("--dialogues-a-step", "4", "--imagined-a-step", "4")
    return Making(out, TINY, "cpu", None, None, stop_after_s, arguments)


@pytest.mark.slow
def test_one_command_makes_a_checkpoint_and_says_how_good_it_is(tmp_path: Path) -> None:
    assert not _making(tmp_path, stop_after_s=0.0).go()
    assert not (tmp_path / "run").exists()
    assert _making(tmp_path).go()
    folder = tmp_path / "checkpoint"
    checkpoint = load_checkpoint(str(folder), LoadOptions(device="cpu"))
    assert checkpoint.weights_kind == "demo"
    assert 0 <= json.loads((folder / "turn_end.json").read_text())["auc"] <= 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["A"]["clips"] == 4
    assert "| A | seen voices, seen phrasings | 4 |" in tables(report)
    weights = (folder / "model.safetensors").stat().st_mtime
    assert _making(tmp_path).go()  # nothing is left to do
    assert (folder / "model.safetensors").stat().st_mtime == weights
    reports = read_log(tmp_path / "run" / "log.jsonl")
    assert [name for name in columns(reports) if name == "minutes"] or not reports


def test_curves_have_every_number_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    entries = [
        {"step": 5, "minutes": 1.0, "stage": "text", "loss": 3.0},
        {"step": 9, "minutes": 2.0, "stage": "heads", "frame": 2.0},
        {"step": 9, "check": {"reply": 0.5}},
    ]
    path.write_text("".join(json.dumps(e) + "\n" for e in entries))
    reports = read_log(path)
    assert reports[1]["check_reply"] == 0.5
    assert columns(reports)[:3] == ["minutes", "step", "stage"]
    assert {"loss", "frame", "check_reply"} <= set(columns(reports))
    assert blocks([1, 2, 3]) == "▁▅█" or blocks([1, 2, 3])[0] == "▁"
    assert blocks([2, 2]) == "▁▁"
    assert len(blocks(list(range(500)))) == 60


def _written(tmp_path: Path, over: list[float], going_on: list[float]) -> Calibration:
    config = {"ultravox_phone_bot": {"weights": "demo", "turn_end": {"over_from": 0.1}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = Calibration.measure(over, going_on)
    found.write(tmp_path)
    return found


def test_a_probability_that_tells_gets_bounds(tmp_path: Path) -> None:
    over = [0.9 + 0.001 * i for i in range(90)] + [0.3] * 10
    going_on = [0.001 * i for i in range(90)] + [0.5] * 10
    found = _written(tmp_path, over, going_on)
    assert found.over_from is not None
    assert found.more_below is not None
    assert sum(p >= found.over_from for p in going_on) <= 3
    assert sum(p <= found.more_below for p in over) <= 3
    marker = json.loads((tmp_path / "config.json").read_text())["ultravox_phone_bot"]
    assert marker["turn_end"]["over_from"] == found.over_from
    assert marker["weights"] == "demo"
    roc = json.loads((tmp_path / "turn_end.json").read_text())["roc"]
    assert all(p["rightly_over"] >= p["wrongly_over"] for p in roc)


def test_a_probability_that_tells_nothing_gets_none(tmp_path: Path) -> None:
    same = [0.01 * i for i in range(100)]
    found = _written(tmp_path, same, list(same))
    assert found.over_from is None
    assert found.auc == 0.5
    marker = json.loads((tmp_path / "config.json").read_text())["ultravox_phone_bot"]
    assert "turn_end" not in marker
    assert not json.loads((tmp_path / "turn_end.json").read_text())["calibrated"]


def test_the_shipped_checkpoint_says_the_same_in_both_places() -> None:
    folder = Path(__file__).parents[3] / "model" / "checkpoints" / "demo"
    config = UltravoxConfig.from_json(json.loads((folder / "config.json").read_text()))
    measured = json.loads((folder / "turn_end.json").read_text())
    assert measured["calibrated"] is (config.turn_end is not None)
    if config.turn_end is not None:
        assert config.turn_end.over_from == measured["over_from"]
        assert config.turn_end.more_below == measured["more_below"]
