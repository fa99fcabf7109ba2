"""Whole talks in virtual time: however audio is cut, what is decided is the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from agi_handlers.conversation.turn_actions import TurnTakingOptions
from model.errors import GenerationFailed, SpeechUnavailable
from model.speech import TypedTurn, UserTurn, Utterance
from tests.agi_handlers.conversation.test_call import Talk, talk
from tests.fakes.call_parts import (
    Answer,
    Coughs,
    HangsUp,
    Presses,
    ScriptedSession,
    Speaks,
)

LATE = 4000  # samples: half a second at once


@dataclass(frozen=True)
class Script:
    caller: Sequence[Speaks | Coughs | Presses | HangsUp]
    answers: Sequence[Answer] = ()
    options: TurnTakingOptions = field(default_factory=TurnTakingOptions)
    words: Sequence[str | None] = ()
    """What a model makes of short sounds over the bot."""
    words_after_s: float = 0.15


SCRIPTS = {
    "question and answer": Script([Speaks(2.0, 3.5), HangsUp(9.0)]),
    "pause within a turn": Script([Speaks(2.0, 3.0), Speaks(3.4, 4.4), HangsUp(10.0)]),
    "interruption": Script(
        [Speaks(2.0, 3.0), Speaks(7.0, 8.5), HangsUp(12.5)],
        [Answer(speech_s=8.0), Answer()],
    ),
    "a cough is no interruption": Script(
        [Speaks(2.0, 3.0), Coughs(6.0, 6.3), HangsUp(10.0)], [Answer(speech_s=5.0)]
    ),
    "a cough, and then words": Script(
        [Speaks(2.0, 3.0), Coughs(6.0, 6.2), Speaks(8.5, 9.5), HangsUp(12.5)],
        [Answer(speech_s=8.0), Answer()],
    ),
    "mhm is no interruption": Script(
        [Speaks(2.0, 3.0), Speaks(6.0, 6.4), HangsUp(10.0)],
        [Answer(speech_s=5.0)],
        words=["Mm-hmm."],
    ),
    "a long mhm is no interruption": Script(
        [Speaks(2.0, 3.0), Speaks(6.0, 6.64), HangsUp(10.0)],
        [Answer(speech_s=5.0)],
        words=["Uh-huh, uh-huh."],
    ),
    "a sound without words is no interruption": Script(
        [Speaks(2.0, 3.0), Speaks(6.0, 6.4), HangsUp(10.0)],
        [Answer(speech_s=5.0)],
        words=[""],
    ),
    "a short stop is one": Script(
        [Speaks(2.0, 3.0), Speaks(6.0, 6.4), HangsUp(11.5)],
        [Answer(speech_s=5.0), Answer()],
        words=["Stop!"],
    ),
    "mhm, and then words": Script(
        [Speaks(2.0, 3.0), Speaks(6.0, 6.3), Speaks(8.5, 9.5), HangsUp(12.5)],
        [Answer(speech_s=8.0), Answer()],
        words=["Uh-huh."],
    ),
    "what no model can tell is meant": Script(
        [Speaks(2.0, 3.0), Speaks(6.0, 6.4), HangsUp(11.5)],
        [Answer(speech_s=5.0), Answer()],
        words=[None],
    ),
    "words that never come are meant": Script(
        [Speaks(2.0, 3.0), Speaks(6.0, 6.4), HangsUp(11.5)],
        [Answer(speech_s=5.0), Answer()],
        words=["Mhm."],
        words_after_s=30.0,
    ),
    "he goes on before his words are known": Script(
        [Speaks(2.0, 3.0), Speaks(6.0, 6.4), Speaks(7.15, 8.4), HangsUp(11.5)],
        [Answer(speech_s=5.0), Answer()],
        words=["Wait"],
        words_after_s=0.69,
    ),
    "talking through what may not be interrupted": Script(
        [Speaks(0.3, 0.8), HangsUp(8.0)],
        options=TurnTakingOptions(is_greeting_protected=True),
    ),
    "silence": Script([], options=TurnTakingOptions(no_input_ms=3000)),
    "a number by keys": Script(
        [*(Presses(3.0 + i / 2, str(i + 1)) for i in range(4)), HangsUp(12.0)]
    ),
    "a failed answer": Script(
        [Speaks(2.0, 3.0), HangsUp(10.0)],
        [Answer(error=GenerationFailed("nan")), Answer()],
    ),
    "a dead speech half": Script(
        [Speaks(2.0, 3.0)], [Answer(error=SpeechUnavailable("gone"))]
    ),
    "no answer at all": Script([Speaks(2.0, 3.0)], [Answer(never=True)] * 2),
    "the longest call": Script(
        [Speaks(2.0, 3.0)],
        options=TurnTakingOptions(max_call_ms=12_000, time_warning_ms=3_000),
    ),
}


def _run(script: Script, chunk_samples: int) -> Talk:
    session = ScriptedSession(
        list(script.answers),
        words=list(script.words),
        words_after_s=script.words_after_s,
    )
    return talk(
        script.caller,
        options=script.options,
        session=session,
        chunk_samples=chunk_samples,
    )


def _said(user: UserTurn) -> object:
    if isinstance(user, TypedTurn):
        return user.text
    return user.started_ms, user.ended_ms, len(user.pcm16)


def _decisions(done: Talk) -> dict[str, object]:
    kept = [turn for turn, _ in done.session.heard]
    dropped = done.session.forgotten
    return {
        "answered": [
            _said(user) for turn, user in done.session.heard if turn not in dropped
        ],
        "phrases": done.session.said,
        "settled": [
            (turn in kept, heard is None) for turn, heard in done.session.settled
        ],
        "outcome": (done.outcome.status, done.outcome.reason),
        "barge-ins": done.call.num_barge_ins,
    }


@pytest.mark.parametrize("name", SCRIPTS)
def test_half_a_second_at_once_decides_the_same(name: str) -> None:
    script = SCRIPTS[name]
    in_frames, late = _run(script, 160), _run(script, LATE)
    assert _decisions(late) == _decisions(in_frames)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_sample_by_sample_decides_the_same(name: str) -> None:
    script = SCRIPTS[name]
    in_frames, cut = _run(script, 160), _run(script, 1)
    assert _decisions(cut) == _decisions(in_frames)
    assert cut.leg.played == in_frames.leg.played


@pytest.mark.parametrize(
    ("name", "silent_s"),
    [
        ("a cough is no interruption", 0.6),
        # until it is over, seen to be over, and written down
        ("mhm is no interruption", 0.8),
        ("a long mhm is no interruption", 1.05),
        ("a sound without words is no interruption", 0.8),
    ],
)
def test_after_a_mere_sound_all_of_the_answer_is_heard(
    name: str, silent_s: float
) -> None:
    done = _run(SCRIPTS[name], 160)
    assert done.call.num_barge_ins == 0
    assert done.session.settled[-1] == (2, None)
    before, after = done.leg.played[1:]
    assert 6.0 <= before[1] <= 6.3, "silent while it might have been meant"
    assert after[0] - before[1] <= silent_s, "and on again soon"
    heard_s = before[1] - before[0] + after[1] - after[0]
    assert heard_s == pytest.approx(5.0, abs=0.05)


@pytest.mark.parametrize(
    ("name", "ended_ms", "began_again_s"),
    [
        # the words are there before the end is sure: no later than any answer
        ("a short stop is one", 6400, 7.25),
        ("what no model can tell is meant", 6400, 7.25),
        ("words that never come are meant", 6400, 7.9),
        ("he goes on before his words are known", 8400, 9.25),
    ],
)
def test_short_words_over_the_bot_are_answered(
    name: str, ended_ms: int, began_again_s: float
) -> None:
    done = _run(SCRIPTS[name], 160)
    assert done.call.num_barge_ins == 1
    [(turn, heard_ms)] = [s for s in done.session.settled if s[0] == 2]
    assert turn == 2
    assert heard_ms is not None
    assert heard_ms < 3000, "the history has what was heard of it"
    said = done.session.heard[-1][1]
    assert isinstance(said, Utterance)
    assert said.ended_ms == pytest.approx(ended_ms, abs=60)
    assert said.started_ms == pytest.approx(6000, abs=60), "nothing of it is lost"
    assert done.leg.played[1][1] <= 6.3
    assert done.leg.played[2][0] <= began_again_s
