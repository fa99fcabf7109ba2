"""Who answered: the rules, without any audio."""

from __future__ import annotations

import pytest

from agi_handlers.conversation.answer_rules import AnswerRules, Verdict
from model.audio.tones import Tone, ToneKind


class Line:
    """Feeds the rules as a listener does, in steps of 20 ms."""

    def __init__(self) -> None:
        self.rules = AnswerRules()
        self.at_ms = 0

    def wait(self, ms: int) -> Line:
        for _ in range(ms // 20):
            self.at_ms += 20
            self.rules.on_time(self.at_ms)
        return self

    def speaks(self, ms: int) -> Line:
        """Then pauses until the pause counts as an end."""
        started_ms = self.at_ms
        self.rules.on_speech_started(started_ms)
        self.wait(ms)
        ended_ms = self.at_ms
        self.wait(500)
        self.rules.on_speech_ended(started_ms, ended_ms, self.at_ms)
        return self

    def tone(self, kind: ToneKind, ms: int = 300, hz: float = 1000.0) -> Line:
        start = self.at_ms
        self.wait(ms)
        self.rules.on_tone(Tone(kind, hz, start * 8, self.at_ms * 8))
        return self

    def bot_greets(self) -> Line:
        assert self.verdict is not None, "the bot waits for a verdict"
        self.rules.on_bot_spoke(self.at_ms)
        return self

    @property
    def verdict(self) -> Verdict | None:
        return self.rules.verdict

    @property
    def found(self) -> tuple[str, str]:
        assert self.verdict is not None
        return self.verdict.answered_by, self.verdict.reason


def test_hello_is_a_person_as_soon_as_it_is_over() -> None:
    line = Line().wait(600).speaks(500)
    assert line.found == ("person", "short_answer")
    assert line.verdict is not None
    assert line.verdict.at_ms == 600 + 500 + 500


def test_silence_is_greeted_and_decides_nothing() -> None:
    line = Line().wait(2100)
    assert line.found == ("unsure", "silence")
    assert line.rules.is_watching


def test_a_long_answer_alone_makes_nobody_a_machine() -> None:
    line = Line().wait(400).speaks(6000).wait(1000)
    assert line.found == ("unsure", "long_answer")
    noisy = Line()
    noisy.rules.on_speech_started(100)  # a cafe: speech without end
    noisy.wait(30_000)
    assert noisy.found == ("unsure", "no_pause")


def test_a_greeting_and_a_beep_is_a_machine() -> None:
    line = Line().wait(400).speaks(5000).tone("beep").wait(1000)
    assert line.found == ("machine", "beep")
    assert not line.rules.is_watching


@pytest.mark.parametrize("speech_ms", [0, 500, 2000])
def test_a_beep_behind_little_or_no_speech_is_not_believed(speech_ms: int) -> None:
    line = Line().wait(400)
    if speech_ms:
        line.speaks(speech_ms)
    line.tone("beep").wait(3000)
    assert line.found[0] != "machine"


def test_who_talks_on_behind_a_beep_is_no_machine() -> None:
    line = Line().wait(400).speaks(5000).tone("beep").wait(200).speaks(800).wait(1500)
    assert line.found == ("unsure", "long_answer")


def test_a_machine_that_talks_over_the_bot_is_found_by_its_beep() -> None:
    """Its first sentence is short: the bot takes it for a person and greets."""
    line = Line().wait(400).speaks(1500).bot_greets()
    assert line.found == ("person", "short_answer")
    line.wait(200).speaks(2500).wait(100).speaks(1200).tone("beep").wait(1000)
    assert line.found == ("machine", "beep")


def test_a_person_who_waits_for_the_bot_may_sit_beside_anything_that_beeps() -> None:
    line = Line().wait(400).speaks(600).bot_greets().wait(4000)
    line.speaks(4000).tone("beep").wait(1000)
    assert line.found == ("person", "short_answer")


def test_the_beeps_of_a_recorded_line_are_known() -> None:
    line = Line().wait(400).speaks(4000).wait(1000).bot_greets()
    line.tone("beep", 200, 1400.0).wait(2000)
    assert line.found == ("unsure", "long_answer")


def test_words_of_a_machine_count_at_any_time_while_watching() -> None:
    line = Line().wait(400).speaks(1500).bot_greets().wait(500)
    line.rules.on_words("machine", line.at_ms)
    assert line.found == ("machine", "words")


def test_one_hint_proves_nothing_and_a_person_outweighs_two() -> None:
    line = Line().wait(400).speaks(3000)
    line.rules.on_words("hint", line.at_ms)
    assert line.verdict is None
    line.rules.on_words("person", line.at_ms)
    assert line.found == ("person", "model")


def test_the_models_word_counts_for_a_long_answer_only() -> None:
    short = Line().wait(400).speaks(800)
    short.rules.on_judged("machine", short.at_ms)
    assert short.found == ("person", "short_answer")
    long = Line().wait(400).speaks(4000)
    long.rules.on_judged("machine", long.at_ms)
    assert long.found == ("machine", "model")
    talk = Line().wait(2100).bot_greets().speaks(5000)
    talk.rules.on_judged("machine", talk.at_ms)
    assert talk.found == ("unsure", "silence")


def test_faxes_and_network_tones() -> None:
    assert Line().wait(300).tone("ced", 900).found == ("fax", "answer_tone")
    assert Line().wait(300).tone("sit", 1000).found == ("no_service", "network_tones")
    calling = Line().wait(300).tone("cng", 500)
    assert calling.verdict is None
    assert calling.wait(3000).tone("cng", 500).found == ("fax", "calling_tones")


def test_a_conversation_is_not_watched_for_ever() -> None:
    line = Line().wait(400).speaks(600).bot_greets()
    for _ in range(3):
        line.wait(4000).speaks(1000)
    assert not line.rules.is_watching
    line.rules.on_words("machine", line.at_ms)
    assert line.found == ("person", "short_answer")
    late = Line().wait(2100).bot_greets().wait(31_000)
    assert not late.rules.is_watching
