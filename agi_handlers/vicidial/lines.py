"""The bot's lines at the dialer: closed before a stop, opened again after a start.

    SIGTERM ─▶ close   the dialer sends no more calls; busy lines finish
    start   ─▶ open    only what we closed: a note on disk says so

A remote agent that somebody else made INACTIVE stays so.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from pathlib import Path

from agi_handlers.errors import VicidialError
from agi_handlers.vicidial.client import VicidialClient
from telemetry import ERRORS, fields

logger = logging.getLogger(__name__)

NOTE_FILE = "vicidial-lines-closed.json"


class Lines:
    """Remote agents by their User ID Start."""

    def __init__(
        self, client: VicidialClient, data_dir: Path, agent_users: Iterable[str]
    ) -> None:
        self._client = client
        self._note = data_dir / NOTE_FILE
        self._agent_users = tuple(dict.fromkeys(user for user in agent_users if user))

    async def close(self) -> None:
        """No new calls for us; what VICIdial refuses is said, and the stop goes on."""
        for user in self._agent_users:
            try:
                if await self._client.agent_status(user) is None:
                    logger.info("line_is_closed_already", extra=fields(agent_user=user))
                    continue
                # on disk first: a line closed and forgotten would stay so for good
                await asyncio.to_thread(self._write, {*self._read(), user})
                await self._client.update_remote_agent(user, is_active=False)
            except (VicidialError, OSError) as exc:
                ERRORS.labels(kind="vicidial_lines").inc()
                logger.error(
                    "line_not_closed", extra=fields(agent_user=user, error=str(exc))
                )
            else:
                logger.info("line_closed", extra=fields(agent_user=user))

    async def open(self) -> bool:
        """Open what we closed; False: some are still closed, try again."""
        closed = await asyncio.to_thread(self._read)
        for user in sorted(closed):
            try:
                await self._client.update_remote_agent(user, is_active=True)
                closed.discard(user)
                await asyncio.to_thread(self._write, closed)
            except (VicidialError, OSError) as exc:
                ERRORS.labels(kind="vicidial_lines").inc()
                logger.error(
                    "line_not_opened",
                    extra=fields(
                        agent_user=user,
                        error=str(exc),
                        advice="Admin > Remote Agents: Status ACTIVE",
                    ),
                )
            else:
                logger.info("line_opened", extra=fields(agent_user=user))
        return not closed

    def _read(self) -> set[str]:
        try:
            found = json.loads(self._note.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return set()
        except (OSError, ValueError) as exc:
            logger.error(
                "closed_lines_unreadable",
                extra=fields(file=str(self._note), error=str(exc)),
            )
            return set()
        return {user for user in found if isinstance(user, str)}

    def _write(self, users: set[str]) -> None:
        if not users:
            self._note.unlink(missing_ok=True)
            return
        self._note.parent.mkdir(parents=True, exist_ok=True)
        written = self._note.with_suffix(".new")
        written.write_text(json.dumps(sorted(users)), encoding="utf-8")
        written.replace(self._note)
