"""A campaign's wishes about answering machines, carried out around one conversation.

screen ─▶ conversation ─┬─ it ends by itself
                        └─ a machine answered ─▶ message, disposition
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from agi_handlers.audio_leg.tapped_leg import TappedLeg
from agi_handlers.campaigns import Campaign
from agi_handlers.conversation.answer_listener import AnswerListener
from agi_handlers.conversation.answer_rules import AnswerOptions
from agi_handlers.conversation.answer_screen import AnswerScreen, ScreenOptions
from agi_handlers.conversation.call import Call
from agi_handlers.conversation.call_notes import CallNotes
from agi_handlers.conversation.machine_message import MachineMessage
from agi_handlers.conversation.outcome import MACHINE_ANSWERED, CallOutcome
from agi_handlers.phone import Phone
from model.speech import SpeechSession
from model.vad.listener import CallerEar
from telemetry import fields

logger = logging.getLogger(__name__)

# Models that know the world: what they write down of strangers is what was said.
_JUDGES: Final = ("published", "remote")


def open_screen(
    phone: Phone,
    campaign: Campaign,
    session: SpeechSession,
    notes: CallNotes,
    *,
    is_full_duplex: bool,
) -> AnswerScreen | None:
    """None: the campaign does not ask who answers."""
    wanted = campaign.answering
    if wanted.machine == "off":
        return None
    can_judge = phone.speech_status.weights in _JUDGES
    options = AnswerOptions(listen_first_ms=round(wanted.listen_first_s * 1000))
    if not can_judge:
        # there is no word to wait for
        options = replace(options, judgement_ms=300)
    language = campaign.language or phone.settings.language
    listener = AnswerListener(
        _ear(phone, is_full_duplex=is_full_duplex), language, options
    )
    return AnswerScreen(
        listener, session, notes, ScreenOptions(wanted.machine, can_judge)
    )


async def attend(
    call: Call,
    screen: AnswerScreen | None,
    leg: TappedLeg,
    phone: Phone,
    campaign: Campaign,
    session: SpeechSession,
    notes: CallNotes,
) -> CallOutcome:
    """The conversation, and what comes after it when a machine answered."""
    if screen is None:
        return await call.run()
    answered_s = asyncio.get_running_loop().time()
    async with aclosing(screen):
        screen.leg = leg
        outcome = await call.run()
    if outcome.reason != MACHINE_ANSWERED:
        return outcome
    verdict = screen.verdict
    assert verdict is not None
    statuses = campaign.dispositions
    match verdict.answered_by:
        case "fax":
            return replace(outcome, disposition=statuses.fax)
        case "no_service":
            return replace(outcome, disposition=statuses.no_service)
        case "machine" if campaign.answering.machine == "leave_message":
            ear = _ear(phone, is_full_duplex=leg.is_full_duplex)
            message = MachineMessage(leg, session, ear, notes, answered_s)
            fate = await message.leave(
                campaign.answering.message, at_once=verdict.reason == "beep"
            )
            logger.info("message", extra=fields(fate=fate))
            if fate == "left":
                return replace(outcome, disposition=statuses.message_left)
    return replace(outcome, disposition=statuses.machine)


def _ear(phone: Phone, *, is_full_duplex: bool) -> CallerEar:
    options = phone.endpointing_options(is_full_duplex=is_full_duplex)
    return CallerEar(phone.detector, options)
