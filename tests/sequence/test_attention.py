"""The pieces of attention that devices without the CPU's kernel use, against that kernel."""

from types import SimpleNamespace

import pytest
import torch

from workbench.strategies.attention import attention_backward, attention_with_lse


@pytest.fixture
def tensors():
    g = torch.Generator().manual_seed(0)
    q, grad = torch.randn(2, 2, 3, 5, 8, dtype=torch.float64, generator=g)
    k, v = torch.randn(2, 2, 3, 7, 8, dtype=torch.float64, generator=g)
    return q, k, v, grad


def test_the_explicit_formulas_are_the_kernels(tensors, monkeypatch):
    q, k, v, grad = tensors
    out, lse = attention_with_lse(q, k, v)
    gradients = attention_backward(grad, q, k, v, out, lse)
    monkeypatch.setattr(torch.Tensor, "device", SimpleNamespace(type="cuda"), raising=False)
    explicit = attention_with_lse(q, k, v)
    again = attention_backward(grad, q, k, v, out, lse)
    monkeypatch.undo()
    for a, b in zip((out, lse, *gradients), (*explicit, *again), strict=True):
        assert (a - b).abs().max() <= 1e-12


def test_half_precision_gradients_are_computed_in_full(tensors, monkeypatch):
    exact = tensors
    q, k, v, grad = (t.bfloat16() for t in exact)
    out, lse = attention_with_lse(q, k, v)
    expected = attention_backward(
        *(exact[i] for i in (3, 0, 1, 2)), *attention_with_lse(*exact[:3])
    )
    monkeypatch.setattr(torch.Tensor, "device", SimpleNamespace(type="cuda"), raising=False)
    found = attention_backward(grad, q, k, v, out, lse)
    monkeypatch.undo()
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 0.02 * b.abs().max()
