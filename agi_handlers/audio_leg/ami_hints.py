"""What Asterisk's manager can tell a leg that its own audio path does not.

AudioSocket of Asterisk 18 to 20.13 and 22.3 brings no keys; recorded turns cannot hear
the caller while the bot speaks, TALK_DETECT can.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from agi_handlers.agi.commands import set_variable
from agi_handlers.agi.connection import AgiConnection
from agi_handlers.ami.messages import AmiEvent, KeyPressed, TalkStarted
from agi_handlers.ami.watch import AmiWatch
from agi_handlers.audio_leg.leg import CallerKey, CallerTalks, LegEvent, LegName
from agi_handlers.errors import AgiCommandRefused, AgiTimeout
from telemetry import fields

logger = logging.getLogger(__name__)

_VERSION: Final = re.compile(r"(\d+)\.(\d+)")
# The first minor version of each branch whose AudioSocket sends keys.
_KEYS_SINCE: Final = {20: 14, 21: 9, 22: 4}
# Shorter quiet ends what TALK_DETECT takes for speech; the level is Asterisk's own.
_TALK_DETECT: Final = "1000"


def has_keys(version: str) -> bool:
    """Whether AudioSocket of this Asterisk sends the caller's keys.

    Of a version that says nothing the answer is yes: a key heard twice is worse than
    one not heard.
    """
    found = _VERSION.match(version)
    if found is None:
        return True
    major, minor = int(found[1]), int(found[2])
    return major > 22 or minor >= _KEYS_SINCE.get(major, 1000)


async def detect_talk(agi: AgiConnection) -> None:
    """Have Asterisk report speech on this channel; one that cannot is left alone."""
    try:
        await agi.execute(set_variable("TALK_DETECT(set)", _TALK_DETECT))
    except (AgiCommandRefused, AgiTimeout) as exc:
        logger.info("no_talk_detect", extra=fields(error=str(exc)))


@contextmanager
def hints_for(
    watch: AmiWatch,
    agi: AgiConnection,
    name: LegName,
    heard: Callable[[LegEvent], None],
) -> Iterator[None]:
    """`heard` gets what this leg lacks, for as long as the block lasts."""
    request = agi.request
    wants_keys = name == "audiosocket" and not has_keys(request.version)
    wants_talk = name == "recorded_turns"

    def on_event(event: AmiEvent) -> None:
        match event:
            case KeyPressed(key=key) if wants_keys:
                heard(CallerKey(key))
            case TalkStarted() if wants_talk:
                heard(CallerTalks())
            case _:
                pass

    with watch.listening(request.channel, request.uniqueid, on_event):
        yield
