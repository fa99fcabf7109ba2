"""An OpenAI-compatible model server that says what a persona's instructions tell it.

    instructions = "say=<Fine. [[callback tomorrow 10 am]]>"

What callers "said" depends on how long they spoke, for a transcript has no persona.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.fakes.model_server import HEAD, FaultyModel, Writer, stream_end, words

_SAY: Final = re.compile(r"say=<(.*?)>", re.S)
_BYTES_PER_S: Final = 32_000  # 16 kHz pcm16, the model's own rate
_OTHERWISE: Final = "All right."


class ObedientModel(FaultyModel):
    """Listens while it is entered."""

    def __init__(self, heard: Callable[[float], str]) -> None:
        """heard: seconds of speech -> the caller's words."""
        super().__init__()
        self._heard = heard

    async def _complete(
        self, body: Mapping[str, Any], reader: asyncio.StreamReader, writer: Writer
    ) -> None:
        messages = body["messages"]
        text = json.dumps(messages[0])
        if "Transcribe" in json.dumps(_texts(messages[-1])):
            said = self._heard(_seconds(messages[-1]))
        else:
            found = _SAY.search(json.loads(text)["content"] if "say=<" in text else "")
            said = found[1] if found else _OTHERWISE
        writer.write(HEAD + words(said) + stream_end())


def _texts(message: Mapping[str, Any]) -> list[str]:
    content = message["content"]
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content if part["type"] == "text"]


def _seconds(message: Mapping[str, Any]) -> float:
    clips = [
        part["input_audio"]["data"]
        for part in message["content"]
        if part["type"] == "input_audio"
    ]
    return sum(len(base64.b64decode(clip)) for clip in clips) / _BYTES_PER_S
