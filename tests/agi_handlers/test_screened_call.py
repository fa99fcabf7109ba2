"""Calls that ask who answers, whole and in virtual time: screen, talk, message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest

from agi_handlers.audio_leg.tapped_leg import TappedLeg
from agi_handlers.campaigns import Campaign
from agi_handlers.conversation.call import Call
from agi_handlers.conversation.call_notes import CallNotes
from agi_handlers.conversation.call_parts import CallParts
from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.conversation.turn_taking import TurnTaking
from agi_handlers.phone import Phone
from agi_handlers.records.rows import EventRow, Row, TurnRow
from agi_handlers.screened_call import attend, open_screen
from agi_handlers.vicidial.endings import status_of
from config import load
from model.audio.pcm import Waves
from model.audio.prompts import Prompt
from model.errors import SynthesisFailed
from model.speech import Answerer, SpeechStatus, WeightsKind
from model.vad.detector import DetectorStream
from tests.fakes.call_parts import (
    Answer,
    HangsUp,
    Presses,
    ScriptedLeg,
    ScriptedSession,
    Sounds,
    Speaks,
)
from tests.fakes.clock import run_in_virtual_time
from tests.fakes.ear import LoudnessDetector, loudness_ear

GREETING_S = 1.0
PROMPTS = {
    name: Prompt(name, name, b"\x00\x10" * 8000)
    for name in ("one_moment", "technical_trouble")
}
MACHINE = (Speaks(0.5, 5.5), Sounds(6.0, 6.4))
TAKES_IT_ALL = (*MACHINE, HangsUp(40.0))


class VoiceDetector(LoudnessDetector):
    """The fakes' voice is speech, a tone is none."""

    def probabilities(
        self,
        streams: Sequence[DetectorStream],
        windows: Waves,
        levels_db: Sequence[float],
    ) -> list[float]:
        return [float(abs(window.mean()) > 0.01) for window in windows]


@dataclass
class Screened:
    """A call that is over."""

    leg: ScriptedLeg
    session: ScriptedSession
    outcome: CallOutcome
    rows: list[Row]
    campaign: Campaign

    @property
    def answered_by(self) -> list[tuple[str, str]]:
        events = [row for row in self.rows if isinstance(row, EventRow)]
        return [(e.name, e.detail) for e in events if e.kind == "answered_by"]

    @property
    def status(self) -> str:
        return status_of(self.outcome, self.campaign)

    @property
    def first_word_s(self) -> float:
        return self.leg.played[0][0]


def call(
    *script: Speaks | Sounds | Presses | HangsUp,
    machine: str = "hang_up",
    answers: Sequence[Answer] = (),
    answerers: Sequence[Answerer] = (),
    weights: WeightsKind = "scripted",
    session: ScriptedSession | None = None,
    shut_down_at_s: float | None = None,
    **answering: Any,
) -> Screened:
    campaign = Campaign.model_validate(
        {
            "name": "test",
            "answering": {"machine": machine, "message": "Call us back.", **answering},
        }
    )
    session = session or ScriptedSession(list(answers), phrase_s=GREETING_S)
    session.answerers = list(answerers)
    scripted = ScriptedLeg(script)
    rows: list[Row] = []
    phone = Phone(
        settings=load({}),
        speech=cast("Any", None),
        legs=cast("Any", None),
        detector=VoiceDetector(),
        prompts=PROMPTS,
        campaigns={},
        speech_status=SpeechStatus(True, "", weights),
    )

    async def hold() -> CallOutcome:
        notes = CallNotes("call-1", rows.append)
        screen = open_screen(phone, campaign, session, notes, is_full_duplex=True)
        leg = TappedLeg(scripted, [screen] if screen is not None else [])
        parts = CallParts(
            leg=leg,
            ear=loudness_ear(),
            session=session,
            phrases=campaign.phrases.as_mapping(),
            prompts=PROMPTS,
            target_of=campaign.target_of,
            screen=screen,
            notes=notes,
        )
        talk = Call(parts, TurnTaking())
        if shut_down_at_s is not None:
            asyncio.get_running_loop().call_later(shut_down_at_s, talk.shut_down)
        return await attend(talk, screen, leg, phone, campaign, session, notes)

    outcome = run_in_virtual_time(hold())
    assert session.num_open == 0, "a reply was left running"
    return Screened(scripted, session, outcome, rows, campaign)


def test_without_the_wish_the_bot_greets_at_once() -> None:
    done = call(*MACHINE, HangsUp(8.0), machine="off")
    assert done.first_word_s < 0.1
    assert done.answered_by == []


def test_hello_is_answered_by_the_greeting_and_then_it_is_a_conversation() -> None:
    done = call(Speaks(0.6, 1.1), Speaks(5.0, 6.0), HangsUp(12.0))
    assert done.answered_by == [("person", "short_answer")]
    assert 1.1 + 0.3 < done.first_word_s < 1.1 + 0.7
    assert done.session.said[0] == done.campaign.phrases.greeting
    assert len(done.session.heard) == 1  # "Hello?" is no question to the model
    assert done.outcome.status == "caller_hung_up"


def test_a_silent_line_is_greeted() -> None:
    done = call(HangsUp(6.0), listen_first_s=1.5)
    assert done.answered_by == [("unsure", "silence")]
    assert done.first_word_s == pytest.approx(1.5, abs=0.1)


def test_a_machine_is_hung_up_on_after_its_beep() -> None:
    done = call(*TAKES_IT_ALL)
    assert done.answered_by == [("unsure", "long_answer"), ("machine", "beep")]
    assert done.outcome.status == "completed"
    assert done.outcome.reason == "machine_answered"
    assert done.status == "A"


def test_to_note_changes_nothing_but_the_record() -> None:
    done = call(*MACHINE, HangsUp(12.0), machine="note")
    assert done.answered_by[-1] == ("machine", "beep")
    assert done.outcome.status == "caller_hung_up"


def test_the_models_word_ends_it_before_the_beep() -> None:
    done = call(
        Speaks(0.5, 9.0),
        HangsUp(40.0),
        answerers=[Answerer("machine", "")],
        weights="published",
    )
    assert done.answered_by == [("machine", "model")]
    assert done.leg.played == []
    [said] = done.session.identified
    assert len(said.pcm16) / 16_000 == pytest.approx(4.0, abs=0.2)


def test_the_words_of_a_person_keep_him_whatever_beeps() -> None:
    done = call(
        *MACHINE,
        HangsUp(12.0),
        answerers=[Answerer("unsure", "how can I help you")] * 3,
        weights="published",
    )
    assert done.answered_by == [("person", "model")]
    assert done.outcome.status == "caller_hung_up"


def test_a_model_that_knows_nothing_of_strangers_is_not_asked() -> None:
    done = call(*MACHINE, HangsUp(9.0), answerers=[Answerer("machine", "")])
    assert done.session.identified == []


def test_words_heard_in_the_talk_end_it_too() -> None:
    words = "please leave a message after the tone"
    done = call(
        Speaks(0.5, 1.5),
        Speaks(2.5, 4.5),
        HangsUp(40.0),
        answers=[Answer(transcript=words)],
        weights="published",
    )
    assert done.answered_by == [("person", "short_answer"), ("machine", "words")]
    assert done.status == "A"


def test_a_message_is_left_after_the_beep() -> None:
    done = call(*TAKES_IT_ALL, machine="leave_message")
    assert done.session.said[-1] == "Call us back."
    started_s, ended_s = done.leg.played[-1]
    assert 6.4 < started_s < 8.0
    assert ended_s - started_s == pytest.approx(GREETING_S, abs=0.1)
    assert done.outcome.reason == "machine_answered"
    assert done.status == "AL"
    [message] = [
        row
        for row in done.rows
        if isinstance(row, TurnRow) and row.phrase == "message" and row.fate
    ]
    assert (message.fate, message.heard_text) == ("heard", "Call us back.")


def test_without_a_beep_the_message_waits_for_silence() -> None:
    done = call(
        Speaks(0.5, 9.0),
        HangsUp(40.0),
        machine="leave_message",
        answerers=[Answerer("machine", "")],
        weights="published",
    )
    assert done.leg.played[-1][0] == pytest.approx(9.0 + 2.5, abs=0.8)
    assert done.status == "AL"


def test_a_message_begun_too_early_begins_again() -> None:
    done = call(
        Speaks(0.5, 4.9),
        Speaks(8.0, 12.0),  # the second half of the greeting
        Sounds(12.5, 13.0),
        HangsUp(40.0),
        machine="leave_message",
        answerers=[Answerer("machine", "")],
        weights="published",
        session=ScriptedSession(phrase_s=8.0),
    )
    first, second = done.leg.played[-2:]
    assert first[1] - first[0] < 3.0
    assert second[0] > 13.0
    assert second[1] - second[0] == pytest.approx(8.0, abs=0.1)
    assert done.status == "AL"


def test_a_machine_that_hangs_up_or_never_stops_got_no_message() -> None:
    gone = call(*MACHINE, HangsUp(8.0), machine="leave_message",
                session=ScriptedSession(phrase_s=5.0))  # fmt: skip
    assert gone.status == "A"
    endless = call(
        Speaks(0.5, 200.0),
        HangsUp(250.0),
        machine="leave_message",
        answerers=[Answerer("machine", "")],
        weights="published",
    )
    assert endless.status == "A"
    assert endless.leg.played == []


def test_a_voice_that_fails_leaves_no_half_message() -> None:
    class Mute(ScriptedSession):
        pass

    session = Mute(phrase_error=SynthesisFailed("no voice"))
    done = call(
        Speaks(0.5, 9.0),
        Sounds(9.5, 10.0),
        HangsUp(40.0),
        machine="leave_message",
        answerers=[Answerer("machine", "")],
        weights="published",
        session=session,
    )
    assert done.status == "A"
    assert done.outcome.status == "completed"


@pytest.mark.parametrize(
    ("sounds", "who", "status"),
    [
        ((Sounds(0.5, 3.5, 2100.0),), ("fax", "answer_tone"), "AFAX"),
        (
            (Sounds(0.5, 0.88, 985.2), Sounds(0.88, 1.16, 1370.6),
             Sounds(1.16, 1.54, 1776.7)),
            ("no_service", "network_tones"),
            "ADC",
        ),
    ],
)  # fmt: skip
def test_faxes_and_dead_numbers_get_no_message(
    sounds: tuple[Sounds, ...], who: tuple[str, str], status: str
) -> None:
    done = call(*sounds, HangsUp(30.0), machine="leave_message")
    assert done.answered_by[-1] == who
    assert done.status == status
    assert done.leg.played == []


def test_a_key_is_a_persons_and_is_not_lost() -> None:
    done = call(Presses(0.8, "0"))
    assert done.outcome.status == "transfer"
    assert done.outcome.reason == "person_key"


def test_who_hangs_up_while_listened_to_has_hung_up() -> None:
    done = call(Speaks(0.5, 3.0), HangsUp(2.0))
    assert done.outcome.status == "caller_hung_up"
    assert done.leg.played == []


def test_a_shutdown_reaches_a_call_that_is_still_listened_to() -> None:
    done = call(Speaks(0.5, 30.0), HangsUp(60.0), shut_down_at_s=2.0)
    assert done.outcome.reason == "shutdown"
    assert done.session.said == [done.campaign.phrases.transferring]
    assert done.leg.played[0][0] == pytest.approx(2.0, abs=0.2)
