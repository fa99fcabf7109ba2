"""What the API user may do, found out without changing anything.

Each function is asked about a call, a lead or a number that does not exist: a user who
may use it hears that there is none, another one that he may not.  `add_dnc_phone` has
no such question, so its permission (Modify Lists) shows with the first opt-out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from agi_handlers.campaigns import Campaign, TransferTarget
from agi_handlers.vicidial.client import VicidialClient
from agi_handlers.vicidial.endings import DEFAULT_IN_GROUP
from agi_handlers.vicidial.responses import LoginRefused, Refusal, Refused

NO_CALL = "V0000000000000000000"
NO_LEAD_ID = 2_147_483_647
NO_NUMBER = "0000000000"


@dataclass(frozen=True, slots=True)
class Shortcoming:
    """Something that would fail in a call."""

    what: str
    cure: str


async def missing_permissions(
    client: VicidialClient, agent_user: str, *, drains: bool
) -> list[Shortcoming]:
    """Functions the user may not use.

    Raises:
        VicidialError: VICIdial gave no usable answer; what is missing is not known.
    """
    asked: dict[str, Callable[[], Awaitable[object]]] = {
        "callid_info (View Reports)": lambda: client.callid_info(NO_CALL),
        "lead_all_info (Modify Leads)": lambda: client.lead_all_info(NO_LEAD_ID),
        "lead_search": lambda: client.lead_search(NO_NUMBER),
        "update_lead (Modify Leads)": lambda: client.update_lead(
            NO_LEAD_ID, {"rank": "1"}
        ),
        "update_log_entry": lambda: client.update_log_entry("-", NO_CALL, "NA"),
        "ra_call_control (Agent API Access)": lambda: client.hang_up(
            NO_CALL, agent_user, "NA"
        ),
    }
    if drains:
        asked["update_remote_agent (Modify Remote Agents)"] = lambda: (
            client.update_remote_agent("0", is_active=True)
        )
    found = []
    for what, answer in asked.items():
        try:
            await answer()
        except LoginRefused:
            raise
        except Refused as exc:
            if exc.reason is Refusal.PERMISSION:
                cure = "that permission, and API Allowed Functions, of the API user"
                found.append(Shortcoming(f"may not use {what}", cure))
            elif exc.reason is Refusal.UNKNOWN_FUNCTION:
                cure = "a newer VICIdial; until then the bot does without"
                found.append(Shortcoming(f"does not know {what}", cure))
    return found


async def missing_in_groups(
    client: VicidialClient, campaigns: Mapping[str, Campaign]
) -> list[Shortcoming]:
    """In-groups that personas transfer to and VICIdial does not have.

    Raises:
        VicidialError: as above.
    """
    users: dict[str, list[str]] = {}
    for name, campaign in campaigns.items():
        for text in campaign.transfer.values():
            target = TransferTarget.parse(text)
            if target.kind == "in_group" and target.name != DEFAULT_IN_GROUP:
                users.setdefault(target.name, []).append(name)
    found = []
    for in_group, names in users.items():
        if not await _has_group(client, in_group):
            cure = "make it, or correct [transfer] of that campaign file"
            what = f"has no in-group {in_group} (of {', '.join(names)})"
            found.append(Shortcoming(what, cure))
    if any(campaign.transfer_fallback for campaign in campaigns.values()):
        found += await _may_not_look(client, next(iter(users), ""))
    return found


async def _has_group(client: VicidialClient, group: str) -> bool:
    """By the log of a call that does not exist; in_group_status knows any name."""
    try:
        await client.update_log_entry(group, NO_CALL, "NA")
    except LoginRefused:
        raise
    except Refused as exc:
        return exc.reason is not Refusal.GROUP_NOT_FOUND
    return True


async def _may_not_look(client: VicidialClient, group: str) -> list[Shortcoming]:
    try:
        await client.in_group_status(group)
    except LoginRefused:
        raise
    except Refused as exc:
        if exc.reason in (Refusal.PERMISSION, Refusal.UNKNOWN_FUNCTION):
            cure = "allow in_group_status: [transfer_fallback] looks at agents with it"
            return [Shortcoming("may not use in_group_status", cure)]
    return []
