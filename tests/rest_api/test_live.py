"""/chat/live on real sockets: whole dialogues, junk, and clients that vanish."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from model.engine.scripted import ScriptedEngine, ScriptedOptions
from model.service import ServiceOptions
from model.speech import ReplyDone, TypedTurn
from rest_api.service_state import ServiceState
from tests.model.test_client import opened
from tests.rest_api.serving import serving, starting_app, until

START = {"type": "start", "call_id": "c", "instructions": "Be brief."}


@asynccontextmanager
async def line_to(url: str) -> AsyncIterator[ClientConnection]:
    async with connect(url.replace("http", "ws") + "/chat/live") as line:
        yield line


async def say(line: ClientConnection, **message: Any) -> None:
    await line.send(json.dumps(message))


async def hear(line: ClientConnection) -> dict[str, Any]:
    """The next JSON message; audio is passed over."""
    while isinstance(wire := await line.recv(), bytes):
        pass
    message: dict[str, Any] = json.loads(wire)
    return message


async def hear_until(line: ClientConnection, kind: str) -> dict[str, Any]:
    while (message := await hear(line))["type"] != kind:
        assert message["type"] != "error", message
    return message


@asynccontextmanager
async def started(url: str) -> AsyncIterator[ClientConnection]:
    async with line_to(url) as line:
        await say(line, **START)
        assert (await hear(line))["type"] == "ready"
        yield line


async def test_the_wire_as_a_browser_sees_it() -> None:
    async with serving(replies=("Hi. Bye.",)) as url, started(url) as line:
        await say(line, type="text", turn=1, text="hello")
        wires: list[str | bytes] = []
        while not wires or '"done"' not in str(wires[-1]):
            wires.append(await line.recv())
    messages = [json.loads(wire) for wire in wires if isinstance(wire, str)]
    assert [m["text"] for m in messages if m["type"] == "text"] == ["Hi.", " Bye."]
    for place, wire in enumerate(wires):
        if isinstance(wire, bytes):
            header = json.loads(wires[place - 1])
            assert header["type"] == "audio"
            assert header["n_bytes"] == len(wire)
    done = messages[-1]
    assert (done["turn"], done["text"], done["finish_reason"]) == (
        1,
        "Hi. Bye.",
        "stop",
    )
    assert done["timings"]["first_audio_ms"] > 0


async def test_ready_says_what_answers() -> None:
    async with serving() as url, line_to(url) as line:
        await say(line, **START, rate_hz=16000)
        ready = await hear(line)
    assert ready["model"] == "scripted replies"
    assert ready["weights"] == "scripted"
    assert ready["rate_hz"] == 16000
    assert ready["protocol"] == 1


async def test_an_utterance_is_heard() -> None:
    async with serving(replies=()) as url, started(url) as line:
        await say(line, type="utterance", turn=0, n_bytes=16000)
        await line.send(bytes(16000))
        done = await hear_until(line, "done")
    assert done["text"] == "I heard you speak for 1.0 seconds."
    assert done["usage"]["audio_tokens"] == 7


async def test_a_cancelled_reply_stops_and_the_dialogue_goes_on() -> None:
    engine = ScriptedEngine(ScriptedOptions(("word " * 500,), token_interval_ms=5))
    async with serving(engine=engine) as url, started(url) as line:
        await say(line, type="text", turn=0, text="hello")
        await hear_until(line, "text")
        await say(line, type="cancel", turn=0)
        await until(lambda: not engine.load().num_active)
        await say(line, type="say", turn=1, text="Sorry.")
        while (message := await hear(line))["turn"] == 0:
            assert message["type"] != "done"
        assert message == {"type": "text", "turn": 1, "text": "Sorry."}


async def test_messages_for_turns_nobody_knows_are_harmless() -> None:
    async with serving() as url, started(url) as line:
        for kind in ("cancel", "settle", "forget"):
            await say(line, type=kind, turn=99)
        await say(line, type="text", turn=0, text="hello")
        assert (await hear_until(line, "done"))["turn"] == 0


async def test_end_closes_in_order() -> None:
    async with serving() as url, started(url) as line:
        await say(line, type="end")
        await line.wait_closed()
        assert line.close_code == 1000


@pytest.mark.parametrize(
    ("wires", "code", "field"),
    [
        (["not json"], "bad_message", ""),
        ([b"\0\0"], "bad_message", ""),
        ([json.dumps({"type": "text", "turn": 0, "text": "x"})], "bad_message", "type"),
        ([json.dumps({**START, "rate_hz": "high"})], "bad_message", "rate_hz"),
        ([json.dumps(START)] * 2, "bad_message", "type"),
        ([json.dumps(START), "{}"], "bad_message", "type"),
        ([json.dumps(START), b"\0\0"], "bad_message", ""),
        (
            [json.dumps(START), '{"type":"utterance","turn":0,"n_bytes":4}', b"\0\0"],
            "bad_message",
            "n_bytes",
        ),
        (
            [json.dumps(START), '{"type":"say","turn":1,"text":"a"}'] * 1
            + ['{"type":"say","turn":1,"text":"a"}'],
            "bad_message",
            "turn",
        ),
        ([json.dumps({**START, "voice": "nobody"})], "voice_unknown", ""),
        ([json.dumps({**START, "voice": "../x"})], "voice_unknown", ""),
        ([json.dumps({**START, "language": "EN US!"})], "voice_unknown", ""),
    ],
)
async def test_what_breaks_the_rules_ends_the_dialogue_with_a_reason(
    wires: list[str | bytes], code: str, field: str
) -> None:
    async with serving() as url, line_to(url) as line:
        for wire in wires:
            await line.send(wire)
        while (error := await hear(line))["type"] != "error":
            pass
        assert error["turn"] is None
        assert (error["code"], error["field"]) == (code, field)
        await line.wait_closed()
        assert line.close_code == 1008


async def test_an_oversize_message_closes_the_line() -> None:
    async with serving() as url, started(url) as line:
        with suppress(ConnectionClosed):
            await line.send(bytes(20 * 1024 * 1024))
        await line.wait_closed()
        assert line.close_code == 1009


async def test_before_the_model_is_there_the_client_is_sent_elsewhere() -> None:
    async with (
        starting_app(ServiceState(phase="loading")) as url,
        line_to(url) as line,
    ):
        await say(line, **START)
        error = await hear(line)
        assert (error["code"], error["turn"]) == ("unavailable", None)
        await line.wait_closed()
        assert line.close_code == 1013


async def test_one_dialogue_too_many_is_refused() -> None:
    async with serving(service=ServiceOptions(max_sessions=1)) as url:
        async with started(url), line_to(url) as second:
            await say(second, **START)
            assert (await hear(second))["code"] == "overloaded"
        async with started(url):
            pass


async def test_a_client_that_vanishes_frees_its_place() -> None:
    engine = ScriptedEngine(ScriptedOptions(("word " * 500,), token_interval_ms=5))
    state = ServiceState()
    async with serving(engine=engine, state=state) as url:
        assert state.service is not None
        async with started(url) as line:
            await say(line, type="text", turn=0, text="hello")
            await hear_until(line, "text")
            assert engine.load().num_active == 1
            line.transport.abort()
        await until(lambda: not engine.load().num_active)
        await until(lambda: not state.service or not state.service.num_sessions)


async def test_a_client_that_reads_nothing_holds_up_only_itself() -> None:
    engine = ScriptedEngine(ScriptedOptions(("A long sentence of words. " * 25,)))
    async with (
        serving(engine=engine) as url,
        started(url) as deaf,
    ):
        deaf.transport.pause_reading()
        for turn in range(5):
            await say(deaf, type="text", turn=turn, text="hello")
        async with started(url) as line:
            await say(line, type="text", turn=0, text="hello")
            assert (await hear_until(line, "done"))["turn"] == 0
        deaf.transport.abort()


async def test_too_many_replies_at_once_end_the_dialogue() -> None:
    engine = ScriptedEngine(ScriptedOptions(("Never.",), first_token_ms=60_000))
    async with serving(engine=engine) as url, started(url) as line:
        for turn in range(9):
            await say(line, type="text", turn=turn, text="hello")
        assert (await hear(line))["code"] == "invalid_request"
    await until(lambda: not engine.load().num_active)


async def test_a_failed_turn_leaves_the_dialogue_open() -> None:
    async with serving(replies=("This is unspeakable.", "Fine.")) as url:
        async with started(url) as line:
            await say(line, type="text", turn=0, text="hello")
            while (message := await hear(line))["type"] != "error":
                pass
            assert (message["turn"], message["code"]) == (0, "synthesis_failed")
            await say(line, type="forget", turn=0)
            await say(line, type="say", turn=1, text="Fine.")
            assert (await hear_until(line, "done"))["turn"] == 1
        async with httpx.AsyncClient() as http:
            report = (await http.get(f"{url}/health")).json()
    assert report["last_error"]["code"] == "synthesis_failed"


async def test_the_client_and_the_server_understand_each_other() -> None:
    async with (
        serving(replies=("Hello there. How are you?", "Good.")) as url,
        opened(url) as session,
    ):
        async with aclosing(session.reply(0, TypedTurn("Hi"))) as events:
            first = [event async for event in events]
        await session.settle(0, 100)
        async with aclosing(session.reply(1, TypedTurn("Well"))) as events:
            second = [event async for event in events]
    assert isinstance(first[-1], ReplyDone)
    assert isinstance(second[-1], ReplyDone)
    assert first[-1].text == "Hello there. How are you?"
    assert second[-1].text == "Good."
