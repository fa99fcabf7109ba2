"""Our model against the reference's numbers, and that the check can fail."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from benchmarks.check_parity import main
from tests.model.ultravox.parity_data import (
    V0_4,
    V0_5,
    write_encoder_and_projector,
    write_projector_only,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    answer: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return answer


@pytest.mark.parametrize(
    ("fixture", "write_split"),
    [(V0_4, write_projector_only), (V0_5, write_encoder_and_projector)],
    ids=["v0_4", "v0_5"],
)
def test_equals_the_reference_in_every_layout(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fixture: Path,
    write_split: Callable[[Path], Path],
) -> None:
    folder = tmp_path / "fixture"
    shutil.copytree(fixture, folder)
    write_split(folder / "split")
    assert main([str(folder)]) == 0
    answer = _last_line(capsys)
    assert answer["ok"] is True
    cases = answer["cases"]
    assert isinstance(cases, dict)
    names = {"short", "batch2", "two_audios", "text_only", "single_clips", "history"}
    # Single clips are no prompts; everything else also goes through the engine.
    served = {f"engine/{name}" for name in names - {"single_clips"}}
    assert set(cases) == names | {f"split/{name}" for name in names} | served
    assert all(cases[name]["greedy_equal"] is True for name in served)
    assert cases["short"]["greedy_equal"] is True
    assert cases["history"]["logits"] < 1e-3


def test_a_changed_weight_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "fixture"
    shutil.copytree(V0_4, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["audio_tower.conv2.bias"][0] += 0.05
    save_file(tensors, folder / "model.safetensors")
    assert main([str(folder)]) == 1
    cases = _last_line(capsys)["cases"]
    assert isinstance(cases, dict)
    assert cases["text_only"]["ok"] is True
    assert cases["single_clips"]["ok"] is False


def test_a_changed_clip_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "fixture"
    shutil.copytree(V0_5, folder)
    clip = np.load(folder / "cases" / "short_0_0.npy")
    clip[5000:] = 0
    np.save(folder / "cases" / "short_0_0.npy", clip)
    assert main([str(folder)]) == 1
    cases = _last_line(capsys)["cases"]
    assert isinstance(cases, dict)
    assert cases["short"]["mel"] > 1e-3


def test_a_folder_without_a_checkpoint_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert _last_line(capsys)["ok"] is False
