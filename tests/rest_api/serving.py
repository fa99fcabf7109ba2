"""The HTTP application on a real port, with the scripted engine and a tone voice."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from model.engine.interface import ReplyEngine
from model.engine.scripted import ScriptedEngine, ScriptedOptions
from model.live_messages import MAX_AUDIO_BYTES
from model.service import LocalSpeechService, ServiceOptions
from model.tts.speaker import Speaker
from model.turn_model import TurnModel
from rest_api.app import AppOptions, create_app
from rest_api.http_protocol import ConnectionLimits, guarded_http
from rest_api.service_state import ServiceState
from tests.fakes.tone_synthesizer import ToneSynthesizer

_GRACE_S: Final = 5.0


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that happens on the other side of a socket."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it is not ours to signal
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving_app(
    app: Any, connections: ConnectionLimits | None = None
) -> AsyncIterator[str]:
    """The application's address on loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=guarded_http(connections),
            ws="websockets-sansio",
            ws_max_size=MAX_AUDIO_BYTES,
            log_config=None,
            access_log=False,
            lifespan="off",
        )
    )
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[listener])
    await server.on_tick(0)  # the headers of every answer
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await _stop(server)


async def _stop(server: uvicorn.Server) -> None:
    """As uvicorn does, which looks ten times a second whether it is to stop, and
    whether everything has; of a thousand tests that would be minutes."""
    state = server.server_state
    for listening in server.servers:
        listening.close()
    for connection in list(state.connections):
        connection.shutdown()
    with suppress(TimeoutError):
        async with asyncio.timeout(_GRACE_S):
            while state.connections or state.tasks:  # noqa: ASYNC110 - as uvicorn
                await asyncio.sleep(0.002)
    for task in state.tasks:
        task.cancel()
    for listening in server.servers:
        await listening.wait_closed()


@asynccontextmanager
async def serving(
    replies: Sequence[str] = ("Hello there.",),
    *,
    engine: ReplyEngine | None = None,
    script: ScriptedOptions | None = None,
    service: ServiceOptions | None = None,
    app: AppOptions | None = None,
    synthesizer: ToneSynthesizer | None = None,
    state: ServiceState | None = None,
    seen_from: str = "",
    connections: ConnectionLimits | None = None,
    turn_model: TurnModel | None = None,
) -> AsyncIterator[str]:
    """A ready service; yields its address.

    `seen_from`: the address that every client is taken to have, for tests of keys.
    """
    engine = engine or ScriptedEngine(script or ScriptedOptions(tuple(replies)))
    synthesizer = synthesizer or ToneSynthesizer()
    state = state or ServiceState()
    async with engine:
        state.ready(
            LocalSpeechService(
                engine,
                synthesizer,
                Speaker(synthesizer),
                service,
                turn_model=turn_model,
            )
        )
        made = create_app(state, app)
        async with serving_app(_seen_from(made, seen_from), connections) as url:
            yield url
        made.state.decoding.close()


def _seen_from(app: ASGIApp, address: str) -> ASGIApp:
    async def from_there(scope: Scope, receive: Receive, send: Send) -> None:
        if address:
            scope["client"] = (address, 50_000)
        await app(scope, receive, send)

    return from_there


@asynccontextmanager
async def starting_app(
    state: ServiceState, app: AppOptions | None = None
) -> AsyncIterator[str]:
    """A service that has no model (yet); yields its address."""
    async with serving_app(create_app(state, app)) as url:
        yield url
