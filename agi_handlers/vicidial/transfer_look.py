"""Before a transfer is promised: is somebody free there, or where else can he go?"""

from __future__ import annotations

import logging

from agi_handlers.campaigns import STAY, Campaign, TransferTarget
from agi_handlers.errors import VicidialError
from agi_handlers.vicidial.client import VicidialClient
from agi_handlers.vicidial.endings import DEFAULT_IN_GROUP
from telemetry import fields

logger = logging.getLogger(__name__)

# States of an agent in which a call reaches him at once.
_FREE = ("READY", "CLOSER")


async def confirm_transfer(
    client: VicidialClient, campaign: Campaign, destination: str
) -> str | None:
    """The target for a destination's name: the first on its way where somebody is free.

    The last of the way is not looked at: there calls queue.  None: nobody is free, and
    the campaign wants the caller told so.
    """
    target = ""
    ways = campaign.ways(destination)
    for place, way in enumerate(ways):
        if way == STAY:
            return None
        found = campaign.target_of(way)
        if found is None:
            logger.warning("transfer_target_unknown", extra=fields(name=way))
            return ""
        target = found
        if place == len(ways) - 1 or await _is_somebody_free(client, target):
            break
        logger.info("nobody_free_there", extra=fields(target=target))
    return target


async def _is_somebody_free(client: VicidialClient, target: str) -> bool:
    """What cannot be found out does not stop a transfer: VICIdial queues calls."""
    wanted = TransferTarget.parse(target)
    try:
        if wanted.kind == "agent":
            line = await client.agent_status(wanted.name)
            return line is not None and line.status in _FREE
        if wanted.kind == "in_group" and wanted.name != DEFAULT_IN_GROUP:
            group = await client.in_group_status(wanted.name)
            return group is None or group.is_somebody_free
    except VicidialError as exc:
        logger.warning("in_group_not_read", extra=fields(error=str(exc)))
    return True
