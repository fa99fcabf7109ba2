"""The engine that only says what it was told to."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from model.engine.request import GenerationRequest
from model.engine.scripted import ScriptedEngine, ScriptedOptions
from model.errors import EngineOverloaded, SpeechUnavailable
from tests.model.engine.prompts import wave


async def test_replies_come_by_turn_and_start_over() -> None:
    said = []
    async with ScriptedEngine(ScriptedOptions(replies=("One.", "Two."))) as engine:
        dialogue = engine.new_dialogue("Be kind.")
        for _ in range(3):
            dialogue.append_user_audio(wave(1, 800))
            async with engine.submit(GenerationRequest(dialogue.prompt())) as stream:
                said.append("".join([chunk.text async for chunk in stream]))
            dialogue.append_assistant_tokens(stream.token_ids)
    assert said == ["One.", "Two.", "One."]
    assert dialogue.messages()[-1].text == "One."


async def test_without_replies_the_callers_turn_is_echoed() -> None:
    async with ScriptedEngine() as engine:
        dialogue = engine.new_dialogue()
        dialogue.append_user_audio(wave(1, 24_000))
        async with engine.submit(GenerationRequest(dialogue.prompt())) as heard:
            chunks = [chunk async for chunk in heard]
        dialogue.append_user_text("good bye")
        async with engine.submit(GenerationRequest(dialogue.prompt())) as read:
            async for _ in read:
                pass
    assert heard.text == "I heard you speak for 1.5 seconds."
    assert chunks[-1].finish_reason == "stop"
    assert heard.usage is not None
    assert heard.usage.audio_tokens == 10
    assert read.text == "You said: good bye"


async def test_words_come_one_by_one_with_the_probability_first() -> None:
    options = ScriptedOptions(
        replies=("a b c",), token_interval_ms=5, end_of_turn_probability=0.7
    )
    async with ScriptedEngine(options) as engine:
        prompt = engine.new_dialogue("x").prompt()
        async with engine.submit(GenerationRequest(prompt)) as stream:
            chunks = [chunk async for chunk in stream]
    assert [chunk.text for chunk in chunks if chunk.text] == ["a", " b", " c"]
    assert [chunk.end_of_turn_probability for chunk in chunks[:2]] == [0.7, None]


async def test_a_limit_cuts_the_reply() -> None:
    async with ScriptedEngine(ScriptedOptions(replies=("a b c",))) as engine:
        prompt = engine.new_dialogue("x").prompt()
        request = GenerationRequest(prompt, max_new_tokens=2)
        async with engine.submit(request) as stream:
            async for _ in stream:
                pass
    assert (stream.text, stream.finish_reason) == ("a b", "length")


async def test_a_full_engine_refuses_and_leaving_makes_room() -> None:
    options = ScriptedOptions(max_slots=1, first_token_ms=10_000)
    async with ScriptedEngine(options) as engine:
        prompt = engine.new_dialogue("x").prompt()
        async with engine.submit(GenerationRequest(prompt)):
            with pytest.raises(EngineOverloaded):
                engine.submit(GenerationRequest(prompt))
        await asyncio.sleep(0)
        async with engine.submit(GenerationRequest(prompt)):
            assert engine.load().num_active == 1


async def test_readers_of_a_stopped_engine_are_told() -> None:
    async with ScriptedEngine(ScriptedOptions(first_token_ms=10_000)) as engine:
        prompt = engine.new_dialogue("x").prompt()
        stream = engine.submit(GenerationRequest(prompt))
        await asyncio.sleep(0)
    with pytest.raises(SpeechUnavailable, match="stopped"):
        await anext(stream)
    with pytest.raises(SpeechUnavailable, match="not running"):
        engine.submit(GenerationRequest(prompt))


def test_it_says_that_there_is_no_model() -> None:
    description = ScriptedEngine().description
    assert description.engine == "scripted"
    assert description.weights_kind == "none"


def test_it_needs_no_torch() -> None:
    code = "import sys, model.engine.scripted; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
