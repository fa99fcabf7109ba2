"""Servers that compress what they answer, unasked, at each client that asks any."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from agi_handlers.errors import VicidialUnavailable
from agi_handlers.vicidial.client import VicidialClient, VicidialOptions
from model.engine.openai_engine import OpenAiEngine, OpenAiOptions
from model.errors import SpeechUnavailable
from model.http_bodies import AnswerCompressed, plain_client
from model.sidecar_address import http_client
from model.tts.errors import SynthesizerUnavailable
from model.tts.openai_speech import OpenAiSpeech, OpenAiSpeechOptions

BOMB = gzip.compress(bytes(64 << 20))


class Compressing:
    """Answers everything with the same 64 MiB in 64 kB."""

    def __init__(self, coding: str) -> None:
        self.coding = coding
        self.heads: list[str] = []

    async def accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
            writer.write(
                f"HTTP/1.1 200 OK\r\nContent-Encoding: {self.coding}\r\n"
                f"Content-Length: {len(BOMB)}\r\nConnection: close\r\n\r\n".encode()
                + BOMB
            )
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def compressing(coding: str = "gzip") -> AsyncIterator[tuple[str, Compressing]]:
    played = Compressing(coding)
    server = await asyncio.start_server(played.accept, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", played
    for head in played.heads:
        assert "\r\naccept-encoding: identity\r\n" in head
        assert head.count("accept-encoding") == 1
    assert played.heads


@pytest.mark.parametrize("coding", ["gzip", "GZip", "deflate", "identity, gzip", "x"])
async def test_a_compressed_answer_is_refused_unread(coding: str) -> None:
    async with compressing(coding) as (url, _), plain_client() as http:
        with pytest.raises(AnswerCompressed, match=f"'{coding}'"):
            await http.get(url)
        with pytest.raises(httpx.HTTPError):
            async with http.stream("GET", url):
                pass
    async with compressing(coding) as (url, _), http_client(url, "key", 5) as http:
        with pytest.raises(AnswerCompressed):
            await http.get("/health")


async def test_an_answer_that_says_it_is_as_it_is_is_taken() -> None:
    async with compressing("identity") as (url, _), plain_client() as http:
        assert (await http.get(url)).content == BOMB


async def test_a_model_server_that_compresses_will_not_do() -> None:
    async with compressing() as (url, _):
        with pytest.raises(SpeechUnavailable, match="compressed"):
            async with OpenAiEngine(OpenAiOptions((url,))):
                pass


async def test_a_speech_server_that_compresses_will_not_do() -> None:
    async with compressing() as (url, _):
        speech = OpenAiSpeech(OpenAiSpeechOptions(url=url))
        try:
            with pytest.raises(SynthesizerUnavailable, match="compressed"):
                await speech.open()
        finally:
            await speech.aclose()


async def test_a_vicidial_that_compresses_is_unavailable() -> None:
    async with compressing() as (url, _):
        options = VicidialOptions(url=url, user="bot", password="Secret-1")
        async with VicidialClient(options) as client:
            with pytest.raises(VicidialUnavailable, match="AnswerCompressed"):
                await client.version("agent")
