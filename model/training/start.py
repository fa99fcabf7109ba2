"""A fresh network that learns fast: the starting values.

Only initial values differ from stock; structure and keys stay Ultravox's. Each
attention head of the encoder begins by looking a fixed number of frames to one side,
as a dilated convolution would: from random values a transformer first has to find
out what a neighbour is, and the whole time budget goes into that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer, decoders
from torch import Tensor, nn

from model.ultravox.checkpoint import LoadOptions, load_checkpoint
from model.ultravox.config import AudioEncoderConfig, UltravoxConfig
from model.ultravox.encoder import EncoderLayer
from model.ultravox.network import UltravoxModel
from model.ultravox.projector import RMSNorm, StackingProjector

if TYPE_CHECKING:
    from pathlib import Path

    from model.ultravox.encoder import AudioEncoder

# Frames (20 ms) that the heads of each layer first look aside.
SHIFTS: tuple[tuple[int, ...], ...] = (
    (-3, -2, -1, 1, 2, 3),
    (-8, -5, -2, 2, 5, 8),
    (-14, -9, -4, 4, 9, 14),
    (-20, -12, -5, 5, 12, 20),
)
_SHARPNESS = 6.0  # how much the aimed frame's score stands out


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the demo; 5.0 M parameters."""

    d_model: int = 192
    encoder_layers: int = 4
    encoder_heads: int = 6
    encoder_ffn: int = 768
    projector: int = 512
    text_width: int = 192
    text_layers: int = 4
    text_heads: int = 4
    text_ffn: int = 512


def build_config(
    sizes: Sizes, vocab_size: int, end_of_turn: int, begin: int
) -> UltravoxConfig:
    """The whole-model config of a checkpoint of these sizes."""
    return UltravoxConfig(
        audio=AudioEncoderConfig(
            d_model=sizes.d_model,
            encoder_layers=sizes.encoder_layers,
            encoder_attention_heads=sizes.encoder_heads,
            encoder_ffn_dim=sizes.encoder_ffn,
            num_mel_bins=80,
        ),
        text={
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": vocab_size,
            "hidden_size": sizes.text_width,
            "intermediate_size": sizes.text_ffn,
            "num_hidden_layers": sizes.text_layers,
            "num_attention_heads": sizes.text_heads,
            "num_key_value_heads": sizes.text_heads,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
            "tie_word_embeddings": True,
            "bos_token_id": begin,
            "eos_token_id": end_of_turn,
            "initializer_range": 0.05,
        },
        hidden_size=sizes.projector,
        projector_ln_mid=True,
        torch_dtype="float32",
        weights_kind="demo",
    )


def fresh_network(config: UltravoxConfig, mel: Tensor, seed: int) -> UltravoxModel:
    """A network with starting values; `mel` (A, 80, F) sets the convs' scale."""
    torch.manual_seed(seed)
    network = UltravoxModel(config)
    with torch.no_grad():
        _start_encoder(network.audio_tower, mel)
        projector = network.multi_modal_projector
        assert isinstance(projector, StackingProjector)
        nn.init.orthogonal_(projector.linear_1.weight)
        for norm in (projector.ln_pre, projector.ln_mid):
            assert isinstance(norm, RMSNorm)
            norm.weight.fill_(1.0)
        embeddings = network.language_model.get_input_embeddings().weight
        embeddings.normal_(0.0, 0.08)
        width = projector.linear_2.weight.shape[1]
        projector.linear_2.weight.normal_(0.0, 0.08 / math.sqrt(width))
    return network


def take_values(network: UltravoxModel, checkpoint: Path, tokenizer: Tokenizer) -> None:
    """Begin with a checkpoint's values.

    A token of `tokenizer` that the checkpoint's does not have begins in between those
    that spell it there.

    Raises:
        ValueError: the checkpoint is of another size.
    """
    loaded = load_checkpoint(str(checkpoint), LoadOptions(device="cpu"))
    values, own = loaded.network.state_dict(), network.state_dict()
    theirs = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    if theirs.get_vocab() != tokenizer.get_vocab():
        for name in _TABLES:
            values[name] = _respell(values[name].float(), theirs, tokenizer)
    if {k: v.shape for k, v in values.items()} != {k: v.shape for k, v in own.items()}:
        raise ValueError(f"{checkpoint} is of another size than this run")
    network.load_state_dict({k: v.float() for k, v in values.items()})


_TABLES = (
    "language_model.model.embed_tokens.weight",
    "language_model.lm_head.weight",
)


def _respell(table: Tensor, old: Tokenizer, new: Tokenizer) -> Tensor:
    """Embeddings (V, E) of one tokenizer -> of another."""
    known = old.get_vocab()
    to_text = decoders.ByteLevel()
    generator = torch.Generator().manual_seed(3)
    length = float(table.norm(dim=1).median())
    rows = torch.empty(new.get_vocab_size(), table.shape[1])
    for token, token_id in new.get_vocab().items():
        if token in known:
            rows[token_id] = table[known[token]]
            continue
        pieces = old.encode(to_text.decode([token]), add_special_tokens=False).ids
        mean = table[pieces].mean(0)
        # Two words of the same pieces are still two words.
        own = torch.randn(table.shape[1], generator=generator)
        row = mean / mean.norm() + 0.5 * own / own.norm()
        rows[token_id] = row / row.norm() * length
    return rows


def _start_encoder(encoder: AudioEncoder, mel: Tensor) -> None:
    D = encoder.config.d_model
    heads = encoder.config.encoder_attention_heads
    places = D // heads  # so many of the first channels tell the position
    frequencies = _position_table(encoder, places)
    for conv, inputs in ((encoder.conv1, mel), (encoder.conv2, None)):
        if inputs is None:
            inputs = torch.nn.functional.gelu(encoder.conv1(mel))
        nn.init.orthogonal_(conv.weight.view(D, -1))
        bias = conv.bias
        assert bias is not None
        bias.zero_()
        out = conv(inputs)
        spread, centre = out.std((0, 2)), out.mean((0, 2))
        # GELU halves the spread; aim at about 0.9 behind it.
        scale = 1.5 / (spread + 1e-5)
        conv.weight.mul_(scale[:, None, None])
        bias.copy_(-centre * scale)
        if conv is encoder.conv2:  # nearly silent where the position is told
            conv.weight[:places].mul_(0.05)
            bias[:places].zero_()
    for number, layer in enumerate(encoder.layers):
        assert isinstance(layer, EncoderLayer)
        shifts = SHIFTS[min(number, len(SHIFTS) - 1)]
        by_head = [shifts[h % len(shifts)] for h in range(heads)]
        _start_layer(layer, frequencies, by_head)


def _position_table(encoder: AudioEncoder, places: int) -> Tensor:
    """Sine and cosine side by side in the first channels, nothing in the others."""
    table = encoder.embed_positions.weight
    pairs = places // 2
    # From 3 frames a turn to 300: fine enough to tell neighbours, coarse enough
    # that no two frames of a turn look the same.
    turns = torch.logspace(math.log10(1 / 300), math.log10(1 / 5), pairs)
    frequencies = 2 * math.pi * turns
    angle = torch.arange(table.shape[0])[:, None] * frequencies
    table.zero_()
    table[:, 0:places:2] = angle.sin() * 1.4
    table[:, 1:places:2] = angle.cos() * 1.4
    return frequencies


def _start_layer(layer: EncoderLayer, frequencies: Tensor, shifts: list[int]) -> None:
    attention = layer.self_attn
    D = attention.q_proj.weight.shape[0]
    places = 2 * len(frequencies)
    gain = math.sqrt(_SHARPNESS * math.sqrt(places) / len(frequencies))
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight.normal_(0.0, 0.02)
    for head, shift in enumerate(shifts):
        rows = slice(head * places, (head + 1) * places)
        attention.k_proj.weight[rows, :places] += torch.eye(places) * gain
        turned = torch.zeros(places, places)
        cos, sin = (frequencies * shift).cos(), (frequencies * shift).sin()
        even = torch.arange(0, places, 2)
        # (sin a, cos a) -> (sin(a + shift), cos(a + shift))
        turned[even, even], turned[even, even + 1] = cos, sin
        turned[even + 1, even], turned[even + 1, even + 1] = -sin, cos
        attention.q_proj.weight[rows, :places] += turned * gain
    attention.q_proj.bias.zero_()
    attention.v_proj.bias.zero_()
    nn.init.orthogonal_(attention.v_proj.weight)
    for out in (attention.out_proj, layer.fc2):
        nn.init.orthogonal_(out.weight, 0.7 if out is attention.out_proj else 0.5)
        out.bias.zero_()
        out.weight[:places].zero_()  # leave the position channels alone at first
    nn.init.orthogonal_(layer.fc1.weight, math.sqrt(2.0))
    layer.fc1.bias.zero_()
    assert places * len(shifts) == D
