"""Weights of the language model in 8 or 4 bits, by bitsandbytes.

For cards that a model does not fit in half precision: an L4 holds an 8B model in 8
bits, not in 16. Every step is slower in arithmetic, and reads less. The embeddings, the
head, the audio tower and the projector stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from model.errors import ModelLoadError

if TYPE_CHECKING:
    import torch

Quantization = Literal["none", "int8", "nf4"]

BITS: dict[Quantization, int] = {"none": 0, "int8": 8, "nf4": 4}


def quantize(
    language_model: Any, kind: Quantization, device: torch.device, dtype: torch.dtype
) -> None:
    """Replace the decoder's linear layers in place, one by one, on their device.

    Raises:
        ModelLoadError: bitsandbytes is not installed, or cannot do it here.
    """
    try:
        import bitsandbytes
    except ImportError as exc:
        raise ModelLoadError(
            "8 and 4 bits need bitsandbytes: .venv/bin/pip install "
            "'bitsandbytes>=0.50,<1'",
            subject="ULTRAVOX_QUANTIZE",
        ) from exc

    layers: Any = bitsandbytes.nn  # untyped

    def replacement(layer: nn.Linear) -> nn.Module:
        sizes = (layer.in_features, layer.out_features)
        has_bias = layer.bias is not None
        weight = layer.weight.detach()
        made: Any
        if kind == "int8":
            made = layers.Linear8bitLt(*sizes, bias=has_bias, has_fp16_weights=False)
            made.weight = layers.Int8Params(
                weight, requires_grad=False, has_fp16_weights=False
            )
        else:
            made = layers.Linear4bit(
                *sizes, bias=has_bias, compute_dtype=dtype, quant_type="nf4"
            )
            made.weight = layers.Params4bit(
                weight, requires_grad=False, quant_type="nf4"
            )
        made.bias = layer.bias
        return made.to(device)  # type: ignore[no-any-return]

    try:
        _replace(language_model.get_decoder(), replacement)
    except (RuntimeError, NotImplementedError, AttributeError) as exc:
        raise ModelLoadError(
            f"this model cannot be held as {kind} on {device.type}: {exc}",
            subject="ULTRAVOX_QUANTIZE",
        ) from exc


def is_quantized(language_model: nn.Module) -> bool:
    """Whether some linear layer is not a plain one any more."""
    return any(
        isinstance(module, nn.Linear) and type(module) is not nn.Linear
        for module in language_model.modules()
    )


def _replace(module: nn.Module, replacement: Any) -> None:
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, replacement(child))
        else:
            _replace(child, replacement)
