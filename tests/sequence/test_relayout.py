"""Each change of layout gives each rank its part, whatever the strides; so does its backward."""

import itertools

import pytest
import torch

import workbench as wb
from workbench.dims import Dims
from workbench.geometry import Geometry
from workbench.layout import Layout, collective_between, take_shard, trim_shard

SIZES = {"batch": 2, "a": 5, "b": 1, "c": 7, "model": 3}
WHOLE = Layout(Dims(SIZES))
STATES = [*(WHOLE.with_split(dim) for dim in ("a", "b", "c")), WHOLE,
          WHOLE.with_value("shared"), WHOLE.with_value("partial")]  # fmt: skip


def pairs():
    for before, after in itertools.permutations(STATES, 2):
        try:
            collective_between(before, after)
        except ValueError:
            continue
        yield before, after


def part(tensors, layout, rank, p):
    """What a rank holds: ``tensors`` has one per rank, which add up where that is the state."""
    if layout.value == "partial":
        return tensors[rank]
    return take_shard(sum(tensors), layout, rank, p)


def strided(t):
    """The same values with the strides of a transposed tensor."""
    return t.transpose(0, -1).contiguous().transpose(0, -1)


def errors_of(rank, comm):
    found = {}
    for (before, after), odd in itertools.product(pairs(), [False, True]):
        g = torch.Generator().manual_seed(0)
        values, grads = torch.randn(2, comm.size, *SIZES.values(), generator=g)
        x = part(list(values), before, rank, comm.size)
        x = (strided(x) if odd else x.contiguous()).requires_grad_()
        y = comm.relayout(x, before, after)
        grad = part(list(grads), after.gradient(), rank, comm.size)
        y.backward(strided(grad) if odd else grad)
        expected = part(list(values), after, rank, comm.size)
        back = part(list(grads), before.gradient(), rank, comm.size)
        worst = max((y - expected).abs().max().item(), (x.grad - back).abs().max().item())
        found[str(before), before.value, str(after), after.value, odd] = worst
        assert y.shape == after.local_shape(comm.size)
    return found


@pytest.mark.parametrize("p", [2, 3, 8])  # 8 ranks for 5 entries: some hold nothing but padding
def test_every_change_of_layout(p):
    for found in wb.run_local(errors_of, p):
        assert len(found) == 2 * len(list(pairs())) >= 40
        assert max(found.values()) <= 1e-5, found


@pytest.mark.parametrize("p", [1, 2, 4, 7, 9])
def test_shards_make_up_the_whole(p):
    x = torch.arange(2 * 5 * 1 * 7 * 3).view(tuple(SIZES.values()))
    for dim in ("a", "b", "c"):
        layout = WHOLE.with_split(dim)
        parts = [take_shard(x, layout, rank, p) for rank in range(p)]
        assert all(part.shape == layout.local_shape(p) for part in parts)
        trimmed = [trim_shard(part, layout, rank, p) for rank, part in enumerate(parts)]
        assert torch.equal(torch.cat(trimmed, layout.position(dim)), x)
        assert sum(part.sum() for part in parts) == x.sum()  # padding is zero
    assert take_shard(x, WHOLE, 0, p) is x
    assert trim_shard(x, WHOLE, 0, p) is x


def test_layouts_that_no_collective_joins():
    with pytest.raises(ValueError, match="not the same tensor"):
        collective_between(WHOLE, Layout(Dims(SIZES | {"a": 6})))
    with pytest.raises(ValueError, match="no single collective turns"):
        collective_between(WHOLE, WHOLE.with_value("partial"))
    with pytest.raises(ValueError, match="cannot split 'd'"):
        WHOLE.with_split("d")


def test_layouts_as_people_write_them():
    sizes = {"batch": 1, "time": 2, "tokens": 3, "space": 4, "model": 5}
    layout = Layout(Dims(sizes), "tokens")
    assert str(layout) == "[B, Time, Tokens/sp, S, M]"
    assert str(layout.with_value("partial")) == "[B, Time, Tokens, S, M] (partial sums)"


def test_a_dim_is_called_the_same_in_all_tensors_of_a_model():
    dims = {"depth": 2, "height": 3, "width": 4}
    model = Geometry(dims=dims, stages=tuple(dims), d_model=8, num_heads=2)
    stream = model.stream.with_split("height")
    assert str(stream) == "[B, D, Height/sp, W, M]"
    assert str(model.heads(stream)) == "[B, D, Height/sp, W, H, C]"
