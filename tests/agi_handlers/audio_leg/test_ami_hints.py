"""What a manager adds to a leg: keys for old AudioSocket, talk for recordings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from agi_handlers.ami.messages import KeyPressed, TalkStarted
from agi_handlers.ami.watch import AmiOptions, AmiWatch
from agi_handlers.audio_leg.ami_hints import has_keys, hints_for
from agi_handlers.audio_leg.leg import CallerKey, CallerTalks, LegEvent, LegName


@pytest.mark.parametrize(
    ("version", "sends"),
    [
        ("16.28.0~dfsg-0+deb11u4", False),
        ("18.26.4", False),
        ("20.9.3", False),
        ("20.14.0", True),
        ("21.4.0", False),
        ("22.3.0", False),
        ("22.10.1~dfsg", True),
        ("23.0.0", True),
        ("certified/18.9-cert4", True),  # unreadable
        ("", True),
    ],
)
def test_versions_whose_audiosocket_sends_keys(version: str, sends: bool) -> None:
    assert has_keys(version) is sends


@pytest.mark.parametrize(
    ("leg", "version", "heard"),
    [
        ("audiosocket", "18.26.4", [CallerKey("5")]),
        ("audiosocket", "22.10.1", []),
        ("eagi", "18.26.4", []),
        ("recorded_turns", "16.28.0", [CallerTalks()]),
    ],
)
def test_a_leg_gets_what_it_lacks(
    leg: LegName, version: str, heard: list[LegEvent]
) -> None:
    watch = AmiWatch(AmiOptions("bot", "x"))
    request = SimpleNamespace(channel="SIP/a-1", uniqueid="1.1", version=version)
    agi = cast("Any", SimpleNamespace(request=request))
    got: list[LegEvent] = []
    with hints_for(watch, agi, leg, got.append):
        watch._tell(KeyPressed("SIP/a-1", "1.1", "5"))
        watch._tell(TalkStarted("SIP/a-1", "1.1"))
        watch._tell(KeyPressed("SIP/a-2", "1.2", "7"))
    watch._tell(KeyPressed("SIP/a-1", "1.1", "9"))
    assert got == heard
