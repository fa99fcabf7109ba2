"""Speech for the detectors."""

from __future__ import annotations

import pytest

from tests.fakes import espeak_speech


@pytest.fixture(scope="session")
def spoken_call() -> bytes:
    """Two sentences with silence around them."""
    return espeak_speech.spoken_call()
