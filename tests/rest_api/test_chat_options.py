"""REST chat beyond text: speech, events, uploads, transcripts, kept conversations."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from model.audio.g711 import alaw_decode, ulaw_decode
from model.audio.wav import read_pcm16
from model.engine.interface import EngineDescription
from model.engine.scripted import ScriptedEngine, ScriptedOptions
from model.ultravox.clip import AudioClip
from rest_api.app import AppOptions
from rest_api.auth import KeyRing
from rest_api.conversations import KeepingOptions
from tests.fakes.tone_synthesizer import MS_PER_CHAR, ToneSynthesizer
from tests.rest_api.serving import serving, until
from tests.rest_api.test_chat import SYSTEM, USER, base64_of, file_of, pcm16

REPLY = "How can I help?"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Talks to a service that echoes."""
    async with serving(replies=()) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


async def data_of(
    client: httpx.AsyncClient, path: str, **request: Any
) -> dict[str, Any]:
    answer = await client.post(path, **request)
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    events = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        events.append(
            (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        )
    return events


# --- speech ---


@pytest.mark.parametrize(
    ("wanted", "rate_hz"),
    [
        ({}, 16_000),
        ({"audio_format": "wav", "audio_rate_hz": 8000}, 8000),
        ({"audio_format": "pcm16", "audio_rate_hz": 24_000}, 24_000),
        ({"audio_format": "mulaw"}, 8000),
        ({"audio_format": "alaw", "audio_rate_hz": 8000}, 8000),
    ],
)
async def test_a_reply_is_spoken(wanted: dict[str, Any], rate_hz: int) -> None:
    body = {"turns": [USER], "speak": True, **wanted}
    async with (
        serving(replies=(REPLY,)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        data = await data_of(client, "/chat/text", json=body)
    assert data["response"] == REPLY
    assert data["timings"]["first_audio_ms"] > 0
    audio = data["audio"]
    kind = wanted.get("audio_format", "wav")
    assert (audio["format"], audio["rate_hz"]) == (kind, rate_hz)
    decode = {
        "wav": lambda made: read_pcm16(made, rate_hz=rate_hz),
        "pcm16": bytes,
        "mulaw": ulaw_decode,
        "alaw": alaw_decode,
    }[kind]
    samples = decode(base64.b64decode(audio["audio_base64"]))
    seconds = len(samples) / 2 / rate_hz
    assert seconds == pytest.approx(len(REPLY) * MS_PER_CHAR / 1000, abs=0.03)
    assert audio["duration_s"] == pytest.approx(seconds, abs=0.001)


async def test_g711_at_another_rate_is_refused(client: httpx.AsyncClient) -> None:
    body = {"turns": [USER], "audio_format": "mulaw", "audio_rate_hz": 16_000}
    answer = await client.post("/chat/text", json=body)
    assert answer.status_code == 422
    assert "8000" in answer.json()["error"]["message"]


@pytest.mark.parametrize("voice", ["nobody", "a b"])
async def test_a_voice_that_is_not_there_is_refused(
    client: httpx.AsyncClient, voice: str
) -> None:
    body = {"turns": [USER], "speak": True, "voice": voice}
    answer = await client.post("/chat/text", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "voice_unknown"


async def test_speech_that_fails_is_a_500_of_its_own_code() -> None:
    body = {"turns": [USER], "speak": True}
    async with (
        serving(replies=("This is unspeakable.",)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        answer = await client.post("/chat/text", json=body)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "synthesis_failed"


# --- events ---


async def test_a_stream_is_text_and_then_the_whole_answer(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.post("/chat/text", json={"turns": [USER], "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    assert [name for name, _ in events[:-1]] == ["text"] * (len(events) - 1)
    assert "".join(data["text"] for _, data in events[:-1]) == "You said: Hello!"
    name, done = events[-1]
    assert name == "done"
    assert done["success"] is True
    assert done["data"]["response"] == "You said: Hello!"
    assert done["data"]["usage"]["completion_tokens"] == 3


async def test_a_stream_with_speech_brings_it_in_pieces() -> None:
    body = {"turns": [USER], "stream": True, "speak": True, "audio_format": "pcm16"}
    async with (
        serving(replies=("First sentence here. And a second one.",)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        answer = await client.post("/chat/text", json=body)
    events = events_of(answer.text)
    pieces = [data for name, data in events if name == "audio"]
    assert len(pieces) >= 2
    assert all(piece["format"] == "pcm16" for piece in pieces)
    assert events[-1][0] == "done"
    assert "audio" not in events[-1][1]["data"]


async def test_a_stream_that_cannot_begin_has_its_own_status() -> None:
    script = ScriptedOptions(max_slots=0)
    async with serving(script=script) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post("/chat/text", json={"turns": [USER], "stream": True})
    assert answer.status_code == 503


async def test_a_failure_on_the_way_is_the_last_event() -> None:
    body = {"turns": [USER], "stream": True, "speak": True}
    async with (
        serving(replies=("Fine so far. But this is unspeakable.",)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        answer = await client.post("/chat/text", json=body)
    name, data = events_of(answer.text)[-1]
    assert name == "error"
    assert data["error"]["code"] == "synthesis_failed"


@pytest.mark.parametrize("speak", [False, True])
async def test_leaving_a_stream_stops_generation_and_speech(speak: bool) -> None:
    script = ScriptedOptions(("One sentence. " * 500,), token_interval_ms=20)
    engine = ScriptedEngine(script)
    voice = ToneSynthesizer()
    body = {"turns": [USER], "stream": True, "speak": speak, "max_new_tokens": 1000}
    async with (
        serving(engine=engine, synthesizer=voice) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        async with client.stream("POST", "/chat/text", json=body) as answer:
            async for _ in answer.aiter_lines():
                break
            assert engine.load().num_active == 1
        await until(lambda: not engine.load().num_active and not voice.num_running)


@pytest.mark.slow
async def test_memory_returns_when_clients_leave_in_mid_stream() -> None:
    def num_clips() -> int:
        gc.collect()
        return sum(type(thing) is AudioClip for thing in gc.get_objects())

    before = num_clips()
    script = ScriptedOptions(("One sentence. " * 500,), token_interval_ms=20)
    engine = ScriptedEngine(script)
    wishes = {"stream": "true", "conversation_id": "new", "max_new_tokens": "1000"}
    ten_seconds = bytes(2 * 16_000 * 10)

    async def leave(url: str) -> None:
        async with (
            httpx.AsyncClient(
                base_url=url, headers={"Content-Type": "audio/l16"}
            ) as client,
            client.stream(
                "POST", "/chat/audio", params=wishes, content=ten_seconds
            ) as answer,
        ):
            async for line in answer.aiter_lines():
                assert line == "event: text"
                break
            assert num_clips() > before

    async with serving(engine=engine) as url:
        await asyncio.gather(*(leave(url) for _ in range(4)))
        await until(lambda: not engine.load().num_active)
        await until(lambda: num_clips() == before)


# --- uploads ---


async def test_a_form_brings_a_file(client: httpx.AsyncClient) -> None:
    data = await data_of(
        client,
        "/chat/audio",
        files={"audio": ("said.flac", file_of("FLAC"), "audio/flac")},
        data={"turns": json.dumps([SYSTEM]), "max_new_tokens": "50"},
    )
    assert data["response"] == "I heard you speak for 1.0 seconds."


@pytest.mark.parametrize("path", ["/chat/audio", "/chat/conversation"])
@pytest.mark.parametrize("kind", ["audio/L16", "application/octet-stream"])
async def test_the_body_may_be_the_audio(
    client: httpx.AsyncClient, path: str, kind: str
) -> None:
    data = await data_of(
        client,
        path,
        params={"sampling_rate": 8000, "turns": json.dumps([SYSTEM, USER])},
        content=pcm16(2.0, 8000),
        headers={"Content-Type": kind},
    )
    assert data["response"] == "You said: Hello!"
    assert data["usage"]["audio_tokens"] == 13


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"data": {"turns": "[]"}, "files": {"other": b"x"}}, 422, "invalid_request"),
        ({"files": {"audio": b"xyz"}}, 422, "invalid_audio"),
        (
            {"files": {"audio": b"xyz"}, "data": {"turns": "not json"}},
            422,
            "invalid_request",
        ),
        (
            {
                "content": b"--x\r\nbroken",
                "headers": {"Content-Type": "multipart/form-data; boundary=x"},
            },
            422,
            "invalid_request",
        ),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
            400,
            "invalid_form",
        ),
        (
            {"content": b"", "headers": {"Content-Type": "audio/wav"}},
            422,
            "invalid_audio",
        ),
        (
            {"content": b"<x/>", "headers": {"Content-Type": "application/xml"}},
            415,
            "unsupported_media_type",
        ),
    ],
)
async def test_wrong_uploads(
    client: httpx.AsyncClient, request_: dict[str, Any], status: int, code: str
) -> None:
    answer = await client.post("/chat/audio", **request_)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == code


async def test_a_text_request_of_another_type_is_415(client: httpx.AsyncClient) -> None:
    answer = await client.post("/chat/text", data={"turns": "[]"})
    assert answer.status_code == 415


# --- earlier audio and transcripts ---


async def test_turns_may_carry_earlier_audio(client: httpx.AsyncClient) -> None:
    earlier = {"role": "user", "audio_base64": base64_of(pcm16(1.0))}
    turns = [SYSTEM, earlier, {"role": "assistant", "content": "Yes?"}, USER]
    data = await data_of(client, "/chat/text", json={"turns": turns})
    assert data["response"] == "You said: Hello!"
    assert data["usage"]["audio_tokens"] == 7


@pytest.mark.parametrize(
    ("turn", "field"),
    [
        ({"role": "user"}, "turns[0]"),
        ({"role": "system", "audio_base64": base64_of(pcm16(0.1))}, "turns[0]"),
        ({"role": "user", "audio_base64": "!"}, "turns[0].audio_base64"),
    ],
)
async def test_wrong_audio_in_a_turn_is_named(
    client: httpx.AsyncClient, turn: dict[str, Any], field: str
) -> None:
    answer = await client.post("/chat/text", json={"turns": [turn, USER]})
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == field


class EngineOfWords(ScriptedEngine):
    """Plays a model that knows words."""

    @property
    def description(self) -> EngineDescription:
        return replace(super().description, weights_kind="demo")


async def test_a_transcript_comes_when_asked_for() -> None:
    engine = EngineOfWords()
    async with serving(engine=engine) as url, httpx.AsyncClient(base_url=url) as client:
        audio = {"audio_base64": base64_of(pcm16(1.0))}
        with_it = await data_of(client, "/chat/audio", json={**audio, **TRANSCRIPT})
        without = await data_of(client, "/chat/audio", json=audio)
        of_text = await data_of(client, "/chat/text", json={"turns": [USER]})
    # the echo shows what was asked of the model besides the reply
    assert with_it["transcript"] == "You said: Transcribe"
    assert "transcript" not in without
    assert "transcript" not in of_text


async def test_a_model_without_words_writes_down_nothing(
    client: httpx.AsyncClient,
) -> None:
    body = {"audio_base64": base64_of(pcm16(1.0)), **TRANSCRIPT}
    assert (await data_of(client, "/chat/audio", json=body))["transcript"] == ""


TRANSCRIPT = {"transcript": True}


# --- kept conversations ---


async def test_a_kept_conversation_goes_on(client: httpx.AsyncClient) -> None:
    audio = {"audio_base64": base64_of(pcm16(1.0)), "turns": [SYSTEM]}
    first = await data_of(
        client, "/chat/audio", json={**audio, "conversation_id": "new"}
    )
    kept = first["conversation_id"]
    second = await data_of(
        client, "/chat/text", json={"turns": [USER], "conversation_id": kept}
    )
    assert second["conversation_id"] == kept
    assert second["usage"]["audio_tokens"] == 7  # the audio is still in context
    shown = (await client.get(f"/conversations/{kept}")).json()["data"]["turns"]
    assert [turn["role"] for turn in shown] == [
        *("system", "user", "assistant", "user", "assistant")
    ]
    assert shown[1]["audio_s"] == 1.0
    assert shown[4]["content"] == "You said: Hello!"
    assert (await client.delete(f"/conversations/{kept}")).status_code == 200
    gone = await client.post(
        "/chat/text", json={"turns": [USER], "conversation_id": kept}
    )
    assert gone.status_code == 404
    assert gone.json()["error"]["code"] == "conversation_not_found"
    assert (await client.delete(f"/conversations/{kept}")).status_code == 404


async def test_a_stream_is_kept_too(client: httpx.AsyncClient) -> None:
    body = {"turns": [USER], "stream": True, "conversation_id": "new"}
    events = events_of((await client.post("/chat/text", json=body)).text)
    kept = events[-1][1]["data"]["conversation_id"]
    shown = (await client.get(f"/conversations/{kept}")).json()["data"]["turns"]
    assert len(shown) == 2


async def test_one_request_at_a_time_in_a_conversation() -> None:
    engine = ScriptedEngine(ScriptedOptions(("Slow.",)))
    options = ScriptedOptions(("Slow.",), first_token_ms=60_000)
    async with serving(engine=engine) as url, httpx.AsyncClient(base_url=url) as client:
        begun = await data_of(
            client, "/chat/text", json={"turns": [USER], "conversation_id": "new"}
        )
        body = {"turns": [USER], "conversation_id": begun["conversation_id"]}
        engine._options = options
        slow = asyncio.create_task(client.post("/chat/text", json=body))
        await until(lambda: engine.load().num_active)
        answer = await client.post("/chat/text", json=body)
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "conversation_busy"
        slow.cancel()
        await until(lambda: not engine.load().num_active)
        engine._options = ScriptedOptions(("Quick.",))
        again = await client.post("/chat/text", json=body)
    assert again.status_code == 200


async def test_a_failed_reply_leaves_the_conversation_as_it_was() -> None:
    engine = ScriptedEngine(ScriptedOptions(()))
    async with serving(engine=engine) as url, httpx.AsyncClient(base_url=url) as client:
        begun = await data_of(
            client, "/chat/text", json={"turns": [USER], "conversation_id": "new"}
        )
        kept = begun["conversation_id"]
        said = {"role": "user", "content": "unspeakable"}
        body = {"turns": [said], "conversation_id": kept, "speak": True}
        assert (await client.post("/chat/text", json=body)).status_code == 500
        shown = (await client.get(f"/conversations/{kept}")).json()["data"]["turns"]
    assert len(shown) == 2


async def test_a_conversation_of_one_key_is_not_anothers() -> None:
    one, two = "1" * 20, "2" * 20
    keys = AppOptions(keys=KeyRing.parse(f"one:{one},two:{two}"))
    async with (
        serving(app=keys) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        begun = await data_of(
            client,
            "/chat/text",
            json={"turns": [USER], "conversation_id": "new"},
            headers={"X-API-Key": one},
        )
        path = f"/conversations/{begun['conversation_id']}"
        other = await client.get(path, headers={"X-API-Key": two})
        own = await client.get(path, headers={"X-API-Key": one})
    assert (other.status_code, own.status_code) == (404, 200)


async def test_a_conversation_that_grows_too_long_is_refused() -> None:
    options = AppOptions(keeping=KeepingOptions(max_turns=3))
    async with (
        serving(app=options) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        body = {"turns": [USER], "conversation_id": "new"}
        begun = await data_of(client, "/chat/text", json=body)
        body["conversation_id"] = begun["conversation_id"]
        answer = await client.post("/chat/text", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "conversation_full"
