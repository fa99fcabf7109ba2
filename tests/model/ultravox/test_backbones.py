"""Every family of language models that Ultravox was published with, loaded and served.

Tiny and random, made on the spot and saved by transformers as its hub files are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from model.engine.engine import Engine, EngineOptions
from model.engine.request import GenerationRequest
from model.errors import ModelLoadError
from model.ultravox.checkpoint import LoadOptions, load_checkpoint
from tests.model.engine.prompts import TODAY, wave
from tests.model.ultravox.parity_data import write_with_backbone

_SIZES: dict[str, Any] = {
    "vocab_size": 272,
    "hidden_size": 72,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "eos_token_id": 260,
    "bos_token_id": 256,
    "pad_token_id": 0,
}
_MIXTURE = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen3": {},
    "qwen3_moe": {**_MIXTURE, "num_experts": 4, "mlp_only_layers": [0]},
    "gemma3_text": {
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "glm4": {},
    "glm4_moe": {**_MIXTURE, "n_routed_experts": 4, "first_k_dense_replace": 1},
}


def backbone_config(family: str, num_hidden_layers: int = 2) -> Any:
    """Of a tiny language model of the family, as wide as the fixtures'."""
    values = {**_SIZES, **_FAMILIES[family], "num_hidden_layers": num_hidden_layers}
    if "layer_types" in values:
        values["layer_types"] = values["layer_types"] * (num_hidden_layers // 2)
    return AutoConfig.for_model(family, **values)


def _write(folder: Path, family: str) -> tuple[Path, Any]:
    return write_with_backbone(folder, backbone_config(family))


@pytest.mark.slow
@pytest.mark.parametrize("family", _FAMILIES)
async def test_each_family_is_loaded_whole_and_answers_speech(
    tmp_path: Path, family: str
) -> None:
    folder, backbone = _write(tmp_path, family)
    options = LoadOptions(device="cpu", dtype="float32")
    checkpoint = load_checkpoint(str(folder), options)
    weights = checkpoint.network.language_model.state_dict()
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(weights[name], tensor), name

    texts = []
    async with Engine(
        checkpoint, EngineOptions(max_slots=2, max_context_tokens=256)
    ) as engine:
        for seed in (1, 2):
            dialogue = engine.new_dialogue("Be brief.", today=TODAY)
            dialogue.append_user_audio(wave(seed))
            request = GenerationRequest(
                dialogue.prompt(), max_new_tokens=6, min_new_tokens=6
            )
            async with engine.submit(request) as stream:
                async for _ in stream:
                    pass
            texts.append(stream.token_ids)
    # The first token is the one plain arithmetic gives.
    (span,) = dialogue.prompt().audio
    prompt = dialogue.prompt()
    embeds = backbone.get_input_embeddings()(torch.from_numpy(prompt.token_ids)[None])
    with torch.inference_mode():
        embeds = embeds.clone()
        embeds[0, span.start : span.start + span.num_tokens] = span.clip.vectors
        logits = backbone(inputs_embeds=embeds).logits[0, -1]
        logits[sorted(checkpoint.stop_ids)] = -torch.inf
    assert texts[-1][0] == int(logits.argmax())


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder, _ = _write(tmp_path, "glm4_moe")
    file = tmp_path / "llm/model.safetensors"
    tensors = load_file(file)
    lost = "model.layers.1.mlp.experts.2.up_proj.weight"
    del tensors[lost]
    save_file(tensors, file)
    with pytest.raises(ModelLoadError) as raised:
        load_checkpoint(str(folder), LoadOptions(device="cpu"))
    assert raised.value.subject == f"language_model.{lost}"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "least"), [("int8", 0.99), ("nf4", 0.9)])
async def test_weights_in_fewer_bits_say_nearly_the_same(
    tmp_path: Path, kind: Any, least: float
) -> None:
    folder, _ = _write(tmp_path, "llama")
    logits, sizes, tokens = [], [], []
    for quantize in ("none", kind):
        options = LoadOptions(device="cpu", dtype="float32", quantize=quantize)
        checkpoint = load_checkpoint(str(folder), options)
        sizes.append((checkpoint.num_parameters, checkpoint.weights_bytes))
        with torch.inference_mode():
            ids = torch.arange(10, 60)[None]
            logits.append(checkpoint.network.language_model(ids).logits.flatten())
        async with Engine(
            checkpoint, EngineOptions(max_slots=2, max_context_tokens=256)
        ) as engine:
            dialogue = engine.new_dialogue("Be brief.", today=TODAY)
            dialogue.append_user_audio(wave(1))
            request = GenerationRequest(
                dialogue.prompt(), max_new_tokens=4, min_new_tokens=4
            )
            async with engine.submit(request) as stream:
                async for _ in stream:
                    pass
            tokens.append(len(stream.token_ids))
    assert float(torch.cosine_similarity(logits[0], logits[1], dim=0)) > least
    assert sizes[0][0] == sizes[1][0]
    assert sizes[1][1] < sizes[0][1]
    assert tokens == [4, 4]
