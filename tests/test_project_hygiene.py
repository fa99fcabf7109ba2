"""What must hold for every file of the project, whoever wrote it."""

from __future__ import annotations

import ast
import io
import re
import shutil
import subprocess
import tokenize
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Lines of functions and classes; tables of data don't count. Longer than this, a
# module has a second idea in it.
MAX_MODULE_LINES = 600
MAX_TEST_LINES = 900
MAX_FUNCTION_LINES = 70
MAX_FILE_BYTES = 1 << 20
# Weights and recordings; what git hosts refuse begins at 100 MB.
MAX_BINARY_BYTES = 64 << 20
_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
# Top-level folders that are made by running things; .gitignore has them too.
MADE = {
    *(".git", ".venv", "build", "data"),
    *(".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"),
}
BINARY_SUFFIXES = (".safetensors", ".onnx", ".wav", ".npz", ".flac", ".bin", ".pt")


@cache
def _files() -> tuple[Path, ...]:
    """Everything that is or would be committed; without git, all but what is made."""
    if shutil.which("git") and (ROOT / ".git").exists():
        listing = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        tops = (path for path in ROOT.iterdir() if path.name not in MADE)
        below = (path for top in tops for path in (top, *top.rglob("*")))
        paths = [path for path in below if path.parent.name != "__pycache__"]
    return tuple(sorted(path for path in paths if path.is_file()))


@cache
def _text(path: Path) -> str | None:
    """A text file's contents; None for anything else."""
    if path.suffix in BINARY_SUFFIXES or path.stat().st_size > MAX_FILE_BYTES:
        return None
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return None


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _lines_with(pattern: str) -> list[str]:
    found = []
    for path in _files():
        if path == Path(__file__):
            continue  # the patterns themselves
        for number, line in enumerate((_text(path) or "").splitlines(), 1):
            if re.search(pattern, line):
                name = path.relative_to(ROOT)
                found.append(f"{name}:{number}: {line.strip()[:90]}")
    return found


def _prose(path: Path) -> str:
    """Comments and docstrings of a Python file; all of any other text."""
    text = _text(path) or ""
    if path.suffix != ".py":
        return text
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    prose = [token.string for token in tokens if token.type == tokenize.COMMENT]
    for node in ast.walk(_tree(path)):
        if isinstance(node, _DEFINITIONS | ast.Module):
            prose.append(ast.get_docstring(node) or "")
    return "\n".join(prose)


def _length(node: ast.stmt) -> int:
    """Lines of a function or class."""
    if not isinstance(node, _DEFINITIONS):
        return 0
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _show(rows: list[str]) -> str:
    return "\n" + "\n".join(rows)


def test_no_path_of_one_machine_is_written_down() -> None:
    parent = str(ROOT.parent)
    # A checkout right below / or /tmp says nothing: such paths are everywhere.
    places = [r"\.\./shared\b", r"/home/(?!asterisk)\w+/", r"/root/"]
    if len(ROOT.parent.parts) > 1 and parent not in ("/tmp", "/opt", "/srv"):
        places.append(re.escape(parent) + "/")
    found = _lines_with("|".join(places))
    assert not found, _show(found)


def test_nothing_is_left_to_do_in_the_text() -> None:
    found = _lines_with(r"\b(TODO|FIXME|XXX)\b|^(<{7}|>{7}) ")
    assert not found, _show(found)


def test_no_emoji_in_prose() -> None:
    """In comments, docstrings and documents; as data for a normaliser they are fine."""
    emoji = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf\ufe0f]")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()[:90]}"
        for path in _files()
        if emoji.search(_text(path) or "")  # taking a file apart is slow
        for line in _prose(path).splitlines()
        if emoji.search(line)
    ]
    assert not found, _show(found)


def test_files_are_not_too_large() -> None:
    found = []
    for path in _files():
        limit = MAX_BINARY_BYTES if path.suffix in BINARY_SUFFIXES else MAX_FILE_BYTES
        if path.stat().st_size > limit:
            found.append(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")
    assert not found, _show(found)


def test_modules_and_functions_are_not_too_long() -> None:
    found = []
    for path in (path for path in _files() if path.suffix == ".py"):
        name = path.relative_to(ROOT)
        tree = _tree(path)
        limit = MAX_TEST_LINES if name.parts[0] == "tests" else MAX_MODULE_LINES
        num_lines = sum(_length(node) for node in tree.body)
        if num_lines > limit:
            found.append(f"{name}: {num_lines} lines, limit {limit}")
        found += [
            f"{name}:{node.lineno}: {node.name}, {_length(node)} lines"
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and _length(node) > MAX_FUNCTION_LINES
        ]
    assert not found, _show(found)


def test_every_module_says_what_it_is() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in _files()
        if path.suffix == ".py"
        and path.relative_to(ROOT).parts[0] != "tests"
        and path.read_text().strip()
        and not ast.get_docstring(_tree(path))
    ]
    assert not found, _show(found)


def test_shell_scripts_parse_and_are_executable() -> None:
    found = []
    for path in _files():
        if (_text(path) or "").startswith("#!/usr/bin/env bash"):
            name = path.relative_to(ROOT)
            check = subprocess.run(
                ["bash", "-n", path], capture_output=True, text=True, check=False
            )
            if check.returncode != 0:
                found.append(f"{name}: {check.stderr}")
            if not path.stat().st_mode & 0o111:
                found.append(f"{name}: not executable")
    assert not found, _show(found)


def test_what_is_pasted_into_vicidial_survives_its_form() -> None:
    """VICIdial's admin page deletes semicolons and backslashes, so no comments."""
    entry = (ROOT / "dialplan/vicidial-custom-dialplan-entry.conf").read_text()
    assert not re.search(r"[;\\\t]", entry)
    lines = entry.splitlines()
    assert all(line.startswith("exten => ") for line in lines), entry
    # The column is TEXT: 65,535 bytes, shared with what the site has there already.
    assert len(entry) < 8192
