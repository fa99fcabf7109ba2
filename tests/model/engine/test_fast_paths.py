"""Decode steps of fixed shape, and one kernel for all rows: the same tokens.

No GPU is needed: the steps run uncaptured, and a few lines of plain arithmetic stand in
for torch's CUDA kernel, by its documented contract.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from model.engine.decode_graph import DecodeSteps
from model.engine.engine import Engine, EngineOptions
from model.engine.fast_paths import RunnerOptions, choose_kernel, rounded_context
from model.engine.kv_cache import KvCache
from model.engine.paged_attention import torch_kernel, why_not
from model.engine.request import Session
from model.errors import ModelLoadError
from model.ultravox.inputs import Dialogue
from tests.model.engine.prompts import TODAY, wave
from tests.model.engine.test_worker import Desk, mixed_prompts

if TYPE_CHECKING:
    from torch import Tensor

    from model.ultravox.checkpoint import Checkpoint
    from tests.model.engine.conftest import WorkerFactory


def plain_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
    seqused_k: Tensor,
    block_table: Tensor,
) -> Tensor:
    """What `varlen_attn` says it does, for a single page a sequence."""
    assert cu_seq_k is None
    assert cu_seq_q.dtype == seqused_k.dtype == block_table.dtype == torch.int32
    assert enable_gqa == (query.shape[1] != key.shape[2])
    outputs = []
    for index, (slot,) in enumerate(block_table.tolist()):
        first, last = cu_seq_q[index : index + 2].tolist()
        count, length = last - first, int(seqused_k[index])
        assert count <= max_q
        assert length <= max_k <= key.shape[1]
        q = query[first:last].transpose(0, 1)
        k = key[slot, :length].transpose(0, 1)
        v = value[slot, :length].transpose(0, 1)
        places = torch.arange(length)
        ends = torch.arange(length - count, length)[:, None]
        seen = places <= ends
        if window_size[0] >= 0:
            seen &= places >= ends - window_size[0]
        outputs.append(
            torch.nn.functional.scaled_dot_product_attention(
                q[None], k[None], v[None], seen, scale=scale, enable_gqa=enable_gqa
            )[0].transpose(0, 1)
        )
    return torch.cat(outputs)


OPTIONS = {
    "fixed": RunnerOptions(fixed_decode="on"),
    "paged": RunnerOptions(paged_attention="on", kernel=plain_kernel),
    "both": RunnerOptions("on", "on", plain_kernel),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(("slots", "step_tokens"), [(8, 512), (8, 30), (3, 512)])
def test_tokens_are_those_of_plain_steps(
    checkpoint: Checkpoint,
    make_worker: WorkerFactory,
    options: RunnerOptions,
    slots: int,
    step_tokens: int,
) -> None:
    answers = []
    for chosen in (None, options):
        desk = Desk(make_worker(slots=slots, step_tokens=step_tokens, options=chosen))
        sequences = [desk.submit(prompt) for prompt in mixed_prompts(checkpoint)]
        desk.finish()
        answers.append([desk.tokens(sequence) for sequence in sequences])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_call_goes_on_across_its_turns(
    checkpoint: Checkpoint, make_worker: WorkerFactory, options: RunnerOptions
) -> None:
    answers = []
    for chosen in (None, options):
        desk, call = Desk(make_worker(options=chosen)), Session()
        dialogue = Dialogue(checkpoint.chat, "Be brief.", today=TODAY)
        replies = []
        for turn in range(3):
            dialogue.append_user_audio(wave(turn, 9_000))
            sequence = desk.submit(dialogue.prompt(), session=call)
            desk.finish()
            replies.append(desk.tokens(sequence))
            dialogue.append_assistant_tokens(replies[-1])
        assert desk.cached(sequence) > 0
        answers.append(replies)
    assert answers[0] == answers[1]


def _cache(slots: int = 5, context: int = 384) -> KvCache:
    text = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16}
    config = type("Config", (), {**text, "num_hidden_layers": 1, "hidden_size": 128})
    return KvCache(
        config,
        num_slots=slots,
        max_context_tokens=context,
        device=torch.device("cpu"),
        dtype=torch.float32,
        has_spare=True,
    )


def test_a_kernel_is_tried_before_it_is_trusted() -> None:
    def wrong(*args: object, **kwargs: object) -> Tensor:
        return plain_kernel(*args, **kwargs) + 1  # type: ignore[arg-type]

    def broken(*args: object, **kwargs: object) -> Tensor:
        raise RuntimeError("no kernel image is available")

    cache = _cache()
    assert why_not(plain_kernel, 8, cache.keys[0], cache.values[0]) is None
    assert not cache.keys[0].any()
    assert "off by" in (why_not(wrong, 8, cache.keys[0], cache.values[0]) or "")
    for kernel in (broken, torch_kernel()):  # torch's has no CPU version
        options = RunnerOptions(paged_attention="on", kernel=kernel)
        with pytest.raises(ModelLoadError, match="paged attention cannot be used"):
            choose_kernel(options, 8, cache)


def test_padding_rows_touch_no_slot_of_a_request(checkpoint: Checkpoint) -> None:
    class Forward:
        def embed(self, ids: Tensor) -> Tensor:
            return ids[:, None].float()

        def forward(
            self, embeds: Tensor, positions: Tensor, batch: object, rows: Tensor
        ) -> Tensor:
            ones = torch.ones(len(embeds), 2, 16)
            query = torch.ones(len(embeds), 8, 16)
            batch.attend(0, query, ones, ones, scaling=1.0)  # type: ignore[attr-defined]
            return embeds[rows]

    import numpy as np

    cache = _cache()
    steps = DecodeSteps(Forward(), cache, captures=False)
    rows = np.array([[7, 8, 9], [3, 4, 300], [0, 2, 4]])  # ids, positions, slots
    assert steps.run(rows).flatten().tolist() == [7, 8, 9]
    written = cache.keys[0].abs().sum(dim=(1, 3)).nonzero().tolist()
    assert written == [[0, 3], [2, 4], [4, 300], [cache.spare_slot, 0]]


async def test_the_description_says_which_way_is_taken(checkpoint: Checkpoint) -> None:
    plain = Engine(checkpoint, EngineOptions(max_slots=2, max_context_tokens=512))
    assert plain.description.decoding == "eager, attention by slots"
    options = EngineOptions(max_slots=2, max_context_tokens=512, runner=OPTIONS["both"])
    fast = Engine(checkpoint, options)
    assert fast.description.decoding == "fixed, attention paged"


def test_contexts_are_whole_pages_on_a_gpu() -> None:
    assert rounded_context(4000, "cuda") == 4096
    assert rounded_context(4000, "cpu") == 4000
