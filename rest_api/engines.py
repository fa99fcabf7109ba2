"""The engines that the settings ask for: which model, loaded how, how large.

    ULTRAVOX_MODEL       ─▶ checkpoint ──────────────────┐
    ULTRAVOX_TURN_MODEL  ─▶ checkpoint ─▶ small engine   ├─▶ main engine
                                            what memory is left

Loading blocks and is done in threads; none of it runs in the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from config import DEFAULT_MODEL, Settings, comma_list, numbers
from model.engine.interface import ReplyEngine
from model.errors import ModelLoadError
from model.turn_model import TurnModel
from rest_api.engine_size import slots_for
from rest_api.service_state import ServiceState
from telemetry import fields

if TYPE_CHECKING:
    from model.engine.engine import Engine
    from model.ultravox.checkpoint import Checkpoint
    from model.ultravox.config import TurnEndBounds

logger = logging.getLogger(__name__)

DEMO_MODEL: Final = Path(__file__).resolve().parent.parent / "model/checkpoints/demo"
_TINY_MODEL: Final = "tiny-random-model"
_TURN_CONTEXT_TOKENS: Final = 2048
"""Of the turn model: five minutes of a caller, and what the bot said before."""
_TURN_SLOTS: Final = 8
"""Turns that it reads at once; a read takes one step or two, so more only wait."""

_T = TypeVar("_T")


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


@dataclass(frozen=True, slots=True)
class Engines:
    """What runs: the one that answers, and the model for the end of turns if wanted."""

    main: ReplyEngine
    turn_model: TurnModel | None


async def open_engines(
    settings: Settings,
    state: ServiceState,
    make_tiny: Callable[[Path], object],
    stack: AsyncExitStack,
) -> Engines:
    """Load, size and start; `stack` ends them.

    Both models are loaded before the dialogues of either take what memory is left, and
    the turn model's small share goes first.

    Raises:
        ModelLoadError: a model cannot be had, or does not fit.
        SpeechUnavailable: no model server answers.
    """
    checkpoint = None
    if settings.engine == "local":
        state.phase = "looking for a model"
        checkpoint = await in_daemon_thread(
            lambda: _load_main(settings, state, make_tiny)
        )
    turn_model = None
    if settings.turn_model:
        engine = await in_daemon_thread(lambda: _turn_engine(settings, state))
        turn_model = TurnModel(await stack.enter_async_context(engine))
        if engine.description.turn_end is None:
            logger.warning(
                "turn_model_not_calibrated",
                extra=fields(
                    model=settings.turn_model,
                    note="nothing depends on it: set ULTRAVOX_TURN_OVER_FROM",
                ),
            )
    main = await _main_engine(settings, state, checkpoint)
    return Engines(await stack.enter_async_context(main), turn_model)


async def _main_engine(
    settings: Settings, state: ServiceState, checkpoint: Checkpoint | None
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
    assert checkpoint is not None, "the local engine's model has been loaded"
    state.phase = "preparing the engine"
    return await in_daemon_thread(
        lambda: _local_engine(
            settings, checkpoint, settings.max_calls, settings.max_context_tokens
        )
    )


def _local_engine(
    settings: Settings, checkpoint: Checkpoint, max_calls: int, max_context_tokens: int
) -> Engine:
    """Blocking.  Raises ModelLoadError: it does not fit, or a fast path is missing."""
    from model.engine.engine import Engine, EngineOptions
    from model.engine.fast_paths import RunnerOptions

    max_slots = slots_for(checkpoint, max_calls, max_context_tokens)
    logger.info("engine_sized", extra=fields(model=checkpoint.name, slots=max_slots))
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
    return Engine(checkpoint, options)


def _turn_engine(settings: Settings, state: ServiceState) -> Engine:
    """Blocking.  Raises ModelLoadError."""
    checkpoint = _load(settings, state, settings.turn_model)
    if checkpoint.config.audio is None:
        raise ModelLoadError(
            f"{settings.turn_model} has no audio tower and cannot hear a turn's end",
            subject="ULTRAVOX_TURN_MODEL",
        )
    never_decodes = settings.model_copy(update={"cuda_graphs": "off"})
    return _local_engine(never_decodes, checkpoint, _TURN_SLOTS, _TURN_CONTEXT_TOKENS)


def _turn_end(settings: Settings) -> TurnEndBounds | None:
    from model.ultravox.config import TurnEndBounds

    if not settings.turn_over_from:
        return None
    return TurnEndBounds(settings.turn_over_from, settings.turn_more_below or None)


def _load_main(
    settings: Settings, state: ServiceState, make_tiny: Callable[[Path], object]
) -> Checkpoint:
    """Blocking; minutes for a large model.  Raises ModelLoadError."""
    import torch

    has_gpu = settings.device != "cpu" and torch.cuda.is_available()
    choice = choose_model(settings, has_gpu=has_gpu, demo=DEMO_MODEL)
    state.model_wanted = choice.name
    logger.info("loading", extra=fields(model=choice.name, why=choice.reason))
    if choice.must_be_made:
        state.phase = f"making {choice.name}"
        try:
            make_tiny(Path(choice.name))
        except OSError as exc:
            raise ModelLoadError(
                f"cannot write {choice.name}: {exc}", subject=choice.name
            ) from exc
    return _load(settings, state, choice.name)


def _load(settings: Settings, state: ServiceState, name: str) -> Checkpoint:
    """Blocking.  Raises ModelLoadError."""
    from model.ultravox.checkpoint import LoadOptions, load_checkpoint
    from model.ultravox.repository import HubOptions

    state.phase = f"loading {name}"

    def report(progress: str) -> None:
        state.phase = f"loading {name}: {progress}"

    return load_checkpoint(
        name,
        LoadOptions(
            settings.device,
            settings.dtype,
            HubOptions(report=report),
            settings.quantize,
            card_gb=numbers(settings.card_gb),
        ),
    )


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
