"""What may stand behind --say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tools.caller.say_items import (
    BadItem,
    HangUp,
    Item,
    Pause,
    Press,
    Say,
    SilentUntil,
    WaitForQuiet,
    WaitForSound,
    parse_item,
)
from tools.caller.sound import rms


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("bye", HangUp()),
        ("@2.5", SilentUntil(2.5)),
        ("+1", Pause(1.0)),
        ("dtmf:12#a", Press("12#A")),
        ("wait:300,0.5", WaitForSound(300.0, 0.5)),
        ("quiet:200,1", WaitForQuiet(200.0, 1.0)),
    ],
)
def test_item(text: str, item: Item) -> None:
    assert parse_item(text) == item


def test_a_recording_becomes_telephone_audio(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    wave = 0.5 * np.sin(np.arange(16_000) * 0.1)
    soundfile.write(path, np.stack([wave, wave], axis=1), 16_000)
    item = parse_item(str(path))
    assert isinstance(item, Say)
    assert item.name == "stereo.wav"
    assert abs(len(item.pcm16) // 2 - 8000) < 200
    assert rms(item.pcm16) > 5000


def test_headerless_mu_law(tmp_path: Path) -> None:
    path = tmp_path / "a.ulaw"
    path.write_bytes(b"\xff" * 160)
    assert parse_item(str(path)) == Say("a.ulaw", bytes(320))


def test_a_text_is_spoken() -> None:
    item = parse_item("say:Hello there.")
    assert isinstance(item, Say)
    assert item.name == "Hello there."
    assert len(item.pcm16) > 8000
    assert rms(item.pcm16) > 500


@pytest.mark.parametrize(
    "text",
    [
        "@soon",
        "+",
        "dtmf:",
        "dtmf:x",
        "wait:300",
        "quiet:a,b",
        "say:",
        "say: ",
        "/no/such/file.wav",
        "/no/such/file.ulaw",
        "/dev/null",
    ],
)
def test_what_is_no_item_is_told_in_one_line(text: str) -> None:
    with pytest.raises(BadItem) as caught:
        parse_item(text)
    assert "\n" not in str(caught.value)
    assert text in str(caught.value)
