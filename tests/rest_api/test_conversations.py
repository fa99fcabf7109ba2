"""Kept conversations: bounded in time, number and seconds of audio."""

from __future__ import annotations

import numpy as np
import pytest

from model.completion import ChatMessage
from model.ultravox.clip import AudioClip
from rest_api.conversations import Conversations, KeepingOptions, KeptConversation
from rest_api.errors import RequestRefused


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def said(text: str = "Hello") -> list[ChatMessage]:
    return [ChatMessage("user", (text,)), ChatMessage("assistant", ("Yes?",))]


def spoken(seconds: float) -> list[ChatMessage]:
    clip = AudioClip(np.zeros(int(16_000 * seconds), np.float32))
    return [ChatMessage("user", (clip,)), ChatMessage("assistant", ("Yes?",))]


def begun(conversations: Conversations, messages: list[ChatMessage]) -> str:
    kept = conversations.begin("me")
    conversations.add(kept, messages)
    return kept.conversation_id


def test_an_unused_one_expires_and_a_used_one_does_not() -> None:
    clock = Clock()
    conversations = Conversations(KeepingOptions(idle_s=10), clock)
    idle, used = (begun(conversations, said()) for _ in range(2))
    clock.now_s = 8
    conversations.add(conversations.get(used, "me"), said())
    clock.now_s = 12
    assert len(conversations) == 1
    assert len(conversations.get(used, "me").messages) == 4
    with pytest.raises(RequestRefused) as refused:
        conversations.get(idle, "me")
    assert refused.value.status == 404


def test_the_one_unused_for_longest_makes_room() -> None:
    conversations = Conversations(KeepingOptions(max_conversations=2))
    ids = [begun(conversations, said()) for _ in range(3)]
    assert len(conversations) == 2
    with pytest.raises(RequestRefused):
        conversations.get(ids[0], "me")


def test_seconds_of_audio_are_bounded_over_all() -> None:
    conversations = Conversations(KeepingOptions(max_audio_s=5.0))
    ids = [begun(conversations, spoken(2.0)) for _ in range(4)]
    assert len(conversations) == 2
    assert conversations.get(ids[-1], "me").audio_s == 2.0


@pytest.mark.parametrize(
    "options",
    [
        KeepingOptions(max_turns=3),
        KeepingOptions(max_text_chars=11),
        KeepingOptions(max_audio_s=1.5),
    ],
)
def test_one_that_grows_too_long_is_refused(options: KeepingOptions) -> None:
    conversations = Conversations(options)
    kept = KeptConversation("c", "me", 0.0, [*spoken(1.0), *said("four")])
    with pytest.raises(RequestRefused) as refused:
        conversations.check_room(kept, spoken(1.0)[:1])
    assert refused.value.code == "conversation_full"


def test_ids_cannot_be_guessed_from_each_other() -> None:
    conversations = Conversations()
    ids = {conversations.begin("").conversation_id for _ in range(100)}
    assert len(ids) == 100
    assert all(len(made) == 24 for made in ids)
