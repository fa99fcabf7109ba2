"""The engine over HTTP against a real server: llama.cpp's, with a tiny Ultravox.

Its replies to audio are not the reference's (it fills every clip up to 30 s), so what
is tested is the wire: what it sends, refuses, forgets and dies of.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.engine.openai_engine import OpenAiEngine, OpenAiOptions
from model.engine.request import GenerationRequest, Session
from model.engine.stream import TokenStream
from model.errors import ContextTooLong, SpeechUnavailable
from model.service import LocalSpeechService
from model.speech import ReplyAudio, ReplyDone, SessionOptions, Utterance
from model.tts.speaker import Speaker
from model.ultravox.inputs import Dialogue
from tests.end_to_end.bot_service import BotService
from tests.fakes.tone_synthesizer import ToneSynthesizer
from tests.model.engine.llama_server.conftest import StartServer
from tests.model.engine.llama_server.process import LlamaServer
from tests.model.engine.prompts import wave
from tests.model.ultravox.parity_data import V0_5
from tests.rest_api.serving import serving, until
from tests.tools.test_place_call import last_line, place_call

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

Wave = NDArray[np.float32]


@asynccontextmanager
async def engine_at(
    *servers: LlamaServer, **options: Any
) -> AsyncIterator[OpenAiEngine]:
    urls = tuple(server.url for server in servers)
    async with OpenAiEngine(replace(OpenAiOptions(urls), **options)) as engine:
        yield engine


def asked(engine: OpenAiEngine, *parts: str | Wave) -> Dialogue:
    """A dialogue in which the caller has said these, one after the other."""
    dialogue = engine.new_dialogue("Be brief.")
    for index, part in enumerate(parts):
        if index:
            dialogue.append_assistant_tokens(list(b"I see."))
        if isinstance(part, str):
            dialogue.append_user_text(part)
        else:
            dialogue.append_user_audio(part)
    return dialogue


def submit(
    engine: OpenAiEngine,
    *parts: str | Wave,
    max_new_tokens: int = 16,
    session: Session | None = None,
) -> TokenStream:
    prompt = asked(engine, *parts).prompt()
    return engine.submit(
        GenerationRequest(prompt, max_new_tokens=max_new_tokens, session=session)
    )


async def read(stream: TokenStream) -> TokenStream:
    async with stream:
        async for _ in stream:
            pass
    return stream


async def test_text_gets_the_reference_models_greedy_reply(
    llama_server: LlamaServer,
) -> None:
    case = json.loads((V0_5 / "cases/text_only.json").read_text())
    (messages,) = case["messages"]
    async with engine_at(llama_server) as engine:
        dialogue = engine.new_dialogue(messages[0]["content"], today=date(2025, 1, 1))
        dialogue.append_user_text(messages[1]["content"])
        request = GenerationRequest(
            dialogue.prompt(), max_new_tokens=case["max_new_tokens"]
        )
        reply = await read(engine.submit(request))
    # Bytes that are no characters become U+FFFD in both, but not always as many.
    (expected,) = case["greedy_text"]
    assert reply.text.replace("\N{REPLACEMENT CHARACTER}", "") == expected.replace(
        "\N{REPLACEMENT CHARACTER}", ""
    )
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == case["shapes"]["in_input_ids"][1]


async def test_audio_is_heard_in_every_turn(llama_server: LlamaServer) -> None:
    async with engine_at(llama_server) as engine:
        text = await read(submit(engine, "Hi"))
        once = await read(submit(engine, wave(1)))
        other = await read(submit(engine, wave(2)))
        earlier = await read(submit(engine, wave(3), wave(1)))
        earlier_too = await read(submit(engine, wave(4), wave(1)))
    assert once.text != other.text
    assert earlier.text != earlier_too.text
    assert text.usage is not None
    assert once.usage is not None
    assert earlier.usage is not None
    # Each clip of up to 30 s costs 187 tokens there.
    assert once.usage.prompt_tokens - text.usage.prompt_tokens == 187 - len("Hi")
    assert earlier.usage.prompt_tokens > 2 * 187


async def test_pieces_without_text_and_half_characters_do_not_disturb(
    llama_server: LlamaServer,
) -> None:
    # Random weights write broken UTF-8: the role event goes missing then, several
    # tokens come in one event, and content may be null.
    async with engine_at(llama_server) as engine:
        replies = [
            await read(submit(engine, wave(seed, 8000 * (1 + seed))))
            for seed in range(4)
        ]
    assert all(reply.text for reply in replies)
    assert all(reply.finish_reason in ("stop", "length") for reply in replies)
    assert all(
        reply.usage is not None and reply.usage.completion_tokens > 0
        for reply in replies
    )


async def test_a_clip_of_one_sample_leaves_the_server_alive(
    llama_server: LlamaServer,
) -> None:
    async with engine_at(llama_server) as engine:
        reply = await read(submit(engine, np.zeros(1, np.float32)))
    assert reply.finish_reason is not None
    assert llama_server.is_running


async def test_a_dialogue_that_does_not_fit_is_told_from_other_refusals(
    llama_server: LlamaServer,
) -> None:
    async with engine_at(llama_server) as engine:
        with pytest.raises(ContextTooLong, match="context"):
            await read(submit(engine, "word " * 2000))


async def test_leaving_a_stream_frees_its_slot(start_server: StartServer) -> None:
    server = start_server(never_ends=True)
    async with engine_at(server) as engine:
        async with submit(engine, "Hi", max_new_tokens=3500) as stream:
            await anext(stream)
            assert server.num_busy_slots() == 1
        await until(lambda: server.num_busy_slots() == 0)


async def test_more_requests_than_slots_are_all_answered(
    llama_server: LlamaServer,
) -> None:
    async with engine_at(llama_server) as engine:
        alone = [(await read(submit(engine, wave(seed)))).text for seed in range(4)]
        together = await asyncio.gather(
            *(read(submit(engine, wave(seed))) for seed in range(4))
        )
    assert [stream.text for stream in together] == alone


async def test_a_request_may_not_wait_in_its_line_for_ever(
    start_server: StartServer,
) -> None:
    async with (
        engine_at(start_server(never_ends=True), first_token_timeout_s=0.5) as engine,
        submit(engine, "One", max_new_tokens=3500) as one,
        submit(engine, "Two", max_new_tokens=3500) as two,
    ):
        await asyncio.gather(anext(one), anext(two))
        with pytest.raises(SpeechUnavailable, match="no token in time"):
            await read(submit(engine, "Three"))


async def test_a_server_without_ears_is_refused_at_the_start(
    start_server: StartServer,
) -> None:
    deaf = start_server(ears=False)
    with pytest.raises(SpeechUnavailable, match="takes no audio"):
        async with engine_at(deaf):
            pytest.fail("callers would not be heard")


async def test_a_wrong_key_names_the_setting(start_server: StartServer) -> None:
    locked = start_server(api_key="right")
    with pytest.raises(SpeechUnavailable, match="ULTRAVOX_ENGINE_API_KEY"):
        async with engine_at(locked, api_key="wrong"):
            pytest.fail("nothing would work")
    async with engine_at(locked, api_key="right") as engine:
        assert (await read(submit(engine, "Hi"))).finish_reason


async def test_killed_in_mid_stream_the_next_turn_is_served_elsewhere(
    start_server: StartServer,
) -> None:
    first, second = start_server(never_ends=True), start_server(never_ends=True)
    call = Session()
    async with engine_at(first, second, probe_interval_s=0.2) as engine:
        async with submit(engine, "Go on", session=call, max_new_tokens=3500) as broken:
            await anext(broken)
            busy = [server for server in (first, second) if server.num_busy_slots()]
            assert len(busy) == 1
            busy[0].kill()
            with pytest.raises(SpeechUnavailable):
                await read(broken)
        reply = await read(submit(engine, "Hi", "Still there?", session=call))
    assert reply.finish_reason is not None


async def test_a_frozen_server_costs_one_request_its_patience_and_no_more(
    start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = start_server(), start_server()
    async with engine_at(
        first,
        second,
        first_token_timeout_s=1.0,
        chunk_timeout_s=1.0,
        probe_interval_s=60.0,
    ) as engine:
        first.freeze()
        for _ in range(6):
            assert (await read(submit(engine, "Hi"))).finish_reason
    failed = [entry for entry in caplog.messages if entry == "model_server_failed"]
    assert len(failed) == 1


async def test_a_dialogue_is_held_with_speech_both_ways(
    llama_server: LlamaServer,
) -> None:
    synthesizer = ToneSynthesizer()
    async with engine_at(llama_server) as engine:
        service = LocalSpeechService(engine, synthesizer, Speaker(synthesizer))
        options = SessionOptions("call-1", "Be brief.", max_new_tokens=24)
        prompt_tokens = []
        async with service.open_session(options) as session:
            for turn in range(3):
                said = (wave(turn, 12_000)[::2] * 32_767).astype("<i2").tobytes()
                async with aclosing(session.reply(turn, Utterance(said, 8000))) as s:
                    events = [event async for event in s]
                await session.settle(turn)
                assert any(isinstance(event, ReplyAudio) for event in events)
                done = events[-1]
                assert isinstance(done, ReplyDone)
                prompt_tokens.append(done.usage.prompt_tokens)
    # Each turn brings what was said before along: clips and replies.
    steps = np.diff(prompt_tokens)
    assert (steps > 187).all(), prompt_tokens


async def test_our_own_completions_serve_the_engine_as_well(
    llama_server: LlamaServer,
) -> None:
    # Ours in front of llama.cpp's: engine, HTTP, engine, HTTP, the same reply.
    behind = OpenAiEngine(OpenAiOptions((llama_server.url,)))
    async with (
        serving(engine=behind) as url,
        OpenAiEngine(OpenAiOptions((url,))) as engine,
    ):
        direct = await read(submit(behind, wave(1), wave(2)))
        through = await read(submit(engine, wave(1), wave(2)))
        with pytest.raises(ContextTooLong):
            await read(submit(engine, "word " * 2000))
    assert through.text == direct.text
    assert through.usage is not None
    assert direct.usage is not None
    assert through.usage.prompt_tokens == direct.usage.prompt_tokens


async def test_a_telephone_call_is_answered_by_it(
    llama_server: LlamaServer, tmp_path: Path
) -> None:
    service = BotService.start(
        tmp_path, settings={"ENGINE": "openai", "ENGINE_URL": llama_server.url}
    )
    try:
        service.wait_until_ready()
        assert "ultravox-tiny" in service.health()
        status, lines, errors = await place_call(
            *("--agi", f"127.0.0.1:{service.agi_port}"),
            *("--say", "quiet:300,1", "say:What are your opening hours?", "wait:300,1"),
            "bye",
        )
    finally:
        service.stop()
    assert status == 0, errors
    summary = last_line(lines)
    (turn,) = summary["turns"]
    assert turn["response_ms"] is not None
    assert summary["errors"] == []
