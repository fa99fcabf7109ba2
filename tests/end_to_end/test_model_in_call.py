"""A call that a model answers: nothing is scripted between the caller's ear and mouth.

The model is tiny and random: its replies mean nothing, but they are its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.asterisk_lab import Asterisk
from tests.end_to_end.bot_service import BotService
from tests.end_to_end.sip_caller import SipCall
from tools.caller.say_items import recording
from tools.make_tiny_checkpoint import write_tiny_checkpoint

pytestmark = [pytest.mark.asterisk, pytest.mark.slow, pytest.mark.timeout(240)]


async def test_a_local_model_hears_the_caller_and_answers(
    asterisk_22: Asterisk, tmp_path: Path
) -> None:
    write_tiny_checkpoint(tmp_path / "model")
    service = BotService.start(
        tmp_path, settings={"ENGINE": "local", "MODEL": str(tmp_path / "model")}
    )
    try:
        service.wait_until_ready()
        async with SipCall(asterisk_22.sip_port, f"at*{service.agi_port}") as call:
            greeting = await call.happened("heard-end", timeout_s=30)
            call.do(recording(asterisk_22.recording("vm-calldiffnum")))
            said = await call.happened("said-end", after_s=greeting.at_s)
            reply = await call.happened("heard-start", after_s=said.at_s, timeout_s=30)
            await call.happened("heard-end", after_s=reply.at_s, timeout_s=60)
        assert "random" in service.health()
    finally:
        service.stop()
