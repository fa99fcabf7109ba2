"""The HTTP port's application: routes, and what stands around all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from agi_handlers.records.store import StoreOptions
from config import Settings, comma_list
from model.audio.wav import AudioLimits
from rest_api import (
    calls,
    chat,
    control_desk,
    docs,
    health,
    live,
    live_calls,
    openai,
)
from rest_api.audio_bodies import DEFAULT_LIMITS, AudioDecoding
from rest_api.auth import ApiKeyGate, KeyRing, LiveKeys
from rest_api.console import login
from rest_api.console import pages as console
from rest_api.console.sessions import Sessions
from rest_api.control_desk import ControlDesk
from rest_api.conversations import Conversations, KeepingOptions
from rest_api.errors import add_error_answers
from rest_api.limits import ClientLimits, LimitOptions
from rest_api.requests import BODY_TIMEOUT_S, MAX_BODY_BYTES, RequestEnvelope
from rest_api.service_state import ServiceState
from rest_api.talk import pages as talk

_DESCRIPTION: Final = """
Conversations with the bot, in text and audio.

Answers are `{"success": true, "data": {"response": "..."}}`; failures
`{"success": false, "error": {"code": "...", "message": "..."}}` with a fitting HTTP
status.  From any address but loopback an API key is needed: `Authorization: Bearer
KEY` or `X-API-Key: KEY`.

Live dialogues with speech both ways run over the WebSocket `/chat/live`.
"""


@dataclass(frozen=True, slots=True)
class AppOptions:
    """Who may come in and how much they may bring."""

    keys: KeyRing | LiveKeys | None = None
    """None: everybody may come in."""
    cors_origins: Sequence[str] = ()
    """Web pages of these origins may call us; by default none."""
    max_body_bytes: int = MAX_BODY_BYTES
    body_timeout_s: float = BODY_TIMEOUT_S
    limits: LimitOptions = field(default_factory=LimitOptions)
    keeping: KeepingOptions | None = None
    """Of conversations that clients ask to have kept."""
    data_dir: Path | None = None
    """Where calls are kept; None: they are not served."""
    records_url: str = field(default="", repr=False)
    """Of a store that hosts share; empty: a file in that folder."""
    caller_secret: str = field(default="", repr=False)
    audio: AudioLimits = DEFAULT_LIMITS
    """Of one recording in a request."""
    reply_timeout_s: float = 120.0
    """A long reply on a CPU; after it the client is told, and the engine freed."""

    @classmethod
    def of(cls, settings: Settings, keys: LiveKeys) -> AppOptions:
        """As the operator wants them."""
        return cls(
            keys=keys,
            cors_origins=tuple(comma_list(settings.cors_origins)),
            max_body_bytes=settings.http_max_body_mb << 20,
            body_timeout_s=settings.http_body_timeout_s,
            limits=LimitOptions(
                requests_per_min=settings.http_requests_per_min,
                burst=settings.http_burst,
                replies_at_once=settings.http_replies_per_client,
                all_replies_at_once=settings.http_replies,
                wrong_keys_per_min=settings.http_wrong_keys_per_min,
            ),
            keeping=KeepingOptions(
                max_conversations=settings.conversations_max,
                idle_s=settings.conversations_idle_s,
                max_turns=settings.conversations_turns,
                max_text_chars=settings.conversations_chars,
                max_audio_s=settings.conversations_audio_s,
            ),
            data_dir=settings.data_dir,
            records_url=settings.records_url.get_secret_value(),
            caller_secret=settings.caller_key.get_secret_value(),
            audio=AudioLimits(
                max_s=settings.http_max_audio_s,
                max_encoded_bytes=settings.http_max_body_mb << 20,
            ),
            reply_timeout_s=settings.http_reply_timeout_s,
        )


def create_app(state: ServiceState, options: AppOptions | None = None) -> FastAPI:
    """The application over a service that is there or still starting."""
    options = options or AppOptions()
    app = FastAPI(
        title="Ultravox phone bot",
        description=_DESCRIPTION,
        docs_url=None,  # its page needs another host's script; ours is in docs.py
        redoc_url=None,
        # No route is an alias of another, so that every one is checked for a key.
        redirect_slashes=False,
    )
    keys = (
        options.keys if isinstance(options.keys, LiveKeys) else LiveKeys(options.keys)
    )
    app.state.service = state
    app.state.keys = keys
    app.state.sessions = Sessions()
    app.state.control_desk = ControlDesk()
    app.state.decoding = AudioDecoding(options.audio)
    app.state.reply_timeout_s = options.reply_timeout_s
    app.state.conversations = Conversations(options.keeping)
    for router in (chat.router, openai.router, health.router, live.router, docs.router):
        app.include_router(router)
    app.openapi = partial(docs.describe, app)  # type: ignore[method-assign]
    app.include_router(talk.router)
    app.include_router(login.router)
    app.include_router(console.router)
    app.include_router(control_desk.router)
    app.include_router(live_calls.router)
    if options.data_dir is not None:
        store = StoreOptions(
            options.data_dir, options.records_url, options.caller_secret
        )
        calls.add_calls(app, store)
    add_error_answers(app)
    # The last one added is the outermost.
    app.add_middleware(ClientLimits, options=options.limits)
    app.add_middleware(
        ApiKeyGate,
        keys=keys,
        sessions=app.state.sessions,
        allowed_origins=options.cors_origins,
        wrong_keys_per_min=options.limits.wrong_keys_per_min,
    )
    if options.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(options.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    app.add_middleware(
        RequestEnvelope,
        max_body_bytes=options.max_body_bytes,
        body_timeout_s=options.body_timeout_s,
    )
    return app
