"""Callers of a service under faults: what they heard and when, where the call went."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agi_handlers.call_records import records_path
from agi_handlers.records.archive import CallArchive, NoRecords, RecordsUnreadable
from tests.end_to_end.asterisk_lab import ROOT
from tests.end_to_end.bot_service import CAMPAIGNS, BotService
from tests.fakes.model_server import FAULTS, instructions
from tools.caller.agi_wire import Channel
from tools.caller.call import CallPlan, CallReport, place_call
from tools.caller.channel import Abilities, folders_of
from tools.caller.journal import Journal
from tools.caller.say_items import Item, parse_item
from tools.caller.wheel import Wheel

# Speaks once the bot has been quiet for so long: after the greeting.
_SYNTHESISING: Final = threading.Lock()
_AFTER_GREETING: Final = "quiet:200,0.8"


@functools.cache
def item(text: str) -> Item:
    """An item of tools.place_call's list; synthesised once a run."""
    with _SYNTHESISING:  # espeak is not for two threads at once
        return parse_item(text)


QUESTION: Final = (_AFTER_GREETING, "say:What are your opening hours on Monday?")


@dataclass(frozen=True, slots=True)
class Heard:
    """One call as its caller had it."""

    report: CallReport
    returned_s: float
    """When the call was over for the bot, seconds since it was placed."""
    wait_s: float
    """End of the caller's last words to the next thing that happens to him: he hears
    the bot, or is handed back to the dialplan, which takes him to people."""
    longest_wait_s: float
    """The longest such time of the call; words of his own end a wait, too."""
    record: dict[str, Any] | None

    @property
    def status(self) -> str:
        return self.report.variables.get("BOT_STATUS", "")

    @property
    def is_well_ended(self) -> bool:
        """Else the dialplan takes the caller to people."""
        return self.report.variables.get("BOT_RESULT") == "done"


async def heard(
    service: BotService,
    says: Sequence[str] = QUESTION,
    *,
    campaign: str = "default",
    script: str = "ultravox",
    about: Channel | None = None,
    max_s: float = 40.0,
    linger_s: float = 3.0,
) -> Heard:
    """Place a call to the service and stay to its end."""
    loop = asyncio.get_running_loop()
    # synthesising is slow and would hold up the frames of calls beside this one
    items = [await asyncio.to_thread(item, text) for text in says]
    wheel = Wheel()
    turning = asyncio.create_task(wheel.run())
    plan = CallPlan(
        "127.0.0.1",
        service.agi_port,
        script=f"{script}?campaign={campaign}",
        items=items,
        about=about or Channel(),
        max_s=max_s,
        linger_s=linger_s,
    )
    abilities = Abilities(sounds=folders_of([ROOT / "sounds"]))
    journal = Journal(loop.time)
    try:
        report = await place_call(plan, abilities, journal, wheel)
    finally:
        turning.cancel()
        with suppress(asyncio.CancelledError):
            await turning
    returned_s = journal.now()
    return Heard(
        report=report,
        returned_s=returned_s,
        wait_s=_wait_s(report, returned_s),
        longest_wait_s=_longest_wait_s(report, returned_s),
        record=await record_of(service, report),
    )


def _wait_s(report: CallReport, returned_s: float) -> float:
    if not report.turns:
        return returned_s
    end_s = report.turns[-1].end_s
    starts = [sound.start_s for sound in report.ear.sounds if sound.start_s >= end_s]
    return min([*starts, returned_s]) - end_s


def _longest_wait_s(report: CallReport, returned_s: float) -> float:
    spans = [(sound.start_s, sound.end_s) for sound in report.ear.sounds]
    spans += [(turn.start_s, turn.end_s) for turn in report.turns]
    spans.sort()
    longest_s, quiet_since_s = 0.0, report.answered_s or 0.0
    for start_s, end_s in [*spans, (returned_s, returned_s)]:
        longest_s = max(longest_s, start_s - quiet_since_s)
        quiet_since_s = max(quiet_since_s, end_s)
    return longest_s


async def record_of(
    service: BotService, report: CallReport, timeout_s: float = 5.0
) -> dict[str, Any] | None:
    """The call's record, once it has an end; None when there is none in time."""
    call_id = report.variables.get("BOT_CALL_ID", "")
    archive = CallArchive(records_path(service.data_dir))
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    while call_id:
        found = None
        with suppress(NoRecords, RecordsUnreadable):
            found = await asyncio.to_thread(archive.call, call_id)
        if (found is not None and found["ended_at"]) or loop.time() > deadline_s:
            return dict(found) if found is not None else None
        await asyncio.sleep(0.1)
    return None


def faulty_campaigns(folder: Path) -> Path:
    """A persona for each fault of the model server, named like it."""
    personas = {
        fault: {
            "instructions": instructions(fault),
            "phrases": dict(CAMPAIGNS["default"]),
            "rules": {"transcribe": False},
        }
        for fault in FAULTS
    }
    return write_campaigns(folder, personas)


def write_campaigns(folder: Path, campaigns: dict[str, dict[str, Any]]) -> Path:
    """TOML files of personas: top-level strings and tables of plain values."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in campaigns.items():
        lines = [
            f"{k} = {json.dumps(v)}" for k, v in content.items() if isinstance(v, str)
        ]
        for table, values in content.items():
            if isinstance(values, dict):
                lines += [
                    f"[{table}]",
                    *(f"{k} = {json.dumps(v)}" for k, v in values.items()),
                ]
        (folder / f"{name}.toml").write_text("\n".join([*lines, ""]))
    return folder
