"""A reply on its way to its reader."""

from __future__ import annotations

import asyncio

import pytest

from model.engine.plain_chat import PlainChat
from model.engine.request import Timings, TokenChunk, Usage
from model.engine.stream import Delivery, TokenStream
from model.errors import GenerationFailed, SpeechUnavailable

_TIMINGS = Timings(1.0, 2.0, 3.0, 6.0, 7.0)
_USAGE = Usage(10, 4, 0, 2)


def _stream(
    *, stop: tuple[str, ...] = (), timeout_s: float = 5.0
) -> tuple[TokenStream, list[str]]:
    cancelled: list[str] = []
    stream = TokenStream(
        PlainChat().decode,
        stop=stop,
        timeout_s=timeout_s,
        cancel=lambda: cancelled.append("cancelled"),
    )
    return stream, cancelled


def _say(stream: TokenStream, text: str) -> None:
    stream.deliver(Delivery(token_ids=tuple(text.encode())))


async def _read(stream: TokenStream) -> list[TokenChunk]:
    return [chunk async for chunk in stream]


async def test_chunks_come_in_order_and_end_with_the_account() -> None:
    stream, cancelled = _stream()
    stream.deliver(
        Delivery(token_ids=(72,), end_of_turn_probability=0.9, timings=_TIMINGS)
    )
    first = await anext(stream)
    assert first == TokenChunk("H", (72,), None, 0.9, None, _TIMINGS)
    _say(stream, "i")
    second = await anext(stream)
    assert second == TokenChunk("i", (105,))
    stream.deliver(Delivery(finish_reason="stop", usage=_USAGE, timings=_TIMINGS))
    last = await anext(stream)
    assert last == TokenChunk("", (), "stop", None, _USAGE, _TIMINGS)
    assert await _read(stream) == []
    assert (stream.text, stream.token_ids) == ("Hi", (72, 105))
    assert cancelled == []


async def test_what_came_meanwhile_comes_as_one_chunk() -> None:
    stream, _ = _stream()
    _say(stream, "one ")
    _say(stream, "two")
    assert (await anext(stream)).text == "one two"


async def test_a_chunk_is_shown_only_when_there_is_text() -> None:
    stream, _ = _stream()
    _say(stream, "a")
    await anext(stream)
    first, second = "é".encode()
    stream.deliver(Delivery(token_ids=(first,)))
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    stream.deliver(Delivery(token_ids=(second,)))
    assert (await waiting).text == "é"


async def test_a_stop_string_ends_the_reply_and_drops_the_request() -> None:
    stream, cancelled = _stream(stop=("STOP",))
    _say(stream, "fine. STOP and more")
    chunks = await _read(stream)
    assert "".join(chunk.text for chunk in chunks) == "fine. "
    assert chunks[-1].finish_reason == "stop"
    assert stream.token_ids == tuple(b"fine. ")
    assert cancelled == ["cancelled"]


async def test_leaving_early_drops_the_request_once() -> None:
    stream, cancelled = _stream()
    async with stream:
        _say(stream, "a")
        await anext(stream)
    await stream.aclose()
    assert cancelled == ["cancelled"]
    assert await _read(stream) == []


async def test_a_finished_reply_is_not_dropped() -> None:
    stream, cancelled = _stream()
    async with stream:
        stream.deliver(Delivery(finish_reason="length"))
        await _read(stream)
    assert cancelled == []


async def test_a_reader_that_is_cancelled_drops_the_request() -> None:
    stream, cancelled = _stream()
    reader = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert cancelled == ["cancelled"]


async def test_a_forgotten_stream_drops_the_request() -> None:
    stream, cancelled = _stream()
    del stream
    assert cancelled == ["cancelled"]


async def test_an_error_comes_after_what_was_said_before_it() -> None:
    stream, cancelled = _stream()
    _say(stream, "well")
    stream.deliver(Delivery(error=GenerationFailed("broken")))
    assert (await anext(stream)).text == "well"
    with pytest.raises(GenerationFailed, match="broken"):
        await anext(stream)
    assert cancelled == []  # the engine knows


async def test_silence_of_the_engine_is_an_error() -> None:
    stream, cancelled = _stream(timeout_s=0.01)
    with pytest.raises(SpeechUnavailable, match="nothing for"):
        await anext(stream)
    assert cancelled == ["cancelled"]


async def test_a_reply_shown_whole_wakes_its_reader_once() -> None:
    stream, cancelled = _stream()
    reading = asyncio.create_task(stream.read_on())
    for word in ("Gr\u00fc\u00df ", "Gott"):
        await asyncio.sleep(0)
        _say(stream, word)
        await asyncio.sleep(0)
        assert stream.text == ""  # nobody looked
    stream.deliver(Delivery(finish_reason="stop", usage=_USAGE, timings=_TIMINGS))
    await reading
    assert stream.text == "Gr\u00fc\u00df Gott"
    assert (stream.finish_reason, stream.usage) == ("stop", _USAGE)
    await stream.read_on()  # over is over
    assert cancelled == []


async def test_a_stop_string_ends_a_reply_shown_whole_at_once() -> None:
    stream, cancelled = _stream(stop=("END",))
    reading = asyncio.create_task(stream.read_on())
    await asyncio.sleep(0)
    _say(stream, "All there is. EN")
    await asyncio.sleep(0)
    _say(stream, "D and on")
    await reading
    assert (stream.text, stream.finish_reason) == ("All there is. ", "stop")
    assert cancelled == ["cancelled"]


async def test_a_reply_shown_whole_may_take_long_but_not_stand_still() -> None:
    stream, cancelled = _stream(timeout_s=0.05)

    async def speak() -> None:
        for word in ("one ", "two ", "three "):
            _say(stream, word)
            await asyncio.sleep(0.04)

    async with asyncio.TaskGroup() as group:
        group.create_task(speak())
        with pytest.raises(SpeechUnavailable):
            await stream.read_on()
    assert stream.text == "one two three "
    assert cancelled == ["cancelled"]


async def test_a_failure_ends_a_reply_shown_whole() -> None:
    stream, _ = _stream()
    _say(stream, "Half a")
    stream.deliver(Delivery(error=GenerationFailed("the model failed")))
    with pytest.raises(GenerationFailed):
        await stream.read_on()
    assert stream.text == "Half a"
