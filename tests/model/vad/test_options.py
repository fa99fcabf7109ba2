from __future__ import annotations

import pytest

from model.vad.options import EndpointingOptions


@pytest.mark.parametrize(
    "wrong",
    [
        {"silence_probability": 0.7},
        {"post_roll_ms": 300},
        {"suspect_ms": 500},
        {"sure_hangover_ms": 100},
        {"accepted_risk": 0.0},
        {"prior_ends": 0.0},
        {"mean_pause_ms": 100},
        {"min_hangover_ms": 900},
        {"max_utterance_ms": 10},
        {"pause_memory": 1.5},
    ],
)
def test_options_that_contradict_each_other_are_refused(
    wrong: dict[str, int],
) -> None:
    with pytest.raises(ValueError, match="need "):
        EndpointingOptions(**wrong)


@pytest.mark.parametrize("hangover_ms", [200, 600, 1500])
def test_a_fixed_hangover_is_the_same_for_everybody(hangover_ms: int) -> None:
    options = EndpointingOptions.fixed(hangover_ms)
    assert options.min_hangover_ms == options.max_hangover_ms == hangover_ms
    assert options.suspect_ms <= options.sure_hangover_ms <= hangover_ms
