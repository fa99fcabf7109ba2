"""One call to a bot: dial, talk, hang up, and what was measured."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tools.caller.agi_session import AgiSession
from tools.caller.agi_wire import Channel, environment_block
from tools.caller.applications import Applications
from tools.caller.channel import Abilities, PretendChannel
from tools.caller.ear import Ear
from tools.caller.journal import Journal
from tools.caller.line import TelephoneLine
from tools.caller.mouth import Mouth
from tools.caller.say_items import Item
from tools.caller.turns import Turn, is_answered, measured_turns
from tools.caller.wheel import Wheel


@dataclass(frozen=True, slots=True)
class CallPlan:
    """Whom to call, what to say, when to stop."""

    host: str
    port: int
    script: str = "ultravox"
    args: Sequence[str] = ()
    items: Sequence[Item] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    about: Channel = field(default_factory=Channel)
    is_answered: bool = False
    """The channel is up before the bot gets it, as a dialer's calls are."""
    threshold_rms: float = 200.0
    line: TelephoneLine | None = None
    """Of this call alone; None: everything arrives as it was said."""
    max_s: float = 60.0
    """Hang up then, whatever happens."""
    linger_s: float = 3.0
    """Hang up when all is said, the bot has answered and been quiet for so long."""
    connect_timeout_s: float = 2.0  # fixed in Asterisk
    after_hangup_s: float = 15.0
    """How long a bot may keep the dialogue after the hang-up."""


@dataclass(frozen=True, slots=True)
class CallReport:
    """What came of a call; times in seconds since it was placed."""

    ended: str
    """caller, time, bot (hung up), returned (to the dialplan), refused, unreachable."""
    answered_s: float | None
    greeting_ms: int | None
    """Answer to the first voiced sample heard, when nobody spoke before."""
    turns: Sequence[Turn]
    ear: Ear
    legs: Sequence[str]
    variables: Mapping[str, str]
    goes_on_at: Mapping[str, str]
    keys_heard: str
    errors: Sequence[str]


async def place_call(
    plan: CallPlan, abilities: Abilities, journal: Journal, wheel: Wheel
) -> CallReport:
    """Place the call and stay until it is over."""
    channel = PretendChannel(
        about=plan.about,
        abilities=abilities,
        mouth=Mouth(plan.items, plan.threshold_rms, plan.line),
        ear=Ear(plan.threshold_rms),
        journal=journal,
        is_behind=wheel.is_behind,
        variables=dict(plan.variables),
    )
    ended = "unreachable"
    applications = Applications(channel)
    try:
        async with asyncio.timeout(plan.connect_timeout_s):
            reader, writer = await asyncio.open_connection(plan.host, plan.port)
    except (OSError, TimeoutError) as exc:
        reason = str(exc) or "no answer"
        journal.error(f"nobody listens at {plan.host}:{plan.port}: {reason}")
        return _report(ended, channel)
    journal.event("connected", address=f"{plan.host}:{plan.port}")
    if plan.is_answered:
        channel.answer()
    session = AgiSession(channel, reader, writer, applications.execute)
    try:
        with wheel.turning(lambda: _on_turn(plan, channel)):
            await _stay(plan, channel, session)
    finally:
        applications.close()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    if channel.hung_up_by:
        ended = channel.hung_up_by
    else:
        ended = "returned" if channel.answered_s is not None else "refused"
        journal.event("returned-to-dialplan", goes_on_at=channel.goes_on_at)
    return _report(ended, channel)


def _on_turn(plan: CallPlan, channel: PretendChannel) -> None:
    now_s = channel.journal.now()
    channel.on_slot_time(now_s)
    if now_s > plan.max_s:
        channel.hang_up("time")
    elif plan.items and channel.mouth.is_done and _is_over(plan, channel, now_s):
        channel.hang_up("caller")


def _is_over(plan: CallPlan, channel: PretendChannel, now_s: float) -> bool:
    ear, said = channel.ear, channel.mouth.said
    if ear.is_hearing or not is_answered(said, ear.sounds):
        return False
    last_s = max(ear.last_voiced_s, said[-1].voiced_end_s if said else 0.0)
    return now_s - last_s > plan.linger_s


async def _stay(plan: CallPlan, channel: PretendChannel, session: AgiSession) -> None:
    """Until the bot closes the dialogue, or keeps it too long after the hang-up."""
    url = f"agi://{plan.host}:{plan.port}/{plan.script}"
    environment = environment_block(plan.about, url, plan.script, plan.args)
    dialogue = asyncio.ensure_future(session.run(environment))
    hangup = asyncio.ensure_future(channel.hung_up.wait())
    try:
        await asyncio.wait((dialogue, hangup), return_when=asyncio.FIRST_COMPLETED)
        if not dialogue.done():
            await asyncio.wait((dialogue,), timeout=plan.after_hangup_s)
        if dialogue.done():
            dialogue.result()
        else:
            channel.journal.error(
                f"the bot kept the dialogue for {plan.after_hangup_s:g} s "
                "after the hang-up"
            )
    finally:
        for task in (dialogue, hangup):
            task.cancel()
        await asyncio.gather(dialogue, hangup, return_exceptions=True)


def _report(ended: str, channel: PretendChannel) -> CallReport:
    ear, said = channel.ear, channel.mouth.said
    ear.finish()
    turns = measured_turns(said, ear.sounds)
    return CallReport(
        ended=ended,
        answered_s=channel.answered_s,
        greeting_ms=_greeting_ms(channel),
        turns=turns,
        ear=ear,
        legs=tuple(dict.fromkeys(channel.legs_used)),
        variables=dict(channel.set_by_bot),
        goes_on_at=dict(channel.goes_on_at),
        keys_heard=channel.keys_heard,
        errors=tuple(channel.journal.errors),
    )


def _greeting_ms(channel: PretendChannel) -> int | None:
    answered_s, sounds = channel.answered_s, channel.ear.sounds
    if answered_s is None or not sounds:
        return None
    said = channel.mouth.said
    if said and said[0].voiced_start_s < sounds[0].start_s:
        return None
    return round((sounds[0].start_s - answered_s) * 1000)
