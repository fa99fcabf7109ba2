"""The doctor's test call: through a real Asterisk's manager and dialplan to the bot."""

from __future__ import annotations

import argparse

import pytest

from tests.end_to_end.asterisk_lab import Asterisk
from tests.end_to_end.bot_service import BotService
from tools.doctor import call_through_dialer as place

pytestmark = [pytest.mark.asterisk, pytest.mark.slow, pytest.mark.timeout(120)]


def given(asterisk: Asterisk, channel: str) -> argparse.Namespace:
    return argparse.Namespace(
        call=channel,
        ami=f"127.0.0.1:{asterisk.ami_port}",
        ami_user="doctor",
        own_address="127.0.0.1",
    )


async def test_audio_is_judged_both_ways(
    asterisk_22: Asterisk, service: BotService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMI_SECRET", "lab-secret")
    asked = given(asterisk_22, "Local/bot@from-sip/n")
    findings = [one async for one in place(asked)]
    assert [one.verdict for one in findings] == ["ok", "ok", "ok"], findings
    assert "it answered after" in findings[-1].text
    await asterisk_22.is_empty()


async def test_wrong_secret_and_wrong_extension_are_told(
    asterisk_22: Asterisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMI_SECRET", "wrong")
    (refused,) = [one async for one in place(given(asterisk_22, "Local/bot@from-sip"))]
    assert "Authentication failed" in refused.text
    monkeypatch.setenv("AMI_SECRET", "lab-secret")
    (lost,) = [one async for one in place(given(asterisk_22, "Local/none@nowhere"))]
    assert lost.verdict == "FAIL"
