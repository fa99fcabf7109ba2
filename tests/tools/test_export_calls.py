"""Call records as JSON Lines and as CSV that no spreadsheet executes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.agi_handlers.records.stored_calls import store
from tools import export_calls


def _exported(data_dir: Path, form: str, *more: str) -> str:
    out = data_dir / "out"
    path = store(data_dir)
    status = export_calls.main(
        ["--file", str(path), "--format", form, "--out", str(out), *more]
    )
    assert status == 0
    return out.read_bytes().decode()


def test_json_lines_hold_whole_calls(data_dir: Path) -> None:
    calls = [json.loads(line) for line in _exported(data_dir, "jsonl").splitlines()]
    assert [call["call_id"] for call in calls] == ["call-3", "call-2", "call-1"]
    assert calls[2]["turns"][1]["reply_text"] == "We are 100% open <b>now</b>."


def test_csv_has_a_line_for_each_call(data_dir: Path) -> None:
    rows = list(csv.DictReader(_exported(data_dir, "csv").splitlines()))
    assert [row["status"] for row in rows] == ["running", "completed", "transfer"]
    assert rows[2]["started_at"].startswith("2023-11-1")


def test_what_a_model_said_cannot_become_a_formula(data_dir: Path) -> None:
    rows = list(csv.DictReader(_exported(data_dir, "csv-turns").splitlines()))
    texts = {row["call_id"]: row["reply_text"] for row in rows if row["turn"] == "2"}
    assert texts["call-2"] == "'=1+1 is two."
    assert texts["call-1"] == "We are 100% open <b>now</b>."


@pytest.mark.parametrize("text", ["=A1", "+1", "-1", "@x", "\t=1", "\r=1", "＝1"])
def test_starts_of_formulas_are_quoted(text: str) -> None:
    assert export_calls.cell(text) == "'" + text


def test_negative_numbers_stay_numbers() -> None:
    assert export_calls.cell(-5) == "-5"


def test_conditions_choose_calls(data_dir: Path) -> None:
    lines = _exported(data_dir, "jsonl", "--number", "2125550187").splitlines()
    assert [json.loads(line)["call_id"] for line in lines] == ["call-1"]


def test_missing_file_is_one_line_and_a_status(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export_calls.main(["--file", str(data_dir / "none.sqlite")]) == 1
    assert "no calls are recorded yet" in capsys.readouterr().err
