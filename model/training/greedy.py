"""Replies of a loaded checkpoint to many prompts at once, for measuring.

Prompts are made by the served path (`Dialogue`, `ChatFormat`, `Checkpoint.encode`);
only the decoding loop is here, and it is greedy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ultravox.checkpoint import Checkpoint
    from model.ultravox.inputs import Prompt


@torch.inference_mode()
def embed(checkpoint: Checkpoint, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
    """Prompts -> input embeddings, one (T, E) each; clips are encoded once."""
    clips = {id(s.clip): s.clip for p in prompts for s in p.audio}
    new = [c for c in clips.values() if c.vectors is None]
    new.sort(key=lambda clip: clip.num_samples)
    for start in range(0, len(new), 16):
        group = new[start : start + 16]
        vectors = checkpoint.encode([torch.from_numpy(c.wave) for c in group])
        for clip, found in zip(group, vectors, strict=True):
            clip.vectors = found
    table = checkpoint.network.language_model.get_input_embeddings()
    embedded: list[torch.Tensor] = []
    for prompt in prompts:
        row = table(torch.from_numpy(prompt.token_ids)).clone()
        for span in prompt.audio:
            assert span.clip.vectors is not None
            row[span.start : span.start + span.num_tokens] = span.clip.vectors
        embedded.append(row)
    return embedded


@torch.inference_mode()
def reply(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], max_new_tokens: int = 48
) -> list[list[int]]:
    """Greedy replies, without the token that ends them."""
    replies: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), 32):
        chosen = order[start : start + 32]
        found = _decode(checkpoint, [prompts[i] for i in chosen], max_new_tokens)
        for index, ids in zip(chosen, found, strict=True):
            replies[index] = ids
    return replies


def _decode(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], max_new_tokens: int
) -> list[list[int]]:
    rows = embed(checkpoint, prompts)
    longest = max(len(row) for row in rows)
    width = rows[0].shape[1]
    embeds = torch.zeros(len(rows), longest, width, dtype=rows[0].dtype)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for i, row in enumerate(rows):  # padded on the left, so that all end together
        embeds[i, longest - len(row) :] = row
        mask[i, longest - len(row) :] = 1
    model = checkpoint.network.language_model
    table = model.get_input_embeddings()
    cache: Any = None
    open_rows = torch.ones(len(rows), dtype=torch.bool)
    replies: list[list[int]] = [[] for _ in rows]
    for _ in range(max_new_tokens):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -embeds.shape[1] :]
        out = model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            cache=cache,
            use_cache=True,
        )
        cache = out.cache
        token_ids = out.logits[:, -1].argmax(-1)
        for i, token_id in enumerate(token_ids.tolist()):
            if token_id in checkpoint.stop_ids:
                open_rows[i] = False
            elif open_rows[i]:
                replies[i].append(token_id)
        if not open_rows.any():
            break
        embeds = table(token_ids)[:, None]
        mask = torch.cat([mask, torch.ones(len(rows), 1, dtype=torch.long)], 1)
    return replies


@torch.inference_mode()
def turn_end_probabilities(
    checkpoint: Checkpoint, prompts: Sequence[Prompt]
) -> list[float]:
    """P(turn over) at each prompt's last audio position."""
    found = []
    for prompt, row in zip(prompts, embed(checkpoint, prompts), strict=True):
        assert prompt.turn_end is not None
        out = checkpoint.network.language_model(
            inputs_embeds=row[None, : prompt.turn_end + 1], use_cache=False
        )
        chances = out.logits[0, -1].softmax(-1)
        found.append(float(chances[sorted(checkpoint.stop_ids)].sum()))
    return found
