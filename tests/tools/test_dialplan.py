"""The dialplan printer: the tested file with other values, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.dialplan import ENTRY, Entry, dialplan_text, main

ROOT = Path(__file__).resolve().parents[2]


def test_with_the_files_own_values_it_is_the_file() -> None:
    assert dialplan_text(Entry("agi://127.0.0.1:4573")) == ENTRY.read_text()


def test_every_value_and_every_extension_is_replaced() -> None:
    text = dialplan_text(
        Entry("agi://10.0.0.5:4600", "7788", "SUPPORT", "sales", 5, 1200)
    )
    assert text.splitlines()[:6] == [
        "exten => 7788,1,Set(ULTRAVOX_AGI=agi://10.0.0.5:4600)",
        "exten => 7788,n,Set(ULTRAVOX_CAMPAIGN=sales)",
        "exten => 7788,n,Set(ULTRAVOX_INGROUP=SUPPORT)",
        "exten => 7788,n,Set(ULTRAVOX_READY_S=5)",
        "exten => 7788,n,Set(ULTRAVOX_CALL_LIMIT_S=1200)",
        "exten => 7788,n,Goto(ultravox-7788,1)",
    ]
    assert "8901" not in text
    assert "-----7788-----Closer" in text


def test_second_extension_leaves_out_what_is_shared() -> None:
    first = dialplan_text(Entry("agi://b:4573", "7788"))
    second = dialplan_text(Entry("agi://b:4573", "7789", is_first=False))
    assert "exten => T,1," in first
    assert "exten => T" not in second
    heads = [line.split(",")[0] for line in (first + second).splitlines()]
    priorities_1 = [
        line.split(",")[0]
        for line in (first + second).splitlines()
        if line.split(",")[1] == "1"
    ]
    assert len(priorities_1) == len(set(priorities_1)) == len(set(heads))


@pytest.mark.parametrize(
    ("agi", "expected"),
    [
        ("10.0.0.5", "agi://10.0.0.5:4573"),
        ("bot.example.com:4600", "agi://bot.example.com:4600"),
        ("agi://10.0.0.5/", "agi://10.0.0.5:4573"),
        ("[fd00::5]:4573", "agi://[fd00::5]:4573"),
        ("[fd00::5]", "agi://[fd00::5]:4573"),
    ],
)
def test_addresses(agi: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--agi", agi, "--ingroup", "SALESLINE"]) == 0
    assert f"Set(ULTRAVOX_AGI={expected})" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--agi", "10.0.0.5"],
        ["--agi", "10.0.0.5,x", "--ingroup", "SALESLINE"],
        ["--agi", "10.0.0.5", "--ingroup", "SALES LINE"],
        ["--agi", "10.0.0.5", "--ingroup", "SALESLINE", "--extension", "s)"],
        ["--agi", "10.0.0.5", "--ingroup", "SALESLINE", "--campaign", "a;b"],
        ["--agi", "10.0.0.5:99999", "--ingroup", "SALESLINE"],
    ],
)
def test_values_that_would_break_the_dialplan_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "wanted" in (error := capsys.readouterr().err) or "required" in error


@pytest.mark.parametrize("extension", ["8368", "8600", "90009", "8500"])
def test_extensions_of_vicidial_are_refused(
    extension: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--agi", "b", "--ingroup", "SALESLINE", "--extension", extension]
    assert main(arguments) == 2
    assert "itself" in capsys.readouterr().err


def test_it_runs_as_a_command() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tools.dialplan", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0
    assert "Custom Dialplan Entry" in run.stdout
