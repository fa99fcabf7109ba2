"""Measure this machine, and say how many lines to give the bot.

    python -m tools.capacity                 beside the running service, without calls
    python -m tools.capacity --lines 200     and the fleet that carries so many

Asks the speech half for replies, one at a time and more and more at once; places a few
calls to see what one costs the phone half.  From these figures a queueing simulation
tells with how many calls replies still begin within --bar-ms, counted from the question
to the first audio; waiting for the end of the caller's turn comes on top (about half a
second).  What is assumed is printed with the result.  Last line: JSON.

Exit status: 0 measured, 1 not even one line fits, 2 wrong settings, 3 the service
cannot be asked or has calls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

import psutil
import uvloop
from prometheus_client.parser import text_string_to_metric_families

import config
from model.audio.frames import RATE_HZ
from model.client import RemoteSpeechService
from model.errors import SpeechError, SpeechOverloaded
from model.speech import ReplyDone, SessionOptions, SpeechService, Utterance
from tools.caller.say_items import Item, Pause, Say, parse_item, spoken
from tools.caller.turns import percentile
from tools.line_simulation import Workload, most_calls, servers_for, simulate
from tools.live_stack import LiveStack, StackUnusable, open_stack, stack_address

_QUESTION: Final = "What are your opening hours, and where can I find you?"
_AT_ONCE: Final = (1, 2, 4, 8, 16, 32, 64)
_CORE_SHARE: Final = 0.7
"""Of one core, for a phone half: audio has to leave every 20 ms."""
_HEARTBEAT_S: Final = 5.5
_LOOK_S: Final = 1.0
_BUSY_PERCENT: Final = 15.0  # of all cores; an idle service itself takes a few
_GAIN: Final = 1.1
"""More at once is tried as long as it brings this much more throughput."""


@dataclass(frozen=True, slots=True)
class Batch:
    """So many replies at once, over and over."""

    at_once: int
    replies_per_s: float
    first_audio_s: Sequence[float]
    whole_s: Sequence[float]

    @property
    def p95_s(self) -> float:
        return percentile(self.first_audio_s, 95) or 0.0


class Unmeasurable(Exception):
    """The service cannot be asked, or not now."""


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    options = _parser().parse_args(arguments)
    try:
        settings = config.load()
    except config.ConfigError as exc:
        for problem in exc.problems:
            print(f"capacity: {problem}", file=sys.stderr)
        return 2
    try:
        result = uvloop.run(_measure(settings, options))
    except (Unmeasurable, StackUnusable, SpeechError) as exc:
        print(f"capacity: {exc}", file=sys.stderr)
        return 3
    print(json.dumps(result))
    return 0 if result["lines"] else 1


async def _measure(
    settings: config.Settings, options: argparse.Namespace
) -> dict[str, Any]:
    address = stack_address(settings)
    async with open_stack(address) as stack:
        await _must_be_idle(stack)
        async with RemoteSpeechService([address.http_url], address.api_key) as service:
            status = await service.status()
            if not status.is_ready:
                raise Unmeasurable(f"no model is ready: {status.detail}")
            print(f"model {status.model} on {status.device}")
            _warn_of_other_work()
            batches = await measure_speech(service, options.seconds)
            if not batches:
                raise Unmeasurable("the speech half takes no dialogue")
        cpu = await _phone_cpu_a_call(stack, options)
    print(f"phone half: {100 * cpu:.2f} % of a core a call")
    workload = Workload(think_s=options.think_s, reply_s=options.reply_s)
    best = best_batch(batches, options.bar_ms / 1000)
    result = advise(best, cpu, workload, options.bar_ms / 1000, options.lines)
    _tell(result, best, workload, options)
    return {
        **result,
        "model": status.model,
        "device": status.device,
        "phone_core_share_a_call": round(cpu, 5),
        "workload": asdict(workload),
        "bar_ms": options.bar_ms,
        "measured": [
            {
                "at_once": one.at_once,
                "replies_per_s": round(one.replies_per_s, 3),
                "first_audio_p50_ms": round(
                    1000 * (percentile(one.first_audio_s, 50) or 0)
                ),
                "first_audio_p95_ms": round(1000 * one.p95_s),
            }
            for one in batches
        ],
    }


def _warn_of_other_work() -> None:
    busy = psutil.cpu_percent(_LOOK_S)
    if busy > _BUSY_PERCENT:
        print(
            f"note: other work keeps {busy:.0f} % of this machine busy; what is "
            "measured now is less than it carries alone"
        )


async def measure_speech(service: SpeechService, seconds: float) -> list[Batch]:
    """More and more replies at once, until that brings nothing more."""
    pcm16 = spoken(_QUESTION)
    batches: list[Batch] = []
    with suppress(SpeechOverloaded):  # that is told below
        await _batch(service, pcm16, 1, 0.0)  # what only the first reply pays for
    for at_once in _AT_ONCE:
        batch: Batch | None = None
        try:
            batch = await _batch(service, pcm16, at_once, seconds)
        except* SpeechOverloaded:
            print(f"speech half, {at_once:>2} at once: it takes no more dialogues")
        if batch is None:
            break
        batches.append(batch)
        print(
            f"speech half, {at_once:>2} at once: {batch.replies_per_s:.2f} replies/s, "
            f"first audio p95 {1000 * batch.p95_s:.0f} ms",
            flush=True,
        )
        before = batches[-2].replies_per_s if len(batches) > 1 else 0.0
        if batch.replies_per_s < _GAIN * before:
            break
    return batches


async def _batch(
    service: SpeechService, pcm16: bytes, at_once: int, seconds: float
) -> Batch:
    first_audio_s: list[float] = []
    whole_s: list[float] = []
    began_s = time.monotonic()

    async def caller(number: int) -> None:
        options = SessionOptions(
            call_id=f"capacity-{at_once}-{number}",
            instructions="You are a friendly assistant on the telephone. Be brief.",
        )
        async with service.open_session(options) as session:
            turn = 0
            while not turn or time.monotonic() - began_s < seconds:
                turn += 1
                asked_s = time.monotonic()
                async for event in session.reply(turn, Utterance(pcm16, RATE_HZ)):
                    if isinstance(event, ReplyDone):
                        first_audio_s.append(event.timings.first_audio_ms / 1000)
                whole_s.append(time.monotonic() - asked_s)
                # each is a first turn: a growing history is another measurement
                await session.forget(turn)

    async with asyncio.TaskGroup() as tasks:
        for number in range(at_once):
            tasks.create_task(caller(number))
    passed_s = time.monotonic() - began_s
    return Batch(at_once, len(whole_s) / passed_s, first_audio_s, whole_s)


def best_batch(batches: Sequence[Batch], bar_s: float) -> Batch:
    """The most throughput within the bar; the first one where none is."""
    within = [one for one in batches if one.p95_s <= bar_s]
    return max(within or batches[:1], key=lambda one: one.replies_per_s)


def advise(
    best: Batch,
    core_share_a_call: float,
    workload: Workload,
    bar_s: float,
    lines_wanted: int = 0,
) -> dict[str, Any]:
    """Lines for this machine, and the fleet for as many as are wanted."""
    # a place is held for a whole reply; its caller waits for the first audio only
    busy_s = [max(0.001, at) for at in best.whole_s]
    later_s = (percentile(best.whole_s, 50) or 0) - (
        percentile(best.first_audio_s, 50) or 0
    )
    bar_whole_s = bar_s + max(0.0, later_s)
    speech_lines = most_calls(best.at_once, busy_s, workload, bar_whole_s)
    media_lines = math.floor(_CORE_SHARE / max(1e-6, core_share_a_call) + 1e-6)
    lines = min(speech_lines, media_lines)
    result: dict[str, Any] = {
        "lines": lines,
        "lines_speech": speech_lines,
        "lines_media": media_lines,
        "bounded_by": "speech half" if speech_lines <= media_lines else "phone half",
    }
    if lines:
        load = simulate(lines, best.at_once, busy_s, workload)
        result["speech_busy_share"] = round(load.busy_share, 2)
    if lines_wanted:
        pooled = servers_for(lines_wanted, busy_s, workload, bar_whole_s)
        result["fleet"] = {
            "lines": lines_wanted,
            "phone_halves": math.ceil(lines_wanted / media_lines)
            if media_lines
            else None,
            # a call stays with its replica, so replicas don't share their free places
            "speech_replicas": math.ceil(lines_wanted / speech_lines)
            if speech_lines
            else None,
            "speech_replicas_pooled": math.ceil(pooled / best.at_once)
            if pooled
            else None,
        }
    return result


def _tell(
    result: dict[str, Any], best: Batch, workload: Workload, options: argparse.Namespace
) -> None:
    print(f"lines: {result['lines']} (ULTRAVOX_MAX_CALLS, VICIdial's Number of Lines)")
    print(
        f"  the speech half carries {result['lines_speech']}, "
        f"a phone half {result['lines_media']}"
    )
    fleet = result.get("fleet")
    if fleet:
        print(
            f"for {fleet['lines']} lines: {_count(fleet['phone_halves'])} phone "
            f"halves (a core each) and {_count(fleet['speech_replicas'])} speech "
            "halves (GPUs, vLLM replicas) like the measured one; one more of each if "
            "any may fail"
        )
        if fleet["speech_replicas"] is None:
            print("  it is too slow for one line: a faster machine or a smaller model")
        else:
            print(
                "  were calls free to go to any replica at each turn: "
                f"{_count(fleet['speech_replicas_pooled'])} speech halves"
            )
    print(
        "assumed: every line has a call; the caller thinks and speaks for "
        f"{workload.think_s:g} s, a reply is heard for {workload.reply_s:g} s (both "
        f"exponential); replies take what was measured at {best.at_once} at once, "
        f"first come, first served on {best.at_once} places; 95 % of replies begin "
        f"within {options.bar_ms} ms; a phone half uses {_CORE_SHARE:.0%} of one core; "
        "first turns of this question, so long dialogues cost more"
    )


def _count(number: int | None) -> str:
    return "no number of" if number is None else str(number)


async def _must_be_idle(stack: LiveStack) -> None:
    try:
        phones = (await stack.get("/health")).json()["telephony"]
        num_calls = sum(phone["num_calls"] for phone in phones)
    except (ValueError, KeyError, TypeError) as exc:
        raise Unmeasurable(f"/health is not ours: {exc!r}") from exc
    if not phones:
        raise Unmeasurable("no phone half reports to the speech half: is it started?")
    if num_calls:
        raise Unmeasurable(f"{num_calls} calls are running: measure an idle service")


async def _phone_cpu_a_call(stack: LiveStack, options: argparse.Namespace) -> float:
    """Share of a core that one call costs the phone half."""
    question = Say(_QUESTION, spoken(_QUESTION))
    items: list[Item] = [parse_item("wait:200,0.5")]
    while sum(isinstance(one, Say) for one in items) * 5 < options.call_s:
        items += [question, Pause(2.0)]
    items.append(parse_item("bye"))
    await asyncio.sleep(_HEARTBEAT_S)
    idle = await _phone_cpu_s(stack)
    idle_since_s = time.monotonic()
    await asyncio.sleep(_HEARTBEAT_S)
    before, began_s = await _phone_cpu_s(stack), time.monotonic()
    idle_share = (before - idle) / (began_s - idle_since_s)
    calls = await asyncio.gather(
        *(
            stack.call(
                "ultravox",
                items,
                variables={},
                linger_s=3.0,
                longest_s=options.call_s + 30,
            )
            for _ in range(options.calls)
        )
    )
    await asyncio.sleep(_HEARTBEAT_S)
    passed_s = time.monotonic() - began_s
    used_s = await _phone_cpu_s(stack) - before - idle_share * passed_s
    call_seconds = sum(record["duration_s"] or 0.0 for _, record in calls)
    return max(0.0, used_s) / max(1.0, call_seconds)


async def _phone_cpu_s(stack: LiveStack) -> float:
    text = (await stack.get("/metrics")).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "process_cpu_seconds_total"
        and sample.labels.get("process") != "speech"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.capacity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--lines", type=int, default=0, help="lines a fleet is wanted for")
    add("--bar-ms", type=int, default=800, help="p95, question to first audio")
    add("--think-s", type=float, default=5.0, help="the caller's pause and words")
    add("--reply-s", type=float, default=4.0, help="a reply's length")
    add("--seconds", type=float, default=8.0, help="of each step of the measurement")
    add("--calls", type=int, default=10, help="calls that measure the phone half")
    add("--call-s", type=float, default=15.0, help="their length")
    return parser


if __name__ == "__main__":
    sys.exit(main())
