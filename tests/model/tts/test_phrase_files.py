"""Phrases on disk: within a bound, whole or not at all, there after a restart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model.tts.cache import PhraseCache, PhraseKey
from model.tts.phrase_files import PhraseFiles
from model.tts.voice import Voice


def key(text: str, version: str = "1") -> PhraseKey:
    return PhraseKey("espeak", version, text, Voice(), 8000)


def aged(folder: Path, days: float) -> None:
    """Make everything in the folder as old as this."""
    for path in folder.iterdir():
        then = path.stat().st_mtime - days * 86_400
        os.utime(path, (then, then))


def test_what_was_saved_is_loaded_and_nothing_else(tmp_path: Path) -> None:
    files = PhraseFiles(tmp_path / "phrases", 10_000)
    assert files.load(key("a")) is None
    files.save(key("a"), b"\1\2" * 100)
    assert files.load(key("a")) == b"\1\2" * 100
    assert files.load(key("a", version="2")) is None  # another voice than then
    assert files.load(key("b")) is None


def test_least_recently_used_phrases_go_first(tmp_path: Path) -> None:
    files = PhraseFiles(tmp_path, 3500)
    for text in "abc":
        files.save(key(text), bytes(1000))
        aged(tmp_path, 0.1)
    assert files.load(key("a")) is not None
    files.save(key("d"), bytes(1000))
    assert files.load(key("b")) is None
    assert files.load(key("a")) == bytes(1000)
    assert files.num_bytes() <= 3500


def test_phrases_nobody_says_any_more_go(tmp_path: Path) -> None:
    files = PhraseFiles(tmp_path, 1 << 20)
    files.save(key("a"), bytes(1000))
    aged(tmp_path, 31)
    files.save(key("b"), bytes(1000))
    assert files.load(key("a")) is None
    assert files.load(key("b")) is not None


def test_a_phrase_larger_than_the_bound_is_not_kept(tmp_path: Path) -> None:
    files = PhraseFiles(tmp_path, 100)
    files.save(key("a"), bytes(1000))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", [b"", b"short", bytes(500)])
def test_a_broken_file_is_a_phrase_that_is_not_there(
    tmp_path: Path, broken: bytes
) -> None:
    files = PhraseFiles(tmp_path, 10_000)
    files.save(key("a"), bytes(200))
    [path] = tmp_path.iterdir()
    path.write_bytes(broken)
    assert files.load(key("a")) is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_costs_the_phrase_only(tmp_path: Path) -> None:
    (tmp_path / "phrases").write_text("a file, no folder")
    files = PhraseFiles(tmp_path / "phrases", 10_000)
    files.save(key("a"), bytes(200))
    assert files.load(key("a")) is None
    assert files.num_bytes() == 0


async def test_a_phrase_said_again_is_there_after_a_restart(tmp_path: Path) -> None:
    num_made = 0

    async def make() -> bytes:
        nonlocal num_made
        num_made += 1
        return b"speech"

    async def say(times: int) -> None:
        cache = PhraseCache(files=PhraseFiles(tmp_path, 10_000))
        for _ in range(times):
            assert await cache.get_or_make(key("Hello."), make) == b"speech"
        await cache.aclose()

    def num_files() -> int:
        return len(list(tmp_path.iterdir()))

    await say(1)
    assert num_files() == 0  # said once: it may be one caller's name
    await say(3)
    assert num_files() == 1
    await say(2)
    assert num_made == 2
