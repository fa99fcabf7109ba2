"""How many calls a bot carries: a queueing simulation from measured figures.  Pure.

A call is turns without end.  In each the caller speaks and pauses (`think_s`), then the
speech half works on the reply (`service_s` of one of `num_servers` places, first come,
first served), then the reply is heard (`reply_s`).  The delay of a reply is its time in
the queue plus its service.  All times are drawn from exponential distributions but the
service, which is drawn from the measured ones.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Workload:
    """What callers do, in seconds; the assumptions of every figure."""

    think_s: float = 5.0
    """From the bot's last word to the end of the caller's answer."""
    reply_s: float = 4.0
    """How long a reply is heard."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What callers would see."""

    delay_p50_s: float
    delay_p95_s: float
    busy_share: float
    """Of the places' time."""
    num_turns: int


def simulate(
    num_calls: int,
    num_servers: int,
    service_s: Sequence[float],
    workload: Workload,
    *,
    num_turns: int = 4000,
    seed: int = 1,
) -> Outcome:
    """So many calls on so many places, until so many replies have been given."""
    chance = random.Random(seed)
    # (when the caller's turn ends); the first ones spread over a turn's length
    cycle_s = workload.think_s + workload.reply_s
    asks = [chance.uniform(0, cycle_s) for _ in range(num_calls)]
    heapq.heapify(asks)
    free_at = [0.0] * num_servers
    heapq.heapify(free_at)
    delays: list[float] = []
    worked_s, now_s = 0.0, 0.0
    num_turns = max(num_turns, 10 * num_calls)
    num_warm_up = max(3 * num_calls, num_turns // 10)
    for number in range(num_turns + num_warm_up):
        asked_s = heapq.heappop(asks)
        begins_s = max(asked_s, heapq.heappop(free_at))
        took_s = chance.choice(service_s)
        ends_s = begins_s + took_s
        heapq.heappush(free_at, ends_s)
        if number >= num_warm_up:
            delays.append(ends_s - asked_s)
        worked_s += took_s
        now_s = max(now_s, ends_s)
        heard_s = chance.expovariate(1 / workload.reply_s)
        spoken_s = chance.expovariate(1 / workload.think_s)
        heapq.heappush(asks, ends_s + heard_s + spoken_s)
    delays.sort()
    return Outcome(
        delay_p50_s=delays[len(delays) // 2],
        delay_p95_s=delays[int(0.95 * len(delays))],
        busy_share=worked_s / (now_s * num_servers),
        num_turns=len(delays),
    )


def most_calls(
    num_servers: int,
    service_s: Sequence[float],
    workload: Workload,
    bar_s: float,
    *,
    limit: int = 2000,
) -> int:
    """The most calls whose p95 of the delay stays within the bar; 0: not even one."""
    if not _is_within(1, num_servers, service_s, workload, bar_s):
        return 0
    fits, too_many = 1, 2
    while too_many <= limit and _is_within(
        too_many, num_servers, service_s, workload, bar_s
    ):
        fits, too_many = too_many, 2 * too_many
    too_many = min(too_many, limit + 1)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if _is_within(middle, num_servers, service_s, workload, bar_s):
            fits = middle
        else:
            too_many = middle
    return fits


def servers_for(
    num_calls: int,
    service_s: Sequence[float],
    workload: Workload,
    bar_s: float,
    *,
    limit: int = 4096,
) -> int | None:
    """The fewest places that carry so many calls; None: no number does."""
    low, high = 0, 1
    while not _is_within(num_calls, high, service_s, workload, bar_s):
        low, high = high, 2 * high
        if high > limit:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if _is_within(num_calls, middle, service_s, workload, bar_s):
            high = middle
        else:
            low = middle
    return high


def _is_within(
    num_calls: int,
    num_servers: int,
    service_s: Sequence[float],
    workload: Workload,
    bar_s: float,
) -> bool:
    found = simulate(num_calls, num_servers, service_s, workload)
    return found.delay_p95_s <= bar_s
