"""Why a leg ended without being told to: the caller left, or the leg broke.

The result of the EXEC that carried the leg says little (it differs between versions),
so the channel itself decides.
"""

from __future__ import annotations

import asyncio

from agi_handlers.agi.commands import ChannelState, ExecEnded, channel_status
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.audio_leg.leg import CloseReason
from agi_handlers.errors import ChannelGone, TelephonyError


async def why_ended(
    agi: AgiConnection,
    exec_task: asyncio.Task[ExecEnded],
    *,
    detail: str,
    timeout_s: float,
) -> tuple[CloseReason, str]:
    """The reason for LegClosed, and a detail when it is a fault.

    detail: what was seen of the leg's own end.
    timeout_s: for EXEC to be answered, and again for the channel's state.
    """
    await asyncio.wait((exec_task,), timeout=timeout_s)
    if agi.hung_up:
        return "caller_hung_up", ""
    if not exec_task.done():
        return "lost", f"{detail}; Asterisk does not answer EXEC"
    try:
        # AGISIGHUP=no on the channel: then there is no HANGUP line, only this
        state = await agi.execute(channel_status(), timeout_s=timeout_s)
    except ChannelGone:
        return "caller_hung_up", ""
    except TelephonyError as exc:
        return "lost", f"{detail}; {exc}"
    return ("lost", detail) if state is ChannelState.UP else ("caller_hung_up", "")
