"""Write a tiny Ultravox checkpoint with random weights, for trying things out.

    python -m tools.make_tiny_checkpoint DIR [--seed N]

It has everything a published checkpoint has (config, weights, tokenizer, chat
template, feature settings) in about 100 thousand parameters, loads in a moment and
answers in milliseconds. It understands nothing: its replies are words in an order
that hearing decides but meaning does not, and config.json says so
(`"ultravox_phone_bot": {"weights": "random"}`).

So that a synthesizer has something to say and replies end, the words stand in levels,
and the language model is wired to go from any word to some word of the next level:

    level   0      1      2       3       4     5      6     7  8          ...
            Well   the    quick   river   will  carry  today .  So / stop  ...

Which word of a level is left to random weights and everything heard so far.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from model.ultravox.config import AudioEncoderConfig, UltravoxConfig
from model.ultravox.network import UltravoxModel

if TYPE_CHECKING:
    from collections.abc import Sequence

_STOP = "<|eot_id|>"
_SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    _STOP,
    "<|audio|>",
)
_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
# No word stands in two levels: where a reply is, its last word alone must tell.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("Well", "Yes", "Sure", "Now", "Right", "Good"),
    (" the", " every", " this", " my"),
    (" quick", " blue", " gentle", " seven", " old", " sunny"),
    (" river", " garden", " letter", " window", " number", " teacher"),
    (" will", " may", " can", " did"),
    (" carry", " follow", " open", " answer", " remember"),
    (" today", " again", " slowly", " early", " twice"),
    (".",),
    # A second sentence may follow, or the reply may end.
    (" So", " Then", " And", " But", _STOP),
    (" we", " they", " you", " people"),
    (" should", " never", " often", " always", " might"),
    (" bring", " leave", " paint", " count", " borrow"),
    (" three", " green", " little", " round"),
    (" apples", " boxes", " tables", " pockets", " candles"),
    ("!",),
    (_STOP,),
)
_LEVEL_GAIN = 4.0  # how surely the next word is of the next level


def write_tiny_checkpoint(folder: Path, seed: int = 0) -> UltravoxConfig:
    """Write the checkpoint's files into `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    config = _config(tokenizer)
    weights = _weights(config, tokenizer, seed)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # save_file makes it private
    tokenizer.save(str(folder / "tokenizer.json"))
    stop_id = tokenizer.token_to_id(_STOP)
    files = {
        "config.json": config.to_json(),
        "generation_config.json": {"eos_token_id": [stop_id]},
        "preprocessor_config.json": {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "feature_size": config.audio.num_mel_bins if config.audio else 80,
            "hop_length": 160,
            "n_fft": 400,
            "sampling_rate": 16000,
        },
        "tokenizer_config.json": {
            "bos_token": "<|begin_of_text|>",
            "eos_token": _STOP,
            "chat_template": _CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    }
    for name, values in files.items():
        text = json.dumps(values, indent=1, sort_keys=True)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    return config


def _tokenizer() -> Tokenizer:
    """One token a byte, and the words, which text is never split into."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    for word in (word for level in LEVELS for word in level if word != _STOP):
        vocabulary.setdefault(word.replace(" ", "Ġ"), len(vocabulary))
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in _SPECIALS]
    )
    return tokenizer


def _config(tokenizer: Tokenizer) -> UltravoxConfig:
    return UltravoxConfig(
        audio=AudioEncoderConfig(
            d_model=16,
            encoder_layers=1,
            encoder_attention_heads=2,
            encoder_ffn_dim=32,
            num_mel_bins=80,
        ),
        text={
            "model_type": "llama",
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": tokenizer.get_vocab_size(),
            "max_position_embeddings": 4096,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "bos_token_id": tokenizer.token_to_id("<|begin_of_text|>"),
            "eos_token_id": tokenizer.token_to_id(_STOP),
        },
        hidden_size=64,
        audio_token_index=tokenizer.token_to_id("<|audio|>"),
        torch_dtype="float32",
        weights_kind="random",
    )


def _weights(
    config: UltravoxConfig, tokenizer: Tokenizer, seed: int
) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UltravoxModel(config)
        weights = {
            name: torch.randn(tensor.shape) / math.sqrt(tensor[0].numel())
            if tensor.dim() > 1
            else tensor.clone()
            for name, tensor in network.state_dict().items()
        }
    _wire_levels(weights, tokenizer)
    return {name: tensor.contiguous() for name, tensor in weights.items()}


def _wire_levels(weights: dict[str, torch.Tensor], tokenizer: Tokenizer) -> None:
    """Give each level one dimension: words light their own level's, and the output
    rows of a level's words look at the dimension of the level before."""
    embeddings = weights["language_model.model.embed_tokens.weight"]
    outputs = weights["language_model.lm_head.weight"]
    start, num_dims = 0, len(LEVELS) + 1  # dimension 0: anything not yet a reply
    embeddings.normal_(generator=torch.Generator().manual_seed(1))
    embeddings[:, :num_dims] = 0.0
    embeddings[:, start] = _LEVEL_GAIN
    outputs[:, :num_dims] = -_LEVEL_GAIN
    # The layer adds context, but leaves the levels alone.
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        layer = weights[f"language_model.model.layers.0.{name}.weight"]
        layer.mul_(4.0)
        layer[:num_dims] = 0.0
    for level, words in enumerate(LEVELS):
        for word in words:
            token_id = tokenizer.token_to_id(word.replace(" ", "Ġ"))
            outputs[token_id, level] = _LEVEL_GAIN
            if word != _STOP:
                embeddings[token_id, start] = 0.0
                embeddings[token_id, level + 1] = _LEVEL_GAIN


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a checkpoint and say what it is."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.make_tiny_checkpoint",
        description="Write a tiny Ultravox checkpoint with random weights.",
    )
    parser.add_argument("folder", type=Path, help="where to write it")
    parser.add_argument("--seed", type=int, default=0, help="which random weights")
    options = parser.parse_args(arguments)
    write_tiny_checkpoint(options.folder, options.seed)
    print(f"{options.folder}: random weights; replies are not language")
    return 0


if __name__ == "__main__":
    sys.exit(main())
