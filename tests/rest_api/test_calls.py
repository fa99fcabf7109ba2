"""Calls over HTTP: found, shown, heard; and honest when there is nothing to read."""

from __future__ import annotations

import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from agi_handlers.records.rows import CallRow
from rest_api.app import AppOptions
from rest_api.auth import KeyRing
from tests.agi_handlers.records.stored_calls import ROWS, T0, store
from tests.rest_api.serving import serving


@pytest.fixture
async def client(data_dir: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(app=AppOptions(data_dir=data_dir)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield client


async def _get(client: httpx.AsyncClient, path: str, **query: Any) -> dict[str, Any]:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["success"] is True
    data: dict[str, Any] = body["data"]
    return data


async def _refusal(
    client: httpx.AsyncClient, path: str, **query: Any
) -> tuple[int, str]:
    answer = await client.get(path, params=query)
    body = answer.json()
    assert body["success"] is False
    return answer.status_code, body["error"]["code"]


def _write_recording(data_dir: Path, name: str) -> None:
    path = data_dir / name
    path.parent.mkdir(parents=True)
    left = np.concatenate([np.full(8000, 16384), np.zeros(8000)])
    right = np.concatenate([np.zeros(8000), np.full(8000, -32768)])
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.stack([left, right], 1).astype("<i2").tobytes())


async def test_calls_are_found_newest_first_page_by_page(
    client: httpx.AsyncClient, data_dir: Path
) -> None:
    store(data_dir)
    first = await _get(client, "/calls", limit=2)
    assert [call["call_id"] for call in first["calls"]] == ["call-3", "call-2"]
    rest = await _get(client, "/calls", limit=2, cursor=first["next_cursor"])
    assert [call["call_id"] for call in rest["calls"]] == ["call-1"]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"number": "(212) 555-0187"}, ["call-1"]),
        ({"campaign": "support"}, ["call-3", "call-2"]),
        ({"status": "running"}, ["call-3"]),
        ({"text": "open"}, ["call-1"]),
        ({"since": T0 + 50, "until": "2023-11-14T22:15:50Z"}, ["call-2"]),
    ],
)
async def test_search_takes_each_condition(
    client: httpx.AsyncClient, data_dir: Path, query: dict[str, Any], wanted: list[str]
) -> None:
    store(data_dir)
    found = await _get(client, "/calls", **query)
    assert [call["call_id"] for call in found["calls"]] == wanted


async def test_one_call_is_whole(client: httpx.AsyncClient, data_dir: Path) -> None:
    store(data_dir)
    call = (await _get(client, "/calls/call-1"))["call"]
    assert [turn["turn"] for turn in call["turns"]] == [1, 2]
    assert call["events"][0]["kind"] == "barge_in"
    assert call["has_recording"] is False
    assert "caller_key" not in call


async def test_recording_is_served_whole_in_ranges_and_as_a_waveform(
    client: httpx.AsyncClient, data_dir: Path
) -> None:
    name = "recordings/2023-11-14/r.wav"
    _write_recording(data_dir, name)
    store(data_dir, [CallRow("r", T0, recording=name)])
    assert (await _get(client, "/calls/r"))["call"]["has_recording"] is True
    whole = await client.get("/calls/r/recording")
    assert whole.headers["content-type"] == "audio/wav"
    assert whole.content == (data_dir / name).read_bytes()
    part = await client.get("/calls/r/recording", headers={"Range": "bytes=44-47"})
    assert (part.status_code, part.content) == (206, whole.content[44:48])
    shape = await _get(client, "/calls/r/waveform", points=10)
    assert shape["duration_s"] == 2.0
    assert shape["caller"] == [0.5] * 5 + [0.0] * 5
    assert shape["bot"] == [0.0] * 5 + [1.0] * 5


@pytest.mark.parametrize("name", ["../secret.wav", "/etc/hostname", "recordings/../x"])
async def test_record_cannot_lead_out_of_the_recordings(
    client: httpx.AsyncClient, data_dir: Path, name: str
) -> None:
    (data_dir.parent / "secret.wav").write_bytes(b"secret")
    (data_dir / "x").write_bytes(b"secret")
    store(data_dir, [CallRow("r", T0, recording=name)])
    assert await _refusal(client, "/calls/r/recording") == (404, "not_found")


async def test_figures_cover_the_time_asked_for(
    client: httpx.AsyncClient, data_dir: Path
) -> None:
    store(data_dir)
    found = await _get(
        client, "/calls/figures", since=T0 - 60, until=T0 + 600, bucket_s=300
    )
    assert found["num_calls"] == 3
    assert found["response_ms"] == {"count": 2, "p50": 450, "p95": 900, "p99": 900}


@pytest.mark.parametrize(
    "query",
    [
        {"since": T0, "until": T0},
        {"since": 0, "until": T0, "bucket_s": 60},
        {"since": "0001-01-01T00:00:00", "until": T0},
        {"since": "2023-11-14T00:00:00", "until": "2023-11-13T00:00:00Z"},
        {"since": "yesterday", "until": T0},
    ],
)
async def test_impossible_times_are_refused(
    client: httpx.AsyncClient, query: dict[str, Any]
) -> None:
    assert await _refusal(client, "/calls/figures", **query) == (422, "invalid_request")


async def test_foreign_cursor_and_unknown_call_are_refused(
    client: httpx.AsyncClient, data_dir: Path
) -> None:
    store(data_dir)
    assert await _refusal(client, "/calls", cursor="x") == (422, "invalid_request")
    assert await _refusal(client, "/calls/nobody") == (404, "not_found")


async def test_before_the_first_call_there_is_an_empty_page_that_says_so(
    client: httpx.AsyncClient,
) -> None:
    found = await _get(client, "/calls")
    assert found["calls"] == []
    assert "no calls are recorded yet" in found["note"]


async def test_broken_records_are_an_error_not_an_empty_page(
    client: httpx.AsyncClient, data_dir: Path
) -> None:
    (data_dir / "calls.sqlite").write_bytes(b"no database at all" * 100)
    assert await _refusal(client, "/calls") == (503, "records_unreadable")


async def test_calls_need_a_key_from_elsewhere(data_dir: Path) -> None:
    store(data_dir, ROWS)
    options = AppOptions(data_dir=data_dir, keys=KeyRing.parse("a:" + "k" * 32))
    elsewhere = {"X-Forwarded-For": "203.0.113.9"}
    async with serving(app=options) as url, httpx.AsyncClient(base_url=url) as client:
        for path in ("/calls", "/calls/call-1", "/calls/call-1/recording"):
            assert (await client.get(path, headers=elsewhere)).status_code == 401
        with_key = elsewhere | {"X-API-Key": "k" * 32}
        assert (await client.get("/calls", headers=with_key)).status_code == 200
