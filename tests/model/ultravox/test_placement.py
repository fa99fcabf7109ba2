"""Where the layers of a large model go, decided from sizes alone."""

from __future__ import annotations

import pytest
import torch
from transformers.initialization import no_init_weights

from model.errors import ModelLoadError
from model.ultravox.config import AudioEncoderConfig, UltravoxConfig
from model.ultravox.network import UltravoxModel
from model.ultravox.placement import Card, Placement, cards_of, place

_LLAMA_70B = {
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28_672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
}
_TURBO = AudioEncoderConfig(
    d_model=1280,
    encoder_layers=32,
    encoder_attention_heads=20,
    encoder_ffn_dim=5120,
    num_mel_bins=128,
)
_GB = 10**9


@pytest.fixture(scope="module")
def network() -> UltravoxModel:
    """v0.5's largest, without its 141 GB."""
    with torch.device("meta"), no_init_weights():
        made = UltravoxModel(UltravoxConfig(audio=_TURBO, text=_LLAMA_70B))
    made.language_model.tie_weights()
    return made


def _cards(*gigabytes: int) -> list[Card]:
    return [
        Card(torch.device("cuda", index), size * _GB)
        for index, size in enumerate(gigabytes)
    ]


def _layers(placement: Placement | None) -> list[int]:
    """How many layers each card has, in order."""
    assert placement is not None
    prefix = "language_model.model.layers"
    found = [placement.device_of(f"{prefix}.{i}.mlp").index for i in range(80)]
    assert found == sorted(found), "activations would cross back and forth"
    return [found.count(card) for card in sorted(set(found))]


def test_layers_are_spread_evenly_with_the_ears_on_the_first_card(
    network: UltravoxModel,
) -> None:
    placement = place(network, torch.bfloat16, _cards(100, 100))
    assert placement is not None
    first, second = _layers(placement)
    assert abs(first - second) <= 4
    for name in (
        "audio_tower.conv1.weight",
        "multi_modal_projector.linear_1",
        "language_model.model.embed_tokens.weight",
    ):
        assert placement.device_of(name) == torch.device("cuda", 0), name
    assert len(_layers(place(network, torch.bfloat16, _cards(60, 60, 60, 60)))) == 4


def test_no_card_gets_more_than_it_may_hold(network: UltravoxModel) -> None:
    placement = place(network, torch.bfloat16, _cards(30, 120))
    assert placement is not None
    on_first = sum(
        parameter.numel() * 2
        for name, parameter in network.named_parameters()
        if placement.device_of(name) == torch.device("cuda", 0)
    )
    assert 20 * _GB < on_first <= 30 * _GB


def test_what_fits_one_card_stays_on_it(network: UltravoxModel) -> None:
    assert place(network, torch.bfloat16, _cards(150, 150)) is None
    assert place(network, torch.bfloat16, _cards(20)) is None  # nothing to choose
    with pytest.raises(ModelLoadError):
        place(network, torch.bfloat16, _cards(20), is_limited=True)


def test_too_little_memory_in_all_is_said_with_the_sizes(
    network: UltravoxModel,
) -> None:
    with pytest.raises(ModelLoadError, match=r"take 14\d\.\d GB as bfloat16") as raised:
        place(network, torch.bfloat16, _cards(60, 60))
    assert "60.0, 60.0 GB" in str(raised.value)
    assert "ULTRAVOX_CARD_GB" in str(raised.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has cards")
def test_a_machine_without_cards_has_none() -> None:
    assert cards_of(1) == ()
    with pytest.raises(ModelLoadError) as raised:
        cards_of(1, (20.0, 20.0))
    assert raised.value.subject == "ULTRAVOX_CARD_GB"
