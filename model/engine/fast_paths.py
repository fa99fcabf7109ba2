"""What a device can do faster than one operation after the other, tried at the start.

Both are for GPUs and were written without one at hand. So `auto` tries each, says in
the log and in `/health` which is used, and why one is not; `on` makes that an error.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from model.engine.decode_graph import DecodeSteps
from model.engine.paged_attention import PAGE_MULTIPLE, torch_kernel, why_not
from model.errors import ModelLoadError

if TYPE_CHECKING:
    from model.engine.kv_cache import KvCache
    from model.engine.language_model import ForwardPass
    from model.engine.paged_attention import Kernel

logger = logging.getLogger(__name__)

Wish = Literal["auto", "on", "off"]


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """Which fast paths to take.

    `paged_attention`: one attention kernel a layer for all rows of a step.
    `fixed_decode`: decode steps of fixed shape, on a GPU as CUDA graphs. On a CPU
    "auto" leaves it, "on" runs the same step uncaptured, which is slower.
    """

    paged_attention: Wish = "auto"
    fixed_decode: Wish = "auto"
    kernel: Kernel | None = None  # None: torch's


def rounded_context(num_tokens: int, device_type: str) -> int:
    """The slots' length: on a GPU whole pages."""
    if device_type != "cuda":
        return num_tokens
    return -(-num_tokens // PAGE_MULTIPLE) * PAGE_MULTIPLE


def wants_steps(options: RunnerOptions, device_type: str) -> bool:
    """Whether decode steps of fixed shape are to be made, and need a spare slot."""
    wish = options.fixed_decode
    return wish == "on" or (wish == "auto" and device_type == "cuda")


def choose_kernel(
    options: RunnerOptions, num_heads: int, cache: KvCache
) -> tuple[Kernel | None, str]:
    """The attention kernel if it is any good here, and what to say of it.

    Raises:
        ModelLoadError: it is wanted, and is not.
    """
    on_cpu, wish = cache.keys[0].device.type == "cpu", options.paged_attention
    if wish == "off" or (wish == "auto" and on_cpu):
        return None, "by slots"
    kernel = options.kernel or torch_kernel()
    reason = why_not(kernel, num_heads, cache.keys[0], cache.values[0])
    if reason is None:
        return kernel, "paged"
    if wish == "on":
        raise ModelLoadError(
            f"paged attention cannot be used: {reason}", subject="paged_attention"
        )
    logger.warning("paged_attention_unused", extra={"reason": reason})
    return None, f"by slots ({reason})"


def make_steps(
    options: RunnerOptions,
    forward: ForwardPass,
    cache: KvCache,
    kernel: Kernel | None,
) -> tuple[DecodeSteps | None, str]:
    """Decode steps of fixed shape, captured on a GPU, and what to say of them.

    Raises:
        ModelLoadError: they are wanted, and cannot be captured.
    """
    device_type = cache.keys[0].device.type
    if not wants_steps(options, device_type):
        return None, "eager"
    if cache.is_spread:
        if options.fixed_decode == "on":
            raise ModelLoadError(
                "decode steps over several cards cannot be captured",
                subject="fixed_decode",
            )
        return None, "eager (several cards)"
    on_cpu = device_type == "cpu"
    steps = DecodeSteps(forward, cache, kernel=kernel, captures=not on_cpu)
    if on_cpu:
        return steps, "fixed"
    try:
        steps.capture()
    except RuntimeError as exc:  # torch's; out of memory is one
        if options.fixed_decode == "on":
            raise ModelLoadError(
                f"decode steps cannot be captured: {exc}", subject="fixed_decode"
            ) from exc
        logger.warning("decode_not_captured", extra={"reason": str(exc)})
        return None, f"eager ({type(exc).__name__})"
    return steps, "graphs"
