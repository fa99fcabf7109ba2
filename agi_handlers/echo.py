"""agi://bot/echo: a line test; says back what it heard, without any model.

The same ears, turn-taking and audio legs as a real conversation, so a call that works
here fails elsewhere only in the speech half.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Mapping

from agi_handlers.agi.connection import AgiConnection
from agi_handlers.agi.protocol import AgiRequest
from agi_handlers.audio_leg.leg import LegName
from agi_handlers.call_records import unrecorded
from agi_handlers.campaigns import Campaign, Phrases
from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.errors import (
    AgiCommandRefused,
    AgiTimeout,
    AudioLegUnavailable,
    ChannelGone,
)
from agi_handlers.phone import Phone
from agi_handlers.records.rows import CallRow
from agi_handlers.ultravox import hold, report
from model.audio.prompts import Prompt
from model.speech import (
    Answerer,
    ReplyAudio,
    ReplyDone,
    ReplyEvent,
    UserTurn,
    Utterance,
)
from telemetry import call_context, fields

logger = logging.getLogger(__name__)

# the recorded prompt that stands for each phrase
_CAMPAIGN = Campaign(
    name="echo",
    phrases=Phrases(
        greeting="echo_intro",
        still_there="still_there",
        say_again="beep",
        goodbye_no_input="goodbye",
        time_warning="beep",
        time_limit="time_limit",
        transferring="transferring",
    ),
)
_MEDIA: Mapping[str, LegName] = {
    "audiosocket": "audiosocket",
    "eagi": "eagi",
    "recorded_turns": "recorded_turns",
}


class EchoSession:
    """A `SpeechSession` that answers with the caller's own voice."""

    def __init__(self, prompts: Mapping[str, Prompt]) -> None:
        self._prompts = prompts

    async def reply(self, turn: int, user: UserTurn) -> AsyncIterator[ReplyEvent]:
        pcm16 = user.pcm16 if isinstance(user, Utterance) else b""
        pcm16 = pcm16 or self._prompts["beep"].pcm16
        yield ReplyAudio(turn, 0, "", pcm16)
        yield ReplyDone(turn, "", "stop")

    async def say(self, turn: int, text: str) -> AsyncIterator[ReplyEvent]:
        yield ReplyAudio(turn, 0, text, self._prompts[text].pcm16)
        yield ReplyDone(turn, text, "stop")

    async def settle(self, turn: int, heard_ms: int | None = None) -> None:
        return

    async def forget(self, turn: int) -> None:
        return

    async def identify(self, said: Utterance) -> Answerer:
        return Answerer("unsure", "")

    async def words_of(self, said: Utterance) -> str | None:
        return None


async def echo(phone: Phone, request: AgiRequest, agi: AgiConnection) -> None:
    """Say back what is heard until the caller hangs up or stays silent.

    query: media=audiosocket|recorded_turns forces a way, default as for calls.
    """
    call_id = str(uuid.uuid4())
    session = EchoSession(phone.prompts)
    media = _MEDIA.get(request.query.get("media", ""))
    with call_context(call_id=call_id, uniqueid=request.uniqueid, script="echo"):
        try:
            nobodys = unrecorded(CallRow(call_id, started_at=0.0))
            outcome = await hold(phone, agi, _CAMPAIGN, nobodys, media, session)
        except (AudioLegUnavailable, AgiTimeout, AgiCommandRefused) as exc:
            logger.error("audio_leg_unavailable", extra=fields(error=str(exc)))
            outcome = CallOutcome("failed", "audio_leg_unavailable")
        except ChannelGone:
            outcome = CallOutcome("caller_hung_up", "caller_hung_up")
        logger.info("echo_ended", extra=fields(status=outcome.status))
        await report(agi, outcome)
