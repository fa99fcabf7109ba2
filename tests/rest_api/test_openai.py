"""Chat completions: as OpenAI's clients ask, and as our own engine for them does."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest

from model.audio.wav import wav_from_wave
from model.engine.openai_engine import OpenAiEngine, OpenAiOptions
from model.engine.scripted import ScriptedEngine, ScriptedOptions
from tests.model.engine.test_openai_engine import answer as server_answer
from tests.model.engine.test_openai_engine import model_server
from tests.rest_api.serving import serving, until

HI = {"role": "user", "content": "Hi"}
WAV = base64.b64encode(wav_from_wave(np.zeros(16_000, np.float32), rate_hz=16_000))


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with serving(replies=()) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


async def ask(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/v1/chat/completions", json=body)
    result: dict[str, Any] = answer.json()
    return result


async def test_a_whole_reply(client: httpx.AsyncClient) -> None:
    result = await ask(client, model="any", messages=[HI], max_tokens=50)
    assert result["object"] == "chat.completion"
    assert result["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "You said: Hi"},
            "finish_reason": "stop",
        }
    ]
    assert result["usage"]["completion_tokens"] == 3
    assert result["model"] == "scripted replies"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": WAV.decode(), "format": "mp3"}},
        {
            "type": "audio_url",
            "audio_url": {"url": "data:audio/wav;base64," + WAV.decode()},
        },
    ],
)
async def test_audio_comes_as_a_part(
    client: httpx.AsyncClient, part: dict[str, Any]
) -> None:
    result = await ask(client, messages=[{"role": "user", "content": [part]}])
    said = result["choices"][0]["message"]["content"]
    assert said == "I heard you speak for 1.0 seconds."
    assert result["usage"]["prompt_tokens_details"]["audio_tokens"] == 7


async def test_a_stream_of_events(client: httpx.AsyncClient) -> None:
    body = {
        "messages": [{"role": "developer", "content": "Be brief."}, HI],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    answer = await client.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content", "") for delta in deltas) == "You said: Hi"
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["usage"]["completion_tokens"] == 3


async def test_a_stop_string_ends_the_reply(client: httpx.AsyncClient) -> None:
    result = await ask(client, messages=[HI], stop=" said")
    assert result["choices"][0]["message"]["content"] == "You"
    assert result["choices"][0]["finish_reason"] == "stop"
    assert result["usage"]["prompt_tokens"] > 0


async def test_what_fails_before_the_first_token_of_a_stream_is_a_status() -> None:
    async def broken(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        reason = '{"error": {"message": "the context size is exceeded"}}'
        writer.write(server_answer(400, reason))

    async with (
        model_server(broken) as behind,
        serving(engine=OpenAiEngine(OpenAiOptions((behind,)))) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        body = {"messages": [HI], "stream": True}
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "context_too_long"


async def test_models_lists_the_one_that_is_loaded(client: httpx.AsyncClient) -> None:
    models = (await client.get("/v1/models")).json()
    assert [model["id"] for model in models["data"]] == ["scripted replies"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [HI], "n": 2}, "n"),
        ({"messages": [HI], "max_tokens": 0}, "max_tokens"),
        ({"messages": [HI], "temperature": 3}, "temperature"),
        ({"messages": [HI], "stop": [""]}, "stop"),
        ({"messages": [HI], "stop": list("abcde")}, "stop"),
    ],
)
async def test_a_wrong_field_is_named(
    client: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == field
    assert answer.json()["error"]["message"]


async def test_audio_of_another_host_is_not_fetched(client: httpx.AsyncClient) -> None:
    part = {"type": "audio_url", "audio_url": {"url": "http://127.0.0.1:1/a.wav"}}
    body = {"messages": [{"role": "user", "content": [part]}]}
    assert (await client.post("/v1/chat/completions", json=body)).status_code == 422


async def test_leaving_a_stream_cancels_it() -> None:
    script = ScriptedOptions(("word " * 500,), token_interval_ms=5)
    engine = ScriptedEngine(script)
    body = {"messages": [HI], "stream": True, "max_tokens": 400}
    async with serving(engine=engine) as url, httpx.AsyncClient(base_url=url) as client:
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            await anext(answer.aiter_lines())
            assert engine.load().num_active == 1
        await until(lambda: not engine.load().num_active)


async def test_our_own_engine_for_such_servers_understands_us() -> None:
    """One service's model behind another's: phone half, REST and all."""
    async with serving(replies=()) as far:
        near = OpenAiEngine(OpenAiOptions((far,)))
        async with (
            serving(engine=near) as url,
            httpx.AsyncClient(base_url=url, timeout=30) as client,
        ):
            audio = await client.post(
                "/chat/audio", json={"audio_base64": WAV.decode(), "turns": []}
            )
            text = await client.post("/chat/text", json={"turns": [HI]})
            health = (await client.get("/health")).json()
    said = audio.json()["data"]["response"]
    assert said == "I heard you speak for 1.0 seconds."
    assert text.json()["data"]["response"] == "You said: Hi"
    assert health["model"]["weights"] == "remote"
