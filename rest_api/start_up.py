"""From settings to a service that has replied once: model, engine, voice, warm-up.

Runs while the HTTP port already answers, so that `/health` can say what start-up is
at, and why it failed.  A failure is tried again after a pause: the hub may be back, the
operator may have put the files in place.  Nothing else is ever run instead of a model
that was asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
)
from pathlib import Path
from typing import Final, TypeAlias

from config import Settings
from model.engine.interface import ReplyEngine
from model.errors import (
    DeviceLost,
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
from rest_api.engine_size import dialogues_for
from rest_api.engines import open_engines
from rest_api.service_state import RANDOM_WEIGHTS_NOTE, ServiceState
from telemetry import fields

logger = logging.getLogger(__name__)

_RETRY_FIRST_S: Final = 30.0
_RETRY_MAX_S: Final = 600.0
_WARM_UP_TIMEOUT_S: Final = 300.0
"""Compiling and capturing for a large model; a small one takes a second."""

_PROBE_INTERVAL_S: Final = 10.0
_LOOK_INTERVAL_S: Final = 0.25
"""Until a dead engine is noticed; every call to it fails meanwhile."""

OpenService: TypeAlias = Callable[
    [Settings, ServiceState, Callable[[Path], object]],
    AbstractAsyncContextManager[LocalSpeechService],
]


async def keep_service(
    settings: Settings,
    state: ServiceState,
    make_tiny: Callable[[Path], object],
    opening: OpenService | None = None,
) -> None:
    """Open the service, keep it open until cancelled; try again after a failure.

    Returns when the device is lost: only another process can use it again.
    `make_tiny` writes a random checkpoint into a folder; `opening` opens the
    service in place of what the settings ask for.
    """
    pause_s = _RETRY_FIRST_S
    while True:
        try:
            making = (opening or open_service)(settings, state, make_tiny)
            async with making as service:
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
    """Ask the engines for next to nothing, again and again.

    Raises:
        SpeechError: one has stopped, or answers nothing any more.
    """
    engines = [service.engine]
    if service.turn_model is not None:
        engines.append(service.turn_model.engine)
    probes = [engine.new_dialogue("Are you there?").prompt() for engine in engines]
    while True:
        await _sleep_while_running(engines)
        for engine, probe in zip(engines, probes, strict=True):
            try:
                await engine.warm(probe)
            except SpeechOverloaded:
                continue  # alive, and busy


async def _sleep_while_running(engines: list[ReplyEngine]) -> None:
    slept_s = 0.0
    while slept_s < _PROBE_INTERVAL_S and all(one.is_running for one in engines):
        await asyncio.sleep(_LOOK_INTERVAL_S)
        slept_s += _LOOK_INTERVAL_S


@asynccontextmanager
async def open_service(
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
        engines = await open_engines(settings, state, make_tiny, stack)
        service = LocalSpeechService(
            engines.main,
            synthesizer,
            speaker,
            ServiceOptions(
                max_sessions=_max_sessions(settings, engines.main),
                max_busy_share=settings.max_busy_share,
                tts=tts,
            ),
            turn_model=engines.turn_model,
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
