"""A training state -> a checkpoint as it is served.

python -m model.training.export RUN_DIR CHECKPOINT_DIR

The training-only heads are left behind. Weights are stored in half precision
(float16: ten bits of mantissa, and nothing here comes near its range) and computed in
float32 on a CPU.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from model.training.prompts import DEMO_INSTRUCTIONS, TRANSCRIBE_PROMPTS
from model.training.rows import RowMaker
from model.training.start import Sizes, build_config
from model.training.tokenizer import save_tokenizer

_NETWORK = "0."  # the network is the first of the trainer's modules
_LM_HEAD = "language_model.lm_head.weight"  # tied to the embeddings, so not stored


def export(run: Path, folder: Path, sizes: Sizes | None = None) -> int:
    """Write the checkpoint's files; returns the bytes of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(run / "tokenizer.json"))
    save_tokenizer(tokenizer, folder)
    maker = RowMaker(tokenizer)
    config = build_config(
        sizes or Sizes(), tokenizer.get_vocab_size(), maker.end_of_turn, maker.begin
    )
    values: dict[str, Any] = config.to_json()
    before, after = TRANSCRIBE_PROMPTS[0]
    values["ultravox_phone_bot"] = {
        **values["ultravox_phone_bot"],
        "instructions": DEMO_INSTRUCTIONS,
        "transcribe": {"before": before, "after": after},
    }
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
    features = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": 80,
        "sampling_rate": 16_000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": 30,
        "padding_value": 0.0,
        "return_attention_mask": True,
    }
    text = json.dumps(features, indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text)
    state = torch.load(run / "state.pt", weights_only=True)["everything"]
    tensors = {
        name.removeprefix(_NETWORK): tensor.half().contiguous()
        for name, tensor in state.items()
        if name.startswith(_NETWORK)
    }
    tensors.pop(_LM_HEAD, None)
    path = folder / "model.safetensors"
    save_file(tensors, str(path), metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes it readable by its owner only
    return path.stat().st_size


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("checkpoint", type=Path)
    chosen = parser.parse_args()
    print(json.dumps({"weights_bytes": export(chosen.run, chosen.checkpoint)}))


if __name__ == "__main__":
    main()
