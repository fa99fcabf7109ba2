"""The engine benchmark runs, and counts what was produced."""

from __future__ import annotations

import json

import pytest

from benchmarks.bench_engine import main


@pytest.mark.parametrize("audio_s", [0.0, 0.5])
def test_every_call_gets_its_tokens(
    capsys: pytest.CaptureFixture[str], audio_s: float
) -> None:
    sizes = "--shared 40 --own 12 --new 5 --calls 1,3"
    audio = f"--audio-s {audio_s} --device cpu --threads 1"
    assert main([*sizes.split(), *audio.split()]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["benchmark"] == "engine"
    assert [result["calls"] for result in record["results"]] == [1, 3]
    for result in record["results"]:
        produced = result["tokens_per_s"] * result["seconds"]
        assert produced == pytest.approx(5 * result["calls"])
        assert result["tokens_per_s_a_call"] > 0
        assert result["cached_tokens"] == 40
        assert (result["first_token_parts_ms"]["encode"] > 0) == (audio_s > 0)


def test_transformers_is_measured_on_the_same_amount_of_work(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sizes = "--shared 40 --own 12 --new 5 --calls 2 --device cpu --baseline --repeats 2"
    assert main([*sizes.split(), "--audio-s", "0"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    names = [baseline["name"] for baseline in record["baselines"]]
    assert names == [
        "generate, one at a time",
        "generate, instructions kept",
        "continuous batching",
    ]
    (result,) = record["results"]
    assert set(result["times_baseline_per_cpu_s"]) == set(names)
    assert result["roofline"] > 0
    assert record["memory"]["peak_rss_bytes"] > record["memory"]["weights_bytes"]
    assert all(baseline["tokens_per_s"] > 0 for baseline in record["baselines"])
