"""The page about the HTTP port says what is so."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import model.live_messages
from rest_api import errors
from tests.rest_api.serving import serving

README = (Path(__file__).resolve().parents[2] / "rest_api/README.md").read_text()


async def test_the_worked_example_works() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    async with serving(replies=("Good day.",)) as url:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program.replace("ws://127.0.0.1:8000", url.replace("http", "ws")),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    assert out.decode().splitlines() == [
        "talking to scripted replies",
        "Good day. (0.1 s of speech)",
    ]


def test_the_message_table_has_every_message_and_field() -> None:
    (table,) = re.findall(r"\| client sends .*?\n\nTurn numbers", README, re.DOTALL)
    described = model.live_messages.__doc__ or ""
    rows = re.findall(r"^    (\w+) {2,}(\S.*(?:\n {22}.*)*)", described, re.MULTILINE)
    names = {name for name, _ in rows} - {"client", "server"}
    assert {"start", "utterance", "settle", "ready", "done", "error"} <= names
    for name in names:
        assert f"`{name}`" in table, name
    for name in ("heard_ms", "rate_hz", "n_bytes", "end_of_turn_probability"):
        assert f"`{name}`" in table, name


def test_the_table_of_failures_has_every_code() -> None:
    (table,) = re.findall(r"\| status \| code .*?\n\n", README, re.DOTALL)
    for code in errors._CODE_OF_STATUS.values():
        if code not in {"bad_request", "forbidden", "conflict"}:
            assert f"`{code}`" in table, code
