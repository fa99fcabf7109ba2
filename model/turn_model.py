"""A model that only tells when a turn is over, beside the one that answers.

fixie-ai's UltraVAD is such a model: an Ultravox trained on to give its end-of-turn
token right behind the audio of a turn that is over. It is loaded like any checkpoint
and reads, in its own chat format, what the bot said last and what the caller says; it
never writes a word. Its probability then stands in `TurnEnd` for the main model's.

Source: model card of fixie-ai/ultraVAD, "Usage".
"""

from __future__ import annotations

import logging

import telemetry
from model.engine.interface import EngineLoad, ReplyEngine
from model.engine.request import GenerationRequest, Priority
from model.errors import SpeechError
from model.speech import TurnEnd
from model.ultravox.clip import AudioClip
from telemetry import fields

logger = logging.getLogger(__name__)


class TurnModel:
    """Asked at each suspected end of a caller's turn."""

    def __init__(self, engine: ReplyEngine) -> None:
        """`engine` runs the model; closing it is the caller's."""
        self._engine = engine

    @property
    def engine(self) -> ReplyEngine:
        """To be watched, as the main one is."""
        return self._engine

    @property
    def name(self) -> str:
        """The checkpoint."""
        return self._engine.description.model_name

    def load(self) -> EngineLoad:
        """Its time is taken from the same device's."""
        return self._engine.load()

    async def turn_end(self, turn: int, said_before: str, clip: AudioClip) -> TurnEnd:
        """How likely the speech is a whole turn, after the bot's last words.

        `clip` is encoded here, by this model's encoder.

        Raises:
            SpeechError: the model has no time, or failed.
        """
        dialogue = self._engine.new_dialogue()
        if said_before.strip():
            dialogue.append_assistant_text(said_before.strip())
        dialogue.append_user_clip(clip)
        request = GenerationRequest(
            dialogue.prompt(), priority=Priority.PHONE, max_new_tokens=0
        )
        async with self._engine.submit(request) as stream:
            async for _ in stream:
                pass
        assert stream.end_of_turn_probability is not None, "the last message is audio"
        bounds = self._engine.description.turn_end
        return TurnEnd(
            turn,
            stream.end_of_turn_probability,
            over_from=bounds.over_from if bounds else None,
            more_below=bounds.more_below if bounds else None,
        )

    async def try_turn_end(
        self, turn: int, said_before: str, clip: AudioClip
    ) -> TurnEnd | None:
        """The same; None where it cannot tell, which is logged and counted.

        A call goes on without: then silence alone decides, as without any model.
        """
        try:
            return await self.turn_end(turn, said_before, clip)
        except SpeechError as exc:
            telemetry.ERRORS.labels(kind=exc.code).inc()
            logger.warning("turn_model_failed", extra=fields(reason=str(exc)))
            return None
