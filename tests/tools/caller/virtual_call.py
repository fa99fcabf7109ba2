"""A call in fast time: real sockets, but 20 ms of call take no longer than the I/O."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TextIO

from agi_handlers.agi.server import AgiServer, AgiServerOptions, Handler
from tools.caller.call import CallPlan, CallReport, place_call
from tools.caller.channel import Abilities, folders_of
from tools.caller.journal import Journal
from tools.caller.wheel import Wheel

HOST = "127.0.0.1"
# Rounds of the event loop in a slot: bytes go from one end to the other and back.
_ROUNDS = 12


class FastWheel(Wheel):
    """Turns as fast as the event loop does; ``now`` is its own clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def now(self) -> float:
        return self.now_s

    async def run(self) -> None:
        while True:
            for _ in range(_ROUNDS):
                await asyncio.sleep(0)
            self.now_s += 0.02
            for on_turn in tuple(self._turns):
                on_turn()


@contextmanager
def _turning(wheel: FastWheel) -> Iterator[None]:
    task = asyncio.get_running_loop().create_task(wheel.run())
    try:
        yield
    finally:
        task.cancel()


@asynccontextmanager
async def bot_at(handler: Handler, script: str = "bot") -> AsyncIterator[int]:
    """The port of a server with one script."""
    options = AgiServerOptions(host=HOST, port=0)
    async with AgiServer({script: handler}, options) as server:
        yield server.port


async def call(
    handler: Handler,
    plan: Callable[[int], CallPlan],
    *,
    abilities: Abilities | None = None,
    events: TextIO | None = None,
) -> CallReport:
    """Place a call to a bot that is nothing but handler."""
    wheel = FastWheel()
    journal = Journal(wheel.now, events)
    async with bot_at(handler) as port:
        with _turning(wheel):
            return await place_call(plan(port), abilities or here(), journal, wheel)


def here(
    *folders: Path, has_audiosocket: bool = True, runs_scripts: bool = False
) -> Abilities:
    """An Asterisk whose sounds are in folders."""
    return Abilities(
        folders_of(list(folders)),
        has_audiosocket=has_audiosocket,
        runs_scripts=runs_scripts,
    )
