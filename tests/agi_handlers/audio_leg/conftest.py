"""What the tests of audio legs share: an open media port, a wheel."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agi_handlers.audio_leg.frame_wheel import FrameWheel, run_frame_wheel
from agi_handlers.audio_leg.media_port import (
    MediaPort,
    MediaPortOptions,
    open_media_port,
)


@pytest.fixture
async def media_port() -> AsyncIterator[MediaPort]:
    options = MediaPortOptions(host="127.0.0.1", port=0, hello_timeout_s=0.2)
    async with open_media_port(options) as port:
        yield port
        assert not port._announced
    assert not port._arrivals


@pytest.fixture
async def wheel() -> AsyncIterator[FrameWheel]:
    with run_frame_wheel() as wheel:
        yield wheel
        assert wheel.num_legs == 0
