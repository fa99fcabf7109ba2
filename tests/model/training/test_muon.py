"""Muon: steps with all singular values near one, and a fit it finds."""

from __future__ import annotations

import pytest
import torch

from model.training.muon import Muon, with_singular_values_one


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (12, 12)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = left @ torch.diag(torch.linspace(0.2, 5, len(right))) @ right
    found = with_singular_values_one(matrix)
    assert found.shape == matrix.shape
    values = torch.linalg.svdvals(found)
    assert 0.6 < values.min() <= values.max() < 1.3
    # The same directions: its product with the matrix is nearly symmetric and positive.
    product = found.T @ matrix
    assert (product - product.T).norm() < 0.2 * product.norm()


def test_it_finds_a_matrix_and_leaves_what_has_no_gradient() -> None:
    torch.manual_seed(2)
    wanted, idle = torch.randn(8, 5), torch.nn.Parameter(torch.ones(3, 3))
    matrix = torch.nn.Parameter(torch.zeros(8, 5))
    muon = Muon([matrix, idle], 0.1, weight_decay=0.0)
    first = (matrix - wanted).norm().item()
    for step in range(200):
        for group in muon.param_groups:
            group["lr"] = 0.1 * (1 - step / 200)
        muon.zero_grad()
        torch.autograd.backward((matrix - wanted).square().sum())
        muon.step()
    assert (matrix - wanted).norm().item() < 0.05 * first
    assert torch.equal(idle.detach(), torch.ones(3, 3))
