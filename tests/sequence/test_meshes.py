"""Two axes of a mesh: equal to one device, to the byte as predicted, each axis by its name."""

import collections

import pytest
from test_equal_to_one_device import error, expected

import workbench as wb
from workbench.dims import Stage
from workbench.mesh import check_mesh, coordinates
from workbench.outcome import compare
from workbench.rank import rank_step
from workbench.strategies import select


def spec(stages, heads=12, kv_heads=None, batch=1, layers=2, **dims):
    return wb.TransformerSpec(
        dims=dims, stages=stages, d_model=24, num_heads=heads, num_kv_heads=kv_heads,
        num_layers=layers, batch=batch,
    )  # fmt: skip


VIDEO = spec(("space", "time"), batch=3, time=5, space=6)
VOLUME = spec(("a", "b", "c"), heads=4, batch=2, a=3, b=5, c=4)
SPECS = [
    VIDEO,
    VOLUME,
    spec((Stage("t", causal=True),), kv_heads=4, batch=2, t=11),
    spec((("a", "b"), "c"), heads=4, kv_heads=1, a=3, b=5, c=4),
]
RUNS = {
    2: [
        ("usp", {"ulysses": 2, "ring": 1}, {}),
        ("dsp-dsp", {"outer": 1, "inner": 2}, {}),
        ("dsp-ulysses", {"ulysses": 1, "dsp": 2}, {}),
        ("dsp-ulysses", {"ulysses": 2, "dsp": 1}, {}),
        ("ulysses", {"data": 2}, {}),
    ],
    4: [
        ("usp", {"ulysses": 2, "ring": 2}, {}),
        ("usp", {"ring": 2, "ulysses": 2}, {"order": "zigzag"}),
        ("usp", {"ulysses": 2, "ring": 2}, {"order": "striped"}),
        ("usp", {"ring": 4, "ulysses": 1}, {}),
        ("dsp-ulysses", {"ulysses": 2, "dsp": 2}, {}),
        ("dsp-ulysses", {"dsp": 2, "ulysses": 2}, {}),
        ("dsp-dsp", {"outer": 2, "inner": 2}, {}),
        ("dsp", {"data": 2, "sp": 2}, {}),
        ("megatron-sp", {"data": 2, "sp": 2}, {}),
        ("megatron-tp", {"tp": 2, "data": 2}, {}),
        ("ring", {"sp": 2, "data": 2}, {}),
        ("single", {"data": 4}, {}),
    ],
    6: [
        ("usp", {"data": 2, "ulysses": 1, "ring": 3}, {}),
        ("dsp-dsp", {"outer": 2, "inner": 3}, {}),
        ("dsp-ulysses", {"dsp": 3, "ulysses": 2}, {}),
    ],
}


def cases(p):
    for model in SPECS:
        for name, mesh, options in RUNS[p]:
            try:
                cls = select(name, model, p, mesh, **options)
            except ValueError:
                continue
            for shard in model.dims if cls.cuts_sequence else [None]:
                yield model, name, mesh, options, cls, shard


@pytest.mark.parametrize("p", RUNS)
def test_equal_to_one_device(p):
    prepared = list(cases(p))
    assert {name for _, name, *_ in prepared} == {name for name, *_ in RUNS[p]}

    def on_rank(rank, comm):
        results = []
        for model, _, mesh, _, cls, shard in prepared:
            results.append(rank_step(comm, model, cls, "float64", 0, shard, mesh=mesh))
            results[-1]["log"] = list(comm.log)
        return results

    ranks = wb.run_local(on_rank, p)
    for i, (model, name, mesh, options, cls, shard) in enumerate(prepared):
        run = {"dtype": "float64", "shard": shard}
        parts = [results[i] for results in ranks]
        step = compare(parts, model, cls, {**run, "seed": 0}, 0.0)
        output, loss, gradients = expected(model, "float64")
        case = (model.dims, name, mesh, options, shard)
        assert error({"y": step.output}, {"y": output}) <= 1e-10, case
        assert error(step.gradients, gradients) <= 1e-10, case
        assert step.loss == pytest.approx(loss, rel=1e-10), case
        run |= {"p": p, "mesh": mesh, **options}
        assert wb.fake_step(model, name, **run).log == step.log, case
        predicted = [
            wb.closed_form_bytes(model, name, phase=phase, **run)
            for phase in ("forward", "backward", "gradients")
        ]
        assert predicted == [step.forward_bytes, step.backward_bytes, step.gradient_bytes], case
        axes = {record.axis for record in step.log}
        assert axes <= {axis for axis, size in mesh.items() if size > 1} | {"*"}, case


def test_a_step_with_a_mesh():
    mesh = {"ulysses": 2, "ring": 2}
    step = wb.run_step(VIDEO, "usp", p=4, mesh=mesh, shard="space")
    assert step.max_error < 1e-5
    assert {record.axis for record in step.log} == {"ulysses", "ring", "*"}


def per_axis(model, name, mesh, **options):
    sent = collections.Counter()
    for record in wb.fake_step(model, name, p=4, mesh=mesh, **options).log:
        sent[record.axis, record.phase] += record.sent_bytes
    return sent


def test_bytes_per_axis_are_those_of_the_formulas():
    """With sizes that divide; M is one activation, u and r the axes' ranks, g = 1.

    Source: arXiv:2405.07719 for USP: 4(u-1)/u M/p and 2(r-1)M/p forward; 2rM/p more backward.
    """
    model = spec(("space", "time"), layers=1, time=8, space=8)
    m, p, u, r = model.activation_bytes(), 4, 2, 2
    sent = per_axis(model, "usp", {"ulysses": u, "ring": r}, shard="time")
    assert sent["ulysses", "forward"] == 4 * (u - 1) * m // u // p
    assert sent["ring", "forward"] == 2 * (r - 1) * m // p
    assert sent["ring", "backward"] == 2 * (2 * r - 1) * m // p


def test_two_cuts_of_three_dims_need_a_switch_before_each_stage():
    model = spec(("a", "b", "c"), heads=4, layers=6, a=4, b=4, c=4)
    deeper = spec(("a", "b", "c"), heads=4, layers=7, a=4, b=4, c=4)
    mesh = {"outer": 2, "inner": 2}
    counts = [
        sum(r.phase == "forward" for r in wb.fake_step(m, "dsp-dsp", p=4, mesh=mesh).log)
        for m in (model, deeper)
    ]
    assert counts[1] - counts[0] == 3


def test_two_axes_nested_on_one_dim_switch_twice():
    model = spec(("space", "time"), layers=1, time=4, space=4)
    log = wb.fake_step(model, "dsp-dsp", p=4, mesh={"outer": 2, "inner": 2}, shard="time").log
    forward = [record for record in log if record.phase == "forward"]
    assert [record.axis for record in forward] == ["inner", "outer"]
    assert str(forward[0].before) == "[B, T/(outerxinner), S, M]"
    assert str(forward[1].after) == "[B, T, S/(innerxouter), M]"
    m = model.activation_bytes()
    assert sum(record.sent_bytes for record in forward) == 2 * (m // 4 // 2)  # (fa + fb) M / p


def test_neighbours_are_on_the_last_axis():
    mesh = {"outer": 2, "inner": 3}
    assert coordinates(4, mesh) == {"outer": 1, "inner": 1}
    assert len({tuple(coordinates(rank, mesh).values()) for rank in range(6)}) == 6


@pytest.mark.parametrize(
    ("name", "mesh", "message"),
    [
        ("usp", None, "usp needs a mesh with the axes ulysses, ring"),
        ("usp", {"ulysses": 2, "sp": 2}, "usp needs a mesh with the axes ulysses, ring"),
        ("usp", {"ulysses": 2, "ring": 3}, "has 6 ranks, but p=4"),
        ("dsp", {"a": 2, "b": 2}, "dsp runs along one axis"),
        ("dsp", {"sp": 0, "data": 4}, "size of mesh axis 'sp' must be an integer of at least 1"),
        ("dsp-ulysses", {"dsp": 2, "ulysses": 2}, None),
        ("dsp-dsp", {"outer": 3, "inner": 1}, "mesh outer=3 x inner=1 has 3 ranks"),
    ],
)
def test_refusals_name_the_axes(name, mesh, message):
    if message is None:
        assert wb.closed_form_bytes(VIDEO, name, p=4, mesh=mesh) > 0
        return
    with pytest.raises(ValueError, match=message):
        wb.closed_form_bytes(VIDEO, name, p=4, mesh=mesh)


def test_a_stage_along_all_dims_is_refused_in_the_strategys_own_name():
    with pytest.raises(ValueError, match=r"^dsp-dsp keeps a dim cut"):
        wb.closed_form_bytes(SPECS[2], "dsp-dsp", p=4, mesh={"outer": 2, "inner": 2})


@pytest.mark.parametrize("name", ["usp", "dsp-ulysses", "dsp-dsp"])
def test_one_rank_needs_no_mesh_and_no_free_dim(name):
    for model in (VIDEO, spec((("a", "b"),), heads=4, a=2, b=3), spec(("t",), heads=4, t=5)):
        for mesh in (None, dict.fromkeys(select(name, model, 1).axes, 1)):
            step = wb.fake_step(model, name, p=1, mesh=mesh)
            assert step.log == []
            assert wb.closed_form_bytes(model, name, p=1, mesh=mesh) == 0
            assert wb.closed_form_memory(model, name, p=1, mesh=mesh).peak_bytes == step.peak_bytes


def test_a_mesh_is_a_dict():
    for mesh in (4, [("ulysses", 2), ("ring", 2)]):
        with pytest.raises(ValueError, match=r"a mesh is a dict, such as"):
            check_mesh.__wrapped__(mesh, 4)


@pytest.mark.parametrize(
    ("size", "axes", "positions"),
    [(7, {"ulysses": 2, "ring": 1}, "none"), (2, {"ulysses": 1, "ring": 2}, "learned"),
     (2, {"ulysses": 1, "ring": 2}, "rope")],
)  # fmt: skip
def test_a_zigzag_of_few_or_odd_entries(size, axes, positions):
    """One rank of the ring has all tokens as they come; a padded part may look like the whole."""
    model = wb.TransformerSpec(dims={"a": size, "b": 3}, stages=("a", "b"), d_model=16,
                               num_heads=4, num_layers=1, positions=positions)  # fmt: skip
    step = wb.run_step(model, "usp", p=2, mesh=axes, shard="a", order="zigzag", dtype="float64")
    assert step.max_error < 1e-10
    assert step.grad_error < 1e-10
    assert (
        step.log
        == wb.fake_step(
            model, "usp", p=2, mesh=axes, shard="a", order="zigzag", dtype="float64"
        ).log
    )
    sent = wb.closed_form_bytes(model, "usp", p=2, mesh=axes, shard="a", order="zigzag",
                                dtype="float64")  # fmt: skip
    assert step.sent_bytes == sent
