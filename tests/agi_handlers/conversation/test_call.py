"""Whole conversations in virtual time: a scripted caller, leg and speech half."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest

from agi_handlers.campaigns import Campaign
from agi_handlers.conversation.call import Call
from agi_handlers.conversation.call_parts import CallParts
from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.conversation.turn_actions import TurnTakingOptions
from agi_handlers.conversation.turn_taking import TurnTaking
from model.audio.prompts import Prompt
from model.errors import GenerationFailed, SpeechUnavailable, SynthesisFailed
from model.speech import TypedTurn, Utterance
from model.vad.listener import CallerEar
from tests.fakes.call_parts import (
    Answer,
    Coughs,
    HangsUp,
    Presses,
    ScriptedLeg,
    ScriptedSession,
    Speaks,
)
from tests.fakes.clock import run_in_virtual_time
from tests.fakes.ear import FailingDetector, loudness_ear

PROMPTS = {
    name: Prompt(name, name, b"\x00\x10" * 8000)
    for name in ("one_moment", "technical_trouble")
}


@dataclass
class Talk:
    leg: ScriptedLeg
    session: ScriptedSession
    outcome: CallOutcome
    call: Call


def talk(
    script: Sequence[Speaks | Coughs | Presses | HangsUp],
    answers: Sequence[Answer] = (),
    options: TurnTakingOptions | None = None,
    transfer: dict[str, str] | None = None,
    session: ScriptedSession | None = None,
    record: Callable[[], Awaitable[None]] | None = None,
    confirm: Callable[[str], Awaitable[str | None]] | None = None,
    pauses: list[bool] | None = None,
    chunk_samples: int = 160,
) -> Talk:
    leg = ScriptedLeg(script, chunk_samples=chunk_samples)
    session = session or ScriptedSession(list(answers))
    campaign = Campaign(name="test", transfer=transfer or {})
    parts = CallParts(
        leg=leg,
        ear=loudness_ear(),
        session=session,
        phrases=campaign.phrases.as_mapping(),
        prompts=PROMPTS,
        target_of=campaign.target_of,
        record_opt_out=record,
        confirm_transfer=confirm,
        read_callback={"at 3": "today at 3 PM"}.get,
        pause_recording=pauses.append if pauses is not None else None,
        keys_are_secret=pauses is not None,
        promises=lambda text: text == "I am transferring you.",
    )
    call = Call(parts, TurnTaking(options))
    outcome = run_in_virtual_time(call.run())
    assert session.num_open == 0, "a reply was left running"
    return Talk(leg, session, outcome, call)


def test_question_is_answered_and_the_caller_hangs_up() -> None:
    done = talk([Speaks(2.0, 3.5), HangsUp(9.0)])
    assert done.outcome.status == "caller_hung_up"
    assert done.session.said[0].startswith("Hello")
    assert [turn for turn, _ in done.session.heard] == [2]
    assert done.session.settled == [(1, None), (2, None)]
    assert len(done.leg.played) == 2
    reply_start_s = done.leg.played[1][0]
    # 600 ms hangover after the end of speech; the reply was ready before it
    assert 3.5 + 0.55 <= reply_start_s <= 3.5 + 0.75


def test_reply_is_computed_once_though_the_end_was_first_only_suspected() -> None:
    done = talk([Speaks(2.0, 3.5), HangsUp(9.0)])
    assert len(done.session.heard) == 1
    assert done.session.forgotten == []


def test_pause_inside_a_sentence_gets_one_answer_to_the_whole() -> None:
    done = talk([Speaks(2.0, 3.0), Speaks(3.4, 4.4), HangsUp(10.0)])
    turn, heard = done.session.heard[-1]
    assert isinstance(heard, Utterance)
    assert heard.ended_ms - heard.started_ms >= 2200
    assert done.session.settled[-1] == (turn, None)
    assert len(done.leg.played) == 2


def test_interrupted_bot_falls_silent_and_remembers_what_was_heard() -> None:
    done = talk(
        [Speaks(2.0, 3.0), Speaks(5.0, 6.0), HangsUp(12.0)],
        [Answer(speech_s=10.0), Answer()],
    )
    assert done.call.num_barge_ins == 1
    started_s, stopped_s = done.leg.played[1]
    assert stopped_s - 5.0 <= 0.3  # silent within 300 ms of the first voiced sample
    turn, heard_ms = done.session.settled[1]
    assert turn == 2
    assert heard_ms == pytest.approx((stopped_s - started_s) * 1000, abs=40)
    assert [t for t, _ in done.session.heard] == [2, 3]


def test_bot_speaks_softly_from_the_first_sign_of_a_voice_until_it_is_nothing() -> None:
    done = talk(
        [Speaks(2.0, 3.0), Speaks(5.0, 5.06), Speaks(7.0, 8.5), HangsUp(12.0)],
        [Answer(speech_s=8.0), Answer()],
    )
    (soft_s, is_soft), (loud_s, is_loud), (again_s, is_again) = done.leg.lowered
    assert (is_soft, is_loud, is_again) == (True, False, True)
    assert 5.0 < soft_s < 5.1, "a click, or the beginning of a word"
    assert 5.2 < loud_s < 5.4, "a click"
    assert 7.0 < again_s < 7.1
    assert done.leg.played[1][1] - again_s >= 0.06, "softly before it fell silent"
    assert done.call.num_barge_ins == 1
    assert done.leg.num_stops == 1


def test_what_may_not_be_interrupted_is_not_said_softly() -> None:
    options = TurnTakingOptions(is_greeting_protected=True)
    done = talk([Speaks(0.3, 0.8), HangsUp(1.0)], options=options)
    assert done.leg.lowered == []


def test_speech_lost_in_mid_call_is_told_and_the_caller_goes_to_people() -> None:
    done = talk([Speaks(2.0, 3.0)], [Answer(error=SpeechUnavailable("gone"))])
    assert done.outcome == CallOutcome("failed", "unavailable")
    told_s = done.leg.played[-1][0]
    assert told_s - 3.0 <= 2.0
    assert not done.outcome.is_orderly


def test_failed_reply_is_tried_again_behind_a_filler() -> None:
    done = talk(
        [Speaks(2.0, 3.0), HangsUp(9.0)],
        [Answer(error=GenerationFailed("nan")), Answer()],
    )
    assert [t for t, _ in done.session.heard] == [2, 3]
    assert done.session.settled[-1] == (3, None)


def test_model_that_never_answers_ends_with_a_person_not_with_silence() -> None:
    done = talk([Speaks(2.0, 3.0)], [Answer(never=True), Answer(never=True)])
    assert done.outcome == CallOutcome("failed", "no_reply_in_time")
    # filler soon, trouble at last
    assert done.leg.played[1][0] - 3.6 <= 2.0
    silences_s = [
        later_s - earlier_s
        for (_, earlier_s), (later_s, _) in pairwise(done.leg.played[1:])
    ]
    assert max(silences_s) <= 4.0


def test_greeting_that_cannot_be_spoken_does_not_leave_silence() -> None:
    session = ScriptedSession(phrase_error=SynthesisFailed("no voice"))
    done = talk([], session=session)
    assert done.outcome == CallOutcome("failed", "synthesis_failed")
    assert len(done.leg.played) == 1


def test_silent_caller_is_asked_twice_then_told_goodbye() -> None:
    done = talk([])
    assert done.outcome == CallOutcome("no_input", "no_input")
    assert [text.split()[0] for text in done.session.said] == [
        "Hello,",
        "Are",
        "Are",
        "I",
    ]


def test_transfer_happens_after_its_words_and_to_the_campaigns_target() -> None:
    done = talk(
        [Speaks(2.0, 3.0), Speaks(4.5, 5.0)],
        [Answer(action=("transfer", "Sales"), speech_s=2.0)],
        transfer={"sales": "SALESLINE"},
    )
    assert done.outcome == CallOutcome("transfer", "model_asked", "", "SALESLINE")
    assert done.leg.played[1][1] - done.leg.played[1][0] == pytest.approx(2.0, abs=0.1)


def test_unknown_transfer_target_goes_to_the_default_people() -> None:
    done = talk(
        [Speaks(2.0, 3.0)], [Answer(action=("transfer", "the moon"))], transfer={}
    )
    assert done.outcome == CallOutcome("transfer", "model_asked", "", "")


def test_key_zero_reaches_a_person_in_the_middle_of_a_reply() -> None:
    done = talk(
        [Speaks(2.0, 3.0), Presses(5.0, "0")],
        [Answer(speech_s=10.0)],
        transfer={"default": "8600"},
    )
    assert done.outcome == CallOutcome("transfer", "person_key", "", "8600")


def test_keys_are_given_to_the_model_as_a_typed_turn() -> None:
    keys = [Presses(3.0 + i / 5, key) for i, key in enumerate("4021#")]
    done = talk([*keys, HangsUp(8.0)])
    assert done.session.heard[0][1] == TypedTurn("4 0 2 1")


def test_call_that_is_too_long_is_ended_with_a_word() -> None:
    done = talk(
        [Speaks(2.0 + 4 * i, 3.0 + 4 * i) for i in range(20)],
        options=TurnTakingOptions(max_call_ms=20_000),
    )
    assert done.outcome.reason == "time_limit"
    assert "end" in done.session.said[-1]


def test_caller_who_never_stops_is_heard_in_parts_and_then_by_people() -> None:
    done = talk([Speaks(2.0, 100.0), HangsUp(100.0)])
    assert len(done.session.heard) >= 1
    assert done.outcome.reason == "caller_talks_on"
    assert done.outcome.status == "transfer"


def test_broken_audio_leg_ends_with_people() -> None:
    done = talk([HangsUp(3.0, "lost")])
    assert done.outcome == CallOutcome("failed", "audio_leg_lost")


def test_goodbye_is_heard_only_once_the_opt_out_is_written_down() -> None:
    written_s: list[float] = []

    async def record() -> None:
        await asyncio.sleep(0.8)
        written_s.append(asyncio.get_running_loop().time())

    done = talk(
        [Presses(3.0, "9")], options=TurnTakingOptions(opt_out_key="9"), record=record
    )
    assert done.outcome == CallOutcome(
        "completed", "opt_out_key", "DNC", is_opt_out=True
    )
    goodbye_start_s = done.leg.played[-1][0]
    assert 3.8 <= goodbye_start_s <= 4.0
    assert len(written_s) == 1


def test_opt_out_of_a_caller_who_hangs_up_at_once_is_still_written_down() -> None:
    written: list[bool] = []

    async def record() -> None:
        await asyncio.sleep(0.5)
        written.append(True)

    done = talk(
        [Presses(3.0, "9"), HangsUp(3.1)],
        options=TurnTakingOptions(opt_out_key="9"),
        record=record,
    )
    assert done.outcome.status == "caller_hung_up"
    assert done.outcome.is_opt_out
    assert written == [True]


def test_opt_out_that_cannot_be_written_does_not_keep_the_caller_in_silence() -> None:
    async def record() -> None:
        await asyncio.sleep(3600)

    done = talk(
        [Presses(3.0, "9")], options=TurnTakingOptions(opt_out_key="9"), record=record
    )
    assert done.outcome.status == "completed"
    assert done.leg.played[-1][0] <= 7.2


def test_asking_for_a_person_works_without_the_models_consent() -> None:
    done = talk(
        [Speaks(2.0, 3.0)],
        [
            Answer(
                "I am sure I can help.",
                speech_s=8.0,
                transcript="I want to talk to a person",
            )
        ],
        transfer={"default": "8600"},
    )
    assert done.outcome == CallOutcome("transfer", "person_words", "", "8600")
    assert done.leg.played[1][1] - done.leg.played[1][0] < 1.5  # cut short


def test_stop_calling_me_is_noted_and_ends_the_call() -> None:
    done = talk([Speaks(2.0, 3.0)], [Answer(transcript="Stop calling me!")])
    assert done.outcome.status == "completed"
    assert done.outcome.reason == "opt_out_words"
    assert done.outcome.disposition == "DNC"


def test_transcript_without_a_wish_changes_nothing() -> None:
    done = talk(
        [Speaks(2.0, 3.0), HangsUp(9.0)], [Answer(transcript="are you open today")]
    )
    assert done.outcome.status == "caller_hung_up"
    assert done.session.settled == [(1, None), (2, None)]


def test_transfer_is_looked_at_while_its_words_are_spoken() -> None:
    async def confirm(destination: str) -> str | None:
        await asyncio.sleep(0.3)
        return "SUPPORT" if destination == "Sales" else None

    done = talk(
        [Speaks(2.0, 3.0)],
        [Answer(action=("transfer", "Sales"), speech_s=2.0)],
        confirm=confirm,
    )
    assert done.outcome == CallOutcome("transfer", "model_asked", "", "SUPPORT")


def test_transfer_nobody_is_free_for_is_taken_back_aloud() -> None:
    async def confirm(destination: str) -> str | None:
        return None

    done = talk(
        [Speaks(2.0, 3.0), HangsUp(14.0)],
        [Answer(action=("transfer", "Sales"), speech_s=2.0)],
        confirm=confirm,
    )
    assert done.outcome.status == "caller_hung_up"
    assert "nobody is free" in done.session.said[1]


def test_promise_of_a_transfer_waits_until_somebody_is_known_to_be_there() -> None:
    async def confirm(destination: str) -> str | None:
        await asyncio.sleep(0.8)
        return "SALESLINE"

    done = talk([Presses(3.0, "0")], confirm=confirm)
    assert done.outcome == CallOutcome("transfer", "person_key", "", "SALESLINE")
    assert done.leg.played[-1][0] >= 3.8


def test_look_that_never_ends_does_not_hold_the_caller() -> None:
    async def confirm(destination: str) -> str | None:
        await asyncio.sleep(3600)
        return None

    done = talk([Presses(3.0, "0")], confirm=confirm, transfer={"default": "8600"})
    assert done.outcome == CallOutcome("transfer", "person_key", "", "8600")
    assert 4.0 <= done.leg.played[-1][0] <= 4.2


def test_words_that_promise_a_transfer_bring_one() -> None:
    done = talk(
        [Speaks(2.0, 3.0)],
        [Answer("I am transferring you.")],
        transfer={"default": "8600"},
    )
    assert done.outcome == CallOutcome("transfer", "model_asked", "", "8600")


def test_agreed_callback_is_read_back_in_the_bots_own_words() -> None:
    done = talk(
        [Speaks(2.0, 3.0), HangsUp(12.0)], [Answer(action=("callback", "at 3"))]
    )
    assert "today at 3 PM" in done.session.said[1]
    assert done.outcome.callback == "at 3"


def test_recording_pauses_from_the_first_key_until_the_caller_speaks_again() -> None:
    pauses: list[bool] = []
    keys = [Presses(2.0 + n / 4, "4") for n in range(4)]
    talk([*keys, Speaks(9.0, 10.0), HangsUp(14.0)], pauses=pauses)
    assert pauses == [True, False]


def test_recording_pauses_when_the_model_asks_for_it() -> None:
    pauses: list[bool] = []
    talk(
        [Speaks(2.0, 3.0), Speaks(7.0, 8.0), HangsUp(12.0)],
        [
            Answer(action=("pause_recording", "")),
            Answer(action=("resume_recording", "")),
        ],
        pauses=pauses,
    )
    assert pauses == [True, False]


def test_a_transfer_taken_back_decides_nothing_about_a_later_one() -> None:
    async def confirm(destination: str) -> str | None:
        return None

    done = talk(
        [Speaks(2.0, 3.0)],
        [Answer(action=("transfer", "Sales"), speech_s=2.0)],
        options=TurnTakingOptions(max_call_ms=12_000),
        transfer={"sales": "SALESLINE", "default": "8600"},
        confirm=confirm,
    )
    assert done.outcome == CallOutcome("transfer", "time_limit", "", "8600")


def test_ear_that_fails_ends_the_call_with_its_error() -> None:
    campaign = Campaign(name="test")
    parts = CallParts(
        leg=ScriptedLeg([HangsUp(10.0)]),
        ear=CallerEar(FailingDetector(num_good_windows=31)),
        session=ScriptedSession([]),
        phrases=campaign.phrases.as_mapping(),
        prompts=PROMPTS,
        target_of=campaign.target_of,
    )
    with pytest.raises(ExceptionGroup) as failed:
        run_in_virtual_time(Call(parts, TurnTaking(None)).run())
    assert failed.group_contains(RuntimeError, match="the network is broken")
