"""One reply to a list of messages, in text: what REST chat asks of the engine.

No session and no speech: the whole conversation comes with each request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from model.audio.pcm import Wave
from model.engine.interface import ReplyEngine
from model.engine.request import GenerationRequest, Priority
from model.engine.stream import TokenStream
from model.errors import InvalidRequest
from model.ultravox.clip import AudioClip
from model.ultravox.inputs import Dialogue

AUDIO_MARK: Final = "<|audio|>"
"""Where the audio goes in a user turn's text; Ultravox's own placeholder."""

MessagePart: TypeAlias = str | Wave | AudioClip
"""Text, or audio at 16 kHz; a clip keeps what the encoder made of it."""


@dataclass(frozen=True, slots=True, eq=False)
class ChatMessage:
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[MessagePart, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the reply is drawn and when it ends."""

    max_new_tokens: int
    temperature: float
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


def complete(
    engine: ReplyEngine,
    messages: Sequence[ChatMessage],
    sampling: Sampling,
    request_id: str = "",
) -> TokenStream:
    """Start a reply.  Close the stream to cancel.

    Raises:
        EngineOverloaded, ContextTooLong, SpeechUnavailable: at once.
        InvalidRequest: audio in a message that isn't the user's.
        InvalidAudio: empty or not finite.
    """
    dialogue = engine.new_dialogue(None)
    for message in messages:
        _append(dialogue, message)
    return engine.submit(
        GenerationRequest(
            dialogue.prompt(),
            priority=Priority.REST,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            stop=sampling.stop,
            seed=sampling.seed,
            request_id=request_id,
        )
    )


def with_audio(
    messages: Sequence[ChatMessage], wave: Wave | AudioClip
) -> list[ChatMessage]:
    """The conversation with audio as its last user turn.

    When the last message is the user's already, the audio goes where its text has the
    mark, else behind the text.
    """
    if not messages or messages[-1].role != "user":
        return [*messages, ChatMessage("user", (wave,))]
    text = "".join(part for part in messages[-1].parts if isinstance(part, str))
    before, mark, after = text.partition(AUDIO_MARK)
    if not mark and before:
        before += " "
    return [*messages[:-1], ChatMessage("user", (before, wave, after))]


def _append(dialogue: Dialogue, message: ChatMessage) -> None:
    if message.role == "user":
        dialogue.append_user_parts(
            [
                AudioClip(part) if isinstance(part, np.ndarray) else part
                for part in message.parts
            ]
        )
        return
    texts = [part for part in message.parts if isinstance(part, str)]
    if len(texts) != len(message.parts):
        raise InvalidRequest(f"audio in a message of the {message.role}")
    if message.role == "system":
        dialogue.append_system("".join(texts))
    else:
        dialogue.append_assistant_text("".join(texts))
