"""The leak check of conftest.py, tried on tests that leave things behind."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = """
import asyncio, socket, subprocess, sys, threading, time

kept = []

def test_clean(tmp_path):
    with socket.socket(), (tmp_path / "file").open("w"):
        threading.Thread(target=time.sleep, args=(0.1,)).start()

async def test_clean_task():
    task = asyncio.create_task(asyncio.sleep(30))
    task.cancel()

def test_leaves_socket():
    kept.append(socket.socket())

def test_leaves_file(tmp_path):
    kept.append((tmp_path / "file").open("w"))

def test_leaves_process():
    kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1))

def test_leaves_thread():
    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()

async def test_leaves_task():
    kept.append(asyncio.create_task(asyncio.sleep(30)))
"""


@pytest.mark.slow
def test_whatever_a_test_leaves_behind_makes_it_fail(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_leaks.py").write_text(_TESTS)
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-o", "asyncio_mode=auto", "-rA"),
            *("-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    failed = set(re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", run.stdout, re.M))
    assert failed == {
        "test_leaves_socket",
        "test_leaves_file",
        "test_leaves_process",
        "test_leaves_thread",
        "test_leaves_task",
    }, run.stdout
    for trace in ("socket:", "/file)", "input()", "thread ", "tasks left behind"):
        assert trace in run.stdout
