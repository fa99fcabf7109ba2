from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from model.audio.frames import samples_from_ms
from model.vad.endpointing import Endpointing
from model.vad.events import (
    SpeechEnded,
    SpeechEvent,
    SpeechResumed,
    SpeechStarted,
    SpeechSuspectedEnd,
    SpeechTooLong,
)
from model.vad.options import EndpointingOptions
from tests.model.vad.timeline import WINDOW_MS, WINDOW_SAMPLES, hear, silence

WORDS = "~" * 20
FIXED = EndpointingOptions.fixed(600)


def endpointing(options: EndpointingOptions | None = None) -> Endpointing:
    return Endpointing(options or FIXED, WINDOW_SAMPLES)


def kinds(events: list[SpeechEvent]) -> list[str]:
    return [type(event).__name__.removeprefix("Speech") for event in events]


def ends(events: list[SpeechEvent]) -> list[SpeechEnded]:
    return [event for event in events if isinstance(event, SpeechEnded)]


# --- start ------------------------------------------------------------------------


def test_speech_starts_where_its_first_window_began_less_the_detectors_lag() -> None:
    """____~~  decided after the second window of speech, dated to before the first."""
    [started] = hear(endpointing(), "____ ~~")
    assert started == SpeechStarted(3 * WINDOW_SAMPLES, 6 * WINDOW_SAMPLES)


def test_a_first_sign_of_speech_is_known_before_it_counts_and_is_forgotten() -> None:
    ear = endpointing()
    assert not ear.may_be_starting
    signs = []
    for window in "__~_________~~_":
        hear(ear, window)
        signs.append(ear.may_be_starting)
    seen = "".join("!" if sign else "." for sign in signs)
    # 224 ms are seven windows; once it is speech it is no sign any more
    assert seen == "..!!!!!!!...!.."


def test_a_click_starts_nothing() -> None:
    assert hear(endpointing(), "___~____~____~___") == []


def test_a_gap_between_two_windows_of_speech_does_not_hide_them() -> None:
    assert kinds(hear(endpointing(), "___~_~__")) == ["Started"]


def test_speech_at_the_calls_first_sample_starts_at_zero() -> None:
    [started] = hear(endpointing(), "~~")
    assert started.decided_samples == 2 * WINDOW_SAMPLES
    assert isinstance(started, SpeechStarted)
    assert started.started_samples == 0


def test_a_click_does_not_interrupt_the_bot_but_a_word_does() -> None:
    ear = endpointing()
    ear.bot_is_talking = True
    assert hear(ear, "____~~~_______") == []
    assert kinds(hear(ear, "~~~~")) == ["Started"]


def test_what_was_too_little_while_the_bot_talked_is_enough_once_it_stops() -> None:
    ear = endpointing()
    ear.bot_is_talking = True
    assert hear(ear, "____~~") == []
    ear.bot_is_talking = False
    assert kinds(hear(ear, "~")) == ["Started"]


# --- end --------------------------------------------------------------------------


def test_an_end_is_suspected_after_200_ms_and_certain_after_the_hangover() -> None:
    started, suspected, ended = hear(endpointing(), "____" + WORDS + silence(600))
    assert isinstance(started, SpeechStarted)
    assert isinstance(suspected, SpeechSuspectedEnd)
    assert isinstance(ended, SpeechEnded)
    # The detector lags a window behind the caller at both ends.
    last = (4 + 20 - 1) * WINDOW_SAMPLES
    assert suspected.ended_samples == ended.ended_samples == last
    assert 200 <= (suspected.decided_samples - last) / 8 < 200 + WINDOW_MS
    assert 600 <= (ended.decided_samples - last) / 8 < 600 + WINDOW_MS
    assert not ended.forced


def test_an_utterance_is_kept_with_pre_roll_and_post_roll() -> None:
    events = hear(endpointing(), silence(500) + WORDS + silence(600))
    [ended] = ends(events)
    assert ended.kept_from_samples == ended.started_samples - samples_from_ms(250)
    assert ended.kept_to_samples == ended.ended_samples + samples_from_ms(100)


def test_a_confirmed_end_keeps_what_the_suspicion_kept() -> None:
    _, suspected, ended = hear(endpointing(), "____" + WORDS + silence(600))
    assert isinstance(suspected, SpeechSuspectedEnd)
    assert isinstance(ended, SpeechEnded)
    assert suspected.kept_from_samples == ended.kept_from_samples
    assert suspected.kept_to_samples == ended.kept_to_samples


def test_a_pause_shorter_than_the_hangover_is_part_of_the_turn() -> None:
    """~~~~____~~~~  suspected, resumed, and one end for both halves."""
    events = hear(endpointing(), WORDS + silence(400) + WORDS + silence(600))
    assert kinds(events) == [
        *("Started", "SuspectedEnd", "Resumed", "SuspectedEnd", "Ended")
    ]


def test_a_silence_within_a_word_is_not_even_suspected() -> None:
    events = hear(endpointing(), WORDS + silence(100) + WORDS)
    assert kinds(events) == ["Started"]


def test_a_pause_longer_than_the_hangover_makes_two_turns() -> None:
    events = hear(endpointing(), WORDS + silence(700) + WORDS + silence(600))
    assert len(ends(events)) == 2


def test_what_cannot_open_a_turn_can_keep_one_open() -> None:
    """Probability between the two thresholds, as in the soft end of a sentence."""
    ear = endpointing()
    assert hear(ear, "''''''''") == []
    assert kinds(hear(ear, WORDS + "'" * 40)) == ["Started"]


def test_the_pre_roll_of_a_turn_takes_nothing_the_turn_before_has_kept() -> None:
    options = EndpointingOptions.fixed(200)
    events = hear(endpointing(options), WORDS + silence(260) + WORDS + silence(300))
    first, second = ends(events)
    assert second.started_samples - samples_from_ms(250) < first.kept_to_samples
    assert second.kept_from_samples == first.kept_to_samples


# --- how long to wait -------------------------------------------------------------


def wait_ms(ear: Endpointing, timeline: str = WORDS) -> float:
    """How long after the words the end is known."""
    [ended] = ends(hear(ear, timeline + silence(1500)))
    return (ended.decided_samples - ended.ended_samples) / 8


def test_a_fluent_caller_waits_less_and_less_down_to_a_limit() -> None:
    options = EndpointingOptions()
    ear = endpointing(options)
    waits = [wait_ms(ear) for _ in range(60)]
    assert all(later <= earlier for earlier, later in pairwise(waits))
    shortest = options.min_hangover_ms
    assert shortest <= waits[-1] < shortest + WINDOW_MS < waits[0]


def test_a_caller_who_pauses_gets_more_time_at_once() -> None:
    ear = endpointing(EndpointingOptions())
    fluent = wait_ms(ear)
    assert wait_ms(ear, WORDS + silence(320) + WORDS + silence(320) + WORDS) > fluent


def test_what_begins_when_the_wait_is_over_is_heard_out() -> None:
    options = EndpointingOptions.fixed(400)
    patient = replace(options, onset_hold_ms=128)
    # In the last window of the wait the detector just begins to suspect something.
    timeline = WORDS + silence(352) + "." + WORDS + silence(1500)
    assert len(ends(hear(endpointing(options), timeline))) == 2
    assert len(ends(hear(endpointing(patient), timeline))) == 1


def test_what_only_rustles_delays_the_end_by_no_more_than_the_hold() -> None:
    options = EndpointingOptions.fixed(400)
    patient = replace(options, onset_hold_ms=128)
    timeline = WORDS + silence(352)
    quick = hear(endpointing(options), timeline + "." * 30)
    slow = hear(endpointing(patient), timeline + "." * 30)
    [quick_end], [slow_end] = ends(quick), ends(slow)
    held_ms = (slow_end.decided_samples - quick_end.decided_samples) / 8
    assert 0 < held_ms <= 128 + WINDOW_MS


def waiting(tail: str = "") -> Endpointing:
    """A window before the wait of 600 ms is over: 14 ms are left of it."""
    ear = endpointing()
    hear(ear, WORDS + "_" * 17 + tail)
    assert ear.awaits_end
    return ear


def test_a_wait_ends_within_a_window_that_is_quiet_so_far() -> None:
    ear = waiting()
    assert ear.on_part(100, -70.0) == []  # 12.5 of 24 ms
    [ended] = ear.on_part(192, -69.0)
    assert isinstance(ended, SpeechEnded)
    assert ended.decided_samples == 37 * WINDOW_SAMPLES + 192
    assert not ear.is_speech
    assert hear(ear, "____") == []


def test_a_wait_does_not_end_within_a_window_that_something_begins_in() -> None:
    ear = waiting()
    assert ear.on_part(192, -65.0) == []
    assert hear(ear, "~")[0] == SpeechResumed(38 * WINDOW_SAMPLES)


def test_what_is_being_heard_out_is_not_judged_by_a_part() -> None:
    ear = endpointing(replace(FIXED, onset_hold_ms=128))
    hear(ear, WORDS + "_" * 17 + ".")
    assert not ear.awaits_end
    assert ear.on_part(192, -70.0) == []


def test_a_part_of_a_window_says_nothing_in_speech_or_when_nobody_speaks() -> None:
    ear = endpointing()
    assert ear.on_part(192, -70.0) == []
    hear(ear, WORDS)
    assert ear.on_part(192, -70.0) == []
    assert ear.is_speech


def test_a_number_read_out_in_groups_is_one_turn() -> None:
    ear = endpointing(EndpointingOptions())
    ear.expect("digits")
    group = "~" * 12
    number = (group + silence(800)) * 3 + group
    assert len(ends(hear(ear, number + silence(1500)))) == 1
    ear.expect("anything")
    assert wait_ms(ear) < 900


def test_yes_is_over_sooner_than_anything_else() -> None:
    options = EndpointingOptions()
    usual, quick = endpointing(options), endpointing(options)
    quick.expect("yes_no")
    assert wait_ms(quick, "~" * 10) < wait_ms(usual, "~" * 10)
    assert wait_ms(quick, "~" * 100) < 600


def test_no_habit_makes_anybody_wait_longer_than_the_limit() -> None:
    options = EndpointingOptions(mean_pause_ms=2000)
    ear = endpointing(options)
    longest = wait_ms(ear, (WORDS + silence(350)) * 3 + WORDS)
    assert longest < options.max_hangover_ms + WINDOW_MS


def test_speech_soon_after_an_end_counts_as_a_pause() -> None:
    """The turn was cut; the next one is given more time."""
    ear = endpointing(EndpointingOptions())
    cut_short, resumed = ends(hear(ear, WORDS + silence(580) + WORDS + silence(1500)))
    first = cut_short.decided_samples - cut_short.ended_samples
    assert resumed.decided_samples - resumed.ended_samples > first


def test_the_same_speech_long_after_an_end_is_just_the_next_turn() -> None:
    ear = endpointing(EndpointingOptions())
    first, second = wait_ms(ear), wait_ms(ear)
    assert second <= first


def test_words_that_sound_finished_shorten_the_wait() -> None:
    ear = endpointing()
    assert kinds(hear(ear, WORDS + silence(224)))[-1] == "SuspectedEnd"
    ear.hint_turn_over(0.95)
    assert kinds(hear(ear, "__")) == ["Ended"]


def test_words_that_ask_for_more_stretch_the_wait() -> None:
    ear = endpointing()
    hear(ear, WORDS + silence(224))
    ear.hint_turn_over(0.05)
    assert hear(ear, silence(800)) == []
    assert kinds(hear(ear, silence(300))) == ["Ended"]


def test_words_that_leave_it_open_change_nothing() -> None:
    hinted, alone = endpointing(), endpointing()
    for ear in (hinted, alone):
        hear(ear, WORDS + silence(224))
    hinted.hint_turn_over(0.5)
    assert hear(hinted, silence(600)) == hear(alone, silence(600))


def test_a_hint_is_forgotten_when_the_caller_goes_on() -> None:
    hinted, alone = endpointing(), endpointing()
    for ear in (hinted, alone):
        hear(ear, WORDS + silence(224))
    hinted.hint_turn_over(0.95)
    for ear in (hinted, alone):
        assert kinds(hear(ear, "~")) == ["Resumed"]
    assert hear(hinted, silence(700)) == hear(alone, silence(700))


def test_a_hint_about_nothing_is_ignored() -> None:
    hinted, alone = endpointing(), endpointing()
    hinted.hint_turn_over(0.95)
    assert hear(hinted, WORDS + silence(700)) == hear(alone, WORDS + silence(700))


# --- whose speech -----------------------------------------------------------------


def test_a_voice_far_behind_the_caller_does_not_keep_his_turn_open() -> None:
    events = hear(endpointing(), WORDS + "-" * 60)
    assert kinds(events) == ["Started", "SuspectedEnd", "Ended"]


def test_the_soft_end_of_a_sentence_still_belongs_to_it() -> None:
    soft_ms = 9 * WINDOW_MS
    [ended] = ends(hear(endpointing(), WORDS + "-" * 9 + silence(700)))
    assert ended.ended_samples == (20 + 9 - 1) * WINDOW_SAMPLES
    assert soft_ms <= EndpointingOptions().loud_within_ms


def test_a_voice_far_behind_the_caller_opens_no_turn_once_he_is_known() -> None:
    ear = endpointing()
    hear(ear, WORDS + silence(700))
    assert hear(ear, "-" * 60 + silence(700)) == []
    assert kinds(hear(ear, WORDS)) == ["Started"]


def test_before_the_caller_is_known_any_voice_may_be_his() -> None:
    assert kinds(hear(endpointing(), "-" * 10)) == ["Started"]


def test_a_caller_who_became_soft_is_heard_again_after_a_while() -> None:
    ear = endpointing()
    hear(ear, WORDS + silence(700))
    hear(ear, silence(31_000))
    assert kinds(hear(ear, "-" * 10)) == ["Started"]


def _room(ear: Endpointing, windows: int) -> list[SpeechEvent]:
    """Voices of a full room: speech to the detector, now louder, now softer."""
    return [
        event
        for window in range(windows)
        for event in ear.on_window(0.9, -30.0 if window % 2 == 0 else -35.0)
    ]


def test_a_full_rooms_voices_do_not_interrupt_the_bot_but_the_caller_does() -> None:
    ear = endpointing()
    ear.bot_is_talking = True
    for _ in range(40):  # first words of others, each too short to count
        assert kinds(_room(ear, 3)) == []
        hear(ear, silence(130))
    assert kinds(_room(ear, 60)) == []
    assert not ear.may_be_starting
    louder = [event for _ in range(8) for event in ear.on_window(0.9, -22.0)]
    assert kinds(louder) == ["Started"]


def test_a_full_rooms_voices_open_a_turn_when_the_bot_is_silent() -> None:
    ear = endpointing()
    ear.bot_is_talking = True
    for _ in range(40):
        _room(ear, 3)
        hear(ear, silence(130))
    ear.bot_is_talking = False
    assert kinds(_room(ear, 10)) == ["Started"]


def test_nobody_has_to_be_louder_than_he_usually_is() -> None:
    ear = endpointing()
    for _ in range(8):
        ear.on_window(0.9, -29.0)
    hear(ear, silence(700))
    ear.bot_is_talking = True
    for _ in range(40):
        _room(ear, 3)
        hear(ear, silence(130))
    # No 4 dB above the room, but as loud as he was.
    his = [event for _ in range(8) for event in ear.on_window(0.9, -29.0)]
    assert kinds(his) == ["Started"]


def test_one_loud_word_of_a_full_room_does_not_interrupt_but_the_callers_do() -> None:
    """One window in four stands out, all together do not."""
    ear = endpointing()
    hear(ear, WORDS + silence(700))
    ear.bot_is_talking = True
    for level_db in [-32.0] * 700 + [-32.0, -32.0, -32.0, -25.0] * 20:
        assert ear.on_window(0.9, level_db) == []
    his = [event for _ in range(5) for event in ear.on_window(0.9, -21.0)]
    assert kinds(his) == ["Started"]


def test_a_voice_behind_the_caller_opens_a_turn_and_interrupts_nobody() -> None:
    for is_talking, expected in ((True, []), (False, ["Started"])):
        ear = endpointing()
        hear(ear, WORDS + silence(700))
        ear.bot_is_talking = is_talking
        behind = [event for _ in range(8) for event in ear.on_window(0.9, -30.5)]
        assert kinds(behind) == expected


# --- too long, and forced ---------------------------------------------------------


def test_an_endless_talker_is_cut_at_the_cap_and_nothing_is_lost_between() -> None:
    options = EndpointingOptions(max_utterance_ms=2000)
    events = hear(endpointing(options), "~" * 200 + silence(1000))
    kept = [e for e in events if isinstance(e, SpeechTooLong | SpeechEnded)]
    assert kinds(events)[:4] == ["Started", "TooLong", "Started", "TooLong"]
    assert len(kept) >= 4
    assert kept[0].kept_from_samples == 0
    for before, after in pairwise(kept):
        assert after.kept_from_samples == before.kept_to_samples
    for piece in kept:
        length = piece.kept_to_samples - piece.kept_from_samples
        assert length < samples_from_ms(2000 + WINDOW_MS)


def test_a_suspicion_at_the_cap_becomes_an_end() -> None:
    options = EndpointingOptions(max_utterance_ms=1000, min_hangover_ms=400)
    events = hear(endpointing(options), "~" * 23 + "_" * 9)
    assert kinds(events) == ["Started", "SuspectedEnd", "Ended"]


def test_the_end_of_the_audio_ends_speech() -> None:
    ear = endpointing()
    hear(ear, "____" + WORDS)
    [ended] = ear.force_end(24 * WINDOW_SAMPLES + 100)
    assert ended == SpeechEnded(
        started_samples=3 * WINDOW_SAMPLES,
        ended_samples=24 * WINDOW_SAMPLES,
        decided_samples=24 * WINDOW_SAMPLES + 100,
        kept_from_samples=0,
        kept_to_samples=24 * WINDOW_SAMPLES + 100,
        forced=True,
    )
    assert not ear.is_speech


def test_the_end_of_the_audio_confirms_a_suspicion() -> None:
    ear = endpointing()
    [*_, suspected] = hear(ear, "____" + WORDS + silence(300))
    [ended] = ear.force_end(40 * WINDOW_SAMPLES)
    assert isinstance(suspected, SpeechSuspectedEnd)
    assert isinstance(ended, SpeechEnded)
    assert ended.forced
    assert ended.kept_from_samples == suspected.kept_from_samples
    assert ended.kept_to_samples == suspected.kept_to_samples


def test_the_end_of_the_audio_in_silence_is_nothing() -> None:
    ear = endpointing()
    hear(ear, "____~____")
    assert ear.force_end(9 * WINDOW_SAMPLES) == []


# --- whatever comes ---------------------------------------------------------------


def check_grammar(events: list[SpeechEvent]) -> None:
    """Started (SuspectedEnd Resumed)* SuspectedEnd Ended, or TooLong at the cap."""
    state = "quiet"
    for kind in kinds(events):
        allowed = {
            "quiet": {"Started": "speaking"},
            "speaking": {"SuspectedEnd": "suspecting", "TooLong": "quiet"},
            "suspecting": {"Resumed": "speaking", "Ended": "quiet"},
        }[state]
        assert kind in allowed, f"{kind} while {state}"
        state = allowed[kind]


@given(
    timeline=st.lists(
        st.tuples(st.sampled_from("_~-'"), st.integers(1, 40)), max_size=30
    ),
    bot_talks=st.lists(st.booleans(), min_size=1, max_size=5),
    hints=st.lists(st.floats(0, 1), min_size=1, max_size=5),
)
def test_whatever_is_heard_events_come_in_order_and_audio_is_kept_once(
    timeline: list[tuple[str, int]], bot_talks: list[bool], hints: list[float]
) -> None:
    ear = endpointing(EndpointingOptions(max_utterance_ms=4000))
    events: list[SpeechEvent] = []
    now = 0
    for step, (character, num_windows) in enumerate(timeline):
        ear.bot_is_talking = bot_talks[step % len(bot_talks)]
        ear.hint_turn_over(hints[step % len(hints)])
        for _ in range(num_windows):
            needed_from = ear.needed_from_samples
            new = hear(ear, character)
            now += WINDOW_SAMPLES
            for event in new:
                assert event.decided_samples == now
                if isinstance(event, SpeechSuspectedEnd | SpeechEnded | SpeechTooLong):
                    assert needed_from <= event.kept_from_samples
                    assert event.kept_from_samples <= event.started_samples
                    assert event.started_samples <= event.ended_samples
                    assert event.ended_samples <= event.kept_to_samples <= now
            events += new
    check_grammar(events)
    assert ear.is_speech == (
        bool(events) and not isinstance(events[-1], SpeechEnded | SpeechTooLong)
    )
    kept = [e for e in events if isinstance(e, SpeechEnded | SpeechTooLong)]
    for before, after in pairwise(kept):
        assert before.kept_to_samples <= after.kept_from_samples


def test_two_callers_do_not_share_anything() -> None:
    timeline = WORDS + silence(350) + WORDS + silence(900)
    alone = hear(endpointing(EndpointingOptions()), timeline)
    first, second = endpointing(EndpointingOptions()), endpointing(EndpointingOptions())
    together: list[SpeechEvent] = []
    for character in timeline:
        together += hear(first, character)
        hear(second, "~" if character == "_" else "_")
    assert together == alone


def test_a_resumption_is_told_when_it_is_heard() -> None:
    events = hear(endpointing(), WORDS + silence(320) + "~")
    assert events[-1] == SpeechResumed((20 + 10 + 1) * WINDOW_SAMPLES)


def test_voices_that_outlast_every_turn_hold_up_its_end_less_and_less() -> None:
    """~~~~----------  the caller, then the room behind him."""
    ear = endpointing()
    room = "-" * 40
    cycle_samples = len(WORDS + room) * WINDOW_SAMPLES
    delays = [
        (end.decided_samples % cycle_samples) / 8
        for end in ends(hear(ear, (WORDS + room) * 12))
    ]
    assert len(delays) == 12
    assert delays[-1] <= delays[0] - 150
    hear(ear, silence(300))
    quiet = [wait_ms(ear) for _ in range(12)]
    assert quiet[-1] == quiet[0]  # a soft end is waited for as ever, once they are gone
