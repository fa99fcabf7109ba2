"""The parity fixtures, and their weights in the layouts that are published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar, enable_progress_bar

PARITY = Path(__file__).parents[2] / "data" / "parity"
V0_4 = PARITY / "v0_4"
V0_5 = PARITY / "v0_5"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def write_projector_only(folder: Path) -> Path:
    """v0.4: the projector alone; encoder and LLM from repositories beside it."""
    tensors = load_file(V0_4 / "model.safetensors")
    config = json.loads((V0_4 / "config.json").read_text())
    encoder = _part(tensors, "audio_tower.", "model.encoder.")
    encoder["model.decoder.layer_norm.weight"] = torch.ones(config["hidden_size"])
    encoder["proj_out.weight"] = torch.ones(2, 2)
    _write(folder / "whisper", config["audio_config"], encoder)
    _write_llm(folder / "llm", config["text_config"], tensors, V0_4)
    projector = _part(tensors, "multi_modal_projector.", "multi_modal_projector.")
    config |= {"audio_model_id": "./whisper", "text_model_id": "./llm"}
    del config["audio_config"], config["text_config"]
    _write(folder / "ultravox", config, projector)
    return folder / "ultravox"


def write_encoder_and_projector(folder: Path) -> Path:
    """v0.5: encoder and projector; only the LLM elsewhere. No tokenizer of its own."""
    tensors = load_file(V0_5 / "model.safetensors")
    config = json.loads((V0_5 / "config.json").read_text())
    _write_llm(folder / "llm", config["text_config"], tensors, V0_5)
    own = {k: t for k, t in tensors.items() if not k.startswith("language_model.")}
    config |= {"text_model_id": "llm"}
    del config["text_config"]
    _write(folder / "ultravox", config, own)
    return folder / "ultravox"


def write_whole(folder: Path, source: Path = V0_4) -> Path:
    """A copy of a whole model, to be damaged."""
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    return folder


def write_transformer_projector(folder: Path) -> dict[str, torch.Tensor]:
    """v0.7: encoder and a projector of transformer layers, under the names that vLLM's
    loader expects; returns the projector's tensors."""
    tensors = load_file(V0_5 / "model.safetensors")
    config = json.loads((V0_5 / "config.json").read_text())
    audio, width = config["audio_config"], config["text_config"]["hidden_size"]
    d_model, ffn = audio["d_model"], audio["encoder_ffn_dim"]
    stacked = 8 * d_model
    shapes: dict[str, tuple[int, ...]] = {
        "ln_pre.weight": (stacked,),
        "linear_in.weight": (d_model, stacked),
        "linear_in.bias": (d_model,),
        "embed_positions.weight": (audio["max_source_positions"], d_model),
        "ln_post.weight": (d_model,),
        "linear_out.weight": (width, d_model),
        "linear_out.bias": (width,),
    }
    for layer in ("layers.0.", "layers.1."):
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{layer}self_attn.{name}.weight"] = (d_model, d_model)
            if name != "k_proj":
                shapes[f"{layer}self_attn.{name}.bias"] = (d_model,)
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            shapes[f"{layer}{norm}.weight"] = shapes[f"{layer}{norm}.bias"] = (d_model,)
        for name, rows, columns in (("fc1", ffn, d_model), ("fc2", d_model, ffn)):
            shapes[f"{layer}{name}.weight"] = (rows, columns)
            shapes[f"{layer}{name}.bias"] = (rows,)
    generator = torch.Generator().manual_seed(7)
    projector = {
        name: 0.3 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }
    kept = {k: t for k, t in tensors.items() if "multi_modal_projector" not in k}
    kept |= {f"multi_modal_projector.{k}": t for k, t in projector.items()}
    _write(folder, config | {"num_projector_layers": 2}, kept)
    for name in _TOKENIZER:
        shutil.copy(V0_5 / name, folder)
    return projector


def write_sharded(folder: Path) -> Path:
    """A whole model in two files with an index, as large ones are published."""
    write_whole(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {
        "model-00001-of-00002.safetensors": names[: len(names) // 2],
        "model-00002-of-00002.safetensors": names[len(names) // 2 :],
    }
    for shard, keys in shards.items():
        save_file({key: tensors[key] for key in keys}, folder / shard)
    weight_map = {key: shard for shard, keys in shards.items() for key in keys}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def write_with_backbone(folder: Path, text_config: Any) -> tuple[Path, Any]:
    """v0.5's encoder and projector with a random backbone, as transformers saves it.

    Returns the checkpoint's folder and the backbone. Its width must be the fixture's.
    """
    torch.manual_seed(5)
    backbone: Any = AutoModelForCausalLM.from_config(text_config)  # type: ignore[no-untyped-call]
    disable_progress_bar()  # type: ignore[no-untyped-call]  # its thread would outlive the test
    try:
        backbone.save_pretrained(folder / "llm")
    finally:
        enable_progress_bar()  # type: ignore[no-untyped-call]
    tensors = load_file(V0_5 / "model.safetensors")
    own = {k: t for k, t in tensors.items() if not k.startswith("language_model.")}
    config = json.loads((V0_5 / "config.json").read_text())
    del config["text_config"]
    _write(folder / "ultravox", config | {"text_model_id": "llm"}, own)
    for name in _TOKENIZER:
        shutil.copy(V0_5 / name, folder / "ultravox")
    return folder / "ultravox", backbone


def _write_llm(
    folder: Path,
    config: dict[str, object],
    tensors: dict[str, torch.Tensor],
    source: Path,
) -> None:
    _write(folder, config, _part(tensors, "language_model.", ""))
    for name in _TOKENIZER:
        shutil.copy(source / name, folder)


def _part(
    tensors: dict[str, torch.Tensor], prefix: str, renamed: str
) -> dict[str, torch.Tensor]:
    return {
        renamed + key.removeprefix(prefix): tensor
        for key, tensor in tensors.items()
        if key.startswith(prefix)
    }


def _write(
    folder: Path, config: dict[str, object], tensors: dict[str, torch.Tensor]
) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
