"""What was freed stays with the process, within bounds."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from rest_api.freed_memory import keep_freed_memory

# Page faults of a block that is taken, written and freed again and again.
_PROBE = """
import ctypes, resource, sys
from rest_api.freed_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory({})
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
def use():
    blocks = [libc.malloc(2_000_000) for _ in range(3)]
    for block in blocks:
        ctypes.memset(ctypes.c_void_p(block), 1, 2_000_000)
    for block in blocks:
        libc.free(block)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_memory_is_not_taken_from_the_kernel_again() -> None:
    def faults(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, how],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    assert faults("kept") < 100 < 5000 < faults("as it was")


@pytest.mark.parametrize(
    "environ",
    [
        {"MALLOC_TRIM_THRESHOLD_": "1"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1"},
    ],
)
def test_an_operators_own_tuning_is_left_alone(environ: dict[str, str]) -> None:
    assert not keep_freed_memory(environ)
