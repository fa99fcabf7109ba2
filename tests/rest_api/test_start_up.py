"""Which model is run where, and what becomes of a start that fails."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

import config
from model.errors import DeviceLost, ModelLoadError
from model.service import LocalSpeechService
from rest_api.engines import choose_model, in_daemon_thread, open_engines
from rest_api.service_state import ServiceState
from rest_api.start_up import keep_service, tts_options
from tools.make_tiny_checkpoint import write_tiny_checkpoint

TINY = {"ULTRAVOX_DATA_DIR": "/data"}


def settings(**values: str) -> config.Settings:
    named = {f"ULTRAVOX_{name.upper()}": value for name, value in values.items()}
    return config.load({**TINY, **named})


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A folder that may become the demo model."""
    return tmp_path / "demo"


def put_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")


@pytest.mark.parametrize("has_gpu", [True, False])
def test_what_was_asked_for_is_taken(demo: Path, has_gpu: bool) -> None:
    put_model(demo)
    choice = choose_model(settings(model="org/name"), has_gpu=has_gpu, demo=demo)
    assert (choice.name, choice.must_be_made) == ("org/name", False)


def test_a_gpu_runs_the_published_model(demo: Path) -> None:
    put_model(demo)
    assert choose_model(settings(), has_gpu=True, demo=demo).name == (
        config.DEFAULT_MODEL
    )


def test_without_a_gpu_the_demo_model_runs(demo: Path) -> None:
    put_model(demo)
    assert choose_model(settings(), has_gpu=False, demo=demo).name == str(demo)


def test_without_either_a_random_one_is_made_once(demo: Path, tmp_path: Path) -> None:
    wanted = settings(data_dir=str(tmp_path))
    choice = choose_model(wanted, has_gpu=False, demo=demo)
    assert choice.must_be_made
    put_model(Path(choice.name))
    assert not choose_model(wanted, has_gpu=False, demo=demo).must_be_made


def test_the_voice_is_the_settings_voice() -> None:
    options = tts_options(
        settings(tts_voice="en-us+f3", tts_speed_wpm="180", language="es")
    )
    assert (options.voice, options.speed_wpm, options.language) == (
        "en-us+f3",
        180,
        "es",
    )


class _LosesTheDevice(AbstractAsyncContextManager[LocalSpeechService]):
    """A service that does not open; counts how often it was tried."""

    tries = 0

    async def __aenter__(self) -> LocalSpeechService:
        type(self).tries += 1
        raise DeviceLost("CUDA error: an illegal memory access was encountered")

    async def __aexit__(self, *exc_info: object) -> None: ...


@pytest.mark.slow
async def test_a_reply_has_been_spoken_before_it_is_ready(tmp_path: Path) -> None:
    def num_spoken() -> float:
        return REGISTRY.get_sample_value("voicebot_first_audio_seconds_count") or 0.0

    state, before = ServiceState(), num_spoken()
    asked = settings(engine="scripted", data_dir=str(tmp_path), tts_workers="1")
    keeping = asyncio.create_task(keep_service(asked, state, lambda _: None))
    phases = []
    async with asyncio.timeout(60):
        while state.service is None:
            phases.append(state.phase)
            await asyncio.sleep(0)
    assert num_spoken() >= before + 3
    assert "warming up" in phases
    keeping.cancel()
    await asyncio.wait([keeping])


async def test_a_lost_device_ends_the_attempts_of_this_process(tmp_path: Path) -> None:
    state = ServiceState()
    async with asyncio.timeout(5):
        await keep_service(
            settings(data_dir=str(tmp_path)),
            state,
            lambda _: None,
            lambda *_: _LosesTheDevice(),
        )
    assert _LosesTheDevice.tries == 1
    assert (await state.health())["status"] == "unhealthy"
    assert "device_lost" in state.phase


@pytest.mark.slow
async def test_a_model_for_the_end_of_turns_is_loaded_beside_any_engine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tiny_checkpoint(tmp_path / "vad")
    asked = settings(
        engine="scripted", turn_model=str(tmp_path / "vad"), device="cpu", max_calls="2"
    )
    state = ServiceState()
    async with AsyncExitStack() as stack:
        engines = await open_engines(asked, state, lambda _: None, stack)
        assert engines.turn_model is not None
        assert engines.turn_model.name == str(tmp_path / "vad")
        assert engines.turn_model.engine.memory()["weights_bytes"] > 0
        assert engines.main.description.engine == "scripted"
    assert "turn_model_not_calibrated" in caplog.text
    assert not engines.turn_model.engine.is_running

    missing = settings(engine="scripted", turn_model=str(tmp_path / "none"))
    async with AsyncExitStack() as stack:
        with pytest.raises(ModelLoadError, match="there is no folder"):
            await open_engines(missing, state, lambda _: None, stack)


async def test_work_in_a_thread_returns_or_raises() -> None:
    assert await in_daemon_thread(lambda: 7) == 7

    def fail() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await in_daemon_thread(fail)


async def test_work_nobody_waits_for_any_more_is_no_error() -> None:
    started, release = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> int:
        loop.call_soon_threadsafe(started.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        return 1

    waiting = asyncio.create_task(in_daemon_thread(work))
    await started.wait()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    release.set()
    for _ in range(10):
        await asyncio.sleep(0.01)
