"""Results become pictures; what is missing is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import plot

KEPT = Path(plot.__file__).parent / "results"
PNG = b"\x89PNG"


@pytest.mark.slow
def test_every_kept_result_is_drawn(tmp_path: Path) -> None:
    for source in KEPT.glob("*.json"):
        shutil.copy(source, tmp_path)
    plot.main(["--results", str(tmp_path)])
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {path.name for path in KEPT.glob("*.png")}
    assert all((tmp_path / name).read_bytes().startswith(PNG) for name in drawn)


def test_what_is_not_there_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phase = {"phase": "hold", "calls_at_once": 1, "response_ms": None}
    (tmp_path / "load_calls.json").write_text(json.dumps({"phases": [phase]}))
    assert plot.main(["--results", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "no leaks.json: memory.png is not drawn" in said.err
    assert said.out.strip() == str(tmp_path / "delay.png")
