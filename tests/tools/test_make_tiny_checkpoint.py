"""The tiny checkpoint: loads, speaks, ends, and says that it is random."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pytest

from model.engine.engine import Engine, EngineOptions
from model.engine.request import GenerationRequest
from model.ultravox.checkpoint import LoadOptions, load_checkpoint
from tools.make_tiny_checkpoint import LEVELS, main

if TYPE_CHECKING:
    from pathlib import Path

_WORDS = {word.strip() for level in LEVELS for word in level}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert main([str(tmp_path / "tiny")]) == 0
    return tmp_path / "tiny"


def test_it_says_that_its_weights_are_random(folder: Path) -> None:
    checkpoint = load_checkpoint(str(folder), LoadOptions(device="cpu"))
    assert checkpoint.weights_kind == "random"
    assert checkpoint.num_parameters < 150_000


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        main([str(tmp_path / name), "--seed", str(seed)])
        files.append((tmp_path / name / "model.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]


async def test_its_replies_are_words_depend_on_the_audio_and_end(folder: Path) -> None:
    checkpoint = load_checkpoint(str(folder), LoadOptions(device="cpu"))
    replies = []
    async with Engine(checkpoint, EngineOptions(num_threads=1)) as engine:
        for seed in range(12):
            rng = np.random.default_rng(seed)
            wave = rng.standard_normal(rng.integers(4_000, 40_000)) * rng.uniform(
                0.01, 1
            )
            dialogue = engine.new_dialogue("Be kind.", today=date(2025, 3, 4))
            dialogue.append_user_audio(wave.astype(np.float32))
            request = GenerationRequest(dialogue.prompt(), max_new_tokens=64)
            async with engine.submit(request) as stream:
                async for _ in stream:
                    pass
            assert stream.finish_reason == "stop"
            assert 7 <= len(stream.token_ids) <= 30
            replies.append(stream.text)
    spoken = {word for reply in replies for word in _split(reply)}
    assert spoken <= _WORDS | {w for words in _WORDS for w in words.split()}
    assert len(set(replies)) > 1


def _split(reply: str) -> list[str]:
    return reply.replace(".", " .").replace("!", " !").split()
