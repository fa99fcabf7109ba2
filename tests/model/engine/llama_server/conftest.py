"""A real llama-server with a tiny Ultravox, one for the session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.model.engine.llama_server.gguf_files import write_ears, write_language_model
from tests.model.engine.llama_server.process import (
    LlamaServer,
    LlamaServerUnavailable,
    install,
)
from tests.model.ultravox.parity_data import V0_5

_TWO_SLOTS = ("-np", "2", "-c", "8192")  # 4096 tokens each

StartServer = Callable[..., LlamaServer]


@dataclass(frozen=True, slots=True)
class GgufFiles:
    """Where the unpacked program and the model's two files are."""

    tree: Path
    folder: Path
    language_model: Path
    ears: Path


@pytest.fixture(scope="session")
def gguf_files(tmp_path_factory: pytest.TempPathFactory) -> GgufFiles:
    try:
        tree = install()
    except LlamaServerUnavailable as exc:
        if os.environ.get("CI"):
            pytest.fail(f"llama-server is part of the checks here: {exc}")
        pytest.skip(f"no llama-server on this machine: {exc}")
    folder = tmp_path_factory.mktemp("llama-server")
    files = GgufFiles(tree, folder, folder / "llm.gguf", folder / "ears.gguf")
    write_language_model(V0_5, files.language_model)
    write_ears(V0_5, files.ears)
    return files


@pytest.fixture
def start_server(gguf_files: GgufFiles) -> Iterator[StartServer]:
    """Starts servers that a test may hurt."""
    started: list[LlamaServer] = []

    def start(
        *, ears: bool = True, never_ends: bool = False, api_key: str = ""
    ) -> LlamaServer:
        arguments = [
            *("-m", str(gguf_files.language_model)),
            *(("--mmproj", str(gguf_files.ears)) if ears else ()),
            *(("--ignore-eos",) if never_ends else ()),
            *_TWO_SLOTS,
        ]
        started.append(
            LlamaServer.start(
                gguf_files.tree, gguf_files.folder, arguments, api_key=api_key
            )
        )
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def llama_server(gguf_files: GgufFiles) -> Iterator[LlamaServer]:
    """One that no test hurts; it has two slots."""
    server = LlamaServer.start(
        gguf_files.tree,
        gguf_files.folder,
        [
            *("-m", str(gguf_files.language_model), "--mmproj", str(gguf_files.ears)),
            *_TWO_SLOTS,
        ],
    )
    yield server
    assert server.is_running, server.log.read_text()[-3000:]
    server.stop()
