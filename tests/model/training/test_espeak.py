"""espeak-ng's voices and the times it gives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from model.training import phones
from model.training.aligned import spread_words
from model.training.espeak import (
    ACCENTS,
    HELD_OUT_VARIANTS,
    Espeak,
    EspeakVoice,
    variants,
)


@pytest.fixture(scope="module")
def espeak() -> Espeak:
    return Espeak()


def test_words_and_phonemes_follow_each_other(espeak: Espeak) -> None:
    text = "i do not want an appointment on tuesday at three o'clock"
    said = espeak.speak(text, EspeakVoice("en-us", "f2"))
    assert [w.label for w in said.words] == text.split()
    for spans in (said.words, said.phones):
        for one, next_one in itertools.pairwise(spans):
            assert one.start_s <= one.end_s <= next_one.start_s + 1e-6
    assert said.words[-1].end_s <= len(said.wave) / said.rate_hz
    assert np.abs(said.wave).max() > 0.05


def test_two_of_a_process_speak_in_turns(espeak: Espeak) -> None:
    voices = EspeakVoice("en-us", "f2"), EspeakVoice("en-gb-scotland", "m3")
    alone = [
        pytest.approx(len(espeak.speak("hello there", voice).wave), rel=0.01)
        for voice in voices
    ]
    other = Espeak()
    for _ in range(2):
        assert len(other.speak("hello there", voices[1]).wave) == alone[1]
        assert len(espeak.speak("hello there", voices[0]).wave) == alone[0]
    del other
    assert len(espeak.speak("hello there", voices[1]).wave) == alone[1]


def test_nearly_all_phonemes_have_a_class(espeak: Espeak) -> None:
    unknown = total = 0
    for accent in set(ACCENTS):
        said = espeak.speak(
            "could you check order seven four three nine please thank you goodbye",
            EspeakVoice(accent, "m3"),
        )
        for span in said.phones:
            total += 1
            index = phones.phone_class(span.label, is_flite=False)
            unknown += index == phones.UNKNOWN
    assert unknown / total < 0.05


def test_voices_kept_for_testing_are_not_for_training() -> None:
    held_out = {name.lower() for name in variants(held_out=True)}
    assert held_out == HELD_OUT_VARIANTS
    assert not held_out & {name.lower() for name in variants(held_out=False)}


def test_a_voice_that_does_not_exist_is_an_error(espeak: Espeak) -> None:
    with pytest.raises(ValueError, match="no voice"):
        espeak.speak("hello", EspeakVoice("xx-none", "f2"))


def test_words_without_a_time_share_their_neighbours() -> None:
    spans = spread_words(["do", "not", "go"], {0: 1.0, 2: 2.0}, 3.0)
    assert [s.label for s in spans] == ["do", "not", "go"]
    assert spans[0].end_s == spans[1].start_s == pytest.approx(1.4)
    assert spans[2].end_s == 3.0
    assert spread_words(["a"], {}, 1.0) == ()
