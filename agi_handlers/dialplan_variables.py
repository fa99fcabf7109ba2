"""Every channel variable the bot sets for the dialplan, once.

The dialplan reads them after ``AGI(agi://bot/...)`` came back; ``dialplan/`` holds
the extensions that do. Values are kept free of commas: pasted into an application's
arguments, a value is cut at the first one.
"""

from __future__ import annotations

from enum import StrEnum

# Set to BOT_RESULT_DONE as the bot's last act. Anything else means that a person
# must take the call: AGISTATUS is SUCCESS even when the bot crashed.
BOT_RESULT = "BOT_RESULT"
BOT_RESULT_DONE = "done"

# How it went, one of BotStatus, and why in a few words for the Asterisk log.
BOT_STATUS = "BOT_STATUS"
BOT_REASON = "BOT_REASON"

# VICIdial status the call was given, at most six characters.
BOT_DISPOSITION = "BOT_DISPOSITION"

# Where the dialplan shall take the caller: an extension of its own context.
BOT_TRANSFER_TO = "BOT_TRANSFER_TO"

# What that is on VICIdial: in_group or extension.
BOT_TRANSFER_KIND = "BOT_TRANSFER_KIND"

# Our UUID of the call, to find its record and its log lines.
BOT_CALL_ID = "BOT_CALL_ID"


class BotStatus(StrEnum):
    """Values of BOT_STATUS."""

    DONE = "done"  # the talk ended as it should; nothing left to do
    TRANSFER = "transfer"  # BOT_TRANSFER_TO says where the caller shall go
    HANGUP = "hangup"  # the caller hung up
    READY = "ready"  # agi://bot/health: a call would be taken
    NOT_READY = "not_ready"  # agi://bot/health: no model, or no speech half
    BUSY = "busy"  # as many calls as we take
    CLOSED = "closed"  # outside the campaign's hours
    DRAINING = "draining"  # going down: no new calls
    UNKNOWN_SCRIPT = "unknown_script"  # no handler of that name
    FAILED = "failed"  # a fault of ours; BOT_REASON names it
