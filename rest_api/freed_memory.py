"""glibc told to keep freed memory for the next request.

By its own rule a large block is taken from the kernel page by page and given back at
once: a body of 30 s, its samples and its copies on the way cost over a thousand page
faults, more CPU time than all that is done with them (benchmarks/results/http.md).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Final

# Source: malloc.h of glibc, and mallopt(3).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
# Where glibc's rule ends by itself once a block of that size was freed.
_MMAP_THRESHOLD_BYTES: Final = 32 << 20
_TRIM_THRESHOLD_BYTES: Final = 2 * _MMAP_THRESHOLD_BYTES


def keep_freed_memory(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether it was done; not where an operator tuned it, nor without glibc."""
    if any(
        name.startswith("MALLOC_") or (name == "GLIBC_TUNABLES" and "malloc" in value)
        for name, value in environ.items()
    ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        and mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
    )
