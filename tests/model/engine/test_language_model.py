"""Packed steps over slots give what the model gives for whole sequences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from model.engine.attention import DecodeRun, PackedBatch, PrefillRun, SharedPrefix
from model.engine.kv_cache import KvCache
from model.engine.language_model import (
    ForwardPass,
    LlamaForward,
    TransformersForward,
    build_forward,
)
from model.errors import ModelLoadError

_SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama tied": {"tie_word_embeddings": True},
    "llama biased": {"attention_bias": True, "mlp_bias": True},
    "llama scaled rope": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    },
    "mistral": {"sliding_window": None, "head_dim": 16},
    "mistral sliding": {"sliding_window": 5, "head_dim": 16},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "glm4": {"head_dim": 16, "pad_token_id": 0},
    "glm4_moe": {
        "head_dim": 16,
        "pad_token_id": 0,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "first_k_dense_replace": 1,
    },
    "gemma3_text": {"head_dim": 16, "sliding_window": 4, "layer_types": None},
}


def _model(name: str) -> Any:
    torch.manual_seed(3)
    options = _SIZES | _MODELS[name]
    model_type = name.split(" ", 1)[0]
    if model_type == "gemma3_text":
        options["layer_types"] = ["sliding_attention", "full_attention"]
    config = AutoConfig.for_model(model_type, **options)
    model = AutoModelForCausalLM.from_config(config).eval()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.25)
    return model


def _expected(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([ids])).logits[0]
    return logits


class _Sequences:
    """Runs pieces of sequences in slots and keeps what each position gave."""

    def __init__(self, forward: ForwardPass, config: Any) -> None:
        self.forward = forward
        self.cache = KvCache(
            config,
            num_slots=6,
            max_context_tokens=64,
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        self.logits: dict[tuple[int, int], torch.Tensor] = {}

    @torch.inference_mode()
    def run(
        self,
        decode: list[tuple[int, int, int]],
        prefill: list[tuple[int, int, list[int]]],
        shared: SharedPrefix | None = None,
        *,
        gathers: bool = False,
    ) -> None:
        """decode: (slot, position, id); prefill: (slot, start, ids)."""
        runs: list[DecodeRun] = []
        for row, (slot, position, _) in enumerate(decode):
            last = runs[-1] if runs else None
            if last and last.slot + last.count == slot:
                lengths = (*last.lengths, position + 1)
                runs[-1] = DecodeRun(last.row, last.slot, last.count + 1, lengths)
            else:
                runs.append(DecodeRun(row, slot, 1, (position + 1,)))
        places = [(slot, position) for slot, position, _ in decode]
        ids = [token_id for _, _, token_id in decode]
        prefills = []
        for slot, start, piece in prefill:
            prefills.append(PrefillRun(len(ids), slot, len(piece), start))
            places += [(slot, start + offset) for offset in range(len(piece))]
            ids += piece
        slots, positions = torch.tensor(places).T
        batch = PackedBatch(
            self.cache,
            self.cache.places(slots, positions),
            runs,
            prefills,
            shared,
            gathers,
        )
        embeds = self.forward.embed(torch.tensor(ids))
        rows = torch.arange(len(ids))
        logits = self.forward.forward(embeds, positions, batch, rows)
        self.logits |= dict(zip(places, logits, strict=True))

    def of(self, slot: int, length: int) -> torch.Tensor:
        return torch.stack([self.logits[slot, position] for position in range(length)])


def _ids(seed: int, count: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = torch.randint(3, 60, (count,), generator=generator).tolist()
    return ids


@pytest.mark.parametrize("gathers", [False, True], ids=["views", "gathers"])
@pytest.mark.parametrize("name", list(_MODELS))
def test_pieces_in_slots_equal_whole_sequences(name: str, gathers: bool) -> None:
    model = _model(name)
    texts = {1: _ids(1, 17), 2: _ids(2, 9), 4: _ids(3, 12)}
    expected = {slot: _expected(model, ids) for slot, ids in texts.items()}
    run = _Sequences(build_forward(model), model.config)
    a, b, c = texts[1], texts[2], texts[4]
    run.run([], [(1, 0, a[:7]), (2, 0, b[:8])])
    run.run([(2, 8, b[8])], [(1, 7, a[7:14]), (4, 0, c[:1])], gathers=gathers)
    run.run([(1, 14, a[14]), (4, 1, c[1])], [], gathers=gathers)
    run.run([(1, 15, a[15])], [(4, 2, c[2:])])
    run.run([(1, 16, a[16])], [])
    for slot, ids in texts.items():
        torch.testing.assert_close(
            run.of(slot, len(ids)), expected[slot], atol=2e-4, rtol=1e-3
        )


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3_text"])
def test_reading_shared_instructions_from_one_slot_changes_nothing(name: str) -> None:
    model = _model(name)
    instructions = _ids(9, 20)
    texts = {slot: instructions + _ids(slot, 6) for slot in (0, 1, 3)}
    expected = {slot: _expected(model, ids) for slot, ids in texts.items()}
    run = _Sequences(build_forward(model), model.config)
    starts = {0: 25, 1: 22, 3: 24}
    run.run([], [(slot, 0, ids[: starts[slot]]) for slot, ids in texts.items()])
    # Wrong numbers where rows must not look: their own copies of the instructions.
    if name != "gemma3_text":  # its sliding layers read each row's own
        for slot in (1, 3):
            for layer in (*run.cache.keys, *run.cache.values):
                layer[slot, :, :20] = 1e3
    decode = [(slot, starts[slot], ids[starts[slot]]) for slot, ids in texts.items()]
    run.run(decode, [], SharedPrefix(num_runs=2, slot=0, length=20))
    for slot, position, _ in decode:
        torch.testing.assert_close(
            run.logits[slot, position], expected[slot][position], atol=2e-4, rtol=1e-3
        )


def test_llama_and_mistral_are_written_out_and_others_go_through_transformers() -> None:
    written_out = {
        name
        for name in _MODELS
        if isinstance(build_forward(_model(name)), LlamaForward)
    }
    assert written_out == {name for name in _MODELS if "llama" in name} | {"mistral"}


def test_both_ways_give_the_same_numbers() -> None:
    ids = _ids(1, 12)
    results = []
    for way in (LlamaForward, TransformersForward):
        model = _model("llama")
        run = _Sequences(way(model), model.config)
        run.run([], [(0, 0, ids)])
        results.append(run.of(0, len(ids)))
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=1e-4)


def test_a_second_engine_uses_the_weights_the_first_has_moved() -> None:
    model = _model("llama")
    assert build_forward(model) is build_forward(model)


def test_a_model_handed_to_an_engine_says_so_when_used_elsewhere() -> None:
    model = _model("qwen2")
    build_forward(model)
    with pytest.raises(RuntimeError, match="handed to an engine"):
        model(torch.tensor([[1, 2, 3]]))


def test_a_backbone_with_other_memory_than_keys_and_values_is_refused() -> None:
    model = _model("qwen2")
    model.config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(ModelLoadError, match="linear_attention"):
        build_forward(model)
