"""The official `openai` client, as its users write it, against our server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from model.engine.scripted import ScriptedEngine, ScriptedOptions
from rest_api.app import AppOptions
from rest_api.auth import KeyRing
from tests.rest_api.serving import serving, until
from tests.rest_api.test_chat import base64_of, file_of

KEY = "k" * 32
FOREIGN = {"X-Forwarded-For": "203.0.113.9"}


@pytest.fixture
async def client() -> AsyncIterator[openai.AsyncOpenAI]:
    """Comes from elsewhere, with a key; the service echoes."""
    keys = AppOptions(keys=KeyRing.parse(f"crm:{KEY}"))
    async with (
        serving(replies=(), app=keys) as url,
        openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key=KEY, default_headers=FOREIGN, max_retries=0
        ) as made,
    ):
        yield made


async def test_the_model_is_listed(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["scripted replies"]


async def test_text_is_answered(client: openai.AsyncOpenAI) -> None:
    made = await client.chat.completions.create(
        model="any",
        messages=[
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hello"},
        ],
        max_tokens=50,
        temperature=0.5,
    )
    assert made.choices[0].message.content == "You said: Hello"
    assert made.choices[0].finish_reason == "stop"
    assert made.usage is not None
    assert made.usage.completion_tokens == 3


async def test_audio_is_answered(client: openai.AsyncOpenAI) -> None:
    audio: Any = {
        "type": "input_audio",
        "input_audio": {"data": base64_of(file_of("WAV")), "format": "wav"},
    }
    made = await client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": [audio]}]
    )
    assert made.choices[0].message.content == "I heard you speak for 1.0 seconds."


async def test_a_stream_comes_in_parts(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(
        chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices
    )
    assert text == "You said: Hello"
    assert chunks[-1].usage is not None


async def test_failures_are_the_clients_own_exceptions(
    client: openai.AsyncOpenAI,
) -> None:
    ask: Any = {"model": "any", "messages": [{"role": "user", "content": "Hello"}]}
    with pytest.raises(openai.UnprocessableEntityError) as wrong:
        await client.chat.completions.create(**ask, temperature=9)
    assert wrong.value.body["field"] == "temperature"  # type: ignore[index]
    assert wrong.value.type == "invalid_request_error"
    assert (wrong.value.code, wrong.value.param) == ("invalid_request", "temperature")
    stranger = client.with_options(api_key="x" * 32)
    with pytest.raises(openai.AuthenticationError):
        await stranger.chat.completions.create(**ask)


async def test_leaving_a_stream_stops_generation() -> None:
    script = ScriptedOptions(("word " * 1000,), token_interval_ms=20)
    engine = ScriptedEngine(script)
    async with (
        serving(engine=engine) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client,
    ):
        stream = await client.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": "Hello"}],
            stream=True,
            max_tokens=1000,
        )
        async for _ in stream:
            break
        assert engine.load().num_active == 1
        await stream.close()
        await until(lambda: not engine.load().num_active)
