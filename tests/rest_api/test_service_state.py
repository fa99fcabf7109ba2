"""Health is one honest answer for model and telephony."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from model.client import Heartbeat
from model.engine.scripted import ScriptedEngine
from model.service import LocalSpeechService, ServiceOptions
from model.speech import SessionOptions
from model.tts.speaker import Speaker
from rest_api.service_state import ServiceState
from tests.fakes.tone_synthesizer import ToneSynthesizer


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> ServiceState:
    return ServiceState(model_wanted="org/model", clock=clock)


def make_ready(state: ServiceState, max_sessions: int = 3) -> LocalSpeechService:
    synthesizer = ToneSynthesizer()
    service = LocalSpeechService(
        ScriptedEngine(),
        synthesizer,
        Speaker(synthesizer),
        ServiceOptions(max_sessions=max_sessions),
    )
    state.ready(service)
    return service


async def test_a_start_in_progress_is_unhealthy_and_says_at_what(
    state: ServiceState,
) -> None:
    state.phase = "loading org/model"
    report = await state.health()
    assert report["status"] == "unhealthy"
    assert report["detail"] == "loading org/model"
    assert report["model"]["name"] == "org/model"
    assert report["model_loaded"] is False


async def test_a_failed_start_says_why(state: ServiceState) -> None:
    state.fail("model_load_failed: no such repository")
    report = await state.health()
    assert report["status"] == "unhealthy"
    assert "no such repository" in report["detail"]


async def test_a_service_without_telephony_is_healthy(
    state: ServiceState, clock: Clock
) -> None:
    make_ready(state)
    clock.now_s += 12.34
    report = await state.health()
    assert report["status"] == "healthy"
    assert report["detail"] == ""
    assert report["telephony"] is None
    assert report["uptime_s"] == 12.3
    assert report["model"]["weights"] == "scripted"
    assert report["queue"]["waiting"] == 0


async def test_a_phone_half_that_fell_silent_degrades(
    state: ServiceState, clock: Clock
) -> None:
    make_ready(state)
    state.note_heartbeat("dialer-1", Heartbeat(num_calls=2, max_calls=40), 5.0)
    clock.now_s += 14.0
    assert (await state.health())["status"] == "healthy"
    clock.now_s += 2.0
    report = await state.health()
    assert report["status"] == "degraded"
    assert "dialer-1 silent for 16 s" in report["detail"]
    assert report["telephony"][0]["age_s"] == 16.0
    assert report["telephony"][0]["num_calls"] == 2
    state.note_heartbeat("dialer-1", Heartbeat(num_calls=0, max_calls=40), 5.0)
    assert (await state.health())["status"] == "healthy"


async def test_a_phone_half_that_drained_has_left_in_order(
    state: ServiceState, clock: Clock
) -> None:
    make_ready(state)
    state.note_heartbeat("dialer-1", Heartbeat(0, 40, is_draining=True), 5.0)
    assert (await state.health())["status"] == "degraded"
    clock.now_s += 60.0
    report = await state.health()
    assert report["status"] == "healthy"
    assert report["telephony"] is None


async def test_names_made_up_do_not_grow_the_list(
    state: ServiceState, clock: Clock
) -> None:
    make_ready(state)
    for number in range(1000):
        clock.now_s += 0.001
        state.note_heartbeat(f"phone-{number}", Heartbeat(0, 1), 5.0)
    names = [phone["name"] for phone in (await state.health())["telephony"]]
    assert len(names) == 100
    assert "phone-999" in names
    assert "phone-1" not in names


async def test_no_room_left_degrades(state: ServiceState) -> None:
    service = make_ready(state, max_sessions=1)
    async with service.open_session(SessionOptions("a", "")):
        report = await state.health()
    assert report["status"] == "degraded"
    assert report["sessions"] == {"now": 1, "max": 1}


async def test_the_last_error_has_an_age(state: ServiceState, clock: Clock) -> None:
    make_ready(state)
    state.note_error("generation_failed", "boom")
    clock.now_s += 3.0
    error = (await state.health())["last_error"]
    assert error == {"code": "generation_failed", "message": "boom", "age_s": 3.0}
