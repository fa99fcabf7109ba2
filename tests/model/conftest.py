"""What tests of the speech half have in common."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Products are small here: on a busy machine, a second thread turns milliseconds
    into seconds, because each waits for the other at every one of them."""
    torch = sys.modules.get("torch")  # only where some test has imported it
    if torch is not None:
        torch.set_num_threads(1)
