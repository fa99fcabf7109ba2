"""What a caller said, written down by the model that answers him.

The second look at the same clip: its audio vectors are there already, so that it costs
a short prompt and the words themselves, at the lowest priority.
"""

from __future__ import annotations

import logging
from typing import Final

from model.engine.interface import ReplyEngine
from model.engine.request import GenerationRequest, Priority
from model.errors import SpeechError
from model.ultravox.clip import AudioClip
from telemetry import fields

logger = logging.getLogger(__name__)

# The request Ultravox was trained to answer with the bare words of the clip.
_ASK: Final = "Transcribe\n"
_MAX_NEW_TOKENS: Final = 160  # half a minute of fast speech
_FIRST_TOKENS: Final = 8  # "mhm" or not: two words say it
_UNCLEAR: Final = "[unclear]"
_WITHOUT_WORDS: Final = ("random", "none")
"""Kinds of weights that would write down nonsense."""


def can_transcribe(engine: ReplyEngine) -> bool:
    """Whether what this engine writes down has to do with what was said."""
    return engine.description.weights_kind not in _WITHOUT_WORDS


async def transcribe(engine: ReplyEngine, clip: AudioClip, request_id: str = "") -> str:
    """The words of a clip; empty when none could be made out, or no time was left."""
    return await _written(engine, clip, request_id, Priority.TRANSCRIPT) or ""


async def first_words(
    engine: ReplyEngine, clip: AudioClip, request_id: str = ""
) -> str | None:
    """The same of a short sound, for somebody who waits; None: it cannot be told."""
    if not can_transcribe(engine):
        return None
    return await _written(engine, clip, request_id, Priority.PHONE, _FIRST_TOKENS)


async def _written(
    engine: ReplyEngine,
    clip: AudioClip,
    request_id: str,
    priority: Priority,
    max_new_tokens: int = _MAX_NEW_TOKENS,
) -> str | None:
    dialogue = engine.new_dialogue(None)
    dialogue.append_user_parts((_ASK, clip))
    request = GenerationRequest(
        dialogue.prompt(),
        priority=priority,
        max_new_tokens=max_new_tokens,
        request_id=request_id,
    )
    text = ""
    try:
        async with engine.submit(request) as tokens:
            async for chunk in tokens:
                text += chunk.text
    except SpeechError as exc:
        logger.info("no_transcript", extra=fields(reason=str(exc)))
        return None
    text = text.strip()
    return "" if text == _UNCLEAR else text
