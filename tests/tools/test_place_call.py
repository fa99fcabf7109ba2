"""The command itself: arguments, exit status, last line, files."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agi_handlers.agi import commands
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.agi.protocol import AgiRequest
from model.audio.wav import read_pcm16, write_wav
from tests.tools.caller.virtual_call import bot_at
from tools.place_call import main

ROOT = Path(__file__).resolve().parents[2]
TONE = (np.tile([5000, -5000], 1600)).astype("<i2").tobytes()  # 0.4 s


async def place_call(*arguments: str) -> tuple[int, list[str], str]:
    """Exit status, lines of standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tools.place_call",
        *arguments,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode().splitlines(), err.decode()


def heard_bytes(path: Path) -> bytes:
    """A recording without its silence; TONE has no zero in it."""
    return read_pcm16(path, rate_hz=8000).replace(b"\0", b"")


def last_line(lines: list[str]) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(lines[-1])
    return summary


async def greeting_bot(request: AgiRequest, agi: AgiConnection) -> None:
    """Answers, plays a prompt, returns."""
    await agi.execute(commands.answer())
    await agi.play_interruptible("hello")
    await agi.execute(
        commands.set_variable("BOT_STATUS", request.query.get("campaign", "none"))
    )
    await agi.execute(commands.set_variable("BOT_RESULT", "done"))


async def test_one_call_leaves_a_summary_a_recording_and_a_journal(
    tmp_path: Path,
) -> None:
    write_wav(tmp_path / "hello.wav", TONE, rate_hz=8000)
    out, events = tmp_path / "heard.wav", tmp_path / "events.jsonl"
    async with bot_at(greeting_bot) as port:
        status, lines, err = await place_call(
            *("--agi", f"127.0.0.1:{port}", "--script", "bot?campaign=sales"),
            *("--sounds", str(tmp_path), "--out", str(out), "--events", str(events)),
        )
    assert (status, err) == (0, "")
    summary = last_line(lines)
    assert summary["ended"] == "returned"
    assert summary["variables"] == {"BOT_STATUS": "sales", "BOT_RESULT": "done"}
    assert summary["greeting_ms"] is not None
    assert summary["errors"] == []
    assert heard_bytes(out) == TONE
    names = [json.loads(line)["ev"] for line in events.read_text().splitlines()]
    assert names[0] == "connected"
    assert names[-1] == "done"


async def test_several_calls_at_once_are_summed_up(tmp_path: Path) -> None:
    write_wav(tmp_path / "hello.wav", TONE, rate_hz=8000)
    uniqueids: set[str] = set()

    async def bot(request: AgiRequest, agi: AgiConnection) -> None:
        uniqueids.add(request.uniqueid)
        await greeting_bot(request, agi)

    async with bot_at(bot) as port:
        status, lines, _ = await place_call(
            *("--agi", f"127.0.0.1:{port}", "--script", "bot", "--calls", "3"),
            *("--sounds", str(tmp_path), "--out", str(tmp_path / "heard.wav")),
        )
    summary = last_line(lines)
    assert status == 0
    assert (summary["calls"], summary["answered"]) == (3, 3)
    assert summary["ended"] == {"returned": 3}
    assert summary["bot_status"] == {"none": 3}
    assert len(uniqueids) == 3
    recordings = [tmp_path / f"heard-{number}.wav" for number in (1, 2, 3)]
    assert [heard_bytes(path) for path in recordings] == [TONE] * 3


async def test_a_bot_that_refuses_is_exit_status_1() -> None:
    async def bot(request: AgiRequest, agi: AgiConnection) -> None:
        await agi.execute(commands.set_variable("BOT_STATUS", "busy"))

    async with bot_at(bot) as port:
        status, lines, _ = await place_call(
            "--agi", f"127.0.0.1:{port}", "--script", "bot"
        )
    assert status == 1
    assert last_line(lines)["ended"] == "refused"


async def test_nobody_there_is_exit_status_1(free_port: Callable[[], int]) -> None:
    status, lines, _ = await place_call("--agi", f"127.0.0.1:{free_port()}")
    assert status == 1
    assert "nobody listens" in last_line(lines)["errors"][0]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--agi", "nowhere"],
        ["--agi", "h:1", "--calls", "0"],
        ["--agi", "h:1", "--var", "A"],
    ],
)
def test_wrong_arguments_are_exit_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_an_item_that_is_none_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--agi", "127.0.0.1:1", "--say", "/no/such.wav"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_help_lists_the_items(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "dtmf:123#" in shown
    assert "--audiosocket" in shown
