"""Results become pictures; what is missing is said."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.provenance import __file__ as beside

BENCHMARKS = Path(beside).parent
KEPT = BENCHMARKS / "results"
PNG = b"\x89PNG"

pytestmark = pytest.mark.slow


def _plot(folder: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the library keeps its fonts' files open."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.plot", "--results", folder],
        cwd=BENCHMARKS.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_kept_result_is_drawn(tmp_path: Path) -> None:
    for source in KEPT.glob("*.json"):
        shutil.copy(source, tmp_path)
    assert "Traceback" not in _plot(tmp_path).stderr
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {path.name for path in KEPT.glob("*.png")}
    assert all((tmp_path / name).read_bytes().startswith(PNG) for name in drawn)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    phase = {"phase": "hold", "calls_at_once": 1, "response_ms": None}
    (tmp_path / "load_calls.json").write_text(json.dumps({"phases": [phase]}))
    run = _plot(tmp_path)
    assert run.returncode == 1
    assert "no leaks.json: memory.png is not drawn" in run.stderr
    assert run.stdout.strip() == str(tmp_path / "delay.png")
