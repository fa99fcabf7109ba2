"""From settings to a service that has replied once: model, engine, voice, warm-up.

Runs while the HTTP port already answers, so that `/health` can say what start-up is
at, and why it failed.  A failure is tried again after a pause: the hub may be back, the
operator may have put the files in place.  Nothing else is ever run instead of a model
that was asked for.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
)
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from config import DEFAULT_MODEL, Settings, comma_list
from model.engine.interface import ReplyEngine
from model.errors import (
    DeviceLost,
    ModelLoadError,
    SpeechError,
    SpeechOverloaded,
    SpeechUnavailable,
)
from model.service import LocalSpeechService, ServiceOptions
from model.speech import SessionOptions, TypedTurn, Utterance
from model.tts.cache import PhraseCache
from model.tts.open import TtsOptions, open_synthesizer
from model.tts.phrase_files import PhraseFiles
from model.tts.speaker import Speaker
from rest_api.engine_size import dialogues_for, slots_for
from rest_api.service_state import RANDOM_WEIGHTS_NOTE, ServiceState
from telemetry import fields

if TYPE_CHECKING:
    from model.ultravox.checkpoint import Checkpoint
    from model.ultravox.config import TurnEndBounds

logger = logging.getLogger(__name__)

DEMO_MODEL: Final = Path(__file__).resolve().parent.parent / "model/checkpoints/demo"
_TINY_MODEL: Final = "tiny-random-model"
_RETRY_FIRST_S: Final = 30.0
_RETRY_MAX_S: Final = 600.0
_WARM_UP_TIMEOUT_S: Final = 300.0
"""Compiling and capturing for a large model; a small one takes a second."""

_PROBE_INTERVAL_S: Final = 10.0

_T = TypeVar("_T")
OpenService: TypeAlias = Callable[
    [Settings, ServiceState, Callable[[Path], object]],
    AbstractAsyncContextManager[LocalSpeechService],
]


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model to load, and whether it has to be made first."""

    name: str
    reason: str
    must_be_made: bool = False


def choose_model(settings: Settings, *, has_gpu: bool, demo: Path) -> ModelChoice:
    """The model asked for; without one, what this machine can run."""
    if settings.model:
        return ModelChoice(settings.model, "ULTRAVOX_MODEL")
    if has_gpu:
        return ModelChoice(DEFAULT_MODEL, "a GPU is present")
    if (demo / "config.json").exists():
        return ModelChoice(str(demo), "no GPU: the bundled demo model")
    tiny = settings.data_dir / _TINY_MODEL
    is_there = (tiny / "config.json").exists()
    return ModelChoice(
        str(tiny), "no GPU, no demo model: random weights", must_be_made=not is_there
    )


async def keep_service(
    settings: Settings,
    state: ServiceState,
    make_tiny: Callable[[Path], object],
    open_service: OpenService | None = None,
) -> None:
    """Open the service, keep it open until cancelled; try again after a failure.

    Returns when the device is lost: only another process can use it again.
    `make_tiny` writes a random checkpoint into a folder; `open_service` opens the
    service in place of what the settings ask for.
    """
    pause_s = _RETRY_FIRST_S
    while True:
        try:
            opening = (open_service or _open_service)(settings, state, make_tiny)
            async with opening as service:
                state.ready(service)
                status = await service.status()
                logger.info(
                    "ready", extra=fields(model=status.model, device=status.device)
                )
                if status.weights == "random":
                    logger.warning(
                        RANDOM_WEIGHTS_NOTE, extra=fields(model=status.model)
                    )
                pause_s = _RETRY_FIRST_S
                await _watch(service)
        except DeviceLost as exc:
            logger.critical("device_lost", extra=fields(reason=str(exc)))
            state.fail(f"{exc.code}: {exc}")
            return
        except SpeechError as exc:
            reason = f"{exc.code}: {exc}"
            logger.error(
                "cannot_start", extra=fields(reason=reason, retry_in_s=pause_s)
            )
        except Exception as exc:
            reason = f"internal error: {type(exc).__name__}: {exc}"
            logger.exception("cannot_start", extra=fields(retry_in_s=pause_s))
        state.fail(reason)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _RETRY_MAX_S)


async def _watch(service: LocalSpeechService) -> None:
    """Ask the engine for next to nothing, again and again.

    Raises:
        SpeechError: it has stopped, or answers nothing any more.
    """
    probe = service.engine.new_dialogue("Are you there?").prompt()
    while True:
        await asyncio.sleep(_PROBE_INTERVAL_S)
        try:
            await service.engine.warm(probe)
        except SpeechOverloaded:
            continue  # alive, and busy


@asynccontextmanager
async def _open_service(
    settings: Settings, state: ServiceState, make_tiny: Callable[[Path], object]
) -> AsyncIterator[LocalSpeechService]:
    """Raises SpeechError: the model or the voice cannot be had."""
    async with AsyncExitStack() as stack:
        state.phase = "starting the voice"
        tts = tts_options(settings)
        synthesizer = await open_synthesizer(tts)
        stack.push_async_callback(synthesizer.aclose)
        speaker = Speaker(synthesizer, _phrase_cache(settings))
        stack.push_async_callback(speaker.aclose)
        engine = await stack.enter_async_context(
            await _make_engine(settings, state, make_tiny)
        )
        service = LocalSpeechService(
            engine,
            synthesizer,
            speaker,
            ServiceOptions(
                max_sessions=_max_sessions(settings, engine),
                max_busy_share=settings.max_busy_share,
                tts=tts,
            ),
        )
        state.phase = "warming up"
        try:
            async with asyncio.timeout(_WARM_UP_TIMEOUT_S):
                await warm_up(service)
        except TimeoutError as exc:
            raise SpeechUnavailable(
                f"the first reply took over {_WARM_UP_TIMEOUT_S:g} s"
            ) from exc
        yield service


def _max_sessions(settings: Settings, engine: ReplyEngine) -> int:
    if engine.description.engine != "local":
        return settings.max_calls
    slots = engine.load().max_slots
    dialogues = dialogues_for(settings.max_calls, slots)
    if dialogues < settings.max_calls:
        logger.warning(
            "fewer_calls",
            extra=fields(calls=dialogues, wanted=settings.max_calls, slots=slots),
        )
    return dialogues


async def _make_engine(
    settings: Settings, state: ServiceState, make_tiny: Callable[[Path], object]
) -> ReplyEngine:
    if settings.engine == "scripted":
        from model.engine.scripted import ScriptedEngine

        logger.warning("scripted_engine", extra=fields(note="no model is running"))
        return ScriptedEngine()
    if settings.engine == "openai":
        from model.engine.openai_engine import OpenAiEngine, OpenAiOptions

        state.phase = "looking for a model server"
        return OpenAiEngine(
            OpenAiOptions(
                urls=tuple(comma_list(settings.engine_url)),
                api_key=settings.engine_api_key.get_secret_value(),
                model=settings.model,
                max_requests=settings.max_calls + settings.max_waiting,
                max_clips=settings.engine_max_clips,
                first_token_timeout_s=settings.engine_first_token_s,
                chunk_timeout_s=settings.engine_token_s,
            )
        )
    from model.engine.engine import Engine, EngineOptions
    from model.engine.fast_paths import RunnerOptions

    state.phase = "looking for a model"
    checkpoint = await in_daemon_thread(lambda: _load(settings, state, make_tiny))
    max_context_tokens = settings.max_context_tokens
    max_slots = slots_for(checkpoint, settings.max_calls, max_context_tokens)
    logger.info("engine_sized", extra=fields(slots=max_slots))
    options = EngineOptions(
        max_slots=max_slots,
        max_context_tokens=max_context_tokens,
        max_waiting=settings.max_waiting,
        max_step_tokens=max(settings.max_step_tokens, 2 * max_slots),
        num_threads=settings.engine_threads or None,
        turn_end=_turn_end(settings),
        runner=RunnerOptions(
            paged_attention=settings.paged_attention,
            fixed_decode=settings.cuda_graphs,
        ),
    )
    state.phase = "preparing the engine"
    return await in_daemon_thread(lambda: Engine(checkpoint, options))


def _turn_end(settings: Settings) -> TurnEndBounds | None:
    from model.ultravox.config import TurnEndBounds

    if not settings.turn_over_from:
        return None
    return TurnEndBounds(settings.turn_over_from, settings.turn_more_below or None)


def _load(
    settings: Settings, state: ServiceState, make_tiny: Callable[[Path], object]
) -> Checkpoint:
    """Blocking; minutes for a large model."""
    import torch

    from model.ultravox.checkpoint import LoadOptions, load_checkpoint
    from model.ultravox.repository import HubOptions

    has_gpu = settings.device != "cpu" and torch.cuda.is_available()
    choice = choose_model(settings, has_gpu=has_gpu, demo=DEMO_MODEL)
    state.model_wanted = choice.name
    logger.info("loading", extra=fields(model=choice.name, why=choice.reason))
    state.phase = f"loading {choice.name}"
    if choice.must_be_made:
        try:
            make_tiny(Path(choice.name))
        except OSError as exc:
            raise ModelLoadError(
                f"cannot write {choice.name}: {exc}", subject=choice.name
            ) from exc

    def report(progress: str) -> None:
        state.phase = f"loading {choice.name}: {progress}"

    hub = HubOptions(report=report)
    return load_checkpoint(
        choice.name,
        LoadOptions(settings.device, settings.dtype, hub, settings.quantize),
    )


def _phrase_cache(settings: Settings) -> PhraseCache:
    if not settings.tts_cache_mb:
        return PhraseCache()
    folder = settings.data_dir / "phrases"
    return PhraseCache(files=PhraseFiles(folder, settings.tts_cache_mb << 20))


def tts_options(settings: Settings) -> TtsOptions:
    """The synthesiser's part of the settings."""
    return TtsOptions(
        backend=settings.tts,
        voice=settings.tts_voice,
        language=settings.language,
        speed_wpm=settings.tts_speed_wpm,
        num_workers=settings.tts_workers,
        fallback=settings.tts_fallback,
        url=settings.tts_url,
    )


async def warm_up(service: LocalSpeechService) -> None:
    """One spoken reply to speech, so that no caller pays for first times.

    Raises:
        SpeechError: model or voice doesn't work.
    """
    options = SessionOptions("warm-up", "Say hello.", max_new_tokens=8)
    silence = Utterance(bytes(2 * 8000), 8000)
    async with service.open_session(options) as session:
        for events in (
            session.say(0, "Hello."),
            session.reply(1, silence),
            session.reply(2, TypedTurn("Hello.")),
        ):
            async with aclosing(events):
                async for _ in events:
                    pass


async def in_daemon_thread(work: Callable[[], _T]) -> _T:
    """Run blocking work in a thread that doesn't hold up the end of the process.

    asyncio's own threads are waited for at exit, for minutes while a model loads.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as exc:  # noqa: BLE001 - carried to the waiting task
            error = exc
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="load", daemon=True).start()
    return await done
