"""Prompts for engine tests, without a tokenizer."""

from __future__ import annotations

from datetime import date

import numpy as np

from model.engine.plain_chat import PlainChat
from model.engine.request import GenerationRequest, Priority, Session
from model.engine.sequence import Sequence
from model.ultravox.inputs import Dialogue, Prompt

TODAY = date(2025, 3, 4)


def dialogue(instructions: str | None = "Be kind.") -> Dialogue:
    return Dialogue(PlainChat(), instructions, today=TODAY)


def text_prompt(text: str) -> Prompt:
    one = dialogue(None)
    one.append_user_text(text)
    return one.prompt()


def wave(seed: int, num_samples: int = 16_000) -> np.ndarray:
    """Sliding tones and noise: different enough to change a random model's reply."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(num_samples) / 16_000
    sound = 0.02 * rng.standard_normal(num_samples)
    for _ in range(3):
        start_hz, slope_hz = rng.uniform(100, 4000), rng.uniform(-3000, 3000)
        phase = 2 * np.pi * (start_hz + slope_hz * time_s / 2) * time_s
        sound += rng.uniform(0.02, 0.3) * np.sin(phase)
    return sound.astype(np.float32)


def spoken_prompt(seed: int, instructions: str = "Be kind.") -> Prompt:
    one = dialogue(instructions)
    one.append_user_audio(wave(seed))
    return one.prompt()


def sequence(
    number: int,
    prompt: Prompt,
    *,
    session: Session | None = None,
    priority: Priority = Priority.PHONE,
    max_new_tokens: int = 8,
) -> Sequence:
    request = GenerationRequest(
        prompt, session=session, priority=priority, max_new_tokens=max_new_tokens
    )
    return Sequence(number, request, submitted_at_s=0.0)
