"""A list of turns becomes the dialogue the engine reads."""

from __future__ import annotations

import numpy as np
import pytest

from model.completion import ChatMessage, Sampling, complete, with_audio
from model.engine.request import GenerationRequest, Priority
from model.engine.scripted import ScriptedEngine
from model.engine.stream import TokenStream
from model.errors import InvalidAudio, InvalidRequest
from model.ultravox.clip import AudioClip

WAVE = np.zeros(16_000, np.float32)


class Asked(ScriptedEngine):
    """Remembers the last request."""

    request: GenerationRequest

    def submit(self, request: GenerationRequest) -> TokenStream:
        self.request = request
        return super().submit(request)


async def parts_read(
    *messages: tuple[str, str],
    wave: np.ndarray[tuple[int], np.dtype[np.float32]] | None,
) -> list[list[str]]:
    """Role and parts of every message; a clip is <clip>."""
    turns = [ChatMessage(role, (content,)) for role, content in messages]  # type: ignore[arg-type]
    return await read(with_audio(turns, wave) if wave is not None else turns)


async def read(messages: list[ChatMessage]) -> list[list[str]]:
    """What of the messages reaches the engine."""
    async with Asked() as engine:
        stream = complete(engine, messages, Sampling(5, 0.5, seed=3), "r")
        async with stream:
            assert [chunk async for chunk in stream]
    asked = engine.request
    assert asked.priority is Priority.REST
    assert (asked.max_new_tokens, asked.temperature, asked.seed) == (5, 0.5, 3)
    assert (asked.session, asked.request_id) == (None, "r")
    return [
        [
            message.role,
            *("<clip>" if isinstance(p, AudioClip) else str(p) for p in message.parts),
        ]
        for message in asked.prompt.messages
    ]


async def test_text_turns_are_read_as_they_are() -> None:
    turns = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    read = await parts_read(*turns, wave=None)
    assert read == [["system", "s"], ["user", "a"], ["assistant", "b"], ["user", "c"]]


async def test_audio_is_a_turn_of_its_own() -> None:
    read = await parts_read(("system", "s"), wave=WAVE)
    assert read == [["system", "s"], ["user", "<clip>"]]
    assert await parts_read(("assistant", "b"), wave=WAVE) == [
        ["assistant", "b"],
        ["user", "<clip>"],
    ]
    assert await parts_read(wave=WAVE) == [["user", "<clip>"]]


async def test_audio_follows_the_text_of_a_last_user_turn() -> None:
    read = await parts_read(("user", "Transcribe this:"), wave=WAVE)
    assert read == [["user", "Transcribe this: ", "<clip>"]]


async def test_audio_stands_where_its_mark_does() -> None:
    read = await parts_read(("user", "Say <|audio|> in French"), wave=WAVE)
    assert read == [["user", "Say ", "<clip>", " in French"]]


async def test_a_mark_without_audio_is_text() -> None:
    read = await parts_read(("user", "What is <|audio|>?"), wave=None)
    assert read == [["user", "What is <|audio|>?"]]


async def test_a_turn_may_have_several_clips() -> None:
    turn = ChatMessage("user", (WAVE, "or", WAVE))
    assert await read([turn]) == [["user", "<clip>", "or", "<clip>"]]


async def test_audio_of_anybody_else_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="assistant"):
        await read([ChatMessage("assistant", (WAVE,))])


async def test_empty_audio_is_refused() -> None:
    with pytest.raises(InvalidAudio):
        await read([ChatMessage("user", (WAVE[:0],))])
