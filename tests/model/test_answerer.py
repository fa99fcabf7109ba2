"""The model's word on who answered: asked through the engine, and over the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from model.answerer import who_answered
from model.client import RemoteSpeechService, SpeechClientOptions
from model.engine.interface import EngineDescription
from model.engine.request import GenerationRequest, Priority
from model.engine.scripted import ScriptedEngine
from model.engine.stream import TokenStream
from model.errors import GenerationFailed
from model.failover import FailoverSession
from model.live_messages import Identified, Identify, Ready, Start
from model.live_wire import ClientMessages, encode_server
from model.speech import Answerer, Judged, SessionOptions, Utterance
from model.ultravox.clip import AudioClip
from model.ultravox.inputs import Message
from tests.rest_api.serving import serving

SAID = Utterance(bytes(16_000), 8000)
CLIP = AudioClip(np.zeros(16_000, np.float32))
UNKNOWN = Answerer("unsure", "")


class Hearing(ScriptedEngine):
    """Writes down the same words of everything, and judges as it is told."""

    def __init__(self, words: str, judgement: str, weights: str = "published") -> None:
        self._answers = (words, judgement)
        self._weights = weights
        self.requests: list[GenerationRequest] = []
        super().__init__()

    @property
    def description(self) -> EngineDescription:
        return replace(super().description, weights_kind=self._weights)

    def submit(self, request: GenerationRequest) -> TokenStream:
        self.requests.append(request)
        return super().submit(request)

    def _reply(self, messages: tuple[Message, ...]) -> str:
        return self._answers[0 if "Transcribe" in messages[-1].text else 1]


@pytest.mark.parametrize(
    ("judgement", "judged"),
    [
        ("machine", "machine"),
        ("Machine.", "machine"),
        ("This is a person", "person"),
        ("menu\n", "menu"),
        ("unsure", "unsure"),
        ("I am not able to tell", "unsure"),
    ],
)
async def test_words_and_one_word_of_judgement(judgement: str, judged: Judged) -> None:
    async with Hearing("you have reached bob", judgement) as engine:
        answerer = await who_answered(engine, CLIP)
    assert answerer == Answerer(judged, "you have reached bob")
    assert {r.priority for r in engine.requests} == {Priority.TRANSCRIPT}
    assert max(r.max_new_tokens for r in engine.requests[1:]) < 10


@pytest.mark.parametrize("weights", ["random", "none", "demo"])
async def test_a_model_that_knows_nothing_of_strangers_is_not_asked(
    weights: str,
) -> None:
    engine = Hearing("leave a message", "machine", weights)
    assert await who_answered(engine, CLIP) == UNKNOWN
    assert engine.requests == []


async def test_an_engine_that_fails_leaves_the_call_alone() -> None:
    class Failing(Hearing):
        def submit(self, request: GenerationRequest) -> TokenStream:
            raise GenerationFailed("out of memory")

    assert await who_answered(Failing("", ""), CLIP) == UNKNOWN


@asynccontextmanager
async def opened(
    *urls: str, options: SpeechClientOptions | None = None
) -> AsyncIterator[FailoverSession]:
    async with (
        RemoteSpeechService(urls, "", options) as speech,
        speech.open_session(SessionOptions("call-1", "Be brief.")) as session,
    ):
        yield session


async def test_the_phone_half_asks_over_the_network() -> None:
    engine = Hearing("leave a message after the tone", "machine")
    async with serving(engine=engine) as url, opened(url) as session:
        answers = await asyncio.gather(*(session.identify(SAID) for _ in range(3)))
    assert answers == [Answerer("machine", "leave a message after the tone")] * 3


@pytest.mark.parametrize("words", ["Mhm.", ""])
async def test_words_alone_are_asked_for_at_once_and_without_a_judgement(
    words: str,
) -> None:
    engine = Hearing(words, "machine")
    async with serving(engine=engine) as url, opened(url) as session:
        assert await session.words_of(SAID) == words
    [request] = engine.requests
    assert request.priority is Priority.PHONE
    assert request.max_new_tokens <= 10


async def test_nobody_tells_the_words_where_no_model_hears_any() -> None:
    engine = Hearing("Mhm.", "machine", "none")
    async with serving(engine=engine) as url, opened(url) as session:
        assert await session.words_of(SAID) is None
    assert engine.requests == []


@asynccontextmanager
async def peer(
    play: Callable[[ServerConnection, Identify], Awaitable[None]],
) -> AsyncIterator[str]:
    """A sidecar that does with a question what the test says."""

    async def accept(connection: ServerConnection) -> None:
        messages = ClientMessages()
        async for wire in connection:
            match messages.receive(wire):
                case Start():
                    for part in encode_server(Ready("fake", "scripted", 8000)):
                        await connection.send(part)
                case Identify() as asked:
                    await play(connection, asked)

    async with serve(accept, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_sidecar_that_dies_or_is_silent_or_answers_another_knows_nothing() -> (
    None
):
    async def die(connection: ServerConnection, _asked: Identify) -> None:
        connection.transport.abort()

    async def answer_another(connection: ServerConnection, asked: Identify) -> None:
        for part in encode_server(Identified(asked.number + 7, "machine", "beep")):
            await connection.send(part)

    quick = SpeechClientOptions(first_event_timeout_s=0.2)
    for play in (die, answer_another):
        async with peer(play) as url, opened(url, options=quick) as session:
            assert await session.identify(SAID) == UNKNOWN
            assert await session.words_of(SAID) is None  # asked again, and refused


async def test_what_is_no_audio_is_never_sent() -> None:
    async def unasked(_connection: ServerConnection, _asked: Identify) -> None:
        raise AssertionError

    async with peer(unasked) as url, opened(url) as session:
        assert await session.identify(Utterance(b"", 8000)) == UNKNOWN
        assert await session.identify(Utterance(b"\0" * 3, 8000)) == UNKNOWN
        assert await session.words_of(Utterance(b"", 8000)) is None
