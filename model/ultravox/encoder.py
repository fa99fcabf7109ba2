"""The audio tower: Whisper's encoder, for any length up to 30 s.

Module and parameter names are those of the checkpoints (`conv1`, `layers.N.self_attn`
...). It differs from transformers' WhisperEncoder in taking short input, masking
padding, and giving each row of a batch the result it would have alone.

Shapes: A pieces of audio, M mel bins, F mel frames (100 a second), T = ceil(F / 2)
encoder frames (50 a second), D = d_model, H heads.

Source: fixie-ai/ultravox `ultravox/model/ultravox_model.py` (ModifiedWhisperEncoder);
transformers `models/whisper/modeling_whisper.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN

if TYPE_CHECKING:
    from model.ultravox.config import AudioEncoderConfig


class SelfAttention(nn.Module):
    """Whisper's attention: no bias on keys, queries scaled before the product."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model, bias=False)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """(A, T, D) and an additive mask (A, 1, T or 1, T) -> (A, T, D)."""
        A, T, D = hidden.shape
        by_head = (A, T, self.num_heads, D // self.num_heads)
        # Whisper scales the query, not the product; in half precision it matters.
        q = self.q_proj(hidden) * (D // self.num_heads) ** -0.5
        q = q.view(by_head).transpose(1, 2)  # (A, H, T, D / H)
        k = self.k_proj(hidden).view(by_head).transpose(1, 2)
        v = self.v_proj(hidden).view(by_head).transpose(1, 2)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
        joined = attended.transpose(1, 2).reshape(A, T, D)
        return self.out_proj(joined)  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """One pre-norm transformer layer of Whisper's encoder."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config.d_model, config.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.activation = ACT2FN[config.activation_function]
        self.fc1 = nn.Linear(config.d_model, config.encoder_ffn_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_dim, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """(A, T, D) -> (A, T, D)."""
        hidden = hidden + self.self_attn(self.self_attn_layer_norm(hidden), mask)
        ffn = self.fc2(self.activation(self.fc1(self.final_layer_norm(hidden))))
        hidden = hidden + ffn
        if hidden.dtype == torch.float16:  # large Whisper encoders overflow in fp16
            limit = torch.finfo(torch.float16).max - 1000
            hidden = hidden.clamp(-limit, limit)
        return hidden


class AudioEncoder(nn.Module):
    """Log-mel -> encoder states, each row as if it were alone in the batch."""

    def __init__(
        self, config: AudioEncoderConfig, latency_block_size: int | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.latency_block_size = latency_block_size
        D = config.d_model
        self.conv1 = nn.Conv1d(config.num_mel_bins, D, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(D, D, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(config.max_source_positions, D)
        self.layers = nn.ModuleList(
            EncoderLayer(config) for _ in range(config.encoder_layers)
        )
        self.layer_norm = nn.LayerNorm(D)

    def forward(
        self, mel: Tensor, num_mel_frames: Tensor, keeps_padding: Tensor | None = None
    ) -> Tensor:
        """Encode a padded batch.

        Args:
            mel: (A, M, F), zero past each row's end.
            num_mel_frames: (A,) valid mel frames of each row.
            keeps_padding: (A,) bool; true rows are computed as if F went on to 30 s
                of zeros, which is how the reference pads every piece of a clip but
                the first. Such a row's frames past its end are not zeroed.

        Returns:
            (A, T, D). Rows past their end are zero unless `keeps_padding`.
        """
        A, _, F_mel = mel.shape
        if F_mel > self.config.max_mel_frames:
            raise ValueError(
                f"{F_mel} mel frames; at most {self.config.max_mel_frames}"
            )
        kept = (
            torch.zeros(A, dtype=torch.bool, device=mel.device)
            if keeps_padding is None
            else keeps_padding
        )
        mel_positions = torch.arange(F_mel, device=mel.device)
        in_clip = (mel_positions < num_mel_frames[:, None]) | kept[:, None]  # (A, F)

        hidden = F.gelu(self.conv1(mel))  # (A, D, F)
        # conv1 of nothing is not nothing (it has a bias), and conv2 would see it
        # beside the last frame of an odd-length row. Alone, a row ends in zeros.
        hidden = hidden * in_clip[:, None, :].to(hidden.dtype)
        hidden = F.gelu(self.conv2(hidden)).transpose(1, 2)  # (A, T, D)

        T = hidden.shape[1]
        hidden = hidden + self.embed_positions.weight[:T]
        frames = torch.arange(T, device=mel.device)
        valid = frames < ((num_mel_frames + 1) // 2)[:, None]  # (A, T)
        mask = self._attention_mask(valid, hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        states: Tensor = self.layer_norm(hidden)
        # Alone, the stacker would add zeros after the end.
        return states * (valid | kept[:, None])[:, :, None].to(states.dtype)

    def _attention_mask(self, valid: Tensor, dtype: torch.dtype) -> Tensor | None:
        """(A, T) valid keys -> additive (A, 1, T or 1, T), or none if all see all."""
        T = valid.shape[1]
        allowed = valid[:, None, None, :]
        if self.latency_block_size is not None:
            # The reference builds the mask in mel frames but applies it to encoder
            # frames, so a block of 100 is 2 s. Reproduced as it is.
            block = torch.arange(T, device=valid.device) // self.latency_block_size
            allowed = allowed & (block[:, None] >= block[None, :])
        # The dtype's minimum, not -inf: a row of -inf would turn into NaN.
        blocked = torch.finfo(dtype).min
        return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, blocked)
