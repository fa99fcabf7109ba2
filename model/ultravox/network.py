"""The whole network: audio tower, projector and language model.

Audio vectors stand in the language model's input where placeholder tokens would be;
nothing is scaled and no markers are added. The modules are plain and differentiable:
who serves wraps calls in `torch.inference_mode`, who trains does not. The network
holds no state of any call.

Shapes: A pieces of audio, F mel frames, N audio tokens, B rows of text, T tokens,
E language model width, V vocabulary.

Source: fixie-ai/ultravox `ultravox/model/ultravox_model.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from model.errors import ModelLoadError
from model.ultravox.encoder import AudioEncoder
from model.ultravox.lengths import FRAMES_PER_ENCODER_STATE, num_audio_tokens
from model.ultravox.projector import build_projector

if TYPE_CHECKING:
    from model.ultravox.config import UltravoxConfig


class UltravoxModel(nn.Module):
    """audio_tower -> multi_modal_projector -> language_model."""

    def __init__(self, config: UltravoxConfig) -> None:
        super().__init__()
        self.config = config
        text_config = build_text_config(config)
        if config.audio is not None:
            self.audio_tower = AudioEncoder(
                config.audio, config.audio_latency_block_size
            )
            self.multi_modal_projector = build_projector(
                config, int(text_config.hidden_size)
            )
        # torch's default dtype, as for the other parts, not the one the file names.
        self.language_model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            text_config, dtype=torch.get_default_dtype()
        )

    @property
    def text_config(self) -> Any:
        """transformers' config of the language model."""
        return self.language_model.config

    def encode(
        self, mel: Tensor, num_mel_frames: Tensor, continues: Tensor | None = None
    ) -> list[Tensor]:
        """Audio pieces -> their vectors, each as if encoded alone.

        Args:
            mel: (A, M, F), zero past each row's end.
            num_mel_frames: (A,) valid mel frames, at least 1.
            continues: (A,) bool, true for pieces that go on with the clip of an
                earlier piece; the reference pads those with 30 s of silence.

        Returns:
            A tensors (num_audio_tokens, E).
        """
        stack = self.config.stack_factor
        counts = [num_audio_tokens(int(f), stack) for f in num_mel_frames.tolist()]
        # A continuing piece's last token stacks states of silence after its end, so
        # there must be mel frames for all of that token (but never more than 30 s).
        wanted = max(counts) * FRAMES_PER_ENCODER_STATE * stack
        limit = self.audio_tower.config.max_mel_frames
        mel = F.pad(mel, (0, max(0, min(wanted, limit) - mel.shape[2])))
        states = self.audio_tower(mel, num_mel_frames, continues)
        num_tokens = torch.tensor(counts, device=mel.device)
        vectors = self.multi_modal_projector(states, num_tokens)  # (A, N, E)
        return [row[:count] for row, count in zip(vectors, counts, strict=True)]

    def merge(
        self, input_ids: Tensor, is_audio: Tensor, audio_vectors: Tensor
    ) -> Tensor:
        """Put audio vectors in the places kept for them.

        Args:
            input_ids: (B, T); ids at audio places only need to be in the vocabulary.
            is_audio: (B, T) bool.
            audio_vectors: (number of true places, E), in row-major order.

        Returns:
            (B, T, E) input embeddings. Merged after the lookup: some language models
            scale their embeddings there, and audio is not scaled.
        """
        embeds: Tensor = self.language_model.get_input_embeddings()(input_ids)
        places = is_audio.unsqueeze(-1).expand_as(embeds)
        return embeds.masked_scatter(places, audio_vectors.to(embeds.dtype))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        is_audio: Tensor | None = None,
        audio_vectors: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """(B, T) ids and the audio among them -> logits (B, T, V).

        Left padding is masked by `attention_mask`; positions then count from each
        row's first token unless given.
        """
        if is_audio is not None and audio_vectors is not None:
            embeds = self.merge(input_ids, is_audio, audio_vectors)
        else:
            embeds = self.language_model.get_input_embeddings()(input_ids)
        if position_ids is None and attention_mask is not None:
            position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        output = self.language_model(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=False,
        )
        return cast("Tensor", output.logits)


def build_text_config(config: UltravoxConfig) -> Any:
    """transformers' config object of the language model, Llama's when unnamed.

    Raises:
        ModelLoadError: transformers does not know the model type, or a field is bad.
    """
    values = dict(config.text)
    model_type = str(values.pop("model_type", None) or "llama")
    values.pop("auto_map", None)  # remote code; never used
    try:
        text_config = AutoConfig.for_model(model_type, **values)
    except (ValueError, TypeError, KeyError) as exc:
        raise ModelLoadError(
            f"text config of type {model_type!r} cannot be used: {exc}",
            subject="text_config",
        ) from exc
    # A vision-language backbone nests its language model; only that part is ours.
    return text_config.get_text_config(decoder=True)
