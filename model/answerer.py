"""Who answered a call, as the model hears it.

A second look at an utterance, at the lowest priority, as a transcript is:
its words, and one word of judgement.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from model.engine.interface import ReplyEngine
from model.engine.request import GenerationRequest, Priority
from model.errors import SpeechError
from model.speech import Answerer, Judged
from model.transcription import transcribe
from model.ultravox.clip import AudioClip
from telemetry import fields

logger = logging.getLogger(__name__)

_INSTRUCTIONS: Final = (
    "You listen to how telephone calls are answered. You hear the first words of the "
    "side that was called. Say what it is, in one word only:\n"
    "person: a human being who answers, of a household or of a business\n"
    "machine: a recorded greeting of an answering machine, voicemail or network\n"
    "menu: a recorded voice that asks the caller to press keys or to choose\n"
    "unsure: anything else"
)
_MAX_NEW_TOKENS: Final = 6
_WORDS: Final[dict[str, Judged]] = {
    "person": "person",
    "human": "person",
    "machine": "machine",
    "voicemail": "machine",
    "menu": "menu",
}
# What follows no instructions, or has words for one small world only: the
# bundled demo model takes the long answers of people for greetings of machines.
_WITHOUT_JUDGEMENT: Final = ("random", "none", "demo")


def can_judge(engine: ReplyEngine) -> bool:
    """Whether what this engine makes of strangers' words can be trusted."""
    return engine.description.weights_kind not in _WITHOUT_JUDGEMENT


async def who_answered(
    engine: ReplyEngine, clip: AudioClip, request_id: str = ""
) -> Answerer:
    """What the model makes of the first words; "unsure" where it cannot tell.

    Never raises for the engine's sake: a call goes on without its word.
    """
    if not can_judge(engine):
        return Answerer("unsure", "")
    words = await transcribe(engine, clip, f"{request_id}/words")
    try:
        return Answerer(await _judge(engine, clip, f"{request_id}/who"), words)
    except SpeechError as exc:
        logger.info("no_judgement", extra=fields(reason=str(exc)))
        return Answerer("unsure", words)


async def _judge(engine: ReplyEngine, clip: AudioClip, request_id: str) -> Judged:
    dialogue = engine.new_dialogue(_INSTRUCTIONS)
    dialogue.append_user_parts((clip,))
    request = GenerationRequest(
        dialogue.prompt(),
        priority=Priority.TRANSCRIPT,
        max_new_tokens=_MAX_NEW_TOKENS,
        request_id=request_id,
    )
    said = ""
    async with engine.submit(request) as tokens:
        async for chunk in tokens:
            said += chunk.text
    for word in re.findall(r"[a-z]+", said.lower()):
        if word in _WORDS:
            return _WORDS[word]
    return "unsure"
