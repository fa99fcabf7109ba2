"""Encoder, projector and merge: each row of a batch is as if it were alone."""

from __future__ import annotations

import pytest
import torch

from model.ultravox.config import AudioEncoderConfig, UltravoxConfig
from model.ultravox.encoder import AudioEncoder
from model.ultravox.lengths import num_audio_tokens
from model.ultravox.network import UltravoxModel
from model.ultravox.projector import SwiGLU, stack_frames

_AUDIO = AudioEncoderConfig(
    d_model=16,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=32,
    num_mel_bins=8,
)
_TEXT = {
    "model_type": "llama",
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 40,
}


def _network(**changes: object) -> UltravoxModel:
    torch.manual_seed(7)
    config = UltravoxConfig(audio=_AUDIO, text=_TEXT, hidden_size=20, **changes)  # type: ignore[arg-type]
    network = UltravoxModel(config).eval()
    with torch.no_grad():  # uneven attention and biases, so that padding would show
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    return network


def _mel(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(sum(lengths))
    mel = torch.zeros(len(lengths), 8, max(lengths))
    for row, length in zip(mel, lengths, strict=True):
        row[:, :length] = torch.randn(8, length)
    return mel, torch.tensor(lengths)


@pytest.mark.parametrize(
    "flavour",
    [{}, {"projector_ln_mid": True}, {"num_projector_layers": 2}],
    ids=["ln_post", "ln_mid", "transformer"],
)
@torch.no_grad()
def test_a_pieces_vectors_do_not_depend_on_its_neighbours(
    flavour: dict[str, object],
) -> None:
    network = _network(**flavour)
    lengths = [37, 200, 16, 1, 55]  # odd and even, whole and part tokens
    mel, counts = _mel(lengths)
    together = network.encode(mel, counts)
    for row, length in enumerate(lengths):
        alone = network.encode(mel[row : row + 1, :, :length], counts[row : row + 1])
        assert together[row].shape == (num_audio_tokens(length), 24)
        torch.testing.assert_close(together[row], alone[0], atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_a_continuing_piece_is_padded_with_silence_to_30_s() -> None:
    network = _network()
    mel, counts = _mel([37, 90])
    continues = torch.tensor([True, False])
    together = network.encode(mel, counts, continues)
    padded = torch.zeros(1, 8, 3000)
    padded[0, :, :37] = mel[0, :, :37]
    states = network.audio_tower(padded, counts[:1], torch.tensor([True]))
    expected = network.multi_modal_projector(states, torch.tensor([3]))[0, :3]
    torch.testing.assert_close(together[0], expected, atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_states_past_the_end_are_zero() -> None:
    tower = _network().audio_tower
    mel, counts = _mel([21, 60])
    states = tower(mel, counts)
    assert states.shape == (2, 30, 16)
    assert states[0, :11].abs().min() > 0
    assert not states[0, 11:].any()


@torch.no_grad()
def test_the_latency_mask_counts_blocks_in_encoder_frames() -> None:
    torch.manual_seed(0)
    tower = AudioEncoder(_AUDIO, latency_block_size=10).eval()
    mel, counts = _mel([80])
    changed = mel.clone()
    changed[:, :, 50:] += 1.0  # encoder frames from 24 on
    before, after = tower(mel, counts), tower(changed, counts)
    torch.testing.assert_close(before[:, :20], after[:, :20])
    assert not torch.allclose(before[:, 20], after[:, 20])


def test_a_piece_longer_than_the_position_table_is_our_mistake() -> None:
    mel, counts = _mel([3001])
    with pytest.raises(ValueError, match="3001"):
        _network().audio_tower(mel, counts)


def test_swiglu_gates_with_the_second_half() -> None:
    x = torch.tensor([2.0, -100.0])
    assert SwiGLU()(x).abs().item() < 1e-6
    assert SwiGLU()(x.flip(0)).item() == pytest.approx(
        -100 * 2.0 / (1 + 2.718**-2), 1e-3
    )


def test_stacking_puts_earlier_frames_first_and_zeros_last() -> None:
    hidden = torch.arange(1.0, 7.0).reshape(1, 3, 2)
    assert stack_frames(hidden, 2).tolist() == [[[1, 2, 3, 4], [5, 6, 0, 0]]]


@torch.no_grad()
def test_audio_vectors_take_the_place_of_their_tokens() -> None:
    network = _network()
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    is_audio = torch.tensor([[False, True, True, False], [False, False, False, True]])
    vectors = torch.randn(3, 24)
    embeds = network.merge(ids, is_audio, vectors)
    torch.testing.assert_close(embeds[0, 1:3], vectors[:2])
    torch.testing.assert_close(embeds[1, 3], vectors[2])
    table = network.language_model.get_input_embeddings().weight
    torch.testing.assert_close(embeds[1, :3], table[5:8])


def test_gradients_reach_every_part() -> None:
    network = _network()
    mel, counts = _mel([40, 33])
    vectors = torch.cat(network.encode(mel, counts))
    ids = torch.randint(0, 40, (2, 6))
    is_audio = torch.zeros_like(ids, dtype=torch.bool)
    is_audio[:, 1:4] = True
    logits = network(ids, is_audio=is_audio, audio_vectors=vectors)
    logits.square().mean().backward()
    without = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []


@torch.no_grad()
def test_left_padding_changes_nothing() -> None:
    network = _network()
    ids = torch.randint(0, 40, (1, 5))
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], dim=1)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
    torch.testing.assert_close(
        network(padded, mask)[:, 3:], network(ids), atol=1e-5, rtol=1e-4
    )
