"""Reading config.json in its published forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from model.errors import ModelLoadError
from model.ultravox.config import (
    MARKER_KEY,
    AudioEncoderConfig,
    TurnEndBounds,
    UltravoxConfig,
    read_config,
)
from tests.model.ultravox.parity_data import V0_4, V0_5

if TYPE_CHECKING:
    from pathlib import Path


def test_absent_fields_take_the_published_defaults() -> None:
    config = UltravoxConfig.from_json({"model_type": "ultravox"})
    assert config.hidden_size == 4096
    assert config.stack_factor == 8
    assert config.projector_act == "swiglu"
    assert config.projector_ln_mid is False
    assert config.num_projector_layers == 0
    assert config.audio == AudioEncoderConfig()
    assert config.torch_dtype == "bfloat16"
    assert config.weights_kind == "published"


def test_null_fields_are_absent_fields() -> None:
    values = {
        "model_type": "ultravox",
        "audio_config": None,
        "text_config": None,
        "stack_factor": None,
        "projector_ln_mid": None,
        "audio_latency_block_size": 0,
    }
    assert UltravoxConfig.from_json(values) == UltravoxConfig.from_json(
        {"model_type": "ultravox"}
    )


def test_inlined_parts_are_read() -> None:
    config = read_config(V0_4)
    assert config.audio == AudioEncoderConfig(
        d_model=48,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=96,
        num_mel_bins=80,
    )
    assert config.text["hidden_size"] == 64
    assert config.hidden_size == 128
    assert not config.projector_ln_mid
    assert read_config(V0_5).projector_ln_mid


def test_what_the_end_of_turn_is_worth_is_read_from_the_checkpoint() -> None:
    marker = {"weights": "demo", "turn_end": {"over_from": 0.9, "auc": 0.97}}
    values = {"model_type": "ultravox", MARKER_KEY: marker}
    assert UltravoxConfig.from_json(values).turn_end == TurnEndBounds(0.9)
    marker["turn_end"] = {"over_from": 0.9, "more_below": 0.2}
    assert UltravoxConfig.from_json(values).turn_end == TurnEndBounds(0.9, 0.2)


@pytest.mark.parametrize(
    "turn_end",
    [
        {},
        "yes",
        {"over_from": "high"},
        {"over_from": True},
        {"over_from": 1.5},
        {"over_from": 0.5, "more_below": 0.5},
        {"over_from": 0.5, "more_below": -0.1},
        {"over_from": 0.5, "more_below": "low"},
    ],
)
def test_senseless_bounds_of_the_end_of_turn_are_refused(turn_end: object) -> None:
    marker = {"weights": "demo", "turn_end": turn_end}
    with pytest.raises(ModelLoadError, match="turn_end"):
        UltravoxConfig.from_json({"model_type": "ultravox", MARKER_KEY: marker})


def test_a_config_survives_being_written_and_read() -> None:
    config = UltravoxConfig(
        text={"model_type": "llama", "hidden_size": 64},
        turn_end=TurnEndBounds(0.9, 0.25),
        projector_ln_mid=True,
        weights_kind="demo",
    )
    assert UltravoxConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("kind", ["random", "demo"])
def test_our_own_checkpoints_say_what_they_are(kind: str) -> None:
    values = {"model_type": "ultravox", "ultravox_phone_bot": {"weights": kind}}
    assert UltravoxConfig.from_json(values).weights_kind == kind


@pytest.mark.parametrize(
    ("values", "subject"),
    [
        ({"model_type": "llama"}, "model_type"),
        ({"model_type": "ultravox", "stack_factor": "8"}, "stack_factor"),
        ({"model_type": "ultravox", "stack_factor": 0}, "stack_factor"),
        (
            {"model_type": "ultravox", "audio_latency_block_size": 7},
            "audio_latency_block_size",
        ),
        (
            {"model_type": "ultravox", "ultravox_phone_bot": {"weights": "best"}},
            "ultravox_phone_bot",
        ),
        (
            {"model_type": "ultravox", "audio_config": {"d_model": 50}},
            "audio_config.d_model",
        ),
    ],
)
def test_a_bad_field_is_named(values: dict[str, object], subject: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        UltravoxConfig.from_json(values)
    assert caught.value.subject == subject


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_an_unreadable_file_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelLoadError) as caught:
        read_config(tmp_path)
    assert caught.value.subject == str(tmp_path / "config.json")
