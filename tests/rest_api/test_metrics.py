"""Metrics of several processes become one exposition."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import generate_latest as text_of
from prometheus_client.parser import text_string_to_metric_families

from rest_api.metrics import MetricsUnreadable, exposition, parse


def process(num_calls: int) -> CollectorRegistry:
    """A process's metrics of every kind."""
    registry = CollectorRegistry()
    Counter("calls_total", "Calls", ["outcome"], registry=registry).labels(
        outcome='said "no"\n'
    ).inc(num_calls)
    Gauge("lines", "Lines", registry=registry).set(num_calls)
    Histogram("delay_seconds", "Delay", buckets=(1.0,), registry=registry).observe(0.5)
    return registry


def test_each_is_described_once_and_told_apart_by_process() -> None:
    phones = {"dialer-1": parse(text_of(process(7)).decode())}
    text = exposition(process(3).collect(), phones).decode()
    assert text.count("# TYPE calls_total counter") == 1
    assert text.count("# TYPE delay_seconds histogram") == 1
    families = {m.name: m for m in text_string_to_metric_families(text)}
    lines = {s.labels["process"]: s.value for s in families["lines"].samples}
    assert lines == {"speech": 3.0, "dialer-1": 7.0}
    calls = [s for s in families["calls"].samples if s.name == "calls_total"]
    assert {s.labels["outcome"] for s in calls} == {'said "no"\n'}
    buckets = [s for s in families["delay_seconds"].samples if "le" in s.labels]
    assert len(buckets) == 4


def test_without_phone_halves_they_are_our_own() -> None:
    assert (
        'lines{process="speech"} 3.0' in exposition(process(3).collect(), {}).decode()
    )


def test_a_name_with_two_meanings_keeps_the_first() -> None:
    other = CollectorRegistry()
    Gauge("delay_seconds", "Another thing", registry=other).set(1)
    text = exposition(process(1).collect(), {"old": other.collect()}).decode()
    assert "# TYPE delay_seconds histogram" in text
    assert 'delay_seconds{process="old"}' not in text


@pytest.mark.parametrize("text", ["x{", "a b c d", 'x{a="b"} nan-sense', "{} {}"])
def test_what_is_no_metrics_is_refused(text: str) -> None:
    with pytest.raises(MetricsUnreadable):
        parse(text)


def test_nothing_is_nothing() -> None:
    assert parse("") == []
