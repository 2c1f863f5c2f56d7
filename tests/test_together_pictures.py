"""The figures of training together show their data and say it in the caption."""

from workbench.figures import caption
from workbench.figures import together as figures


def test_bars_of_what_is_sent_begin_with_the_fewest_bytes():
    figure = figures.sent_bytes({"full": 4000, "lora": 40, "prompt": 4})
    bar = figure.data[0]
    assert dict(zip(bar.y, bar.x, strict=True)) == {"full": 4000, "lora": 40, "prompt": 4}
    assert bar.y[-1] == "prompt"  # plotly draws from below
    assert figure.layout.xaxis.type == "log"
    assert caption(figure).endswith("full sends 1,000 times what prompt does.")


def test_losses_stand_over_bytes_with_their_mean():
    figure = figures.loss_and_bytes({"lora": (1000, [1.0, 2.0]), "head": (10, [3.0, 3.0])}, 4.0)
    lora = [trace for trace in figure.data if trace.name == "lora"]
    assert [trace.y for trace in lora] == [(1.0, 2.0), (1.5,)]
    assert [trace.showlegend for trace in lora] == [False, True]
    assert lora[0].x == (1000, 1000)
    assert figure.layout.shapes[0].y0 == 4.0
    assert caption(figure).startswith("Lowest mean loss first: lora 1.500 for 1 kB, head 3.000")
    assert "over 2 seeds" in caption(figure)
    assert caption(figures.loss_and_bytes({"lora": (9, [1.0])}, 4.0)).endswith("nat. One seed.")


def test_a_start_has_a_colour_and_a_partition_a_dash():
    runs = {
        ("pretrained", "iid"): [[2.0, 1.0], [3.0, 2.0]],
        ("pretrained", "skewed"): [[2.0, 1.5], [2.0, 1.5]],
        ("random", "iid"): [[4.0, 3.0], [4.0, 3.0]],
    }
    figure = figures.start_curves(runs)
    assert [trace.y for trace in figure.data] == [(2.5, 1.5), (2.0, 1.5), (4.0, 3.0)]
    one, other, third = (trace.line for trace in figure.data)
    assert one.color == other.color != third.color
    assert one.dash == third.dash != other.dash
    assert "random, iid: 4.00 to 3.00 nat. Means over 2 seeds." in caption(figure)
    assert caption(figures.start_curves({("random", "iid"): [[4.0, 3.0]]})).endswith("One seed.")
