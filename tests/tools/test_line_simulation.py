"""The queueing simulation against what is known of queues."""

from __future__ import annotations

import pytest

from tools.capacity import Batch, advise, best_batch, main
from tools.line_simulation import Workload, most_calls, servers_for, simulate

WORKLOAD = Workload(think_s=5.0, reply_s=4.0)


def test_a_caller_alone_never_waits() -> None:
    found = simulate(1, 1, [0.5], WORKLOAD)
    assert found.delay_p50_s == pytest.approx(0.5)
    assert found.delay_p95_s == pytest.approx(0.5)


def test_share_of_time_follows_from_the_cycle() -> None:
    """9 s of talk for each second of work: one caller keeps a place a tenth busy."""
    found = simulate(1, 1, [1.0], WORKLOAD, num_turns=20_000)
    assert found.busy_share == pytest.approx(0.1, rel=0.03)


def test_a_full_place_makes_everybody_wait_for_the_rest() -> None:
    """40 callers, 1 s each: the cycle becomes 40 s, of which 9 s are talk."""
    found = simulate(40, 1, [1.0], WORKLOAD, num_turns=20_000)
    assert found.busy_share == pytest.approx(1.0, abs=0.01)
    assert found.delay_p50_s == pytest.approx(31, rel=0.1)


def test_more_places_carry_more_calls_and_the_two_searches_agree() -> None:
    service_s = [0.2, 0.3, 0.4]
    one = most_calls(1, service_s, WORKLOAD, 1.0)
    four = most_calls(4, service_s, WORKLOAD, 1.0)
    assert one > 5
    assert four > 4 * one  # places together wait less than apart
    assert servers_for(four, service_s, WORKLOAD, 1.0) == 4
    assert servers_for(one, service_s, WORKLOAD, 1.0) == 1


def test_what_is_too_slow_alone_no_number_of_places_mends() -> None:
    assert most_calls(64, [2.0], WORKLOAD, 1.0) == 0
    assert servers_for(10, [2.0], WORKLOAD, 1.0) is None


def test_best_is_the_most_throughput_within_the_bar() -> None:
    slow = Batch(8, 12.0, [0.9], [1.0])
    batches = [Batch(1, 4.0, [0.2], [0.3]), Batch(4, 9.0, [0.4], [0.5]), slow]
    assert best_batch(batches, 0.8).at_once == 4
    assert best_batch([slow], 0.8) is slow


def test_advice_is_bounded_by_the_tighter_half_and_sizes_the_fleet() -> None:
    best = Batch(4, 9.0, [0.3], [0.4])
    found = advise(best, 0.1, WORKLOAD, 0.8, lines_wanted=20)
    assert found["lines"] == found["lines_media"] == 7  # at 70 % of a core
    assert found["bounded_by"] == "phone half"
    assert found["fleet"]["phone_halves"] == 3
    assert found["fleet"]["speech_replicas"] == 1
    light = advise(best, 0.001, WORKLOAD, 0.8, lines_wanted=500)
    assert light["bounded_by"] == "speech half"
    fleet = light["fleet"]
    assert fleet["speech_replicas"] >= fleet["speech_replicas_pooled"] > 1


def test_machine_that_is_too_slow_is_told_so() -> None:
    found = advise(Batch(1, 0.2, [4.0], [5.0]), 0.1, WORKLOAD, 0.8, lines_wanted=2)
    assert found["lines"] == 0
    assert found["fleet"]["speech_replicas"] is None


def test_nobody_to_measure_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ULTRAVOX_HOST", "127.0.0.1")
    monkeypatch.setenv("ULTRAVOX_PORT", "9")
    assert main([]) == 3
    assert "does not answer" in capsys.readouterr().err
