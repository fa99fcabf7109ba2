"""/chat/live on real sockets: the client against the app, and bare WebSockets."""

from __future__ import annotations

from contextlib import aclosing

from model.client import RemoteSpeechService
from model.speech import (
    ReplyAudio,
    ReplyDone,
    ReplyText,
    SessionOptions,
    TypedTurn,
)
from tests.rest_api.serving import serving

OPTIONS = SessionOptions(call_id="call-1", instructions="Be brief.")


async def test_a_turn_is_answered_in_text_and_speech() -> None:
    async with (
        serving(replies=("Hello there. How are you?",)) as url,
        RemoteSpeechService([url]) as speech,
        speech.open_session(OPTIONS) as session,
        aclosing(session.reply(0, TypedTurn("Hi"))) as events,
    ):
        received = [event async for event in events]
    text = "".join(event.text for event in received if isinstance(event, ReplyText))
    assert text == "Hello there. How are you?"
    pieces = [event.text for event in received if isinstance(event, ReplyAudio)]
    assert pieces == ["Hello there.", "", "How are you?", ""]
    done = received[-1]
    assert isinstance(done, ReplyDone)
    assert done.text == text
    assert done.finish_reason == "stop"
    assert done.usage.completion_tokens == 5
