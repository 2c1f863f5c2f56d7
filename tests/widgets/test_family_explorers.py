"""The explorers of meshes and of balance: set a control, see the chart change."""

import workbench as wb
from workbench import figures, widgets
from workbench.widgets.controls import w


def test_the_mesh_follows_each_control():
    explorer = widgets.mesh_explorer()
    changes = {
        "outer": 4, "inner": 2, "node": 2, "kv": 2, "axes": ("ulysses", "ring"),
        "strategy": "dsp-ulysses",
    }  # fmt: skip
    for name, value in changes.items():
        before = explorer.picture.value
        explorer.controls[name].value = value
        assert explorer.picture.value != before, name
    assert explorer.mesh == {"dsp": 4, "ulysses": 2}
    step = wb.fake_step(
        wb.TransformerSpec(dims={"time": 8, "space": 16}, stages=("space", "time"), d_model=32,
                           num_heads=8, num_kv_heads=2, num_layers=2, batch=2),
        "dsp-ulysses", p=8, mesh=explorer.mesh,
    )  # fmt: skip
    assert explorer.step.log == step.log
    assert explorer.picture.value == figures.mesh_svg(step, explorer.mesh, 2)


def test_a_strategy_of_one_axis_goes_with_data():
    explorer = widgets.mesh_explorer()
    explorer.controls["strategy"].value = "dsp"
    assert set(explorer.mesh) == {"data", "sp"}
    explorer.controls["strategy"].value = "usp"
    assert set(explorer.mesh) == {"ring", "ulysses"}


def test_the_mesh_shows_refusals():
    explorer = widgets.mesh_explorer(wb.PRESETS["toy-text"])
    explorer.controls["strategy"].value = "dsp-dsp"
    assert "Not possible: dsp-dsp keeps a dim cut" in explorer.caption.value
    assert explorer.picture.value == ""
    assert explorer.step is None
    explorer.controls["strategy"].value = "usp"
    assert explorer.step.strategy == "usp"
    assert list(explorer.controls["kv"].options) == [1, 2, 4]  # of 4 heads


def test_the_balance_follows_each_control():
    explorer = widgets.balance_explorer(24, 3)
    changes = {"tokens": 20, "p": 4, "window": 5, "mask": False, "order": ("striped",)}
    for name, value in changes.items():
        before = explorer.picture.value
        explorer.controls[name].value = value
        assert explorer.picture.value != before, name
    assert explorer.balances == [figures.balance(20, 4, "striped", causal=False, window=5)]
    explorer.controls["window"].value = 0
    assert explorer.balances == [figures.balance(20, 4, "striped", causal=False)]
    assert "20 tokens on 4 ranks" in explorer.caption.value


def test_every_control_has_a_name():
    for explorer in (widgets.mesh_explorer(), widgets.balance_explorer()):
        for control in explorer.controls.values():
            assert isinstance(control, w.BoundedIntText | w.Dropdown)
            assert control.description
