"""What every test gets: a check that it left nothing behind, and a few fixtures.

A test fails when a task, thread, child process or open file of its own is still there
at its end. What fixtures of a wider scope started is there before and counts for
nothing.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.free_port import free_port as find_free_port

# Nothing here speaks TLS to anybody, and every client of httpx, here and in the
# processes that are started, would read the certificates of the whole web.
os.environ.setdefault("SSL_CERT_DIR", os.devnull)

# How long an example takes says more about the machine than about us.
hypothesis.settings.register_profile("any_machine", deadline=None)
hypothesis.settings.load_profile("any_machine")

# What is ending gets this long to finish before it counts as left: a task that was
# cancelled, one that is about to read the end of a connection, a thread, a process.
_GRACE_S = 2.0
_GRACE_ROUNDS = 200
# Of libraries, one per process and kept on purpose.
_LIBRARY_THREADS = (
    "AnyIO worker thread",  # anyio keeps idle workers for ten seconds
    "ThreadPoolExecutor-tqdm",
    "Thread-auto_conversion",  # transformers, while it loads a checkpoint
)
_LIBRARY_CHILDREN = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
# Opened once by imports and first uses, and kept: Python, packages, devices.
_LIBRARY_FILES = (sys.prefix, sys.base_prefix, "/usr/", "/dev/", "/proc/", "/sys/")


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    before = _inventory()
    yield
    left = _left_since(before)
    deadline = time.monotonic() + _GRACE_S
    while left and time.monotonic() < deadline:
        time.sleep(0.005)
        if left := _left_since(before):
            gc.collect()  # an unreachable socket is closed with its ResourceWarning
            left = _left_since(before)
    assert not left, f"left behind: {'; '.join(sorted(left))}"


@pytest.fixture
async def _no_task_is_left_behind() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    for _ in range(_GRACE_ROUNDS):
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(_GRACE_S / _GRACE_ROUNDS)
    names = sorted(str(task.get_coro()) for task in left)
    assert not left, f"tasks left behind: {'; '.join(names)}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Watch the tasks of every asynchronous test, and of its fixtures."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            # Second in, last but one out: what other fixtures run is over by then,
            # and the loop, whose threads end with it, is not yet.
            place = item.fixturenames.index("_nothing_is_left_behind") + 1
            item.fixturenames.insert(place, "_no_task_is_left_behind")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Finds TCP ports of 127.0.0.1 that nobody listens on."""
    return find_free_port


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty folder for records, recordings and state."""
    path = tmp_path / "data"
    path.mkdir()
    return path


def _inventory() -> set[str]:
    return _threads() | _children() | _open_files()


def _left_since(before: set[str]) -> set[str]:
    return _inventory() - before


def _threads() -> set[str]:
    return {
        f"thread {thread.name} ({thread.ident})"
        for thread in threading.enumerate()
        if not thread.name.startswith(_LIBRARY_THREADS)
    }


def _children() -> set[str]:
    found = set()
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in _text(children).split():
            command = _text(Path(f"/proc/{pid}/cmdline")).replace("\0", " ")
            if not any(name in command for name in _LIBRARY_CHILDREN):
                found.add(f"process {pid} ({command[:100]})")
    return found


def _open_files() -> set[str]:
    """Sockets and files of ours; pipes and event descriptors come and go in loops."""
    found = set()
    for link in Path("/proc/self/fd").glob("*"):
        try:
            target = str(link.readlink())
        except OSError:
            continue  # the descriptor of this listing
        is_file = target.startswith("/") and not target.startswith(_LIBRARY_FILES)
        if target.startswith("socket:") or is_file:
            found.add(f"descriptor {link.name} ({target})")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it ended meanwhile
        return ""
