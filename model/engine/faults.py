"""What a failed step means for those after it.

Out of memory: what torch keeps aside is given back, and the rows are tried one by one.
A device error of CUDA is sticky: every later call in this process fails as well, so the
process has to end and another one start.
"""

from __future__ import annotations

import gc

import torch


def is_device_lost(exc: BaseException) -> bool:
    """Whether the device will not work again in this process."""
    if isinstance(exc, torch.OutOfMemoryError):
        return False
    if isinstance(exc, torch.AcceleratorError):
        return True
    # Libraries on top of CUDA pass its sticky errors on as plain ones.
    return isinstance(exc, RuntimeError) and "CUDA error" in str(exc)


def make_room(exc: BaseException) -> None:
    """After running out of memory: let go of what is held only for speed."""
    if not isinstance(exc, torch.OutOfMemoryError | MemoryError):
        return
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
