"""What is kept of a call whose process is killed in its middle."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
import soundfile

from tests.end_to_end.asterisk_lab import ROOT, die_with_parent
from tests.end_to_end.bot_service import BotService

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SETTINGS: Final = {"RECORDINGS": "true", "RECORDINGS_MIN_FREE_MB": "0"}


@contextmanager
def caller(service: BotService, *say: str) -> Iterator[None]:
    command = (
        *(sys.executable, "-m", "tools.place_call", "--seconds", "90"),
        *("--agi", f"127.0.0.1:{service.agi_port}", "--say", *say),
    )
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def asked(service: BotService, path: str) -> dict[str, Any]:
    with urlopen(f"http://127.0.0.1:{service.http_port}/{path}", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)["data"]
    return found


def until(found: Callable[[], Any]) -> Any:
    """What it finds, waited for."""
    deadline = time.monotonic() + 60
    while True:
        try:
            if result := found():
                return result
        except (URLError, ConnectionError):
            pass  # the port is between two processes
        assert time.monotonic() < deadline
        time.sleep(0.2)


def newest(service: BotService) -> dict[str, Any]:
    calls = asked(service, "calls")["calls"]
    return asked(service, f"calls/{calls[0]['call_id']}")["call"] if calls else {}


def replies(call: dict[str, Any]) -> list[dict[str, Any]]:
    turns = call.get("turns", ())
    return [turn for turn in turns if turn["source"] == "reply" and turn["fate"]]


def test_a_killed_phone_half_leaves_a_record_and_a_playable_recording(
    tmp_path: Path,
) -> None:
    service = BotService.start(tmp_path, settings=SETTINGS)
    try:
        service.wait_until_ready()
        with caller(service, "@2", "say:What are your opening hours?", "+60"):
            before = until(lambda: (call := newest(service)) and replies(call) and call)
            service.kill()
        (wav,) = (tmp_path / "data/recordings").glob("*/*.wav")
        samples, rate_hz = soundfile.read(wav, dtype="int16")
        assert rate_hz == 8000
        heard = np.abs(samples.astype(int)).max(axis=0)
        assert (heard > 500).all()  # both sides up to then
        assert len(samples) / rate_hz > replies(before)[0]["played_ms"] / 1000 - 1.6
    finally:
        service.stop()
    again = BotService.start(tmp_path, service.agi_port, settings=SETTINGS)
    try:
        again.wait_until_ready()
        call = until(
            lambda: (one := newest(again)) and one["status"] == "interrupted" and one
        )
        assert call["reason"] == "process_ended"
        assert call["call_id"] == before["call_id"]
        assert replies(call)[0]["reply_text"] == replies(before)[0]["reply_text"]
        assert call["has_recording"]
        shape = asked(again, f"calls/{call['call_id']}/waveform")
        assert max(shape["caller"]) > 0.01
        assert max(shape["bot"]) > 0.01
    finally:
        again.stop()


def test_a_killed_speech_half_leaves_the_whole_record_and_recording(
    tmp_path: Path,
) -> None:
    service = BotService.start(tmp_path, settings=SETTINGS)
    try:
        service.wait_until_ready()
        with caller(service, "@2", "say:What are your opening hours?", "+3", "bye"):
            until(lambda: (call := newest(service)) and replies(call))
            (speech_half,) = service.speech_halves()
            speech_half.kill()
            call = until(
                lambda: (one := newest(service)) and one["status"] != "running" and one
            )
        assert call["status"] in ("caller_hung_up", "failed")
        assert call["has_recording"]
        assert asked(service, f"calls/{call['call_id']}/waveform")["duration_s"] > 3
    finally:
        service.stop()
