"""What a line adds to a caller's audio and takes from it."""

from __future__ import annotations

import numpy as np
import pytest

from model.audio.frames import FRAME_BYTES, SILENCE_FRAME
from tools.caller.ear import Ear
from tools.caller.line import TelephoneLine
from tools.caller.mouth import Mouth
from tools.caller.say_items import Press

TONE = (np.tile([5000, -5000], 80)).astype("<i2").tobytes()


def level(pcm16: bytes) -> float:
    return float(np.abs(np.frombuffer(pcm16, dtype="<i2")).mean())


def test_a_line_without_noise_changes_a_caller_by_mu_law_only() -> None:
    assert level(TelephoneLine().carry(TONE)) == pytest.approx(5000, rel=0.03)
    assert level(TelephoneLine().carry(SILENCE_FRAME)) < 10


def test_noise_is_heard_under_silence_and_under_words_and_comes_again() -> None:
    noise = TONE + SILENCE_FRAME + b"rest"
    line = TelephoneLine(noise)
    levels = [level(line.carry(SILENCE_FRAME)) for _ in range(4)]
    assert levels == pytest.approx([5000, 0, 5000, 0], rel=0.03, abs=10)
    assert level(TelephoneLine(noise).carry(TONE)) == pytest.approx(10_000, rel=0.03)


def test_what_is_too_loud_for_the_line_is_clipped() -> None:
    loud = np.full(FRAME_BYTES // 2, 32_000, dtype="<i2").tobytes()
    assert level(TelephoneLine(loud).carry(loud)) > 30_000


def test_so_many_packets_are_lost_as_was_asked_for() -> None:
    line = TelephoneLine(TONE, loss=0.1)
    lost = sum(line.carry(TONE) == SILENCE_FRAME for _ in range(2000))
    assert 150 < lost < 250


@pytest.mark.parametrize(("noise", "loss"), [(b"short", 0.0), (b"", 1.5), (b"", -0.1)])
def test_a_line_that_cannot_be_is_refused(noise: bytes, loss: float) -> None:
    with pytest.raises(ValueError, match="need"):
        TelephoneLine(noise, loss)


def test_a_mouth_on_a_noisy_line_is_never_quite_silent_but_while_a_key_is_down() -> (
    None
):
    mouth = Mouth([Press("1")], line=TelephoneLine(TONE))
    down = [mouth.next_slot(0.02 * n, 0.0, Ear()).pcm16 for n in range(12)]
    assert down[0] is None
    after = mouth.next_slot(1.0, 0.0, Ear()).pcm16
    assert after is not None
    assert level(after) > 4000
