"""The language model's forward pass over a packed step.

Two ways to the same numbers:

    LlamaForward          Llama and Mistral written out with as few operations as
                          possible; on small models and GPUs, issuing operations is
                          what a decode step costs
    TransformersForward   any causal language model transformers knows, with its
                          attention replaced by ours

Shapes: N packed tokens, E width, R rows whose logits are wanted, V vocabulary.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
import torch.nn.functional as F
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from model.engine.linear import join
from model.errors import ModelLoadError
from model.ultravox.quantize import is_quantized

if TYPE_CHECKING:
    from torch import Tensor, nn

logger = logging.getLogger(__name__)

_ATTENTION_NAME = "ultravox_slots"
_WRITTEN_OUT = {"LlamaForCausalLM", "MistralForCausalLM"}
# These change with the length of what is read, so a table cannot stand for them.
_ROPE_WITHOUT_TABLE = {"dynamic", "longrope"}
_TAKEN_OVER = "ultravox_forward"
# Layers that keep something else than keys and values for every position.
_ATTENTION_LAYERS = {"full_attention", "sliding_attention"}


class Attention(Protocol):
    """Where the rows of a step meet the cache: `PackedBatch`, or a fixed batch."""

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scaling: float,
        window: int | None = None,
    ) -> Tensor:
        """query (N, Q, D), key and value (N, K, D) -> (N, Q, D)."""
        ...


class ForwardPass(Protocol):
    """What the runner needs of a language model."""

    def embed(self, ids: Tensor) -> Tensor:
        """(N,) ids -> (N, E), a tensor of its own that may be written to."""
        ...

    def forward(
        self, embeds: Tensor, positions: Tensor, batch: Attention, rows: Tensor
    ) -> Tensor:
        """(N, E) and positions (N,) -> logits (R, V) of `rows` (R,)."""
        ...


def build_forward(language_model: nn.Module) -> ForwardPass:
    """The fastest way there is for this backbone.  It takes the weights over.

    Raises:
        ModelLoadError: the backbone keeps something else than keys and values.
    """
    config: Any = language_model.config
    layers = set(getattr(config, "layer_types", None) or ())
    if layers - _ATTENTION_LAYERS:
        kinds = ", ".join(sorted(layers - _ATTENTION_LAYERS))
        raise ModelLoadError(
            f"a backbone with layers of type {kinds} cannot be served by this engine",
            subject="text_config.layer_types",
        )
    taken = getattr(language_model, _TAKEN_OVER, None)
    if isinstance(taken, LlamaForward):
        return taken  # by an earlier engine; its weights have moved there
    if _can_be_written_out(language_model):
        forward = LlamaForward(language_model)
        setattr(language_model, _TAKEN_OVER, forward)
        return forward
    return TransformersForward(language_model)


class TransformersForward:
    """A transformers causal LM with its attention replaced, for good."""

    def __init__(self, language_model: Any) -> None:
        AttentionInterface.register(_ATTENTION_NAME, _slot_attention)
        AttentionMaskInterface.register(_ATTENTION_NAME, _no_mask)
        language_model.set_attn_implementation(_ATTENTION_NAME)
        self._model = language_model
        self._embed = language_model.get_input_embeddings()
        last = language_model.get_decoder().layers[-1]
        self._rows_device = next(last.parameters()).device

    def embed(self, ids: Tensor) -> Tensor:
        """(N,) ids -> (N, E), scaled if the model scales them."""
        return cast("Tensor", self._embed(ids))

    def forward(
        self, embeds: Tensor, positions: Tensor, batch: Attention, rows: Tensor
    ) -> Tensor:
        """(N, E) -> (R, V)."""
        output = self._model(
            inputs_embeds=embeds[None],
            position_ids=positions[None],
            use_cache=False,
            packed_batch=batch,
            logits_to_keep=rows.to(self._rows_device),
        )
        return cast("Tensor", output.logits[0])


def _slot_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    packed_batch: Attention | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """transformers' (1, heads, N, D) -> (1, N, Q, D), by way of the packed batch."""
    if packed_batch is None:
        raise RuntimeError("this model was handed to an engine and works only there")
    attended = packed_batch.attend(
        cast("int", module.layer_idx),
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=sliding_window,
    )
    return attended.unsqueeze(0), None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """transformers is not to build masks: the packed batch has its own."""


def _can_be_written_out(language_model: Any) -> bool:
    config = language_model.config
    return (
        type(language_model).__name__ in _WRITTEN_OUT
        and not is_quantized(language_model)  # the layers themselves compute
        and config.hidden_act == "silu"
        and getattr(config, "sliding_window", None) is None
        and language_model.model.rotary_emb.rope_type not in _ROPE_WITHOUT_TABLE
    )


class LlamaForward:
    """Llama's layers on packed tokens.

    Projections of the same input are one product each, and the rotary tables are
    computed once, by the model's own code. Layers may be on several cards.

    Source: transformers `models/llama/modeling_llama.py`.
    """

    def __init__(self, language_model: Any) -> None:
        config, decoder = language_model.config, language_model.model
        self._embeddings: Tensor = decoder.embed_tokens.weight.detach()
        self._num_heads: int = config.num_attention_heads
        self._num_kv_heads: int = config.num_key_value_heads
        cos, sin = _rotary_tables(decoder.rotary_emb, config.max_position_embeddings)
        self._cos = cos.to(self._embeddings.device, self._embeddings.dtype)
        self._sin = sin.to(self._embeddings.device, self._embeddings.dtype)
        self._layers = [_LlamaLayer(layer) for layer in decoder.layers]
        self._norm = _Norm(decoder.norm)
        self._head_device: torch.device = language_model.lm_head.weight.device
        self._head = join([language_model.lm_head])
        self._crossings = _crossings(self._embeddings.device, self._layers, self._norm)

    def embed(self, ids: Tensor) -> Tensor:
        """(N,) ids -> (N, E)."""
        return F.embedding(ids, self._embeddings)

    def forward(
        self, embeds: Tensor, positions: Tensor, batch: Attention, rows: Tensor
    ) -> Tensor:
        """(N, E) -> (R, V)."""
        x = embeds
        cos = self._cos[positions].unsqueeze(1)  # (N, 1, D)
        sin = self._sin[positions].unsqueeze(1)
        N, Q, K, D = len(x), self._num_heads, self._num_kv_heads, cos.shape[-1]
        for index, layer in enumerate(self._layers):
            if index in self._crossings:
                x, cos, sin = (t.to(self._crossings[index]) for t in (x, cos, sin))
            qkv = layer.qkv(layer.attention_norm(x)).view(N, Q + 2 * K, D)
            qk = qkv[:, : Q + K]
            # Halves swapped and signed by the table: RoPE in three operations.
            qk = torch.addcmul(qk * cos, qk.roll(D // 2, -1), sin)
            attended = batch.attend(
                index, qk[:, :Q], qk[:, Q:], qkv[:, Q + K :], scaling=layer.scaling
            )
            x = x + layer.output(attended.reshape(N, Q * D))
            gate, up = layer.gate_up(layer.ffn_norm(x)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate) * up)
        if self._crossings:
            x = x.to(self._crossings.get(len(self._layers), x.device))
            rows = rows.to(x.device)
            kept = self._norm(x[rows]).to(self._head_device)
            return cast("Tensor", self._head(kept)).to(embeds.device)
        return cast("Tensor", self._head(self._norm(x[rows])))


class _Norm:
    """Llama's RMS norm."""

    def __init__(self, norm: Any) -> None:
        self._weight: Tensor = norm.weight
        self.device = self._weight.device
        self._eps: float = norm.variance_epsilon

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self._weight.shape, self._weight, self._eps)


class _LlamaLayer:
    """One layer's weights, joined where they read the same input."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.attention_norm = _Norm(layer.input_layernorm)
        self.qkv = join([attention.q_proj, attention.k_proj, attention.v_proj])
        self.output = join([attention.o_proj])
        self.scaling: float = attention.scaling
        self.ffn_norm = _Norm(layer.post_attention_layernorm)
        self.gate_up = join([mlp.gate_proj, mlp.up_proj])
        self.down = join([mlp.down_proj])


def _crossings(
    first: torch.device, layers: list[_LlamaLayer], norm: _Norm
) -> dict[int, torch.device]:
    """Before which layers the activations go to another card; the last is the norm."""
    crossings, here = {}, first
    devices = [layer.attention_norm.device for layer in layers] + [norm.device]
    for index, device in enumerate(devices):
        if device != here:
            crossings[index] = here = device
    return crossings


def _rotary_tables(rotary: Any, max_positions: int) -> tuple[Tensor, Tensor]:
    """(positions, D) cosines, and sines with the sign that rotation gives them."""
    device = rotary.inv_freq.device
    positions = torch.arange(max_positions, device=device)[None]
    cos, sin = rotary(torch.zeros(1, device=device), positions)
    half = sin.shape[-1] // 2
    signed = torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)
    return cos[0].contiguous(), signed
