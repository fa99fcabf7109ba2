"""Turn-taking, as arithmetic: times and events in, actions out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.conversation.turn_actions import (
    Action,
    AskWords,
    ConfirmTransfer,
    Finish,
    Forget,
    GoOn,
    HoldPlayback,
    Listen,
    PlayPrompt,
    RecordOptOut,
    Release,
    Say,
    Settle,
    StopPlayback,
    Think,
    TurnTakingOptions,
)
from agi_handlers.conversation.turn_taking import TurnTaking
from model.speech import TypedTurn, Utterance

BYTES_PER_MS = 16


def said(start_ms: int, end_ms: int, sample: bytes = b"\x01\x02") -> Utterance:
    return Utterance(
        sample * ((end_ms - start_ms) * BYTES_PER_MS // 2), 8000, start_ms, end_ms
    )


def listening(options: TurnTakingOptions | None = None) -> TurnTaking:
    """A conversation whose greeting has been heard by 2,000 ms."""
    machine = TurnTaking(options)
    assert machine.on_answered(0) == [Say(1, "greeting")]
    machine.on_reply_audio(100, 1)
    machine.on_reply_done(120, 1)
    assert machine.on_playback_finished(2000) == [Settle(1, None), Listen()]
    return machine


def replying(options: TurnTakingOptions | None = None) -> TurnTaking:
    """The reply of turn 2 to speech from 2.5 to 4 s is being heard from 4,700 ms."""
    machine = listening(options)
    machine.on_speech_started(2600, 0)
    machine.on_speech_suspected(4200, said(2500, 4000))
    assert machine.on_speech_ended(4600, said(2500, 4000)) == [Release(2)]
    machine.on_reply_audio(4700, 2)
    return machine


def test_reply_is_computed_at_the_suspected_end_and_heard_at_the_confirmed_one() -> (
    None
):
    machine = listening()
    assert machine.on_speech_started(2600, 0) == []
    assert machine.on_speech_suspected(4200, said(2500, 4000)) == [
        Think(2, said(2500, 4000))
    ]
    assert machine.on_speech_ended(4600, said(2500, 4000)) == [Release(2)]
    machine.on_reply_audio(4700, 2)
    machine.on_reply_done(4800, 2)
    assert machine.on_playback_finished(7000) == [Settle(2, None), Listen()]


def test_caller_who_goes_on_is_answered_once_and_whole() -> None:
    machine = listening()
    machine.on_speech_started(2600, 0)
    machine.on_speech_suspected(4200, said(2500, 4000))
    assert machine.on_speech_resumed(4300) == [Forget(2)]
    assert machine.on_speech_suspected(5200, said(2500, 5000)) == [
        Think(3, said(2500, 5000))
    ]
    assert machine.on_speech_ended(5600, said(2500, 5000)) == [Release(3)]


def test_confirmed_utterance_that_differs_is_computed_anew() -> None:
    machine = listening()
    machine.on_speech_started(2600, 0)
    machine.on_speech_suspected(4200, said(2500, 4000))
    assert machine.on_speech_ended(4600, said(2500, 4100)) == [
        Forget(2),
        Think(3, said(2500, 4100)),
        Release(3),
    ]


def test_barge_in_stops_the_bot_and_keeps_what_was_heard() -> None:
    machine = replying()
    assert machine.on_speech_started(6700, 2000) == [HoldPlayback()]
    assert not machine.is_bot_talking
    actions = machine.on_speech_ended(8000, said(6600, 7400))
    assert actions == [
        StopPlayback(),
        Settle(2, 2000),
        Think(3, said(6600, 7400)),
        Release(3),
    ]


def test_speech_over_the_bot_that_goes_on_is_meant_for_it() -> None:
    machine = replying()
    machine.on_speech_started(6700, 2000)
    assert machine.deadline_ms() == 6700 + TurnTakingOptions().meant_after_ms
    assert machine.on_tick(7650) == [StopPlayback(), Settle(2, 2000)]
    assert machine.on_speech_suspected(9000, said(6600, 8800))[0] == Think(
        3, said(6600, 8800)
    )


def test_a_cough_over_the_bot_leaves_its_speech_whole() -> None:
    machine = replying()
    machine.on_speech_started(6700, 2000)
    cough = said(6600, 6800)
    assert machine.on_speech_suspected(7000, cough, is_noise=True) == [GoOn()]
    assert machine.is_bot_talking
    assert machine.on_speech_ended(7300, cough, is_noise=True) == []
    machine.on_reply_done(7400, 2)
    assert machine.on_playback_finished(9000) == [Settle(2, None), Listen()]


def doubting() -> tuple[TurnTaking, Utterance]:
    """A short sound over the bot from 6,600 ms; its words are being made out."""
    machine = replying()
    machine.on_speech_started(6700, 2000)
    sound = said(6600, 7000)
    assert machine.on_speech_suspected(7250, sound) == [AskWords(sound)]
    assert not machine.is_bot_talking
    return machine, sound


def test_mhm_leaves_the_speech_whole() -> None:
    machine, sound = doubting()
    assert machine.on_words(7400, sound, is_meant=False) == [GoOn()]
    assert machine.is_bot_talking
    assert machine.on_speech_ended(7500, sound) == []
    machine.on_reply_done(7600, 2)
    assert machine.on_playback_finished(9000) == [Settle(2, None), Listen()]


def test_mhm_known_only_after_its_end_leaves_the_speech_whole() -> None:
    machine, sound = doubting()
    assert machine.on_speech_ended(7500, sound) == []
    assert machine.on_words(7600, sound, is_meant=False) == [GoOn()]
    assert machine.on_speech_started(8000, 2300) == [HoldPlayback()]


def test_a_short_stop_is_thought_about_at_once_and_answered_at_its_end() -> None:
    machine, sound = doubting()
    assert machine.on_words(7400, sound, is_meant=True) == [
        StopPlayback(),
        Settle(2, 2000),
        Think(3, sound),
    ]
    assert machine.on_speech_ended(7500, sound) == [Release(3)]


def test_words_that_do_not_come_in_time_are_taken_as_meant() -> None:
    machine, sound = doubting()
    assert machine.on_speech_ended(7500, sound) == []
    due_ms = machine.deadline_ms()
    assert due_ms == 7250 + TurnTakingOptions().words_timeout_ms
    assert machine.on_tick(due_ms) == [
        StopPlayback(),
        Settle(2, 2000),
        Think(3, sound),
        Release(3),
    ]
    assert machine.on_words(due_ms + 100, sound, is_meant=False) == []


def test_who_goes_on_while_he_is_doubted_is_heard_whole() -> None:
    machine, sound = doubting()
    assert machine.on_speech_resumed(7300) == [StopPlayback(), Settle(2, 2000)]
    assert machine.on_words(7400, sound, is_meant=False) == []
    whole = said(6600, 9000)
    assert machine.on_speech_suspected(9250, whole) == [Think(3, whole)]


def test_a_second_word_joins_the_one_that_is_doubted() -> None:
    machine, sound = doubting()
    assert machine.on_speech_ended(7500, sound) == []
    actions = machine.on_speech_started(7600, 2000)
    assert actions == [StopPlayback(), Settle(2, 2000)]
    [think] = machine.on_speech_suspected(8400, said(7500, 8200))
    assert isinstance(think, Think)
    assert isinstance(think.user, Utterance)
    assert (think.user.started_ms, think.user.ended_ms) == (6600, 8200)


def test_a_key_while_a_sound_is_doubted_ends_the_speech() -> None:
    machine, sound = doubting()
    assert machine.on_key(7300, "5", 2000) == [
        StopPlayback(),
        Settle(2, 2000),
        Listen(),
    ]
    assert machine.on_words(7400, sound, is_meant=True) == []


def test_who_goes_on_after_a_cough_is_heard() -> None:
    machine = replying()
    machine.on_speech_started(6700, 2000)
    machine.on_speech_suspected(7000, said(6600, 6800), is_noise=True)
    assert machine.on_speech_resumed(7200, 2150) == [HoldPlayback()]
    assert machine.on_speech_ended(9000, said(6600, 8500)) == [
        StopPlayback(),
        Settle(2, 2150),
        Think(3, said(6600, 8500)),
        Release(3),
    ]


def test_a_cough_whose_end_outlasts_the_bot_is_not_answered() -> None:
    machine = replying()
    machine.on_speech_started(6700, 2000)
    machine.on_speech_suspected(7000, said(6600, 6800), is_noise=True)
    machine.on_reply_done(7010, 2)
    machine.on_playback_finished(7100)
    assert machine.on_speech_ended(7300, said(6600, 6800), is_noise=True) == []
    assert machine.deadline_ms() == 7300 + TurnTakingOptions().no_input_ms


def test_a_key_while_the_bot_is_held_ends_its_speech_where_it_was() -> None:
    machine = replying()
    machine.on_speech_started(6700, 2000)
    assert machine.on_key(6800, "5", 2000)[:2] == [StopPlayback(), Settle(2, 2000)]


def test_a_reply_that_stalls_gets_a_filler_and_then_people() -> None:
    options = TurnTakingOptions()
    machine = replying(options)
    machine.on_reply_audio(5000, 2, 1000)
    first_ms = 6000 + options.stall_filler_ms
    assert machine.deadline_ms() == first_ms
    assert machine.on_tick(first_ms - 1) == []
    assert machine.on_tick(first_ms) == [PlayPrompt("one_moment", is_filler=True)]
    last_ms = 6000 + options.stalled_timeout_ms
    assert machine.deadline_ms() == last_ms
    assert machine.on_tick(last_ms) == [
        StopPlayback(),
        Forget(2),
        PlayPrompt("technical_trouble"),
    ]


def test_a_reply_that_comes_again_after_a_stall_needs_no_people() -> None:
    options = TurnTakingOptions()
    machine = replying(options)
    machine.on_reply_audio(5000, 2, 1000)
    machine.on_tick(6000 + options.stall_filler_ms)
    machine.on_reply_audio(9000, 2, 1000)
    machine.on_reply_done(9000, 2)
    assert machine.on_playback_finished(10_000) == [Settle(2, None), Listen()]


def test_playback_that_never_ends_goes_to_people() -> None:
    options = TurnTakingOptions()
    machine = replying(options)
    machine.on_reply_audio(5000, 2, 1000)
    machine.on_reply_done(5000, 2)
    stuck_ms = 6000 + options.playback_slack_ms
    assert machine.deadline_ms() == stuck_ms
    assert PlayPrompt("technical_trouble") in machine.on_tick(stuck_ms)


def test_the_end_of_the_longest_call_is_announced_once() -> None:
    machine = listening(TurnTakingOptions(max_call_ms=100_000, no_input_ms=200_000))
    assert machine.deadline_ms() == 70_000
    assert machine.on_tick(70_000) == [Say(2, "time_warning")]
    machine.on_reply_audio(70_100, 2)
    machine.on_reply_done(70_100, 2)
    machine.on_playback_finished(72_000)
    assert machine.deadline_ms() == 100_000


def test_the_warning_waits_until_the_bot_has_finished() -> None:
    machine = replying(TurnTakingOptions(max_call_ms=100_000))
    machine.on_reply_audio(60_000, 2, 15_000)
    machine.on_reply_done(60_000, 2)
    assert machine.on_tick(70_000) == []
    assert machine.on_playback_finished(75_000) == [
        Settle(2, None),
        Say(3, "time_warning"),
    ]


def test_a_caller_who_talks_on_and_on_goes_to_people() -> None:
    machine = listening(TurnTakingOptions(max_talks_on=2))
    for start_ms in (3000, 28_000):
        machine.on_speech_started(start_ms, 0)
        actions = machine.on_speech_too_long(
            start_ms + 25_000, said(start_ms, start_ms + 25_000)
        )
        assert isinstance(actions[0], Think)
    machine.on_speech_started(53_000, 0)
    actions = machine.on_speech_too_long(78_000, said(53_000, 78_000))
    assert actions[-1] == Say(4, "transferring")


def test_speech_within_half_a_second_of_reply_makes_one_turn() -> None:
    machine = replying()
    assert machine.on_speech_started(4900, 200) == [StopPlayback(), Forget(2)]
    actions = machine.on_speech_ended(6600, said(4800, 6000, b"\x03\x04"))
    think = actions[0]
    assert isinstance(think, Think)
    assert isinstance(think.user, Utterance)
    first, second = said(2500, 4000), said(4800, 6000, b"\x03\x04")
    assert think.user.pcm16 == first.pcm16 + bytes(200 * BYTES_PER_MS) + second.pcm16
    assert (think.user.started_ms, think.user.ended_ms) == (2500, 6000)


def test_speech_while_the_bot_thinks_withdraws_the_reply_and_joins_the_turn() -> None:
    machine = listening()
    machine.on_speech_started(2600, 0)
    machine.on_speech_ended(4600, said(2500, 4000))
    assert machine.on_speech_started(4700, 0) == [Forget(2)]
    actions = machine.on_speech_ended(6000, said(4700, 5400))
    assert isinstance(actions[0], Think)
    assert isinstance(actions[0].user, Utterance)
    assert actions[0].user.started_ms == 2500


def test_joined_turn_never_exceeds_one_encoder_window_and_keeps_the_newest() -> None:
    machine = listening()
    machine.on_speech_started(2600, 0)
    machine.on_speech_ended(22600, said(2000, 22000))
    machine.on_speech_started(22700, 0)
    newest = said(23000, 42000, b"\x05\x06")
    think = machine.on_speech_ended(42600, newest)[0]
    assert isinstance(think, Think)
    assert isinstance(think.user, Utterance)
    assert len(think.user.pcm16) == 30_000 * BYTES_PER_MS
    assert think.user.pcm16.endswith(newest.pcm16)


def test_protected_greeting_is_not_interrupted_but_listened_through() -> None:
    machine = TurnTaking(TurnTakingOptions(is_greeting_protected=True))
    machine.on_answered(0)
    machine.on_reply_audio(100, 1)
    assert machine.on_speech_started(500, 400) == []
    assert machine.on_speech_ended(1900, said(400, 1300)) == []
    machine.on_reply_done(150, 1)
    actions = machine.on_playback_finished(3000)
    assert actions == [Settle(1, None), Think(2, said(400, 1300)), Release(2)]


def test_noise_before_the_greeting_does_not_keep_it_back() -> None:
    machine = TurnTaking()
    machine.on_answered(0)
    assert machine.on_speech_started(50, 0) == []
    machine.on_reply_audio(180, 1, 1500)
    machine.on_reply_done(200, 1)
    # a voice behind the caller goes on; the greeting has been heard all the same
    assert machine.on_playback_finished(1700) == [Settle(1, None), Listen()]
    words = said(50, 2500)
    assert machine.on_speech_ended(3000, words) == [Think(2, words), Release(2)]


def test_noise_before_the_greeting_can_be_heard_does_not_stop_it() -> None:
    """A relay has the greeting some time before Asterisk plays it."""
    machine = TurnTaking()
    machine.on_answered(0)
    machine.on_reply_audio(100, 1)
    assert machine.on_speech_started(300, 0) == []
    machine.on_reply_done(400, 1)
    machine.on_speech_suspected(900, said(150, 700))
    machine.on_speech_ended(1300, said(150, 700))
    assert machine.on_speech_started(1500, 600) == [HoldPlayback()]


def test_words_before_the_greeting_are_answered_behind_it() -> None:
    machine = TurnTaking()
    machine.on_answered(0)
    machine.on_speech_started(50, 0)
    words = said(50, 600)
    assert machine.on_speech_suspected(800, words) == []
    assert machine.on_speech_ended(1000, words) == []
    machine.on_reply_audio(1100, 1, 1500)
    machine.on_reply_done(1200, 1)
    assert machine.on_playback_finished(2600) == [
        Settle(1, None),
        Think(2, words),
        Release(2),
    ]


def test_a_disclosure_is_heard_out_before_the_greeting() -> None:
    machine = TurnTaking(TurnTakingOptions(has_disclosure=True))
    assert machine.on_answered(0) == [Say(1, "disclosure")]
    machine.on_reply_audio(100, 1)
    machine.on_reply_done(150, 1)
    assert machine.on_playback_finished(3000) == [Settle(1, None), Say(2, "greeting")]
    machine.on_reply_audio(3100, 2)
    assert machine.on_speech_started(3500, 400) == [HoldPlayback()]


def test_who_asks_during_the_disclosure_is_answered_not_greeted() -> None:
    machine = TurnTaking(TurnTakingOptions(has_disclosure=True))
    machine.on_answered(0)
    machine.on_reply_audio(100, 1)
    machine.on_speech_started(500, 400)
    machine.on_speech_ended(1900, said(400, 1300))
    machine.on_reply_done(150, 1)
    actions = machine.on_playback_finished(3000)
    assert actions == [Settle(1, None), Think(2, said(400, 1300)), Release(2)]


def test_caller_still_speaking_when_protected_words_end_is_waited_for() -> None:
    machine = TurnTaking(TurnTakingOptions(is_greeting_protected=True))
    machine.on_answered(0)
    machine.on_reply_audio(100, 1)
    machine.on_speech_started(500, 400)
    machine.on_speech_ended(1900, said(400, 1300))
    machine.on_speech_started(2500, 2400)
    assert machine.on_playback_finished(3000) == [Settle(1, None), Listen()]
    think = machine.on_speech_ended(4000, said(2400, 3400))[0]
    assert isinstance(think, Think)
    assert isinstance(think.user, Utterance)
    assert (think.user.started_ms, think.user.ended_ms) == (400, 3400)


def test_without_barge_in_the_bot_talks_to_its_end_and_answers_afterwards() -> None:
    machine = replying(TurnTakingOptions(barge_in=False))
    assert machine.on_speech_started(5000, 300) == []
    assert machine.on_speech_ended(6200, said(4900, 5600)) == []
    machine.on_reply_done(6300, 2)
    assert machine.on_playback_finished(7000) == [
        Settle(2, None),
        Think(3, said(4900, 5600)),
        Release(3),
    ]


def test_silent_caller_is_asked_twice_then_told_goodbye() -> None:
    machine = listening()
    now_ms, turn = 2000, 1
    for _ in range(2):
        now_ms += 7000
        assert machine.deadline_ms() == now_ms
        turn += 1
        assert machine.on_tick(now_ms) == [Say(turn, "still_there")]
        machine.on_reply_audio(now_ms, turn)
        machine.on_reply_done(now_ms, turn)
        now_ms += 1000
        machine.on_playback_finished(now_ms)
    now_ms += 7000
    turn += 1
    assert machine.on_tick(now_ms) == [Say(turn, "goodbye_no_input")]
    machine.on_reply_audio(now_ms, turn)
    actions = machine.on_playback_finished(now_ms + 2000)
    assert actions == [Settle(turn, None), Finish(CallOutcome("no_input", "no_input"))]
    assert machine.deadline_ms() is None


def test_who_cannot_be_heard_at_all_is_asked_twice_then_goes_to_people() -> None:
    machine = listening()
    machine.on_caller_missing(is_missing=True)
    for turn in (2, 3):
        at_ms = machine.deadline_ms()
        assert at_ms is not None
        assert machine.on_tick(at_ms) == [Say(turn, "still_there")]
        machine.on_reply_audio(at_ms + 100, turn)
        machine.on_reply_done(at_ms + 120, turn)
        machine.on_playback_finished(at_ms + 1000)
    at_ms = machine.deadline_ms()
    assert at_ms is not None
    assert machine.on_tick(at_ms) == [ConfirmTransfer(""), Say(4, "transferring")]
    machine.on_reply_audio(at_ms + 100, 4)
    machine.on_reply_done(at_ms + 120, 4)
    [_, finish] = machine.on_playback_finished(at_ms + 1000)
    assert finish == Finish(CallOutcome("transfer", "caller_not_heard"))


def test_who_was_missing_only_for_a_while_is_a_silent_caller() -> None:
    machine = listening(TurnTakingOptions(max_reprompts=0))
    machine.on_caller_missing(is_missing=True)
    machine.on_caller_missing(is_missing=False)
    at_ms = machine.deadline_ms()
    assert at_ms is not None
    assert machine.on_tick(at_ms) == [Say(2, "goodbye_no_input")]


def test_speech_resets_the_number_of_reprompts() -> None:
    machine = listening()
    machine.on_tick(9000)
    machine.on_reply_audio(9000, 2)
    machine.on_playback_finished(10_000)
    machine.on_speech_started(11_000, 0)
    machine.on_speech_ended(12_000, said(11_000, 11_400))
    machine.on_reply_audio(12_100, 3)
    machine.on_playback_finished(13_000)
    for at_ms, turn in ((20_000, 4), (28_000, 5)):
        assert machine.on_tick(at_ms) == [Say(turn, "still_there")]
        machine.on_reply_audio(at_ms, turn)
        machine.on_playback_finished(at_ms + 1000)


def test_late_reply_is_bridged_by_a_filler_then_retried_then_given_up() -> None:
    machine = listening()
    machine.on_speech_started(2600, 0)
    machine.on_speech_ended(4600, said(2500, 4000))
    assert machine.deadline_ms() == 5900
    filler = [PlayPrompt("one_moment", is_filler=True)]
    assert machine.on_tick(5900) == filler
    assert machine.deadline_ms() == 10_400
    assert machine.on_tick(10_400) == filler
    assert machine.deadline_ms() == 12_600
    assert machine.on_tick(12_600) == [
        Forget(2),
        Think(3, said(2500, 4000)),
        Release(3),
    ]
    assert machine.on_tick(13_900) == filler
    assert machine.on_tick(18_400) == filler
    actions = machine.on_tick(20_600)
    assert actions == [StopPlayback(), Forget(3), PlayPrompt("technical_trouble")]
    assert machine.on_playback_finished(24_000) == [
        Finish(CallOutcome("failed", "no_reply_in_time"))
    ]


def test_failed_generation_is_tried_once_more_behind_a_filler() -> None:
    machine = listening()
    machine.on_speech_started(2600, 0)
    machine.on_speech_ended(4600, said(2500, 4000))
    actions = machine.on_reply_failed(4700, 2, "generation_failed", may_retry=True)
    assert actions == [
        Forget(2),
        Think(3, said(2500, 4000)),
        Release(3),
        PlayPrompt("one_moment", is_filler=True),
    ]
    actions = machine.on_reply_failed(4800, 3, "generation_failed", may_retry=True)
    assert actions == [StopPlayback(), Forget(3), PlayPrompt("technical_trouble")]


def test_a_speech_half_that_dies_in_a_pause_is_told_of_when_the_turn_is_over() -> None:
    machine = listening()
    machine.on_speech_started(2600, 0)
    machine.on_speech_suspected(4200, said(2500, 4000))
    assert machine.on_reply_failed(4250, 2, "unavailable", may_retry=False) == []
    assert machine.on_speech_ended(4600, said(2500, 4000)) == [
        StopPlayback(),
        Forget(2),
        PlayPrompt("technical_trouble"),
    ]


def test_one_who_goes_on_after_such_a_pause_is_asked_for_again() -> None:
    machine = listening()
    machine.on_speech_started(2600, 0)
    machine.on_speech_suspected(4200, said(2500, 4000))
    machine.on_reply_failed(4250, 2, "unavailable", may_retry=False)
    assert machine.on_speech_resumed(4400) == [Forget(2)]
    assert machine.on_speech_ended(6000, said(2500, 5500)) == [
        Think(3, said(2500, 5500)),
        Release(3),
    ]


def test_failure_while_the_reply_is_still_a_guess_says_nothing_yet() -> None:
    machine = listening()
    machine.on_speech_started(2600, 0)
    machine.on_speech_suspected(4200, said(2500, 4000))
    assert machine.on_reply_failed(4250, 2, "generation_failed", may_retry=True) == [
        Forget(2),
        Think(3, said(2500, 4000)),
    ]
    assert machine.on_speech_ended(4600, said(2500, 4000)) == [Release(3)]


def test_lost_speech_half_is_said_aloud_and_the_caller_goes_to_people() -> None:
    machine = replying()
    actions = machine.on_reply_failed(5000, 2, "unavailable", may_retry=False)
    assert actions == [StopPlayback(), Forget(2), PlayPrompt("technical_trouble")]
    assert machine.on_speech_started(5200, 100) == []  # heard out, not interrupted
    assert machine.on_playback_finished(8000) == [
        Finish(CallOutcome("failed", "unavailable"))
    ]


def test_announced_transfer_happens_after_its_words_were_heard() -> None:
    machine = replying()
    machine.on_reply_action(4750, 2, "transfer", "sales")
    assert machine.on_speech_started(5000, 700) == []  # no way back from here
    machine.on_reply_done(5100, 2)
    assert machine.on_playback_finished(6000) == [
        Settle(2, None),
        Finish(CallOutcome("transfer", "model_asked", "", "sales")),
    ]


def test_action_without_words_happens_at_once() -> None:
    machine = listening()
    machine.on_speech_started(2600, 0)
    machine.on_speech_ended(4600, said(2500, 4000))
    machine.on_reply_action(4700, 2, "hangup", "")
    assert machine.on_reply_done(4750, 2) == [
        Settle(2, None),
        Finish(CallOutcome("completed", "model_ended")),
    ]


def test_disposition_is_kept_until_the_call_ends_and_cut_to_six_characters() -> None:
    machine = replying()
    machine.on_reply_action(4750, 2, "disposition", "NOTINT99")
    machine.on_reply_done(5000, 2)
    machine.on_playback_finished(6000)
    assert machine.on_leg_closed("caller_hung_up", "") == [
        Finish(CallOutcome("caller_hung_up", "caller_hung_up", "NOTINT"))
    ]


def test_empty_reply_asks_the_caller_to_say_it_again() -> None:
    machine = listening()
    machine.on_speech_started(2600, 0)
    machine.on_speech_ended(4600, said(2500, 4000))
    assert machine.on_reply_done(4800, 2) == [Settle(2, 0), Say(3, "say_again")]


def test_key_zero_takes_the_caller_to_a_person_without_the_model() -> None:
    machine = replying()
    assert machine.on_key(5000, "0", 300) == [
        StopPlayback(),
        Settle(2, 300),
        ConfirmTransfer(""),
        Say(3, "transferring"),
    ]
    machine.on_reply_audio(5100, 3)
    machine.on_reply_done(5150, 3)
    assert machine.on_playback_finished(8000) == [
        Settle(3, None),
        Finish(CallOutcome("transfer", "person_key")),
    ]


def test_keys_make_a_turn_at_the_hash_or_after_a_pause() -> None:
    machine = listening()
    for at_ms, key in ((3000, "4"), (3300, "0"), (3600, "2")):
        machine.on_key(at_ms, key, 0)
    assert machine.on_key(3900, "#", 0) == [Think(2, TypedTurn("4 0 2")), Release(2)]
    machine = listening()
    machine.on_key(3000, "7", 0)
    assert machine.deadline_ms() == 5000
    assert machine.on_tick(5000) == [Think(2, TypedTurn("7")), Release(2)]


def test_time_limit_is_announced_and_the_caller_goes_to_people() -> None:
    machine = replying(TurnTakingOptions(max_call_ms=10_000))
    assert machine.on_tick(10_000) == [StopPlayback(), Forget(2), Say(3, "time_limit")]
    machine.on_reply_audio(10_100, 3)
    machine.on_reply_done(10_200, 3)
    assert machine.on_playback_finished(13_000) == [
        Settle(3, None),
        Finish(CallOutcome("transfer", "time_limit")),
    ]


def test_shutdown_is_announced_and_the_caller_goes_to_people() -> None:
    machine = replying()
    assert machine.on_shutdown(9000) == [
        *(StopPlayback(), Forget(2), Say(3, "transferring"))
    ]
    machine.on_reply_audio(9100, 3)
    machine.on_reply_done(9200, 3)
    assert machine.on_playback_finished(11_000)[-1] == Finish(
        CallOutcome("failed", "shutdown")
    )
    assert machine.on_shutdown(12_000) == []


def test_shutdown_asked_again_does_not_wait_for_its_words() -> None:
    machine = replying()
    machine.on_shutdown(9000)
    assert machine.on_shutdown(9100) == [
        StopPlayback(),
        Finish(CallOutcome("failed", "shutdown")),
    ]


def test_shutdown_lets_last_words_end_and_do_what_they_announced() -> None:
    machine = replying()
    machine.on_key(5000, "0", 300)
    assert machine.on_shutdown(5100) == []
    assert machine.on_shutdown(5200)[-1] == Finish(
        CallOutcome("transfer", "person_key")
    )


def test_last_words_that_never_end_do_not_hold_the_call() -> None:
    machine = replying(TurnTakingOptions(max_call_ms=10_000))
    machine.on_tick(10_000)
    machine.on_reply_audio(10_100, 3)
    assert machine.deadline_ms() == 25_000
    assert machine.on_tick(25_000) == [
        StopPlayback(),
        Finish(CallOutcome("transfer", "time_limit")),
    ]


def test_last_words_that_fail_do_not_stop_what_they_announced() -> None:
    machine = replying()
    machine.on_key(5000, "0", 300)
    actions = machine.on_reply_failed(5100, 3, "synthesis_failed", may_retry=True)
    assert actions[-1] == Finish(CallOutcome("transfer", "person_key"))


@pytest.mark.parametrize(
    ("reason", "status"), [("caller_hung_up", "caller_hung_up"), ("lost", "failed")]
)
def test_closed_leg_ends_the_call(reason: str, status: str) -> None:
    machine = replying()
    finish = machine.on_leg_closed(reason, "")[-1]
    assert isinstance(finish, Finish)
    assert finish.outcome.status == status
    assert machine.on_leg_closed(reason, "") == []


def test_paused_recording_without_speech_listens_again() -> None:
    machine = listening()
    assert machine.on_caller_paused(3000) == [Listen()]
    machine.on_speech_started(3000, 0)
    machine.on_speech_ended(3000, said(2500, 2900))
    assert machine.on_caller_paused(3000) == []


EVENTS = st.lists(
    st.sampled_from(
        [
            "started", "suspected", "resumed", "ended", "audio", "done", "failed",
            "played", "key0", "key5", "hash", "tick", "paused", "transfer", "hangup",
            "refused", "callback", "unclear", "mhm", "stop",
        ]
    ),
    max_size=60,
)  # fmt: skip


@given(EVENTS)
def test_whatever_happens_in_whatever_order_every_turn_gets_one_fate(
    events: list[str],
) -> None:
    """No order of events crashes, leaves a turn without a fate, or a caller waiting."""
    machine = TurnTaking(TurnTakingOptions(max_call_ms=300_000))
    actions: list[Action] = list(machine.on_answered(0))
    at_ms, last = 0, said(0, 100)
    for event in events:
        if machine.is_finished:
            break
        at_ms += 150
        turn = max((a.turn for a in actions if isinstance(a, Think | Say)), default=0)
        match event:
            case "started":
                actions += machine.on_speech_started(at_ms, at_ms % 1000)
            case "suspected":
                last = said(at_ms - 100, at_ms)
                actions += machine.on_speech_suspected(at_ms, last)
            case "resumed":
                actions += machine.on_speech_resumed(at_ms)
            case "ended":
                actions += machine.on_speech_ended(at_ms, last)
            case "mhm" | "stop":
                is_meant = event == "stop"
                actions += machine.on_words(at_ms, last, is_meant=is_meant)
            case "audio":
                actions += machine.on_reply_audio(at_ms, turn)
            case "done":
                actions += machine.on_reply_done(at_ms, turn)
            case "failed":
                actions += machine.on_reply_failed(at_ms, turn, "x", may_retry=True)
            case "played":
                actions += machine.on_playback_finished(at_ms)
            case "key0" | "key5" | "hash":
                key = {"key0": "0", "key5": "5", "hash": "#"}[event]
                actions += machine.on_key(at_ms, key, 100)
            case "tick":
                deadline_ms = machine.deadline_ms()
                assert deadline_ms is not None  # something always ends the waiting
                at_ms = max(at_ms, deadline_ms)
                actions += machine.on_tick(at_ms)
            case "paused":
                actions += machine.on_caller_paused(at_ms)
            case "transfer" | "hangup":
                actions += machine.on_reply_action(at_ms, turn, event, "")
            case "refused":
                actions += machine.on_transfer_refused(at_ms)
            case "callback" | "unclear":
                actions += machine.on_reply_action(at_ms, turn, "callback", "at 3")
                spoken = "today at 3 PM" if event == "callback" else None
                actions += machine.on_callback_read("at 3", spoken)
    begun = [a.turn for a in actions if isinstance(a, Think | Say)]
    fated = [a.turn for a in actions if isinstance(a, Settle | Forget)]
    assert begun == sorted(set(begun))
    assert len(fated) == len(set(fated))
    open_turns = set(begun) - set(fated)
    assert len(open_turns) <= 1 or machine.is_finished
    assert not set(fated) - set(begun)
    if machine.is_finished:
        assert sum(isinstance(a, Finish) for a in actions) == 1


def test_opt_out_of_the_model_is_recorded_once_and_cannot_be_interrupted() -> None:
    machine = replying()
    assert machine.on_reply_action(4750, 2, "dnc", "") == [RecordOptOut()]
    assert machine.on_reply_action(4751, 2, "dnc", "") == []
    machine.on_reply_action(4752, 2, "disposition", "SALE")
    assert machine.on_speech_started(5000, 200) == []
    machine.on_reply_done(5100, 2)
    finish = machine.on_playback_finished(7000)[-1]
    assert isinstance(finish, Finish)
    assert finish.outcome.is_opt_out
    assert finish.outcome.reason == "opt_out"


def test_opt_out_key_works_without_the_model() -> None:
    machine = listening(TurnTakingOptions(opt_out_key="9"))
    assert machine.on_key(3000, "9", 0) == [RecordOptOut(), Say(2, "opted_out")]
    machine.on_reply_audio(3100, 2)
    machine.on_reply_done(3200, 2)
    outcome = CallOutcome("completed", "opt_out_key", "DNC", is_opt_out=True)
    assert machine.on_playback_finished(5000) == [Settle(2, None), Finish(outcome)]


def test_key_nine_is_a_digit_where_no_opt_out_key_is_set() -> None:
    machine = listening()
    assert machine.on_key(3000, "9", 0) == [Listen()]


def test_callback_and_notes_reach_the_outcome() -> None:
    machine = replying()
    machine.on_reply_action(4750, 2, "callback", "tomorrow 10 am")
    for number in range(20):
        machine.on_reply_action(4751, 2, "note", f"note {number}")
    machine.on_reply_action(4752, 2, "hangup", "")
    machine.on_reply_done(5100, 2)
    finish = machine.on_playback_finished(7000)[-1]
    assert isinstance(finish, Finish)
    assert finish.outcome.callback == "tomorrow 10 am"
    assert finish.outcome.notes == tuple(f"note {number}" for number in range(10))


def test_callback_is_read_back_after_the_models_words() -> None:
    machine = replying()
    machine.on_reply_action(4750, 2, "callback", "tomorrow 10 am")
    machine.on_callback_read("tomorrow 10 am", "tomorrow, Monday, at 10 AM")
    machine.on_reply_done(5000, 2)
    assert machine.on_playback_finished(6000) == [
        Settle(2, None),
        Say(3, "callback_noted", "tomorrow, Monday, at 10 AM"),
    ]
    machine.on_reply_audio(6100, 3)
    machine.on_reply_done(6200, 3)
    assert machine.on_playback_finished(8000) == [Settle(3, None), Listen()]


def test_callback_is_read_back_before_the_bot_hangs_up() -> None:
    machine = replying()
    machine.on_reply_action(4750, 2, "callback", "at 3")
    machine.on_callback_read("at 3", "today at 3 PM")
    machine.on_reply_action(4751, 2, "hangup", "")
    machine.on_reply_done(5000, 2)
    actions = machine.on_playback_finished(6000)
    assert actions[-1] == Say(3, "callback_noted", "today at 3 PM")
    machine.on_reply_audio(6100, 3)
    machine.on_reply_done(6200, 3)
    finish = machine.on_playback_finished(8000)[-1]
    assert isinstance(finish, Finish)
    assert (finish.outcome.status, finish.outcome.callback) == ("completed", "at 3")


def test_callback_that_is_not_understood_is_asked_for_again() -> None:
    machine = replying()
    machine.on_reply_action(4750, 2, "callback", "when pigs fly")
    machine.on_callback_read("when pigs fly", None)
    machine.on_reply_done(5000, 2)
    assert machine.on_playback_finished(6000)[-1] == Say(3, "callback_unclear")
    finish = machine.on_leg_closed("caller_hung_up", "")[-1]
    assert isinstance(finish, Finish)
    assert finish.outcome.callback == ""


def test_transfer_nobody_is_free_for_goes_on_as_a_talk() -> None:
    machine = replying()
    asked = machine.on_reply_action(4750, 2, "transfer", "sales")
    assert asked == [ConfirmTransfer("sales")]
    assert machine.on_transfer_refused(4800) == []
    machine.on_reply_done(5000, 2)
    assert machine.on_playback_finished(6000) == [
        Settle(2, None),
        Say(3, "nobody_free"),
    ]
    assert not machine.is_finished


def test_person_key_with_nobody_free_says_so_instead_of_promising() -> None:
    machine = replying()
    machine.on_key(5000, "0", 300)
    assert machine.on_transfer_refused(5050) == [
        StopPlayback(),
        Forget(3),
        Say(4, "nobody_free"),
    ]
    machine.on_reply_audio(5100, 4)
    machine.on_reply_done(5200, 4)
    assert machine.on_playback_finished(8000) == [Settle(4, None), Listen()]


def test_a_transfer_that_was_promised_aloud_is_not_taken_back() -> None:
    machine = replying()
    machine.on_key(5000, "0", 300)
    machine.on_reply_audio(5100, 3)
    assert machine.on_transfer_refused(6100) == []
    machine.on_reply_done(6200, 3)
    finish = machine.on_playback_finished(8000)[-1]
    assert finish == Finish(CallOutcome("transfer", "person_key"))


def test_transfer_without_words_is_announced_by_the_bot() -> None:
    machine = listening()
    machine.on_speech_started(2600, 0)
    machine.on_speech_ended(4600, said(2500, 4000))
    machine.on_reply_action(4700, 2, "transfer", "sales")
    assert machine.on_reply_done(4750, 2) == [Settle(2, None), Say(3, "transferring")]
    machine.on_reply_audio(4800, 3)
    machine.on_reply_done(4900, 3)
    finish = machine.on_playback_finished(8000)[-1]
    assert finish == Finish(CallOutcome("transfer", "model_asked", "", "sales"))


def test_outside_the_hours_the_caller_is_told_so_and_that_is_all() -> None:
    machine = TurnTaking(TurnTakingOptions(is_closed=True))
    assert machine.on_answered(0) == [Say(1, "closed")]
    machine.on_reply_audio(100, 1)
    assert machine.on_speech_started(500, 400) == []
    machine.on_reply_done(600, 1)
    finish = machine.on_playback_finished(4000)[-1]
    assert finish == Finish(CallOutcome("completed", "outside_hours"))


def test_talk_that_only_asterisk_hears_silences_the_bot_and_has_it_listen() -> None:
    machine = replying()
    machine.on_reply_audio(9000, 2)
    assert machine.on_talk_detected(10_000, 900) == [
        *(StopPlayback(), Settle(2, 900), Listen())
    ]
    assert machine.on_talk_detected(10_100, 0) == []  # it is silent already
    assert machine.deadline_ms() is not None  # who says nothing is asked again
    deaf = replying(TurnTakingOptions(barge_in=False))
    deaf.on_reply_audio(9000, 2)
    assert deaf.on_talk_detected(10_000, 900) == []
