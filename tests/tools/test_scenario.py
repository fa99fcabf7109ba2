"""Scenario files, and the judgement of calls: pure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tools.caller.call import CallReport
from tools.caller.ear import Ear
from tools.caller.turns import Turn
from tools.scenario import Scenario, ScenarioInvalid, caller_items, load_scenario
from tools.scenario_judge import has_words, judge

HOURS = {"say": "When?", "reply_has": ["nine"], "within_ms": 1000}
REPORT = CallReport(
    ended="caller",
    answered_s=0.5,
    greeting_ms=40,
    turns=[Turn("When?", 3.5, 4.0, 600, None, False)],
    ear=Ear(),
    legs=("audiosocket",),
    variables={"BOT_STATUS": "hangup"},
    goes_on_at={},
    keys_heard="",
    errors=(),
)


def turn(asked_ms: int, reply: str, fate: str = "heard") -> dict[str, Any]:
    return {
        "asked_ms": asked_ms,
        "reply_text": reply,
        "heard_text": reply,
        "said_text": "when",
        "fate": fate,
    }


def record(*turns: dict[str, Any], **values: Any) -> dict[str, Any]:
    events = [{"kind": "action", "name": "note", "detail": "x", "turn": 2}]
    rest = {"events": events, "num_barge_ins": 0, "duration_s": 8.0}
    return {"turns": list(turns), **rest, **values}


GREETING, NINE = turn(0, "Hello."), turn(3450, "From nine, daily.")


def problems(call: dict[str, Any], **expect: Any) -> list[str]:
    scenario = Scenario.model_validate(
        {"title": "x", "turns": [HOURS], "expect": expect}
    )
    return list(judge(scenario, REPORT, call).problems)


def test_call_as_wanted_has_no_problems() -> None:
    assert not problems(
        record(GREETING, NINE),
        status=["hangup", "done"],
        actions=["note"],
        no_actions=["transfer"],
        forbidden=["sorry"],
        said=["hello"],
        max_s=10,
        greeting_within_ms=100,
    )


@pytest.mark.parametrize(
    ("expect", "told"),
    [
        ({"status": "done"}, "BOT_STATUS is 'hangup'"),
        ({"disposition": "N"}, "BOT_DISPOSITION is ''"),
        ({"actions": ["transfer"]}, "no transfer; there was note"),
        ({"no_actions": ["note"]}, "note was done"),
        ({"forbidden": ["from NINE"]}, "the bot said"),
        ({"said": ["goodbye"]}, "never said"),
        ({"min_barge_ins": 1}, "interrupted 0 times"),
        ({"greeting_within_ms": 30}, "greeted after 40 ms"),
        ({"max_s": 5}, "took 8 s"),
    ],
)
def test_each_expectation_is_judged(expect: dict[str, Any], told: str) -> None:
    (problem,) = problems(record(GREETING, NINE), **expect)
    assert told in problem


def test_reply_to_something_else_does_not_count() -> None:
    (problem,) = problems(record(turn(0, "We open at nine."), turn(3600, "Pardon?")))
    assert "'nine' is not in the reply 'Pardon?'" in problem


def test_dropped_reply_was_never_said() -> None:
    assert problems(record(turn(3600, "Nine.", fate="dropped"), turn(3700, "Ten.")))


def test_late_answer_and_a_turn_that_was_never_said_are_told() -> None:
    scenario = Scenario.model_validate({"title": "x", "turns": [HOURS, HOURS]})
    late = replace(REPORT, turns=[replace(REPORT.turns[0], response_ms=1500)])
    found = judge(scenario, late, record(NINE)).problems
    assert any("answered after 1500 ms" in one for one in found)
    assert any("was never said" in one for one in found)


def test_words_are_whole_and_without_case() -> None:
    assert has_words("From Nine to five!", "nine to")
    assert not has_words("Ninety people", "nine")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[turns]]\nsay = "x"', "title"),
        ('title = "x"\n[[turns]]\nsay = "x"\nkeys = "1"', "one of say, audio, keys"),
        ('title = "x"\n[[turns]]\nkeys = "1"\nwithin_ms = 5', "no reply of their own"),
        ('title = "x"\nexpects = 1', "expects"),
        ("title = ", "Invalid value"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(ScenarioInvalid, match=r"x\.toml") as caught:
        load_scenario(path)
    assert told in str(caught.value)


def test_missing_recording_and_missing_file_are_named(tmp_path: Path) -> None:
    scenario = Scenario.model_validate({"title": "x", "turns": [{"audio": "gone.wav"}]})
    with pytest.raises(ValueError, match=r"gone\.wav: no such file"):
        caller_items(scenario, tmp_path)
    with pytest.raises(ScenarioInvalid, match=r"nowhere\.toml"):
        load_scenario(tmp_path / "nowhere.toml")
