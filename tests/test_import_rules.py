"""Imports point one way, and the phone half stays free of what computes on tensors."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVERS = ("fastagi_server", "ultravox_api_server")
SHARED = ("config", "telemetry", "service_manager")
OURS = (*SHARED, "model", "rest_api", "agi_handlers", *SERVERS)
FOLDERS = ("sounds", "test_api_client")  # scripts, not packages
OURS_AND_TESTS = (*OURS, "tools", "benchmarks", "tests")

# Who may import what of ours; a name stands for itself and everything below it.
MAY_IMPORT = {
    "config": (),
    "telemetry": ("config",),
    "service_manager": ("telemetry",),
    "model": ("config", "telemetry", "model"),
    # the records are a file format between the two halves: one writes, one reads
    "rest_api": (
        *("config", "telemetry", "model", "rest_api"),
        *("agi_handlers.records",),
    ),
    "agi_handlers": (
        *(*SHARED, "agi_handlers"),
        *("model.speech", "model.client", "model.errors", "model.audio", "model.vad"),
        *("model.http_bodies",),
    ),
}
# Libraries that have no place beside 20 ms frames: importing them takes seconds and
# hundreds of megabytes, and their threads hold the interpreter.
HEAVY = ("torch", "transformers", "scipy", "safetensors")


def _modules(package: str) -> list[Path]:
    file = ROOT / f"{package}.py"
    return [file] if file.exists() else sorted((ROOT / package).rglob("*.py"))


@cache
def _imports(path: Path) -> tuple[tuple[int, str], ...]:
    """Line and full name of everything a module imports; `from a import b` is a.b."""
    return tuple(_found_imports(path))


def _found_imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def _is_below(name: str, tops: tuple[str, ...]) -> bool:
    return any(name == top or name.startswith(f"{top}.") for top in tops)


def _dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _distribution(name: str) -> str:
    """A package's name as the index compares it. Source: PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    modules = _modules(package)
    assert modules, f"{package} has no modules"
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules
        for line, name in _imports(path)
        if _is_below(name, OURS_AND_TESTS) and not _is_below(name, MAY_IMPORT[package])
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_the_server_scripts() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for package in (*SHARED, "model", "rest_api", "agi_handlers")
        for path in _modules(package)
        for line, name in _imports(path)
        if _is_below(name, SERVERS)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_service_module_imports_tests() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for package in (*OURS, "tools")
        for path in _modules(package)
        for line, name in _imports(path)
        if _is_below(name, ("tests",))
    ]
    assert not wrong, "\n".join(wrong)


RUN = ["requirements.txt", "requirements-otel.txt", "requirements-store.txt"]


@pytest.mark.parametrize(
    ("packages", "files"),
    [
        ((*OURS, "tools"), RUN),
        (("benchmarks", "tests"), [*RUN, "requirements-dev.txt"]),
    ],
)
def test_every_library_that_is_imported_is_required(
    packages: tuple[str, ...], files: list[str]
) -> None:
    """Not by what another library happens to bring along."""
    required = {
        _distribution(re.split(r"[^\w.-]", line)[0])
        for name in files
        for line in (ROOT / name).read_text().splitlines()
        if line and line[0].isalpha()
    }
    providers = packages_distributions()
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for package in packages
        for path in _modules(package)
        for line, name in _imports(path)
        if (top := name.split(".")[0]) not in (*OURS_AND_TESTS, *FOLDERS)
        and top not in sys.stdlib_module_names
        and not required & set(map(_distribution, providers.get(top, [])))
    ]
    assert not wrong, "\n".join(wrong)


def test_phone_half_imports_nothing_heavy_and_starts_nothing() -> None:
    """Every module of it in one fresh interpreter: no torch, no thread, no output."""
    modules = ["fastagi_server", *map(_dotted, _modules("agi_handlers"))]
    report = f"""
import importlib, sys, threading
for name in {modules!r}:
    importlib.import_module(name)
    heavy = [top for top in {HEAVY!r} if top in sys.modules]
    if heavy:
        sys.exit(f"importing {{name}} loads {{', '.join(heavy)}}")
    if threading.active_count() > 1:
        sys.exit(f"importing {{name}} starts a thread")
"""
    run = subprocess.run(
        [sys.executable, "-c", report],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
