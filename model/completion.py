"""One reply to a list of turns, in text: what REST chat asks of the engine.

No session and no speech: the whole conversation comes with each request.  Audio is the
last user turn, or its second half when that turn also has text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from model.audio.pcm import Wave
from model.engine.interface import ReplyEngine
from model.engine.request import GenerationRequest, Priority
from model.engine.stream import TokenStream

AUDIO_MARK: Final = "<|audio|>"
"""Where the audio goes in a user turn's text; Ultravox's own placeholder."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


def complete(
    engine: ReplyEngine,
    messages: Sequence[ChatMessage],
    *,
    wave: Wave | None = None,
    max_new_tokens: int,
    temperature: float,
    request_id: str = "",
) -> TokenStream:
    """Start a reply; `wave` at 16 kHz.  Close the stream to cancel.

    Raises:
        EngineOverloaded, ContextTooLong, InvalidAudio, SpeechUnavailable: at once.
    """
    dialogue = engine.new_dialogue(None)
    spoken_last = wave is not None and bool(messages) and messages[-1].role == "user"
    for message in messages[:-1] if spoken_last else messages:
        match message.role:
            case "system":
                dialogue.append_system(message.content)
            case "user":
                dialogue.append_user_text(message.content)
            case "assistant":
                dialogue.append_assistant_text(message.content)
    if wave is not None:
        before, after = _around_audio(messages[-1].content if spoken_last else "")
        dialogue.append_user_audio(wave, before, after)
    return engine.submit(
        GenerationRequest(
            dialogue.prompt(),
            priority=Priority.REST,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            request_id=request_id,
        )
    )


def _around_audio(content: str) -> tuple[str, str]:
    """The text before and after the audio; without a mark, audio comes last."""
    before, mark, after = content.partition(AUDIO_MARK)
    if mark or not content:
        return before, after
    return content + " ", ""
