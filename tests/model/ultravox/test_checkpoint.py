"""Loading every published layout, and refusing what is not one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

from model.errors import ModelLoadError
from model.ultravox.checkpoint import (
    LoadOptions,
    choose_dtype,
    load_checkpoint,
)
from model.ultravox.repository import HubOptions
from tests.model.engine.prompts import wave as sound
from tests.model.ultravox.parity_data import (
    V0_4,
    V0_5,
    write_encoder_and_projector,
    write_projector_only,
    write_sharded,
    write_transformer_projector,
    write_whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_CPU = LoadOptions(device="cpu", hub=HubOptions(offline=True))


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(str(folder), _CPU).network.state_dict())


@pytest.mark.parametrize(
    ("write", "whole"),
    [
        (write_projector_only, V0_4),
        (write_encoder_and_projector, V0_5),
        (write_sharded, V0_4),
    ],
)
def test_every_layout_gives_the_same_weights(
    tmp_path: Path, write: Callable[[Path], Path], whole: Path
) -> None:
    split, expected = _weights(write(tmp_path / "x")), _weights(whole)
    assert split.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(split[name], tensor, rtol=0, atol=0)


def test_the_fixtures_weights_are_taken_as_they_are() -> None:
    loaded = _weights(V0_4)
    for name, tensor in load_file(V0_4 / "model.safetensors").items():
        assert torch.equal(loaded[name], tensor), name


@torch.no_grad()
def test_a_transformer_projector_computes_with_whispers_own_layers(
    tmp_path: Path,
) -> None:
    tensors = write_transformer_projector(tmp_path / "v0_7")
    checkpoint = load_checkpoint(str(tmp_path / "v0_7"), _CPU)
    loaded = checkpoint.network.multi_modal_projector
    assert loaded.state_dict().keys() == tensors.keys()
    states = torch.randn(1, 80, 40, generator=torch.Generator().manual_seed(1))

    x = states.reshape(1, 10, 320)
    x = functional.rms_norm(x, (320,), tensors["ln_pre.weight"], eps=1e-6)
    x = functional.linear(x, tensors["linear_in.weight"], tensors["linear_in.bias"])
    x = x + tensors["embed_positions.weight"][:10]
    config = WhisperConfig(d_model=40, encoder_attention_heads=2, encoder_ffn_dim=80)
    for index in range(2):
        layer = WhisperEncoderLayer(config).eval()
        start = f"layers.{index}."
        own = {
            name.removeprefix(start): tensor
            for name, tensor in tensors.items()
            if name.startswith(start)
        }
        layer.load_state_dict(own)
        x = layer(x, None)
    x = functional.rms_norm(x, (40,), tensors["ln_post.weight"], eps=1e-6)
    x = functional.linear(x, tensors["linear_out.weight"], tensors["linear_out.bias"])
    projected = loaded(states, torch.tensor([10]))
    torch.testing.assert_close(projected, x, atol=1e-5, rtol=1e-5)


def test_tied_embeddings_stay_one_tensor() -> None:
    checkpoint = load_checkpoint(str(V0_5), _CPU)
    model = checkpoint.network.language_model
    assert model.lm_head.weight is model.get_input_embeddings().weight
    stored = load_file(V0_5 / "model.safetensors").values()
    assert checkpoint.num_parameters == sum(tensor.numel() for tensor in stored)


def test_rotary_tables_are_computed_not_left_empty() -> None:
    checkpoint = load_checkpoint(str(V0_5), _CPU)
    inv_freq = checkpoint.network.language_model.model.rotary_emb.inv_freq
    assert inv_freq[0] == 1.0
    assert inv_freq[-1] < 1e-4  # theta 5e5, stretched by the llama3 scaling


def test_a_checkpoint_can_be_held_in_half_precision() -> None:
    options = LoadOptions(device="cpu", dtype="bfloat16")
    checkpoint = load_checkpoint(str(V0_4), options)
    assert {p.dtype for p in checkpoint.network.parameters()} == {torch.bfloat16}
    # Positions would be off with a rounded table.
    buffers = dict(checkpoint.network.language_model.named_buffers())
    assert buffers["model.rotary_emb.inv_freq"].dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32


def test_a_cpu_keeps_to_the_checkpoints_dtype_if_it_computes_it() -> None:
    cpu = torch.device("cpu")
    assert choose_dtype("auto", cpu, stored="float32") == torch.float32
    assert choose_dtype("auto", cpu, stored="float16") == torch.float32
    assert choose_dtype("bfloat16", cpu, stored="float32") == torch.bfloat16
    auto = choose_dtype("auto", cpu, stored="bfloat16")
    flags = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    expected = torch.bfloat16 if "avx512_bf16" in flags else torch.float32
    assert auto == expected


def test_stop_ids_are_the_union_of_all_that_is_declared(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "x")
    text = json.dumps({"eos_token_id": [257, 5]})
    (folder / "generation_config.json").write_text(text)
    assert load_checkpoint(str(folder), _CPU).stop_ids == {257, 5, 260}


def _drop(key: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.__delitem__(key)


def _add(key: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({key: torch.zeros(2)})


@pytest.mark.parametrize(
    ("damage", "subject"),
    [
        (_drop("audio_tower.conv1.bias"), "audio_tower.conv1.bias"),
        (
            _drop("multi_modal_projector.ln_post.weight"),
            "multi_modal_projector.ln_post.weight",
        ),
        (_drop("language_model.lm_head.weight"), "language_model.lm_head.weight"),
        (_add("language_model.extra.weight"), "language_model.extra.weight"),
        (_add("encoder.conv1.bias"), "encoder.conv1.bias"),
        (_add("audio_tower.conv1.bias"), "audio_tower.conv1.bias"),
        (_add("audio_tower.model.encoder.conv1.bias"), "audio_tower.conv1.bias"),
    ],
    ids=[
        "missing encoder",
        "missing projector",
        "missing LLM",
        "unexpected",
        "wrong prefix",
        "wrong shape",
        "twice",
    ],
)
def test_a_wrong_tensor_is_named(
    tmp_path: Path, damage: Callable[[dict[str, torch.Tensor]], None], subject: str
) -> None:
    folder = write_whole(tmp_path / "x")
    tensors = load_file(folder / "model.safetensors")
    damage(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelLoadError) as caught:
        load_checkpoint(str(folder), _CPU)
    assert caught.value.subject == subject
    assert subject in str(caught.value)


def test_tables_that_are_no_weights_are_passed_over(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "x")
    tensors = load_file(folder / "model.safetensors")
    tensors["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = (
        torch.zeros(2)
    )
    save_file(tensors, folder / "model.safetensors")
    load_checkpoint(str(folder), _CPU)


def test_a_tied_tensor_that_differs_is_refused(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "x", V0_5)
    tensors = load_file(folder / "model.safetensors")
    embeddings = tensors["language_model.model.embed_tokens.weight"]
    tensors["language_model.lm_head.weight"] = embeddings.clone()
    save_file(tensors, folder / "model.safetensors")
    load_checkpoint(str(folder), _CPU)  # the same: fine
    tensors["language_model.lm_head.weight"] = embeddings + 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelLoadError, match="tied"):
        load_checkpoint(str(folder), _CPU)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "x")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelLoadError) as caught:
        load_checkpoint(str(folder), _CPU)
    assert caught.value.subject == str(file)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_sharded(tmp_path / "x")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="model-00002-of-00002"):
        load_checkpoint(str(folder), _CPU)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("config.json", "config.json"),
        ("model.safetensors", "model.safetensors"),
        ("tokenizer.json", "tokenizer.json"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, file: str, says: str) -> None:
    folder = write_whole(tmp_path / "x")
    (folder / file).unlink()
    with pytest.raises(ModelLoadError, match=says):
        load_checkpoint(str(folder), _CPU)


def test_features_other_than_whispers_are_refused(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "x")
    text = json.dumps({"feature_size": 128})
    (folder / "preprocessor_config.json").write_text(text)
    with pytest.raises(ModelLoadError, match="feature_size is 128"):
        load_checkpoint(str(folder), _CPU)


def test_remote_code_is_never_looked_at(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "x")
    config = json.loads((folder / "config.json").read_text())
    assert "auto_map" in config  # as published
    config["text_config"]["auto_map"] = {"AutoConfig": "evil.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "ultravox_config.py").write_text("raise SystemExit('ran')")
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    load_checkpoint(str(folder), _CPU)


def test_a_part_is_not_looked_for_where_the_program_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_encoder_and_projector(tmp_path / "x")
    (tmp_path / "x" / "llm").rename(tmp_path / "llm")
    monkeypatch.chdir(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["text_model_id"] = "./llm"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match="not a folder in it or beside it"):
        load_checkpoint(str(folder), _CPU)


def test_a_folder_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ModelLoadError, match="no folder"):
        load_checkpoint("/nowhere/at/all", _CPU)


def test_a_repository_that_cannot_be_had_says_what_to_do(tmp_path: Path) -> None:
    options = LoadOptions(hub=HubOptions(offline=True, cache_dir=tmp_path))
    with pytest.raises(ModelLoadError, match="fetch it once with a network"):
        load_checkpoint("some-org/some-model", options)


def test_an_unknown_backbone_is_named(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "x")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["model_type"] = "no_such_model"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match="no_such_model"):
        load_checkpoint(str(folder), _CPU)


def test_a_model_too_large_for_the_machine_is_refused_before_it_is_fetched(
    tmp_path: Path,
) -> None:
    folder = write_whole(tmp_path / "x")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"hidden_size": 1 << 17, "intermediate_size": 1 << 20}
    config["text_config"]["num_hidden_layers"] = 100
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"take \d+\.\d GB as float32") as caught:
        load_checkpoint(str(folder), _CPU)
    assert caught.value.subject == "memory"


def test_secrets_are_not_shown() -> None:
    assert "hf_secret" not in repr(LoadOptions(hub=HubOptions(token="hf_secret")))


def test_audio_is_encoded_in_few_shapes_and_as_if_in_its_own() -> None:
    checkpoint = load_checkpoint(str(V0_4), _CPU)
    widths: set[int] = set()
    watch = checkpoint.network.audio_tower.register_forward_pre_hook(
        lambda _, inputs: widths.add(inputs[0].shape[2])
    )
    waves = [torch.from_numpy(sound(n, n)) for n in range(16_000, 64_000, 3_777)]
    encoded = [checkpoint.encode([wave])[0] for wave in waves]
    watch.remove()
    assert len(widths) < len(waves)
    for wave, vectors in zip(waves, encoded, strict=True):
        [exact] = checkpoint.network.encode(*checkpoint.log_mel([wave]))
        torch.testing.assert_close(vectors, exact, atol=3e-6, rtol=1e-5)
