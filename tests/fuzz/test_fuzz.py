"""Every kept input, and a few seconds of new ones, on every fuzz target."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import CORPUS, run
from tests.fuzz.targets import TARGETS

KEPT = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", KEPT, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_kept_inputs_find_nothing(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_inputs_to_begin_with() -> None:
    assert {path.parent.name for path in KEPT} == set(TARGETS)


@pytest.mark.slow
def test_new_inputs_find_nothing() -> None:
    results = {result["target"]: result for result in run(list(TARGETS), each_s=1)}
    assert results.keys() == TARGETS.keys()
    assert [name for name, result in results.items() if result["found"]] == []
    for result in results.values():
        assert result["runs"] > 10, result
        assert result["cover"] > 10, result
