"""The client for trying the API by hand: output and exit status."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import test_api_client
from model.audio.wav import write_wav
from rest_api.service_state import ServiceState
from tests.rest_api.serving import serving, starting_app


async def run(*arguments: str) -> int:
    return await asyncio.to_thread(test_api_client.main, list(arguments))


async def test_everything_answers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    speech = tmp_path / "speech.wav"
    write_wav(speech, bytes(16_000), rate_hz=8000)
    async with serving(replies=("How can I help?",)) as url:
        assert await run("--url", url, "--audio", str(speech)) == 0
    printed = capsys.readouterr().out
    assert "everything answered" in printed
    assert printed.count("bot: How can I help?") == 7
    assert str(speech) in printed


async def test_without_a_file_a_tone_is_sent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with serving(replies=()) as url:
        assert await run("--url", url) == 0
    assert "I heard you speak for 1.0 seconds." in capsys.readouterr().out


async def test_a_service_that_is_not_ready_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with starting_app(ServiceState(phase="loading it")) as url:
        assert await run("--url", url) == 1
    printed = capsys.readouterr().out
    assert "note: loading it" in printed
    assert "failed: health, text, audio, customer service call" in printed


async def test_nobody_there_is_another_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await run("--url", "http://127.0.0.1:9") == 2
    assert "nobody answers" in capsys.readouterr().err


async def test_a_file_that_is_not_there_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as caught:
        await run("--audio", "/nonexistent.wav")
    assert caught.value.code == 2
