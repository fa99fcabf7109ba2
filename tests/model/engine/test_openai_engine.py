"""An engine behind HTTP, against a server that does what the test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model.engine.openai_engine import OpenAiEngine, OpenAiOptions
from model.engine.request import GenerationRequest
from model.errors import (
    ContextTooLong,
    EngineOverloaded,
    GenerationFailed,
    InvalidRequest,
    SpeechUnavailable,
)
from tests.free_port import free_port
from tests.rest_api.serving import until

Writer = asyncio.StreamWriter
Play = Callable[[dict[str, Any], Writer], Awaitable[None]]

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def event(text: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    choice = {"delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n"


USAGE = {"prompt_tokens": 12, "completion_tokens": 2}
DONE = event(None, "stop", usage=USAGE) + b"data: [DONE]\n\n"


def answer(status: int, body: str) -> bytes:
    head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\nConnection: close"
    return f"{head}\r\n\r\n{body}".encode()


@asynccontextmanager
async def model_server(
    play: Play, models: str = "org/model", port: int = 0
) -> AsyncIterator[str]:
    """Answers /v1/models, and completions as `play` does."""

    async def accept(reader: asyncio.StreamReader, writer: Writer) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = 0
            for line in head.lower().splitlines():
                if line.startswith("content-length:"):
                    length = int(line.split(":")[1])
            body = json.loads(await reader.readexactly(length)) if length else {}
            if head.startswith("GET /v1/models"):
                listed = {"data": [{"id": name} for name in models.split(",")]}
                writer.write(answer(200, json.dumps(listed)))
            else:
                assert head.startswith("POST /v1/chat/completions")
                await play(body, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def say_hello(body: dict[str, Any], writer: Writer) -> None:
    writer.write(SSE + event("Hel") + event("lo.") + DONE)


def says(status: int, body: str = "{}") -> Play:
    async def play(_: dict[str, Any], writer: Writer) -> None:
        writer.write(answer(status, body))

    return play


@asynccontextmanager
async def engine_at(*urls: str, **options: Any) -> AsyncIterator[OpenAiEngine]:
    async with OpenAiEngine(replace(OpenAiOptions(urls), **options)) as engine:
        yield engine


def request_to(engine: OpenAiEngine, num_clips: int = 0) -> GenerationRequest:
    dialogue = engine.new_dialogue("Be brief.")
    for _ in range(num_clips):
        dialogue.append_user_audio(np.zeros(8000, np.float32))
    if not num_clips:
        dialogue.append_user_text("Hi")
    return GenerationRequest(dialogue.prompt(), max_new_tokens=20)


async def reply_of(engine: OpenAiEngine, num_clips: int = 0) -> str:
    async with engine.submit(request_to(engine, num_clips)) as stream:
        return "".join([chunk.text async for chunk in stream])


async def test_a_reply_is_streamed_with_usage_and_reason() -> None:
    async with (
        model_server(say_hello) as url,
        engine_at(url) as engine,
        engine.submit(request_to(engine)) as stream,
    ):
        text = "".join([chunk.text async for chunk in stream])
    assert text == "Hello."
    assert stream.finish_reason == "stop"
    assert stream.usage is not None
    assert (stream.usage.prompt_tokens, stream.usage.completion_tokens) == (12, 2)
    assert stream.timings is not None
    assert 0 < stream.timings.first_token_ms <= stream.timings.total_ms
    assert stream.end_of_turn_probability is None


async def test_audio_and_the_models_name_are_sent() -> None:
    asked: list[dict[str, Any]] = []

    async def play(body: dict[str, Any], writer: Writer) -> None:
        asked.append(body)
        await say_hello(body, writer)

    async with (
        model_server(play, "one,two") as url,
        engine_at(url, model="two") as engine,
    ):
        assert await reply_of(engine, num_clips=2) == "Hello."
        assert engine.description.model_name == "two"
    assert asked[0]["model"] == "two"
    kinds = [message["content"][0]["type"] for message in asked[0]["messages"][1:]]
    assert kinds == ["input_audio", "input_audio"]


async def test_the_first_model_is_taken_when_none_is_named() -> None:
    async with model_server(say_hello, "one,two") as url, engine_at(url) as engine:
        assert engine.description.model_name == "one"
        assert engine.description.engine == "openai"


async def test_a_model_no_server_has_is_said_at_the_start() -> None:
    async with model_server(say_hello) as url:
        with pytest.raises(SpeechUnavailable, match="has org/model"):
            async with engine_at(url, model="other"):
                pytest.fail("nobody has it")


async def test_no_server_is_said_at_the_start() -> None:
    with pytest.raises(SpeechUnavailable, match="no model server"):
        async with engine_at("http://127.0.0.1:9"):
            pytest.fail("nobody is there")


async def test_text_cut_inside_a_character_is_put_together() -> None:
    async def play(_: dict[str, Any], writer: Writer) -> None:
        wire = SSE + event("Grüß") + event(" Gott 你好") + DONE
        for place in range(len(wire)):
            writer.write(wire[place : place + 1])
            await writer.drain()

    async with model_server(play) as url, engine_at(url) as engine:
        assert await reply_of(engine) == "Grüß Gott 你好"


async def test_a_server_that_leaves_out_done_and_usage_is_understood() -> None:
    async def play(_: dict[str, Any], writer: Writer) -> None:
        writer.write(SSE + event("Hi.") + event(None, "length"))

    async with (
        model_server(play) as url,
        engine_at(url) as engine,
        engine.submit(request_to(engine)) as stream,
    ):
        texts = [chunk.text async for chunk in stream]
    assert "".join(texts) == "Hi."
    assert stream.finish_reason == "length"
    assert stream.usage is not None
    assert stream.usage.completion_tokens == 1


@pytest.mark.parametrize(
    ("play", "kind"),
    [
        (says(400, '{"error": {"message": "bad part"}}'), InvalidRequest),
        (says(400, '{"error": {"message": "context size"}}'), ContextTooLong),
        (says(500), GenerationFailed),
        (says(503), SpeechUnavailable),
        (says(429), EngineOverloaded),
        (says(200, "{}"), GenerationFailed),
    ],
)
async def test_a_refusal_is_raised_typed(play: Play, kind: type[Exception]) -> None:
    async with model_server(play) as url, engine_at(url) as engine:
        with pytest.raises(kind):
            await reply_of(engine)
        await until(lambda: not engine.load().num_active)


async def test_another_server_takes_over_before_the_first_word() -> None:
    for broken in (says(500), says(503), says(200, "{}")):
        async with (
            model_server(broken) as bad,
            model_server(say_hello) as good,
            engine_at(bad, good) as engine,
        ):
            for _ in range(2):
                assert await reply_of(engine) == "Hello."


async def test_a_call_stays_with_the_server_that_has_its_dialogue() -> None:
    asked: list[int] = []

    def counting(number: int) -> Play:
        async def play(body: dict[str, Any], writer: Writer) -> None:
            asked.append(number)
            await say_hello(body, writer)

        return play

    async with (
        model_server(counting(0)) as one,
        model_server(counting(1)) as two,
        engine_at(one, two) as engine,
    ):
        calls = [engine.open_session() for _ in range(2)]
        for _ in range(3):
            for call in calls:
                request = replace(request_to(engine), session=call)
                async with engine.submit(request) as stream:
                    assert [chunk async for chunk in stream]
    assert asked in ([0, 1] * 3, [1, 0] * 3)


async def test_a_server_that_comes_back_is_asked_again() -> None:
    async with model_server(say_hello) as good:
        port = free_port()
        back = f"http://127.0.0.1:{port}"
        async with engine_at(good, back, probe_interval_s=0.05) as engine:
            servers = engine._servers
            assert [server.url for server in servers.in_order(None)] == [good, back]
            async with model_server(say_hello, port=port):
                await until(lambda: not any(s.problem for s in servers.in_order(None)))
            await until(lambda: any(s.problem for s in servers.in_order(None)))
            assert servers.in_order(None)[0].url == good


async def test_each_server_may_name_the_model_in_its_own_way() -> None:
    named: list[str] = []

    async def play(body: dict[str, Any], writer: Writer) -> None:
        named.append(body["model"])
        await say_hello(body, writer)

    async with (
        model_server(play, "/models/a.gguf") as one,
        model_server(play, "org/a") as two,
        engine_at(one, two) as engine,
    ):
        for _ in range(2):
            await reply_of(engine)
    assert sorted(named) == ["/models/a.gguf", "org/a"]


async def test_a_server_that_is_gone_is_passed_over() -> None:
    async with (
        model_server(say_hello) as good,
        engine_at(good, "http://127.0.0.1:9") as engine,
    ):
        for _ in range(3):
            assert await reply_of(engine) == "Hello."


async def test_a_request_that_makes_no_sense_is_not_tried_elsewhere() -> None:
    tried: list[int] = []

    async def play(_: dict[str, Any], writer: Writer) -> None:
        tried.append(1)
        writer.write(answer(400, '{"error": {"message": "no"}}'))

    async with (
        model_server(play) as one,
        model_server(play) as two,
        engine_at(one, two) as engine,
    ):
        with pytest.raises(InvalidRequest):
            await reply_of(engine)
    assert len(tried) == 1


async def test_after_the_first_word_nobody_takes_over() -> None:
    async def play(_: dict[str, Any], writer: Writer) -> None:
        writer.write(SSE + event("Half a"))

    async with (
        model_server(play) as one,
        model_server(say_hello) as two,
        engine_at(one, two) as engine,
        engine.submit(request_to(engine)) as stream,
    ):
        assert (await anext(stream)).text == "Half a"
        with pytest.raises(GenerationFailed, match="broke off"):
            await anext(stream)


async def test_silence_before_the_first_token_has_an_end() -> None:
    hold = asyncio.Event()

    async def play(_: dict[str, Any], writer: Writer) -> None:
        writer.write(SSE)
        await writer.drain()
        await hold.wait()

    async with (
        model_server(play) as url,
        engine_at(url, first_token_timeout_s=0.2) as engine,
    ):
        with pytest.raises(SpeechUnavailable, match="no token in time"):
            await reply_of(engine)
        hold.set()


async def test_silence_within_a_stream_has_an_end() -> None:
    hold = asyncio.Event()

    async def play(_: dict[str, Any], writer: Writer) -> None:
        writer.write(SSE + event("Half"))
        await writer.drain()
        await hold.wait()

    async with (
        model_server(play) as url,
        engine_at(url, chunk_timeout_s=0.2) as engine,
    ):
        with pytest.raises(SpeechUnavailable, match="ReadTimeout"):
            await reply_of(engine)
        hold.set()


async def test_leaving_the_stream_closes_the_connection() -> None:
    gone = asyncio.Event()

    async def play(_: dict[str, Any], writer: Writer) -> None:
        try:
            writer.write(SSE)
            while True:
                writer.write(event("word "))
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    async with model_server(play) as url, engine_at(url) as engine:
        async with engine.submit(request_to(engine)) as stream:
            await anext(stream)
            assert engine.load().num_active == 1
        await until(lambda: not engine.load().num_active)
        async with asyncio.timeout(10):
            await gone.wait()


async def test_too_many_requests_and_too_many_clips_are_refused_at_once() -> None:
    async with (
        model_server(say_hello) as url,
        engine_at(url, max_requests=1, max_clips=2) as engine,
    ):
        with pytest.raises(ContextTooLong):
            engine.submit(request_to(engine, num_clips=3))
        async with engine.submit(request_to(engine)) as stream:
            with pytest.raises(EngineOverloaded):
                engine.submit(request_to(engine))
            assert [chunk async for chunk in stream]


async def test_warming_sees_whether_a_server_is_there() -> None:
    async with model_server(say_hello) as url:
        engine = OpenAiEngine(OpenAiOptions((url,)))
        async with engine:
            await engine.warm(request_to(engine).prompt)
            session = engine.open_session()
            assert engine.load().num_sessions == 1
            session.close()
            assert engine.load().num_sessions == 0
    with pytest.raises(SpeechUnavailable):
        engine.submit(request_to(engine))


async def _endlessly(writer: Writer, data: bytes) -> None:
    while True:
        writer.write(data)
        await writer.drain()


async def test_a_server_that_goes_on_for_ever_is_cut_off_at_the_limit() -> None:
    async def play(_: dict[str, Any], writer: Writer) -> None:
        writer.write(SSE)
        await _endlessly(writer, event("word "))

    async with (
        model_server(play) as url,
        engine_at(url) as engine,
        engine.submit(request_to(engine)) as stream,
    ):
        text = "".join([chunk.text async for chunk in stream])
    assert stream.finish_reason == "length"
    assert 20 <= len(text.split()) <= 21


async def test_going_on_after_the_finish_reason_is_cut_off_as_well() -> None:
    async def play(_: dict[str, Any], writer: Writer) -> None:
        writer.write(SSE + event("Hi ", "stop"))
        await _endlessly(writer, event("word "))

    async with model_server(play) as url, engine_at(url) as engine:
        async with asyncio.timeout(10):
            assert len((await reply_of(engine)).split()) <= 21


async def test_long_events_without_an_end_are_cut_off_as_well() -> None:
    async def play(_: dict[str, Any], writer: Writer) -> None:
        writer.write(SSE)
        await _endlessly(writer, event("a" * 400))

    async with model_server(play) as url, engine_at(url) as engine:
        assert len(await reply_of(engine)) <= 20 * 32 + 400


async def test_a_line_without_an_end_fails_the_request() -> None:
    async def play(_: dict[str, Any], writer: Writer) -> None:
        writer.write(SSE + b"data: ")
        await _endlessly(writer, b"a" * 65536)

    async with model_server(play) as url, engine_at(url) as engine:
        with pytest.raises(GenerationFailed, match="without an end"):
            await reply_of(engine)


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices": [{"delta": "Hi"}]}',
        b'{"choices": [{"delta": {"content": 3}}]}',
        b'{"usage": [9]}',
        b'{"more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
async def test_an_event_of_another_shape_fails_the_request_at_once(data: bytes) -> None:
    async def play(_: dict[str, Any], writer: Writer) -> None:
        writer.write(SSE + event("Hel") + b"data: " + data + b"\n\n")

    async with model_server(play) as url, engine_at(url) as engine:
        async with asyncio.timeout(5):
            with pytest.raises(GenerationFailed, match="no event"):
                await reply_of(engine)
        await until(lambda: engine.load().num_active == 0)


async def test_an_error_answer_without_an_end_is_read_up_to_a_length() -> None:
    async def play(_: dict[str, Any], writer: Writer) -> None:
        writer.write(SSE.replace(b"200 OK", b"500 no"))
        await _endlessly(writer, b"a" * 65536)

    async with model_server(play) as url, engine_at(url) as engine:
        async with asyncio.timeout(5):
            with pytest.raises(GenerationFailed, match=r"answered 500: a+$"):
                await reply_of(engine)


async def test_a_list_of_models_nested_without_end_does_not_end_the_looking() -> None:
    nested = b'{"data": ' + b"[" * 100_000
    lists = [b'{"data": [{"id": "a"}]}', nested, b'{"data": [{"id": "b"}]}']
    left = list(lists)

    async def list_models(_: asyncio.StreamReader, writer: Writer) -> None:
        body = left.pop(0) if len(left) > 1 else left[0]
        writer.write(answer(200, body.decode()))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(list_models, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, engine_at(url, probe_interval_s=0.02) as engine:
        assert engine.description.model_name == "a"
        await until(lambda: engine.description.model_name == "b")
