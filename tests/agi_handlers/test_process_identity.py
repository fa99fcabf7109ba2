"""Who still runs, and whose turn it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from agi_handlers.file_lock import FileLock
from agi_handlers.process_identity import is_running, own_identity

HOLDS_THE_LOCK = """
import sys
from pathlib import Path
from agi_handlers.file_lock import FileLock
from agi_handlers.process_identity import own_identity
print(FileLock(Path(sys.argv[1])).acquire(), own_identity(), flush=True)
sys.stdin.read()
"""


def test_another_process_is_known_while_it_runs_and_its_lock_is_its_own(
    tmp_path: Path,
) -> None:
    lock = FileLock(tmp_path / "lock")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_THE_LOCK, tmp_path / "lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        has_lock, identity = other.stdout.readline().split()
        assert has_lock == "True"
        assert is_running(identity)
        assert not lock.acquire()
        other.kill()
        other.wait()
    assert not is_running(identity)
    assert lock.acquire()
    assert lock.acquire()  # it is ours already
    lock.release()


def test_a_number_given_out_again_is_somebody_else() -> None:
    pid, _, ticks = own_identity().partition(".")
    assert is_running(f"{pid}.{ticks}")
    assert not is_running(f"{pid}.{int(ticks) + 1}")


def test_nonsense_is_nobody() -> None:
    for text in ("", "x", f"{os.getpid()}", "1.", "-1.5"):
        assert not is_running(text)


def test_a_folder_that_cannot_be_written_is_shared_with_nobody(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "nowhere/lock")
    assert lock.acquire()
    lock.release()
