"""Advisories in OSV's form against what is installed."""

from __future__ import annotations

import json
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tools.audit import DatabaseInvalid, audit, main


def advisory(
    name: str = "PYSEC-1",
    package: str = "Some_Package",
    events: tuple[dict[str, str], ...] = ({"introduced": "0"}, {"fixed": "2.0"}),
    **more: Any,
) -> dict[str, Any]:
    affected = {
        "package": {"name": package, "ecosystem": "PyPI"},
        "ranges": [
            {"type": "GIT", "events": [{"introduced": "0"}]},
            {"type": "ECOSYSTEM", "events": list(events)},
        ],
    }
    row = {"id": name, "modified": "2026-10-02T00:00:00Z", "summary": "It leaks."}
    return {**row, "affected": [affected], **more}


def database(folder: Path, *advisories: dict[str, Any]) -> Path:
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, one in enumerate(advisories):
            archive.writestr(f"{number}.json", json.dumps(one))
    return path


@pytest.mark.parametrize(
    ("installed", "is_affected"),
    [
        *[("0.0.1.dev1", True), ("1.9", True), ("2.0rc1", True), ("2.0", False)],
        *[("2.4", False), ("2.5", True), ("2.7", True), ("2.7.1", False)],
        *[("2.7+cpu", True), ("2.7.1+cpu", False), ("2.0+cpu", False)],
        *[("2.8", False), ("3.1+local", True), ("not a version", False)],
    ],
)
def test_a_version_inside_of_a_range_is_at_fault(
    tmp_path: Path, installed: str, is_affected: bool
) -> None:
    events = (
        *({"introduced": "0"}, {"fixed": "2.0"}),
        *({"introduced": "2.5"}, {"last_affected": "2.7"}),
        {"introduced": "3.0"},
    )
    found = audit(
        database(tmp_path, advisory(events=events)), [("some-package", installed)]
    )
    assert bool(found.faults) is is_affected


def test_a_version_may_be_listed(tmp_path: Path) -> None:
    row = advisory(events=())
    row["affected"][0]["versions"] = ["1.0", "1.1.0"]
    file = database(tmp_path, row)
    assert audit(file, [("some.package", "1.1")]).faults
    assert audit(file, [("some.package", "1.1+cpu")]).faults
    assert not audit(file, [("some.package", "1.2")]).faults


def test_the_same_fault_under_two_names_is_told_once(tmp_path: Path) -> None:
    file = database(
        tmp_path,
        advisory("GHSA-1", aliases=["CVE-1"]),
        advisory("PYSEC-1", aliases=["CVE-1", "GHSA-1"]),
        advisory("PYSEC-2"),
    )
    found = audit(file, [("some-package", "1.0")])
    assert [fault.names for fault in found.faults] == [
        ("GHSA-1", "CVE-1"),
        ("PYSEC-2",),
    ]
    assert found.faults[0].fixed_in == ("2.0",)


def test_what_was_withdrawn_or_is_of_another_kind_is_nothing(tmp_path: Path) -> None:
    other = advisory("CVE-9")
    other["affected"][0]["package"]["ecosystem"] = "npm"
    file = database(tmp_path, other, advisory(withdrawn="2026-01-01T00:00:00Z"))
    found = audit(file, [("some-package", "1.0")])
    assert (found.num_advisories, list(found.faults)) == (1, [])


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\5\6" + bytes(18)])
def test_what_is_no_database_is_told(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "all.zip"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DatabaseInvalid):
        audit(file, [])
    assert main([str(file)]) == 2


def test_an_advisory_of_another_shape_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseInvalid, match=r"0\.json"):
        audit(database(tmp_path, {"id": 3}), [])


def test_the_command_compares_what_is_installed_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = database(tmp_path, advisory(package="PyTest", events=({"introduced": "0"},)))
    assert main([str(file)]) == 1
    shown = capsys.readouterr().out
    assert f"pytest {version('pytest')}: PYSEC-1\n    It leaks.\n" in shown
    assert "the newest of 2026-10-02: 1 known fault\n" in shown
    assert main([str(file), "--ignore", "PYSEC-1"]) == 0
    assert "no known faults\n" in capsys.readouterr().out
