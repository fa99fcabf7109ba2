"""A whole Ultravox checkpoint as the two files llama.cpp wants: language model, ears.

Only what tests need: a Llama backbone with a byte-level tokenizer, and the projector
with its norm in the middle (`ln_mid`), the only one llama.cpp has.

Source: llama.cpp `convert_hf_to_gguf.py` and `tools/mtmd/clip.cpp`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter
from numpy.typing import NDArray
from safetensors.numpy import load_file

Tensors = dict[str, NDArray[Any]]

_NORMAL, _CONTROL, _UNUSED = 1, 3, 5  # llama.cpp's token types
_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_EAR_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "self_attn_layer_norm": "ln1",
    "final_layer_norm": "ln2",
    "fc1": "ffn_up",
    "fc2": "ffn_down",
}
_PROJECTOR = {
    "ln_pre": "norm_pre",
    "linear_1": "mlp.1",
    "ln_mid": "norm_mid",
    "linear_2": "mlp.2",
}


def write_language_model(checkpoint: Path, target: Path) -> None:
    """The backbone with tokenizer and chat template."""
    config = json.loads((checkpoint / "config.json").read_text())["text_config"]
    tensors = _part(checkpoint, "language_model.")
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer = GGUFWriter(target, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    _add_tokenizer(writer, checkpoint, config)
    _add(writer, "token_embd.weight", tensors["model.embed_tokens.weight"])
    _add(writer, "output_norm.weight", tensors["model.norm.weight"])
    if config.get("rope_scaling"):
        divisors = _rope_divisors(config["rope_scaling"], config, head_dim)
        _add(writer, "rope_freqs.weight", divisors)
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in _LAYER.items():
            tensor = tensors[f"model.layers.{layer}.{theirs}.weight"]
            if ours in ("attn_q", "attn_k"):
                tensor = _interleaved(tensor, heads if ours == "attn_q" else kv_heads)
            _add(writer, f"blk.{layer}.{ours}.weight", tensor)
    _close(writer)


def write_ears(checkpoint: Path, target: Path) -> None:
    """Encoder and projector."""
    config = json.loads((checkpoint / "config.json").read_text())
    audio = config["audio_config"]
    tensors = _part(checkpoint, "audio_tower.")
    writer = GGUFWriter(target, "clip")
    writer.add_bool("clip.has_audio_encoder", val=True)
    writer.add_string("clip.projector_type", "ultravox")
    writer.add_uint32("clip.audio.embedding_length", audio["d_model"])
    writer.add_uint32("clip.audio.feed_forward_length", audio["encoder_ffn_dim"])
    writer.add_uint32("clip.audio.block_count", audio["encoder_layers"])
    writer.add_uint32(
        "clip.audio.attention.head_count", audio["encoder_attention_heads"]
    )
    writer.add_float32("clip.audio.attention.layer_norm_epsilon", 1e-5)
    writer.add_uint32("clip.audio.num_mel_bins", audio["num_mel_bins"])
    writer.add_uint32("clip.audio.projection_dim", config["text_config"]["hidden_size"])
    writer.add_uint32("clip.audio.projector.stack_factor", config["stack_factor"])
    writer.add_bool("clip.use_gelu", val=True)
    for number in (1, 2):
        kernel = tensors[f"conv{number}.weight"].astype(np.float16)
        writer.add_tensor(f"a.conv1d.{number}.weight", np.ascontiguousarray(kernel))
        bias = tensors[f"conv{number}.bias"][:, None]
        _add(writer, f"a.conv1d.{number}.bias", bias)
    _add(writer, "a.position_embd.weight", tensors["embed_positions.weight"])
    for kind in ("weight", "bias"):
        _add(writer, f"a.post_ln.{kind}", tensors[f"layer_norm.{kind}"])
        for layer in range(audio["encoder_layers"]):
            for theirs, ours in _EAR_LAYER.items():
                tensor = tensors.get(f"layers.{layer}.{theirs}.{kind}")
                if tensor is not None:  # keys have no bias
                    _add(writer, f"a.blk.{layer}.{ours}.{kind}", tensor)
    projector = _part(checkpoint, "multi_modal_projector.")
    for theirs, ours in _PROJECTOR.items():
        _add(writer, f"mm.a.{ours}.weight", projector[f"{theirs}.weight"])
    _close(writer)


def _part(checkpoint: Path, prefix: str) -> Tensors:
    tensors = load_file(checkpoint / "model.safetensors")
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _add_tokenizer(
    writer: GGUFWriter, checkpoint: Path, config: dict[str, Any]
) -> None:
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    settings = json.loads((checkpoint / "tokenizer_config.json").read_text())
    size = config["vocab_size"]
    tokens, kinds = [f"<|unused_{i}|>" for i in range(size)], [_UNUSED] * size
    for text, number in tokenizer["model"]["vocab"].items():
        tokens[number], kinds[number] = text, _NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]], kinds[added["id"]] = added["content"], _CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    # There have to be some: a pair of byte symbols that UTF-8 never has side by side.
    writer.add_token_merges(["ÿ ÿ"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)  # the template writes it
    writer.add_chat_template(settings["chat_template"])


def _interleaved(rows: NDArray[Any], num_heads: int) -> NDArray[Any]:
    """The rotary halves of each head, one behind the other, as pairs side by side."""
    out, width = rows.shape
    half = out // num_heads // 2
    pairs = rows.reshape(num_heads, 2, half, width).swapaxes(1, 2)
    return pairs.reshape(out, width)


def _rope_divisors(
    scaling: dict[str, Any], config: dict[str, Any], head_dim: int
) -> NDArray[np.float32]:
    """llama3 scaling, which is no setting there but a tensor of divisors."""
    factor, original = scaling["factor"], scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    divisors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * config["rope_theta"] ** (i / head_dim)
        smooth = (original / wavelength - low) / (high - low)
        smooth = min(max(smooth, 0.0), 1.0)
        divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


def _add(writer: GGUFWriter, name: str, tensor: NDArray[Any]) -> None:
    writer.add_tensor(name, np.ascontiguousarray(tensor.astype(np.float32)))


def _close(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
