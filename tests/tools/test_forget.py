"""One caller's data deleted, nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from agi_handlers.records.archive import CallArchive, CallQuery
from agi_handlers.records.rows import CallRow, Row, TurnRow
from tests.agi_handlers.records.stored_calls import T0, store
from tools import forget

SECRET = "the words of this caller"


def _store(data_dir: Path) -> Path:
    recording = data_dir / "recordings/a.wav"
    recording.parent.mkdir()
    recording.write_bytes(b"RIFF")
    rows: list[Row] = [
        CallRow("a", T0, caller="+12125550187", recording="recordings/a.wav"),
        TurnRow("a", 1, "reply", reply_text=SECRET),
        CallRow("b", T0, caller="3105550123"),
        TurnRow("b", 1, "reply", reply_text="another"),
    ]
    return store(data_dir, rows)


def _ids(path: Path) -> list[str]:
    page = CallArchive(path).search(CallQuery())
    return sorted(call["call_id"] for call in page.calls)


def test_without_delete_it_only_says_what_there_is(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _store(data_dir)
    assert forget.main(["212 555 0187", "--data-dir", str(data_dir)]) == 0
    assert "1 calls, 1 recordings" in capsys.readouterr().out
    assert _ids(path) == ["a", "b"]


def test_nothing_of_the_caller_is_left_on_the_disk(data_dir: Path) -> None:
    path = _store(data_dir)
    assert forget.main(["212 555 0187", "--delete", "--data-dir", str(data_dir)]) == 0
    assert _ids(path) == ["b"]
    assert not (data_dir / "recordings/a.wav").exists()
    for file in data_dir.glob("calls.sqlite*"):
        assert SECRET.encode() not in file.read_bytes(), file


def test_other_callers_keep_their_data(data_dir: Path) -> None:
    path = _store(data_dir)
    assert forget.main(["2025550100", "--delete", "--data-dir", str(data_dir)]) == 0
    assert _ids(path) == ["a", "b"]


def test_number_without_digits_is_refused(data_dir: Path) -> None:
    _store(data_dir)
    assert forget.main(["nobody", "--delete", "--data-dir", str(data_dir)]) == 2


def test_folder_without_records_is_an_error(data_dir: Path) -> None:
    assert forget.main(["2125550187", "--data-dir", str(data_dir)]) == 1
