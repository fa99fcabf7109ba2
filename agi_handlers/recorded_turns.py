"""agi://bot/recorded_turns: converse by RECORD FILE and STREAM FILE only.

Works on every Asterisk, without audio sockets; the caller cannot interrupt.
"""

from __future__ import annotations

from agi_handlers.agi.connection import AgiConnection
from agi_handlers.agi.protocol import AgiRequest
from agi_handlers.phone import Phone
from agi_handlers.ultravox import ultravox


async def recorded_turns(phone: Phone, request: AgiRequest, agi: AgiConnection) -> None:
    """The conversation of `ultravox`, half duplex whatever the dialer can do."""
    await ultravox(phone, request, agi, media="recorded_turns")
