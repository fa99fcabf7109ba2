"""Linear layers in their fastest form compute what plain ones do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.engine.linear import FastLinear, join, pack, speed_up_linears


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(6, 5), (700, 600)], ids=["small", "large"])
@pytest.mark.parametrize("rows", [1, 3, 200])
@pytest.mark.parametrize("with_bias", [False, True])
@torch.inference_mode()
def test_equals_a_plain_layer(
    dtype: torch.dtype, shape: tuple[int, int], rows: int, with_bias: bool
) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=dtype) / shape[1] ** 0.5
    bias = torch.randn(shape[0], dtype=dtype) if with_bias else None
    x = torch.randn(2, rows, shape[1], dtype=dtype)
    expected = nn.functional.linear(x, weight, bias)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(
        FastLinear(weight, bias)(x), expected, atol=tolerance, rtol=tolerance
    )


@torch.inference_mode()
def test_joined_layers_give_their_outputs_side_by_side() -> None:
    layers = [nn.Linear(8, 3, bias=False), nn.Linear(8, 5), nn.Linear(8, 2)]
    x = torch.randn(4, 8)
    expected = torch.cat([layer(x) for layer in layers], dim=-1)
    torch.testing.assert_close(join(layers)(x), expected)


def test_small_joined_layers_share_their_weights_with_the_join() -> None:
    layers = [nn.Linear(8, 3), nn.Linear(8, 5)]
    joined = join(layers)
    assert joined.plain_weight is not None
    joined.plain_weight[0, 0] = 42.0
    assert layers[0].weight[0, 0] == 42.0


def test_a_large_packed_weight_is_kept_only_once() -> None:
    layer = nn.Linear(700, 700)
    if pack(layer.weight) is None:
        pytest.skip("this build of torch cannot pack")
    joined = join([layer])
    assert joined.plain_weight is None
    assert layer.weight.is_meta


@torch.inference_mode()
def test_a_whole_module_is_sped_up_in_place() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.ModuleDict({"x": nn.Linear(8, 4)})["x"])
    x = torch.randn(3, 8)
    expected = module(x)
    speed_up_linears(module)
    assert not any(isinstance(child, nn.Linear) for child in module.modules())
    torch.testing.assert_close(module(x), expected)
