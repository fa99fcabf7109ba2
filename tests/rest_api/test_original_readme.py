"""The integration code of the original README, unchanged, against our server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
import requests

from tests.rest_api.serving import serving

# The class is copied as it was published; it must go on working.
# fmt: off
# ruff: noqa: W293


class VicidialAIIntegration:
    def __init__(self, api_url="http://your-server:8000"):  # type: ignore[no-untyped-def]
        self.api_url = api_url
    
    def process_customer_audio(self, audio_data, conversation_history):  # type: ignore[no-untyped-def]
        """Process customer audio and get AI response"""
        
        # Encode audio to base64
        audio_base64 = base64.b64encode(audio_data).decode('utf-8')
        
        # Prepare request
        payload = {
            "audio_base64": audio_base64,
            "turns": conversation_history,
            "sampling_rate": 16000,
            "max_new_tokens": 50,
            "temperature": 0.7
        }
        
        # Send request
        response = requests.post(  # noqa: S113
            f"{self.api_url}/chat/audio",
            json=payload
        )
        
        return response.json()
    
    def process_text_message(self, message, conversation_history):  # type: ignore[no-untyped-def]
        """Process text message and get AI response"""
        
        # Add user message to history
        conversation_history.append({
            "role": "user",
            "content": message
        })
        
        # Prepare request
        payload = {
            "turns": conversation_history,
            "max_new_tokens": 50,
            "temperature": 0.7
        }
        
        # Send request
        response = requests.post(  # noqa: S113
            f"{self.api_url}/chat/text",
            json=payload
        )
        
        result = response.json()
        
        if result.get("success"):
            # Add AI response to history
            conversation_history.append({
                "role": "assistant",
                "content": result["data"]["response"]
            })
        
        return result

# fmt: on


@pytest.fixture
async def integration() -> AsyncIterator[Any]:
    async with serving(replies=("How can I help?", "Thank you.")) as url:
        yield VicidialAIIntegration(url)  # type: ignore[no-untyped-call]


async def test_text_messages_keep_their_history(integration: Any) -> None:
    history: list[dict[str, str]] = []
    for message in ("Hello", "My order is late"):
        result = await asyncio.to_thread(
            integration.process_text_message, message, history
        )
        assert result["success"] is True
    assert history == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "How can I help?"},
        {"role": "user", "content": "My order is late"},
        {"role": "assistant", "content": "Thank you."},
    ]


@pytest.mark.parametrize(
    "history", [[], [{"role": "system", "content": "Be helpful."}]]
)
async def test_audio_is_answered(
    integration: Any, history: list[dict[str, str]]
) -> None:
    result = await asyncio.to_thread(
        integration.process_customer_audio, bytes(32_000), history
    )
    assert result["success"] is True
    assert result["data"]["response"] == "How can I help?"


async def test_a_failure_is_falsy(integration: Any) -> None:
    result = await asyncio.to_thread(integration.process_customer_audio, b"x", [])
    assert not result["success"]
    assert result["error"]["code"] == "invalid_audio"
