"""start_server.sh with a Python that only notes what it is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Stands for python3, and, copied into .venv, for the environment's own.
_PYTHON = """#!/bin/bash
here=$(dirname "$0")
echo "$*" >>"$NOTES"
case "$*" in
  *ensurepip*) [ -z "${NO_VENV:-}" ] ;;
  *version_info*) [ -z "${TOO_OLD:-}" ] ;;
  *sys.version*) echo "3.11 for tests" ;;
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *"pip>="*) [ -z "${NO_NETWORK:-}${OLD_INDEX:-}" ] ;;
  *"pip install"*) [ -z "${NO_NETWORK:-}" ] ;;
  "-m pip --version") echo "pip 23.2.1" ;;
esac
"""


class Checkout:
    """A folder with the script, and what its Python was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "fake-python"
        self.notes = folder / "notes"
        shutil.copy(ROOT / "start_server.sh", folder)
        (folder / "requirements.txt").write_text("one==1\n")
        self.python.write_text(_PYTHON)
        self.python.chmod(0o755)

    def run(self, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
        self.notes.write_text("")
        return subprocess.run(
            [self.folder / "start_server.sh", *args],
            env=os.environ
            | {"PYTHON": str(self.python), "NOTES": str(self.notes)}
            | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def num_installs(self) -> int:
        return self.notes.read_text().count("-r requirements.txt")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_setup_makes_the_environment_once(checkout: Checkout) -> None:
    assert checkout.run("--setup").returncode == 0
    assert checkout.num_installs == 1
    assert checkout.run("--setup").returncode == 0
    assert checkout.num_installs == 0


def test_setup_does_not_start_anything(checkout: Checkout) -> None:
    checkout.run("--setup")
    assert "fastagi_server.py" not in checkout.notes.read_text()


def test_changed_requirements_are_installed(checkout: Checkout) -> None:
    checkout.run("--setup")
    (checkout.folder / "requirements.txt").write_text("one==2\n")
    checkout.run("--setup")
    assert checkout.num_installs == 1


def test_the_service_gets_the_options(checkout: Checkout) -> None:
    assert checkout.run("--check", "two words").returncode == 0
    assert checkout.notes.read_text().endswith("fastagi_server.py --check two words\n")


def test_a_failed_install_is_tried_again(checkout: Checkout) -> None:
    failed = checkout.run("--setup", NO_NETWORK="1")
    assert failed.returncode == 5
    assert "could not install" in failed.stderr
    assert checkout.run("--setup").returncode == 0
    assert checkout.num_installs == 1


def test_pip_is_renewed_before_it_installs_anything_else(checkout: Checkout) -> None:
    assert "known faults" not in checkout.run("--setup").stderr
    asked = checkout.notes.read_text()
    assert 0 < asked.index("pip>=26.2") < asked.index("-r requirements.txt")
    checkout.run("--setup")
    assert "pip>=" not in checkout.notes.read_text()


def test_where_there_is_no_newer_pip_the_old_one_installs(checkout: Checkout) -> None:
    run = checkout.run("--setup", OLD_INDEX="1")
    assert run.returncode == 0
    assert "going on with pip 23.2.1, which has known faults" in run.stderr
    assert checkout.num_installs == 1


def test_a_broken_environment_is_made_anew(checkout: Checkout) -> None:
    checkout.run("--setup")
    (checkout.folder / ".venv/bin/python").unlink()
    assert checkout.run("--setup").returncode == 0
    assert "-m venv .venv" in checkout.notes.read_text()


def test_no_python_at_all_is_said(checkout: Checkout) -> None:
    run = checkout.run("--setup", PYTHON="/nowhere/python3")
    assert run.returncode == 3
    assert "Python 3.11 or newer was not found" in run.stderr


def test_a_python_that_is_too_old_is_not_taken(checkout: Checkout) -> None:
    run = checkout.run("--setup", TOO_OLD="1")
    assert run.returncode == 3
    assert "Python 3.11 or newer was not found" in run.stderr


def test_a_python_without_venv_is_said(checkout: Checkout) -> None:
    run = checkout.run("--setup", NO_VENV="1")
    assert run.returncode == 3
    assert "apt-get install python3-venv" in run.stderr


def test_a_full_disk_is_said_before_anything_is_fetched(
    checkout: Checkout, tmp_path: Path
) -> None:
    df = tmp_path / "bin" / "df"
    df.parent.mkdir()
    df.write_text("#!/bin/sh\necho head\necho disk 9000 8900 100 99% /\n")
    df.chmod(0o755)
    path = f"{df.parent}:{os.environ['PATH']}"
    run = checkout.run("--setup", PATH=path)
    assert run.returncode == 4
    assert "100 MB free" in run.stderr
    assert not (checkout.folder / ".venv").exists()


@pytest.mark.parametrize("script", ["start_server.sh", "run_tests.sh"])
def test_help_needs_no_environment(script: str) -> None:
    run = subprocess.run(
        [ROOT / script, "--help"],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    assert run.stdout.startswith(f"usage: ./{script}")
