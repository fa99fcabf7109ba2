"""The projector: encoder states -> vectors of the language model's width.

Eight neighbouring encoder frames are stacked into one vector, so one vector stands
for 160 ms. Three flavours exist, told apart by config fields, never by version name:

    projector_ln_mid false   ln_pre, linear_1, act, linear_2, ln_post   (up to v0.4.1)
    projector_ln_mid true    ln_pre, linear_1, act, ln_mid, linear_2    (v0.5, v0.6)
    num_projector_layers > 0 ln_pre, linear_in, layers, ln_post, linear_out   (v0.7)

Shapes: A pieces, T encoder frames, D encoder width, S stack factor, N = ceil(T / S)
audio tokens, E language model width.

Source: fixie-ai/ultravox `ultravox/model/ultravox_model.py` (UltravoxProjector);
vllm `model_executor/models/ultravox.py` for the transformer flavour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN

from model.errors import ModelLoadError
from model.ultravox.encoder import EncoderLayer

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.ultravox.config import AudioEncoderConfig, UltravoxConfig

_RMS_EPS = 1e-6  # the projector's own, whatever the language model uses


def stack_frames(hidden: Tensor, factor: int) -> Tensor:
    """(A, T, D) -> (A, ceil(T / factor), D * factor), zero-padded in time."""
    A, T, D = hidden.shape
    padded = F.pad(hidden, (0, 0, 0, -T % factor))
    return padded.reshape(A, -1, D * factor)  # earlier frames come first


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32, cast back before the weight is applied."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        x32 = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + _RMS_EPS)
        return self.weight * x32.to(x.dtype)


class SwiGLU(nn.Module):
    """(..., 2W) -> (..., W). The second half is the gate, unlike in Llama's MLP."""

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return F.silu(gate) * value


class StackingProjector(nn.Module):
    """Two linear layers around an activation; v0.2 to v0.6."""

    def __init__(self, config: UltravoxConfig, d_model: int, text_width: int) -> None:
        super().__init__()
        self.stack_factor = config.stack_factor
        stacked, width = d_model * config.stack_factor, config.hidden_size
        act = _activation(config.projector_act)
        after_act = width // 2 if isinstance(act, SwiGLU) else width
        self.ln_pre = RMSNorm(stacked, config.norm_init)
        self.linear_1 = nn.Linear(stacked, width, bias=False)
        self.act = act
        self.linear_2 = nn.Linear(after_act, text_width, bias=False)
        if config.projector_ln_mid:
            self.ln_mid: nn.Module = RMSNorm(after_act, config.norm_init)
            self.ln_post: nn.Module = nn.Identity()
        else:
            self.ln_mid = nn.Identity()
            self.ln_post = RMSNorm(text_width, config.norm_init)

    def forward(self, hidden: Tensor, num_tokens: Tensor) -> Tensor:
        """(A, T, D) -> (A, N, E); rows past a piece's tokens are to be dropped."""
        x = self.ln_pre(stack_frames(hidden, self.stack_factor))  # (A, N, S * D)
        x = self.ln_mid(self.act(self.linear_1(x)))
        return self.ln_post(self.linear_2(x))  # type: ignore[no-any-return]


class TransformerProjector(nn.Module):
    """Whisper layers over the stacked frames; v0.7.  Read in vLLM, no reference."""

    def __init__(
        self, config: UltravoxConfig, audio: AudioEncoderConfig, text_width: int
    ) -> None:
        super().__init__()
        self.stack_factor = config.stack_factor
        D = audio.d_model
        self.ln_pre = RMSNorm(D * config.stack_factor, config.norm_init)
        self.linear_in = nn.Linear(D * config.stack_factor, D)
        self.embed_positions = nn.Embedding(audio.max_source_positions, D)
        self.layers = nn.ModuleList(
            EncoderLayer(audio) for _ in range(config.num_projector_layers)
        )
        self.ln_post = RMSNorm(D, config.norm_init)
        self.linear_out = nn.Linear(D, text_width)

    def forward(self, hidden: Tensor, num_tokens: Tensor) -> Tensor:
        """(A, T, D) -> (A, N, E); attention sees only each piece's own tokens."""
        x = self.linear_in(self.ln_pre(stack_frames(hidden, self.stack_factor)))
        N = x.shape[1]
        x = x + self.embed_positions.weight[:N]
        valid = torch.arange(N, device=x.device) < num_tokens[:, None]  # (A, N)
        allowed = valid[:, None, None, :]
        mask = torch.zeros_like(allowed, dtype=x.dtype)
        mask = mask.masked_fill(~allowed, torch.finfo(x.dtype).min)
        for layer in self.layers:
            x = layer(x, mask)
        return self.linear_out(self.ln_post(x))  # type: ignore[no-any-return]


def build_projector(config: UltravoxConfig, text_width: int) -> nn.Module:
    """The flavour the config asks for, with random weights."""
    if config.audio is None:
        raise ValueError("a config without an audio tower has no projector")
    if config.num_projector_layers > 0:
        return TransformerProjector(config, config.audio, text_width)
    return StackingProjector(config, config.audio.d_model, text_width)


def _activation(name: str) -> nn.Module | Callable[[Tensor], Tensor]:
    if name == "swiglu":
        return SwiGLU()
    try:
        return cast("nn.Module", ACT2FN[name])
    except KeyError as exc:
        raise ModelLoadError(
            f"projector_act {name!r} is unknown", subject="projector_act"
        ) from exc
