"""Health, memory, metrics and heartbeats over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from model.client import Heartbeat, HeartbeatSender
from model.engine.interface import EngineDescription
from model.engine.scripted import ScriptedEngine
from rest_api.app import AppOptions
from rest_api.auth import KeyRing
from rest_api.service_state import RANDOM_WEIGHTS_NOTE, ServiceState
from tests.rest_api.serving import serving, starting_app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with serving() as url, httpx.AsyncClient(base_url=url) as client:
        yield client


async def test_a_ready_service_answers_200_everywhere(
    client: httpx.AsyncClient,
) -> None:
    for path in ("/health", "/health/live", "/health/ready"):
        assert (await client.get(path)).status_code == 200
    report = (await client.get("/health")).json()
    assert report["status"] == "healthy"
    assert report["model"]["name"] == "scripted replies"


async def test_while_starting_only_live_answers_200() -> None:
    async with (
        starting_app(ServiceState(phase="loading org/model")) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health")).status_code == 503
        ready = await client.get("/health/ready")
        line = await client.get("/health", params={"format": "text"})
    assert ready.status_code == 503
    assert ready.json() == {"status": "not_ready", "detail": "loading org/model"}
    assert line.status_code == 503
    assert line.text.startswith("CRITICAL - unhealthy: loading org/model")


async def test_one_line_for_nagios(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health?format=text")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.count("\n") == 1
    assert answer.text.startswith("OK - healthy; model scripted replies on none;")
    assert " | sessions=0;;;0;40 uptime=" in answer.text


async def test_an_unknown_format_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health?format=xml")
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "format"


class RandomEngine(ScriptedEngine):
    """As the tiny checkpoint describes itself."""

    @property
    def description(self) -> EngineDescription:
        return EngineDescription("local", "tiny", "random", "cpu", "float32", 1, 4096)


async def test_random_weights_are_said_to_be_random() -> None:
    async with (
        serving(engine=RandomEngine()) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        report = (await client.get("/health")).json()
        line = (await client.get("/health?format=text")).text
    assert report["model"]["weights"] == "random"
    assert report["model"]["detail"] == RANDOM_WEIGHTS_NOTE
    assert RANDOM_WEIGHTS_NOTE in line


async def test_memory_tells_process_machine_and_model(
    client: httpx.AsyncClient,
) -> None:
    report = (await client.get("/memory")).json()
    assert report["process"]["rss_bytes"] > 1_000_000
    assert report["system"]["total_bytes"] > report["process"]["rss_bytes"]
    assert report["model"] == {"weights_bytes": 0, "kv_bytes": 0, "audio_bytes": 0}


async def test_metrics_are_prometheus_text(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "# TYPE voicebot_first_audio_seconds histogram" in answer.text
    assert 'voicebot_engine_requests{process="speech",state="waiting"}' in answer.text


async def test_heartbeats_show_up_in_health() -> None:
    calls = [3]
    async with serving() as url, httpx.AsyncClient(base_url=url) as client:
        sender = HeartbeatSender(
            [url, "http://127.0.0.1:9"],
            "dialer-1",
            lambda: Heartbeat(calls[0], 40, num_frames_late=2, last_error="none"),
            interval_s=0.05,
        )
        sending = asyncio.create_task(sender.run())
        try:
            reports: list[dict[str, object]] = []
            async with asyncio.timeout(10):
                while not reports:
                    reports = (await client.get("/health")).json()["telephony"] or []
                    await asyncio.sleep(0.01)
            line = (await client.get("/health?format=text")).text
        finally:
            sending.cancel()
            await asyncio.wait([sending])
    assert reports[0]["name"] == "dialer-1"
    assert reports[0]["num_calls"] == 3
    assert reports[0]["num_frames_late"] == 2
    assert "3 of 40 calls" in line


async def test_metrics_of_the_phone_half_are_shown_as_well() -> None:
    async with serving() as url, httpx.AsyncClient(base_url=url) as client:
        sender = HeartbeatSender(
            [url], "dialer-1", lambda: Heartbeat(0, 40), interval_s=0.05
        )
        sending = asyncio.create_task(sender.run())
        try:
            text = ""
            async with asyncio.timeout(10):
                while "dialer-1" not in text:
                    text = (await client.get("/metrics")).text
                    await asyncio.sleep(0.01)
        finally:
            sending.cancel()
            await asyncio.wait([sending])
    assert 'voicebot_calls_in_progress{process="speech"}' in text
    assert 'voicebot_calls_in_progress{process="dialer-1"}' in text
    assert text.count("# TYPE voicebot_calls_in_progress gauge") == 1


async def test_a_heartbeat_of_nonsense_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/internal/heartbeat", json={"name": ""})
    assert answer.status_code == 422


async def test_strangers_do_not_see_the_last_error() -> None:
    state = ServiceState()
    state.note_error("invalid_request", "quotes what somebody sent")
    keys = AppOptions(keys=KeyRing.parse("a:" + "k" * 20))
    async with (
        serving(state=state, app=keys) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        own = (await client.get("/health")).json()
        foreign = {"X-Forwarded-For": "203.0.113.9"}
        theirs = (await client.get("/health", headers=foreign)).json()
    assert own["last_error"]["code"] == "invalid_request"
    assert theirs["last_error"] is None


async def test_live_does_not_wait_for_anything() -> None:
    state = ServiceState()
    state.fail("broken")
    async with starting_app(state) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/health/live")).json() == {"status": "alive"}
