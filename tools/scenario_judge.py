"""Was a call what its scenario wanted?  Pure: report and record in, findings out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tools.caller.call import CallReport
from tools.scenario import Scenario, ScenarioTurn


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the caller said, and what came back before he spoke again."""

    said: str
    heard_as: str
    """The caller's words as the model wrote them down, where it did."""
    reply: str
    response_ms: int | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """One call's."""

    exchanges: Sequence[Exchange]
    problems: Sequence[str]
    status: str
    actions: Sequence[str]


def judge(
    scenario: Scenario,
    report: CallReport,
    record: Mapping[str, Any],
    *,
    with_delays: bool = True,
) -> Judgement:
    """Everything that is not as wanted, and what was said.

    with_delays: False leaves out every deadline.
    """
    if not with_delays:
        scenario = scenario.without_deadlines()
    exchanges = list(_exchanges(report, record))
    actions = tuple(
        dict.fromkeys(
            event["name"]
            for event in record["events"]
            if event["kind"] in ("action", "wish")
        )
    )
    problems = [f"caller's side: {error}" for error in report.errors]
    spoken = [turn for turn in scenario.turns if turn.is_spoken]
    for number, turn in enumerate(spoken):
        exchange = exchanges[number] if number < len(exchanges) else None
        where = turn.say or turn.audio
        problems += (f"{where!r}: {one}" for one in _turn_problems(turn, exchange))
    problems += _call_problems(scenario, report, record, actions)
    status = report.variables.get("BOT_STATUS", "")
    return Judgement(exchanges, problems, status, actions)


def _exchanges(report: CallReport, record: Mapping[str, Any]) -> Iterator[Exchange]:
    """Replies belong to what was said last before the bot began to think of them."""
    answered_s = report.answered_s or 0.0
    starts_ms = [round(1000 * (turn.start_s - answered_s)) for turn in report.turns]
    bounds_ms = [*starts_ms, 1 << 40]
    for turn, (start_ms, end_ms) in zip(report.turns, pairwise(bounds_ms), strict=True):
        answers = [
            one
            for one in record["turns"]
            if start_ms <= one["asked_ms"] < end_ms and one["fate"] != "dropped"
        ]
        yield Exchange(
            said=turn.said,
            heard_as=" ".join(one["said_text"] for one in answers).strip(),
            reply=" ".join(
                one["reply_text"] or one["heard_text"] for one in answers
            ).strip(),
            response_ms=turn.response_ms,
        )


def _turn_problems(turn: ScenarioTurn, exchange: Exchange | None) -> Iterator[str]:
    if exchange is None:
        yield "was never said: the call had ended"
        return
    for words in turn.reply_has:
        if not has_words(exchange.reply, words):
            yield f"{words!r} is not in the reply {exchange.reply!r}"
    if turn.reply_has_any and not any(
        has_words(exchange.reply, words) for words in turn.reply_has_any
    ):
        wanted = ", ".join(map(repr, turn.reply_has_any))
        yield f"none of {wanted} is in the reply {exchange.reply!r}"
    if turn.within_ms is not None:
        if exchange.response_ms is None:
            yield "no answer was heard"
        elif exchange.response_ms > turn.within_ms:
            yield f"answered after {exchange.response_ms} ms, not {turn.within_ms}"


def _call_problems(
    scenario: Scenario,
    report: CallReport,
    record: Mapping[str, Any],
    actions: Sequence[str],
) -> Iterator[str]:
    expect, variables = scenario.expect, report.variables
    found = {
        "BOT_REASON": expect.reason,
        "BOT_DISPOSITION": expect.disposition,
        "BOT_TRANSFER_TO": expect.transfer_to,
    }
    status = variables.get("BOT_STATUS", "")
    if expect.statuses and status not in expect.statuses:
        yield f"BOT_STATUS is {status!r}, not {' or '.join(expect.statuses)!r}"
    for name, wanted in found.items():
        if wanted and variables.get(name, "") != wanted:
            yield f"{name} is {variables.get(name, '')!r}, not {wanted!r}"
    for action in expect.actions:
        if action not in actions:
            yield f"no {action}; there was {', '.join(actions) or 'no action'}"
    for action in expect.no_actions:
        if action in actions:
            yield f"{action} was done, and must not be"
    words = " ".join(one["reply_text"] or "" for one in record["turns"])
    for text in expect.forbidden:
        if has_words(words, text):
            yield f"the bot said {text!r}"
    for text in expect.said:
        if not has_words(words, text):
            yield f"the bot never said {text!r}"
    if record["num_barge_ins"] < expect.min_barge_ins:
        yield f"interrupted {record['num_barge_ins']} times, not {expect.min_barge_ins}"
    greeting_ms, limit_ms = report.greeting_ms, expect.greeting_within_ms
    if limit_ms is not None and (greeting_ms is None or greeting_ms > limit_ms):
        yield f"greeted after {greeting_ms} ms, not {limit_ms}"
    length_s = record["duration_s"] or 0.0
    if expect.max_s is not None and length_s > expect.max_s:
        yield f"the call took {length_s:g} s, not {expect.max_s:g}"


def has_words(text: str, words: str) -> bool:
    """Whether these words stand in the text one after another."""
    return f" {_plain(words)} " in f" {_plain(text)} "


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.casefold()))
