"""The pieces of attention that devices without the CPU's kernel use, against that kernel."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from workbench.strategies.attention import attention_backward, attention_with_lse
from workbench.strategies.masks import mask_samples


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


@pytest.mark.parametrize("causal", [False, True])
def test_a_mask_for_each_sample(tensors, monkeypatch, causal):
    """Of keys that a sample lacks, and with the causal mask beside it; some queries see none."""
    q, k, v, grad = tensors
    real = np.array([[False, True, True, False, True, True, False], [True] * 2 + [False] * 5])
    mask = mask_samples(real, len(q))
    seen = mask.expand(2, 1, 5, 7) & (torch.ones(5, 7).tril().bool() if causal else True)
    scores = (q @ k.mT / 8**0.5).masked_fill(~seen, -torch.inf)
    weights = scores.softmax(-1).nan_to_num()
    out, lse = attention_with_lse(q, k, v, causal, mask)
    assert (out - weights @ v).abs().max() <= 1e-12
    assert torch.equal(lse.isinf(), ~seen.any(-1).expand_as(lse))
    assert lse.isinf().any() == causal
    lse = lse.masked_fill(lse.isinf(), 0.0)
    gradients = attention_backward(grad, q, k, v, out, lse, causal, mask)
    monkeypatch.setattr(torch.Tensor, "device", SimpleNamespace(type="cuda"), raising=False)
    monkeypatch.setattr(torch.Tensor, "to", lambda t, kind: t if kind is t.device else t.type(kind))
    explicit = attention_backward(grad, q, k, v, out, lse, causal, mask)
    monkeypatch.undo()
    for a, b in zip(gradients, explicit, strict=True):
        assert (a - b).abs().max() <= 1e-12
