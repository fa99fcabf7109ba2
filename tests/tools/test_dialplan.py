"""The dialplan printer: the tested file with other values, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.dialplan import (
    ASTERISK_VERSIONS,
    ENTRIES,
    Entry,
    Situation,
    context_text,
    dialplan_text,
    main,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("situation", list(ENTRIES))
def test_with_the_files_own_values_it_is_the_file(situation: Situation) -> None:
    entry = Entry("agi://127.0.0.1:4573", "SALESLINE", situation, is_first=False)
    text = ENTRIES[situation].read_text()
    assert text.startswith(dialplan_text(entry))
    if situation == "remote-agent":
        assert text == dialplan_text(replace(entry, is_first=True))
    else:
        assert text == dialplan_text(entry)


def test_every_value_and_every_extension_is_replaced() -> None:
    entry = Entry(
        agi="agi://10.0.0.5:4600",
        agi_2="agi://10.0.0.6:4600",
        in_group="SUPPORT",
        extension="7788",
        campaign="sales",
        people="8500",
        ready_s=5,
        call_limit_s=1200,
    )
    text = dialplan_text(entry)
    assert text.splitlines()[:9] == [
        "exten => 7788,1,Set(ULTRAVOX_AGI=agi://10.0.0.5:4600)",
        "exten => 7788,n,Set(ULTRAVOX_AGI_2=agi://10.0.0.6:4600)",
        "exten => 7788,n,Set(ULTRAVOX_CAMPAIGN=sales)",
        "exten => 7788,n,Set(ULTRAVOX_INGROUP=SUPPORT)",
        "exten => 7788,n,Set(ULTRAVOX_PEOPLE=8500)",
        "exten => 7788,n,Set(ULTRAVOX_READY_S=5)",
        "exten => 7788,n,Set(ULTRAVOX_CALL_LIMIT_S=1200)",
        "exten => 7788,n,Set(ULTRAVOX_EXTEN=${EXTEN})",
        "exten => 7788,n,Goto(ultravox-entry,1)",
    ]
    assert "8901" not in text


def test_entries_of_one_form_do_not_get_into_each_others_way() -> None:
    text = dialplan_text(Entry("agi://b:4573", "SALESLINE"))
    for situation in ENTRIES:
        if situation != "remote-agent":
            entry = Entry("agi://b:4573", "SALESLINE", situation, is_first=False)
            text += dialplan_text(entry)
    first = [li.split(",")[0] for li in text.splitlines() if li.split(",")[1] == "1"]
    assert len(first) == len(set(first)) == len(ENTRIES) + 2  # and the shared two


def test_nothing_the_form_deletes_is_in_any_file() -> None:
    for path in ENTRIES.values():
        assert not set(path.read_text()) & set(";\\")


# Known to Asterisk 11 and to all that came after it.
APPLICATIONS = {
    "AGI",
    "Answer",
    "Congestion",
    "ExecIf",
    "Gosub",
    "Goto",
    "GotoIf",
    "Hangup",
    "Log",
    "NoOp",
    "Playback",
    "Queue",
    "Return",
    "Set",
    "Verbose",
}
FUNCTIONS = {
    "CALLERID",
    "CONNECTEDLINE",
    "DIALPLAN_EXISTS",
    "FILTER",
    "HANGUPCAUSE",
    "HANGUPCAUSE_KEYS",
    "LEN",
    "REGEX",
    "TIMEOUT",
}


def test_nothing_is_used_that_asterisk_11_does_not_have() -> None:
    text = (ENTRIES["did"].parent / "extensions-ultravox.conf").read_text()
    for situation in ENTRIES:
        for version in ASTERISK_VERSIONS:
            text += context_text(Entry("agi://b:4573", "SALES", situation), version)
    lines = [line for line in text.splitlines() if not line.startswith(";")]
    text = "\n".join(lines)
    applications = set(re.findall(r"(?:[ ,][1n](?:\(\w+\))?,|\?)(\w+)\(", text))
    functions = set(re.findall(r"\$\{(\w+)\(", text))
    functions |= set(re.findall(r"Set\((\w+)\(", text))
    assert applications == APPLICATIONS
    assert functions == FUNCTIONS


@pytest.mark.parametrize("version", [11, 13, 22])
def test_a_context_of_its_own_has_the_call_log_of_its_version(version: int) -> None:
    text = context_text(Entry("agi://b:4573", "SALESLINE"), version)
    assert text.startswith("[ultravox-vicidial]\nexten => 8901,1,")
    h = text.splitlines()[-1]
    assert h.startswith("exten => h,1,AGI(agi://127.0.0.1:4577/call_log--HVcauses--")
    assert ("HANGUPCAUSE_KEYS" in h) == (version >= 13)
    assert h.count("(") == h.count(")")
    own = (ENTRIES["did"].parent / "extensions-ultravox-vicidial.conf").read_text()
    assert (h in own) == (version >= 13)


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
