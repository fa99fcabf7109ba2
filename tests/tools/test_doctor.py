"""An installation that is well, and each thing that can be wrong with one."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config import Settings
from tests.agi_handlers.records.stored_calls import store
from tools import doctor
from tools.doctor import Finding

ROOT = Path(__file__).parent.parent.parent


def _settings(data_dir: Path, **values: Any) -> Settings:
    ports = {"port": 0, "agi_port": 0, "audiosocket_port": 0}
    wanted = {
        "data_dir": data_dir,
        "campaigns_dir": ROOT / "campaigns",
        "sounds_dir": ROOT / "sounds",
        "host": "127.0.0.1",
        "agi_host": "127.0.0.1",
        "audiosocket_host": "127.0.0.1",
        "engine": "scripted",
        "vad": "webrtc",
        **ports,
        **values,
    }
    return Settings(**wanted)


async def _findings(settings: Settings) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    async for finding in doctor.examine(settings):
        found.setdefault(finding.what, []).append(finding)
    return found


def _broken(found: dict[str, list[Finding]]) -> list[str]:
    rows = [row for rows in found.values() for row in rows]
    assert all(row.cure for row in rows if row.verdict == "FAIL")
    return sorted({row.what for row in rows if row.verdict == "FAIL"})


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_installation_that_is_well_has_nothing_broken(data_dir: Path) -> None:
    store(data_dir)
    found = await _findings(_settings(data_dir))
    assert _broken(found) == []
    assert "3 calls" in found["call records"][0].text
    assert found["calls"][0].verdict == "note"
    assert {"voice", "prompts", "campaigns", "clock", "limits"} <= set(found)


async def test_corrupt_records_are_told(data_dir: Path) -> None:
    (data_dir / "calls.sqlite").write_bytes(b"not a database" * 200)
    assert "call records" in _broken(await _findings(_settings(data_dir)))


async def test_a_shared_store_that_does_not_answer_is_told(data_dir: Path) -> None:
    shared = {"caller_key": "0123456789abcdef"}
    url = "postgresql+psycopg://bot:secret@127.0.0.1:1/calls"
    found = await _findings(_settings(data_dir, records_url=url, **shared))
    assert "call records" in _broken(found)
    assert "secret" not in str(found["call records"])
    url = f"sqlite:///{data_dir}/shared.db"
    missing = {"turn_model": str(data_dir / "none")}  # each look costs a second
    found = await _findings(_settings(data_dir, records_url=url, **shared, **missing))
    assert _broken(found) == ["model for the end of turns"]


async def test_every_mistake_of_a_campaign_is_a_line(
    data_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "campaigns"
    folder.mkdir()
    (folder / "default.toml").write_text("[rules]\nmax_call_s = 1\nno_such = 2\n")
    found = await _findings(_settings(data_dir, campaigns_dir=folder))
    assert len(found["campaigns"]) == 2
    assert _broken(found) == ["campaigns"]


async def test_missing_prompts_and_an_unusable_folder_are_told(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    settings = _settings(blocker / "data", sounds_dir=tmp_path / "none")
    assert {"prompts", "data folder"} <= set(_broken(await _findings(settings)))


async def test_port_of_another_program_is_told(data_dir: Path, taken_port: int) -> None:
    found = await _findings(_settings(data_dir, audiosocket_port=taken_port))
    assert _broken(found) == ["port"]
    told = [row.text for row in found["port"] if row.verdict == "FAIL"]
    assert told == [f"127.0.0.1:{taken_port}: Address already in use"]


async def test_speech_half_that_is_not_there_is_told(
    data_dir: Path, free_port: Callable[[], int]
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert _broken(await _findings(_settings(data_dir, api_url=url))) == [
        f"speech half {url}"
    ]


async def test_name_that_dialers_cannot_know_is_told(data_dir: Path) -> None:
    settings = _settings(data_dir, audiosocket_advertise="no-such-host.invalid:9092")
    assert _broken(await _findings(settings)) == ["audio address"]


async def test_vicidial_that_is_not_there_is_told_and_never_the_password(
    data_dir: Path, free_port: Callable[[], int]
) -> None:
    settings = _settings(
        data_dir,
        vicidial_url=f"http://127.0.0.1:{free_port()}",
        vicidial_user="bot",
        vicidial_password="S3cretPass",
        vicidial_agent_user="7001",
    )
    found = await _findings(settings)
    assert _broken(found) == ["VICIdial non-agent API"]
    assert "S3cretPass" not in str(found)


async def test_too_many_calls_for_the_open_files_are_told(data_dir: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    try:
        found = await _findings(_settings(data_dir, max_calls=200))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "limits" in _broken(found)


def test_wrong_settings_end_with_their_own_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ULTRAVOX_PORTT", "8000")
    assert doctor.main(["--json"]) == 2
    (row,) = json.loads(capsys.readouterr().out)
    assert row["verdict"] == "FAIL"
    assert "ULTRAVOX_PORT" in row["text"]


def test_something_broken_is_status_one_and_a_line_with_its_cure(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    free_port: Callable[[], int],
) -> None:
    values = {
        "DATA_DIR": tmp_path,
        "ENGINE": "scripted",
        "VAD": "webrtc",
        "CAMPAIGNS_DIR": ROOT / "campaigns",
        "SOUNDS_DIR": tmp_path / "none",
        "API_URL": "",
    }
    for name in ("PORT", "AGI_PORT", "AUDIOSOCKET_PORT"):
        values[name] = str(free_port())
    for name, value in values.items():
        monkeypatch.setenv(f"ULTRAVOX_{name}", str(value))
    assert doctor.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    (told,) = [line for line in lines if line.startswith("FAIL")]
    assert "prompts" in told
    assert "->" in told
    assert lines[-1].endswith("1 broken")
