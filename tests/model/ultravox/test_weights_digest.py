"""Two checkpoints of one name are told apart, and one is the same everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.ultravox.weights_digest import weights_version

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _file(folder: Path, *, change_at: int | None = None) -> Path:
    folder.mkdir(parents=True)
    tensor = torch.arange(100_000, dtype=torch.float32)
    if change_at is not None:
        tensor[change_at] += 1
    save_file(
        {"a": tensor, "small": torch.ones(3)}, folder / "model.safetensors", {"x": "y"}
    )
    return folder / "model.safetensors"


def test_a_copy_has_the_same_version_and_other_weights_another(tmp_path: Path) -> None:
    first = weights_version([_file(tmp_path / "first")])
    assert first == weights_version([_file(tmp_path / "copy")])
    for number, at in enumerate((0, 1023, -1024, -1)):
        assert first != weights_version([_file(tmp_path / str(number), change_at=at)])


def test_the_hubs_commit_is_named(tmp_path: Path) -> None:
    version = weights_version([_file(tmp_path / "snapshots" / _COMMIT)])
    assert version.endswith(f" commit {_COMMIT[:12]}")


def test_what_is_no_safetensors_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((20).to_bytes(8, "little") + b"no header at all, not one")
    with pytest.raises(ValueError, match="Expecting value"):
        weights_version([path])
