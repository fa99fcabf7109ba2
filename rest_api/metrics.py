"""Metrics of both halves on one port.

A phone half is a process of its own, with no HTTP port; its heartbeat brings its
metrics as text.  They are shown beside ours, told apart by the label `process`: that is
"speech" or the phone half's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_LABEL: Final = "process"
_OWN: Final = "speech"


class MetricsUnreadable(ValueError):
    """A phone half's metrics are not Prometheus text."""


def parse(text: str) -> list[Metric]:
    """Metrics from their text.

    Raises:
        MetricsUnreadable: it is something else.
    """
    try:
        return list(text_string_to_metric_families(text))
    except (ValueError, KeyError, IndexError, TypeError) as exc:
        raise MetricsUnreadable("not metrics in Prometheus text form") from exc


def exposition(own: Iterable[Metric], phones: Mapping[str, Iterable[Metric]]) -> bytes:
    """All of them as Prometheus text, each metric described once."""
    merged: dict[str, Metric] = {}
    for process, metrics in [(_OWN, own), *sorted(phones.items())]:
        for metric in metrics:
            family = merged.setdefault(
                metric.name, Metric(metric.name, metric.documentation, metric.type)
            )
            if family.type != metric.type:
                continue  # another version's; one name can have one meaning
            for sample in metric.samples:
                family.samples.append(
                    sample._replace(labels={**sample.labels, _LABEL: process})
                )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Ready(list(merged.values())))
    return generate_latest(registry)


class _Ready(Collector):
    """Metrics that have been collected already."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)
