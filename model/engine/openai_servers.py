"""The model servers an engine asks: which are there, and which to ask first.

Each is looked at again and again, so that a request need not find out that one is
gone. One that does not answer is not given up: it is asked last.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import httpx

from model.engine.openai_wire import error_of, model_named
from model.errors import SpeechError, SpeechUnavailable
from model.http_bodies import plain_client, read_bounded
from telemetry import fields

if TYPE_CHECKING:
    from model.engine.request import Session

logger = logging.getLogger(__name__)

_MODELS: Final = "/v1/models"


@dataclass(slots=True, eq=False)
class ModelServer:
    """One address; `problem` says why it is no good now, and is empty if it is."""

    http: httpx.AsyncClient
    model: str = ""
    problem: str = "not asked yet"
    num_requests: int = 0
    last: int = 0  # so that equals are asked in turn

    @property
    def url(self) -> str:
        """Without the path of the API."""
        return str(self.http.base_url).rstrip("/")

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request while it is under way."""
        self.num_requests += 1
        try:
            yield
        finally:
            self.num_requests -= 1


class ModelServers:
    """Several addresses of the same model."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        api_key: str,
        model: str,
        max_requests: int,
        connect_timeout_s: float,
        read_timeout_s: float,
        probe_interval_s: float,
    ) -> None:
        """`model` as the servers name it; empty: the first that each has."""
        self._model = model
        self._probe_interval_s = probe_interval_s
        self._probe_timeout_s = connect_timeout_s + read_timeout_s
        self._probing: asyncio.Task[None] | None = None
        self._turn = itertools.count(1)
        self._known: WeakKeyDictionary[Session, ModelServer] = WeakKeyDictionary()
        self._servers = [
            ModelServer(
                plain_client(
                    base_url=url.rstrip("/").removesuffix("/v1"),
                    headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
                    timeout=httpx.Timeout(read_timeout_s, connect=connect_timeout_s),
                    # one more for the probe, which must get through when all wait
                    limits=httpx.Limits(max_connections=max_requests + 1),
                )
            )
            for url in urls
        ]

    @property
    def model(self) -> str:
        """The model's name, as the first server that is there has it."""
        return next((s.model for s in self._servers if s.model), self._model)

    async def start(self) -> None:
        """Look for the servers, and go on looking until `aclose`.

        Raises:
            SpeechUnavailable: none answers with the model, and with ears.
        """
        try:
            await self.check()
        except BaseException:
            await self.aclose()
            raise
        self._probing = asyncio.create_task(self._probe())

    async def aclose(self) -> None:
        """Stop looking, close every connection."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
            self._probing = None
        for server in self._servers:
            await server.http.aclose()

    async def check(self) -> None:
        """Ask every server now.

        Raises:
            SpeechUnavailable: none will do; says why of each.
        """
        await asyncio.gather(*(self._look_at(server) for server in self._servers))
        if all(server.problem for server in self._servers):
            problems = "; ".join(f"{s.url}: {s.problem}" for s in self._servers)
            raise SpeechUnavailable(f"no model server: {problems}")

    def in_order(self, session: Session | None) -> list[ModelServer]:
        """Those that are there first; of them the one that knows this call, then the
        least busy."""
        known = self._known.get(session) if session is not None else None
        order = sorted(
            self._servers,
            key=lambda s: (bool(s.problem), s is not known, s.num_requests, s.last),
        )
        order[0].last = next(self._turn)
        return order

    def note_success(self, server: ModelServer, session: Session | None) -> None:
        """It has this call's dialogue in its cache now."""
        if session is not None:
            self._known[session] = server

    def note_failure(self, server: ModelServer, reason: str) -> None:
        """A request found it gone; the next look at it may find it back."""
        server.problem = reason

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(self._probe_interval_s)
            await asyncio.gather(*(self._look_at(server) for server in self._servers))

    async def _look_at(self, server: ModelServer) -> None:
        before = server.problem
        try:
            # not httpx's own: a server that trickles would never run into those
            async with (
                asyncio.timeout(self._probe_timeout_s),
                server.http.stream("GET", _MODELS) as answer,
            ):
                body = await read_bounded(answer)
            if answer.is_error:
                raise error_of(answer.status_code, body.decode(errors="replace"))
            server.model = model_named(body, self._model)
            server.problem = ""
        except TimeoutError:
            server.problem = "no answer in time"
        except (httpx.HTTPError, SpeechError) as exc:
            server.problem = str(exc) or type(exc).__name__
        if before and not server.problem:
            logger.info(
                "model_server_found", extra=fields(url=server.url, model=server.model)
            )
        elif server.problem and not before:
            logger.warning(
                "model_server_failed",
                extra=fields(url=server.url, reason=server.problem),
            )
