"""Sound files in a folder both sides see."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from agi_handlers.audio_leg.file_exchange import (
    FileExchangeFailed,
    SharedFolder,
    make_folder,
    sweep,
)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_a_file_goes_there_and_back_and_away(tmp_path: Path) -> None:
    files = SharedFolder(tmp_path)
    name = files.new_name()
    await files.put(name, b"\xff\x00")
    assert (tmp_path / f"{name}.ulaw").read_bytes() == b"\xff\x00"
    assert files.path_for_asterisk(name) == str(tmp_path / name)
    assert await files.get(name) == b"\xff\x00"
    await files.remove(name)
    await files.remove(name)
    assert not names_in(tmp_path)


async def test_names_of_two_calls_cannot_be_guessed_from_each_other(
    tmp_path: Path,
) -> None:
    one, two = SharedFolder(tmp_path), SharedFolder(tmp_path)
    names = {one.new_name(), one.new_name(), two.new_name()}
    assert len(names) == 3
    assert len({name.rsplit("-", 1)[0] for name in names}) == 2
    assert all(len(name) > 32 for name in names)


async def test_closing_removes_the_calls_own_files_only(tmp_path: Path) -> None:
    one, two = SharedFolder(tmp_path), SharedFolder(tmp_path)
    kept = two.new_name()
    await two.put(kept, b"x")
    for _ in range(3):
        await one.put(one.new_name(), b"x")
    # what Asterisk recorded under a name of ours counts too
    (tmp_path / f"{one.new_name()}.ulaw").write_bytes(b"x")
    await one.close()
    assert names_in(tmp_path) == {f"{kept}.ulaw"}


async def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    files = SharedFolder(tmp_path / "missing")
    with pytest.raises(FileExchangeFailed, match="cannot be written: No such file"):
        await files.put(files.new_name(), b"x")
    with pytest.raises(FileExchangeFailed, match="cannot be read: No such file"):
        await files.get(files.new_name())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    files = SharedFolder(tmp_path)
    name = files.new_name()
    (tmp_path / f"{name}.ulaw").symlink_to("/dev/full")
    with pytest.raises(FileExchangeFailed, match="No space left"):
        await files.put(name, b"x")
    assert not names_in(tmp_path)


def test_the_sweep_takes_old_files_of_ours_only(tmp_path: Path) -> None:
    old_s = time.time() - 10_000
    names = ["ultravox-a-1.ulaw", "ultravox-b-1.ulaw", "other.ulaw", "ultravox-c.wav"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (old_s, old_s))
    (tmp_path / "ultravox-new-1.ulaw").write_bytes(b"x")
    assert sweep(tmp_path) == 2
    assert names_in(tmp_path) == {"other.ulaw", "ultravox-c.wav", "ultravox-new-1.ulaw"}
    assert sweep(tmp_path / "missing") == 0


def test_the_exchange_folder_is_made_for_its_owner_only(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExchangeFailed, match="cannot be made"):
        make_folder(tmp_path / "file" / "x")
