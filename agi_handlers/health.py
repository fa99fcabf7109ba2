"""agi://bot/health: would a call be taken now?

Does not answer the channel.  Sets `BOT_STATUS` to `ready`, or to the reason why not, so
that the dialplan can choose before anybody picks up.
"""

from __future__ import annotations

from agi_handlers import dialplan_variables as variables
from agi_handlers.agi import commands
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.agi.protocol import AgiRequest
from agi_handlers.dialplan_variables import BotStatus
from agi_handlers.phone import Phone


async def health(phone: Phone, request: AgiRequest, agi: AgiConnection) -> None:
    """Tell the dialplan whether to send the call here."""
    status, reason = phone.why_not() or (BotStatus.READY, "")
    await agi.execute(commands.set_variable(variables.BOT_REASON, reason))
    await agi.execute(commands.set_variable(variables.BOT_STATUS, str(status)))
