"""A chat format for engines without a tokenizer: UTF-8 bytes, one id each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.ultravox.clip import AudioClip

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from model.ultravox.inputs import Message


class PlainChat:
    """`role: text` lines; lossless, so ids and text can be had from each other."""

    stack_factor = 8

    def render(
        self, messages: Sequence[Message], today: date
    ) -> list[tuple[int, ...] | AudioClip]:
        """Messages -> runs of bytes and clips."""
        runs: list[tuple[int, ...] | AudioClip] = []
        for message in messages:
            runs.append(tuple(f"{message.role}: ".encode()))
            for part in message.parts:
                if isinstance(part, AudioClip):
                    runs.append(part)
                else:
                    text = part if isinstance(part, str) else part.text
                    runs.append(tuple(text.encode()))
            runs.append(tuple(b"\n"))
        runs.append(tuple(b"assistant: "))
        return [run for run in runs if run != ()]

    def encode(self, text: str) -> list[int]:
        """Text -> its bytes."""
        return list(text.encode())

    def decode(self, token_ids: Sequence[int]) -> str:
        """Bytes -> text; half a character decodes to the replacement character."""
        return bytes(token_ids).decode(errors="replace")
