"""agi://bot/ultravox: converse with the caller.

    query: campaign=NAME  campaigns/NAME.toml; `auto` or nothing: the one that claims
                          VICIdial's campaign or in-group, else `default`
           group=GROUP    that campaign or in-group, where the dialplan knows it

What the dialplan gets back is in `dialplan_variables`.  `BOT_RESULT=done` is set last
and only when the bot ended the call as it meant to.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from agi_handlers import dialplan_variables as variables
from agi_handlers.agi import commands
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.agi.protocol import AgiRequest
from agi_handlers.audio_leg.leg import AudioLeg, LegName
from agi_handlers.audio_leg.tapped_leg import TappedLeg
from agi_handlers.call_records import CallRecord, VicidialIds
from agi_handlers.campaign_shelf import choose_campaign, wants_group
from agi_handlers.campaigns import AUTO, Campaign
from agi_handlers.conversation.call import Call
from agi_handlers.conversation.call_notes import CallNotes
from agi_handlers.conversation.call_parts import CallParts
from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.conversation.promises import promises_transfer
from agi_handlers.conversation.turn_taking import TurnTaking
from agi_handlers.dialplan_variables import BotStatus
from agi_handlers.errors import (
    AgiCommandRefused,
    AgiConnectionLost,
    AgiTimeout,
    AudioLegUnavailable,
    ChannelGone,
)
from agi_handlers.live_audio import LiveAudio
from agi_handlers.live_calls import LiveCall
from agi_handlers.phone import Phone
from agi_handlers.recording import Recording
from agi_handlers.records.rows import CallRow, Result
from agi_handlers.screened_call import attend, open_screen
from agi_handlers.vicidial.call_control import VicidialCall
from agi_handlers.vicidial.endings import for_dialplan
from agi_handlers.vicidial.lead import NO_LEAD
from model.errors import SpeechError, SpeechOverloaded
from model.speech import SessionOptions, SpeechSession
from model.vad.listener import CallerEar
from telemetry import CALLS, CALLS_REFUSED, call_context, fields, mask_number

logger = logging.getLogger(__name__)

# Beyond the campaign's own limit: a call that is stuck in spite of every other
# watchdog lets go of its channel after this.
_STUCK_AFTER_S = 60.0


async def ultravox(
    phone: Phone,
    request: AgiRequest,
    agi: AgiConnection,
    *,
    media: LegName | None = None,
) -> None:
    """Converse, then tell the dialplan how it went."""
    call_id = str(uuid.uuid4())
    with call_context(
        call_id=call_id, uniqueid=request.uniqueid, channel=request.channel
    ):
        refused = phone.why_not()
        if refused is not None:
            await _refuse(agi, *refused)
            return
        asked = request.query.get("campaign", "")
        campaigns = dict(phone.campaigns)  # as they are now, for the whole call
        named = choose_campaign(campaigns, asked)
        if named is None:
            logger.error("unknown_campaign", extra=fields(campaign=asked))
            await _refuse(agi, BotStatus.FAILED, "unknown_campaign")
            return
        with phone.line():
            async with AsyncExitStack() as stack:
                line: VicidialCall | None = None
                if phone.vicidial is not None:
                    agent_user = named.vicidial.agent_user
                    line = await stack.enter_async_context(
                        phone.vicidial.open_call(request, call_id, agent_user)
                    )
                campaign = await _persona(campaigns, request, asked, line)
                phone.live.dialers.called(agi.peer_host, request.version)
                record = phone.open_record(_row(phone, request, campaign, call_id))
                with call_context(campaign=campaign.name):
                    try:
                        await _take(phone, request, agi, campaign, record, media, line)
                    except BaseException as exc:
                        record.ended(CallOutcome("failed", "crashed"), repr(exc))
                        raise


async def _persona(
    campaigns: Mapping[str, Campaign],
    request: AgiRequest,
    asked: str,
    line: VicidialCall | None,
) -> Campaign:
    """The campaign the dialplan names, or the one of VICIdial's group."""
    group, is_inbound = request.query.get("group", ""), False
    if line is not None and wants_group(campaigns, asked):
        identity = line.facts.identity
        is_inbound = identity is not None and identity.has_inbound_log
        if not group:
            await line.facts.fetch_group()
            group = line.facts.group
    found = choose_campaign(campaigns, asked, group, is_inbound=is_inbound)
    assert found is not None  # a default there is, and a name was found before
    if not asked or asked == AUTO:
        logger.info("campaign_chosen", extra=fields(campaign=found.name, group=group))
    return found


def _row(
    phone: Phone, request: AgiRequest, campaign: Campaign, call_id: str
) -> CallRow:
    return CallRow(
        call_id=call_id,
        started_at=time.time(),
        uniqueid=request.uniqueid,
        channel=request.channel,
        caller=request.callerid,
        extension=request.extension,
        campaign=campaign.name,
        model=phone.speech_status.model,
        voice=campaign.voice or phone.settings.tts_voice,
        language=campaign.language or phone.settings.language,
        persona_version=campaign.version,
        model_version=phone.speech_status.version,
        voice_version=phone.speech_status.voice,
    )


def _vicidial_ids(line: VicidialCall) -> VicidialIds:
    facts, identity = line.facts, line.facts.identity
    lead_id = facts.lead.lead_id or (identity.lead_id if identity else None)
    return VicidialIds(
        vicidial_call_id=identity.text if identity else "",
        lead_id=str(lead_id or ""),
        list_id=facts.list_id or facts.lead.values.get("list_id", ""),
        vicidial_campaign=facts.campaign_id,
        in_group=facts.in_group,
        agent_user=facts.agent_user,
    )


async def _take(
    phone: Phone,
    request: AgiRequest,
    agi: AgiConnection,
    campaign: Campaign,
    record: CallRecord,
    media: LegName | None,
    line: VicidialCall | None,
) -> None:
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    logger.info(
        "call_started",
        extra=fields(
            caller=mask_number(request.callerid),
            extension=request.extension,
            asterisk=request.version,
            peer=agi.peer,
        ),
    )
    lead = NO_LEAD
    if line is not None:
        lead = await line.follow(campaign)
        record.identified(_vicidial_ids(line))
    if not _is_open(campaign, line) and campaign.hours.outside == "people":
        record.ended(CallOutcome("refused", "outside_hours"))
        await _refuse(agi, BotStatus.CLOSED, "outside_hours")
        return
    filled = campaign.for_lead(lead)
    outcome, error = await _try_to_talk(phone, agi, filled, record, media, line)
    if line is not None:
        record.identified(_vicidial_ids(line))
        outcome = await line.end(outcome, agi)
    else:
        outcome = for_dialplan(outcome)
    record.ended(outcome, error)
    is_told = await report(agi, outcome)
    if line is None and outcome.status in ("transfer", "completed", "no_input"):
        where = f" to {outcome.transfer_to or 'people'}"
        what = f"transfer{where}" if outcome.status == "transfer" else "hang up"
        result: Result = "ok" if is_told else "failed"
        how = "the dialplan was told" if is_told else "the dialplan could not be told"
        phone.confirmed(record.call_id, result, f"{what}: {how}")
    CALLS.labels(outcome=outcome.status).inc()
    logger.info(
        "call_ended",
        extra=fields(
            status=outcome.status,
            reason=outcome.reason,
            disposition=outcome.disposition,
            transfer_to=outcome.transfer_to,
            seconds=round(loop.time() - started_s, 1),
        ),
    )


def _is_open(campaign: Campaign, line: VicidialCall | None) -> bool:
    """Whether the campaign's hours allow the call now."""
    if line is not None:
        return line.is_open()
    hours = campaign.hours
    return hours.is_open(hours.local_time(datetime.now(UTC), None, None))


async def _try_to_talk(
    phone: Phone,
    agi: AgiConnection,
    campaign: Campaign,
    record: CallRecord,
    media: LegName | None,
    line: VicidialCall | None,
) -> tuple[CallOutcome, str]:
    """How the talk ended, whatever ended it, and the fault if there was one."""
    error = ""
    set_call_id = commands.set_variable(variables.BOT_CALL_ID, record.call_id)
    try:
        await agi.execute(set_call_id)
        async with asyncio.timeout(_longest_s(phone, campaign)):
            outcome = await _talk(phone, agi, campaign, record, media, line)
    except SpeechOverloaded as exc:
        outcome = CallOutcome("refused", exc.code)
    except SpeechError as exc:
        phone.last_error = error = f"{exc.code}: {exc}"
        logger.error("speech_half_failed", extra=fields(error=str(exc), code=exc.code))
        outcome = CallOutcome("failed", exc.code)
    except (AudioLegUnavailable, AgiTimeout, AgiCommandRefused) as exc:
        phone.last_error = error = f"{type(exc).__name__}: {exc}"
        logger.error("audio_leg_unavailable", extra=fields(error=str(exc)))
        outcome = CallOutcome("failed", "audio_leg_unavailable")
    except ChannelGone:
        outcome = CallOutcome("caller_hung_up", "caller_hung_up")
    except TimeoutError:
        phone.last_error = error = "a call was stuck"
        logger.error("call_stuck")
        outcome = CallOutcome("failed", "stuck")
    return outcome, error


async def _talk(
    phone: Phone,
    agi: AgiConnection,
    campaign: Campaign,
    record: CallRecord,
    media: LegName | None,
    line: VicidialCall | None,
) -> CallOutcome:
    """Open dialogue and audio, hold the conversation."""
    settings = phone.settings
    options = SessionOptions(
        call_id=record.call_id,
        instructions=campaign.instructions,
        campaign=campaign.name,
        language=campaign.language or settings.language,
        voice=campaign.voice,
        max_new_tokens=campaign.max_new_tokens or settings.max_new_tokens,
        temperature=campaign.temperature,
        actions=campaign.rules.actions,
        transcribe=campaign.rules.transcribe,
    )
    # the dialogue first: a call that cannot be answered is not picked up
    async with phone.speech.open_session(options) as session:
        return await hold(phone, agi, campaign, record, media, session, line)


async def hold(
    phone: Phone,
    agi: AgiConnection,
    campaign: Campaign,
    record: CallRecord,
    media: LegName | None,
    session: SpeechSession,
    line: VicidialCall | None = None,
) -> CallOutcome:
    """A conversation over this AGI channel with whatever answers as `session`."""
    async with AsyncExitStack() as stack:
        leg = await stack.enter_async_context(
            phone.legs.open_leg(agi, media=media, call_id=uuid.UUID(record.call_id))
        )
        recording = _recording(phone, campaign, leg, record, stack)
        audio = LiveAudio(is_full_duplex=leg.is_full_duplex)
        notes = CallNotes(
            record.call_id, record.sink, redacts=phone.redacts_digits(campaign)
        )
        screen = open_screen(
            phone, campaign, session, notes, is_full_duplex=leg.is_full_duplex
        )
        taps = (audio, recording, screen)
        leg = TappedLeg(leg, [tap for tap in taps if tap is not None])
        ear = CallerEar(
            phone.detector,
            phone.endpointing_options(is_full_duplex=leg.is_full_duplex),
        )
        language = campaign.language or phone.settings.language
        may_transfer = "transfer" in campaign.rules.actions
        parts = CallParts(
            leg=leg,
            ear=ear,
            ears=phone.ears,
            expects=campaign.rules.expect,
            session=session,
            phrases=phone.phrases_of(campaign),
            prompts=phone.prompts_for(language),
            target_of=campaign.target_of,
            language=language,
            record_opt_out=line.opt_out if line is not None else None,
            confirm_transfer=line.confirm_transfer if line is not None else None,
            read_callback=(
                partial(line.callback.read, language=language)
                if line is not None
                else None
            ),
            promises=lambda text: may_transfer and promises_transfer(text, language),
            screen=screen,
            notes=notes,
            pause_recording=recording.pause if recording is not None else None,
            keys_are_secret=campaign.rules.pause_recording_for_keys,
        )
        options = replace(
            phone.turn_taking_options(campaign), is_closed=not _is_open(campaign, line)
        )
        call = Call(parts, TurnTaking(options))
        live = LiveCall(call, record, campaign, audio, leg.name, recording)
        with call_context(leg=leg.name), phone.talking(call), phone.live.known(live):
            logger.info("call_answered")
            record.answered(leg.name)
            phone.live.dialers.answered(agi.peer_host, leg.name)
            outcome = await attend(call, screen, leg, phone, campaign, session, notes)
            record.disclosed(parts.notes.disclosure)
            record.talked(call.num_turns, call.num_barge_ins)
            logger.info(
                "talk_ended",
                extra=fields(turns=call.num_turns, barge_ins=call.num_barge_ins),
            )
            return outcome


def _recording(
    phone: Phone,
    campaign: Campaign,
    leg: AudioLeg,
    record: CallRecord,
    stack: AsyncExitStack,
) -> Recording | None:
    if phone.recordings is None or not phone.is_recorded(campaign):
        return None
    recording = phone.recordings.begin(
        record.call_id, is_full_duplex=leg.is_full_duplex
    )
    if recording is not None:
        stack.callback(recording.close)
        record.recorded(recording.name)
    return recording


def _longest_s(phone: Phone, campaign: Campaign) -> float:
    return phone.turn_taking_options(campaign).max_call_ms / 1000 + _STUCK_AFTER_S


async def _refuse(agi: AgiConnection, status: BotStatus, reason: str) -> None:
    CALLS_REFUSED.labels(reason=reason).inc()
    logger.warning("call_refused", extra=fields(status=str(status), reason=reason))
    await _set(agi, [(variables.BOT_STATUS, status), (variables.BOT_REASON, reason)])


_STATUS = {
    "completed": BotStatus.DONE,
    "no_input": BotStatus.DONE,
    "transfer": BotStatus.TRANSFER,
    "caller_hung_up": BotStatus.HANGUP,
    "failed": BotStatus.FAILED,
    "refused": BotStatus.BUSY,
}


async def report(agi: AgiConnection, outcome: CallOutcome) -> bool:
    """Tell the dialplan how the call ended, `BOT_RESULT=done` last; True: it is told.

    A transfer without a target leaves it unset: the dialplan's own people take over,
    as they do after every failure.
    """
    values = [
        (variables.BOT_STATUS, str(_STATUS[outcome.status])),
        (variables.BOT_REASON, outcome.reason),
    ]
    if outcome.disposition:
        values.append((variables.BOT_DISPOSITION, outcome.disposition))
    if outcome.transfer_to:
        values.append((variables.BOT_TRANSFER_KIND, outcome.transfer_kind))
        values.append((variables.BOT_TRANSFER_TO, outcome.transfer_to))
    if outcome.is_orderly and (outcome.status != "transfer" or outcome.transfer_to):
        values.append((variables.BOT_RESULT, variables.BOT_RESULT_DONE))
    return await _set(agi, values)


async def _set(agi: AgiConnection, values: list[tuple[str, str]]) -> bool:
    try:
        for name, value in values:
            text = commands.dialplan_text(value)
            await agi.execute(commands.set_variable(name, text))
    except AgiConnectionLost:
        logger.info("dialplan_gone")
    except (ChannelGone, AgiTimeout, AgiCommandRefused) as exc:
        logger.warning("dialplan_not_told", extra=fields(error=str(exc)))
    else:
        return True
    return False
