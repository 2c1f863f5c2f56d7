"""Spans add up to the prediction, measured ones to the log; the file has the format's structure."""

import json
from itertools import pairwise

import pytest
from small_spec import spec

import workbench as wb
from workbench import figures
from workbench.timeline import (
    LANES,
    Span,
    measured_timeline,
    predicted_timeline,
    step_seconds,
    to_chrome,
    totals,
)
from workbench.timeline.measured import REST, _Event, _in_a_row, _Traced, joined

VIDEO = wb.TransformerSpec(dims={"time": 64, "space": 1024}, stages=("space", "time"),
                           d_model=1152, num_heads=16, num_layers=5, batch=2)  # fmt: skip
BOX = wb.CLUSTERS["dgx-h100"]
SMALL = spec("time=4 space=6", ("space", "time"), layers=2)


@pytest.mark.parametrize("name", ["single", "dsp", "ulysses", "ring", "megatron-sp", "megatron-tp"])
@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_sync": "flat"}, {"mode": "inference"}, {"checkpoint": "block"},
     {"accumulate": 2}, {"fsdp": True}, {"fsdp": "keep"}, {"fsdp": True, "mode": "inference"}],
    ids=str,
)  # fmt: skip
def test_spans_add_up_to_the_prediction(name, options):
    if "fsdp" in options and name in ("single", "megatron-sp", "megatron-tp"):
        pytest.skip("these cut no weights by FSDP")
    p = 1 if name == "single" else 8
    cost = wb.predict(VIDEO, name, BOX, p=p, **options)
    ranks = min(2, p)
    spans = predicted_timeline(VIDEO, name, BOX, p=p, ranks=ranks, **options)
    for rank in range(ranks):
        sums = totals(spans, rank)
        assert sums["compute"] == pytest.approx(cost.compute_s, rel=1e-9)
        assert sums["communication"] == pytest.approx(cost.exposed_communication_s, rel=1e-9)
        assert sums["relayout"] == pytest.approx(cost.relayout_s, rel=1e-9)
        assert sums["overhead"] == pytest.approx(cost.overhead_s, rel=1e-9)
        assert sums["hidden"] == pytest.approx(cost.hidden_communication_s, rel=1e-9, abs=1e-12)
        assert sums["wait"] == 0
    assert step_seconds(spans) == pytest.approx(cost.seconds, rel=1e-9)
    check_lanes(spans)


def check_lanes(spans):
    """Spans of a lane do not overlap; a rank's own lane has no gaps."""
    for rank, lane in {(span.rank, span.lane) for span in spans}:
        row = [span for span in spans if (span.rank, span.lane) == (rank, lane)]
        for one, after in pairwise(row):
            gap = after.start_s - one.end_s
            assert gap > -1e-9
            assert lane != LANES[0] or gap < 1e-9


def test_kernels_and_kinds_are_those_of_the_prediction():
    cost = wb.predict(VIDEO, "dsp", BOX, p=8)
    spans = predicted_timeline(VIDEO, "dsp", BOX, p=8)
    for kind in ("matmul", "attention", "elementwise"):
        spent = sum(span.seconds for span in spans if span.kind == kind)
        assert spent == pytest.approx(getattr(cost, f"{kind}_s"))


@pytest.mark.parametrize("name", ["dsp", "ulysses", "megatron-sp", "megatron-tp", "ring"])
@pytest.mark.parametrize("checkpoint", ["none", "block"])
def test_collectives_lie_where_the_log_has_them(name, checkpoint):
    log = wb.fake_step(VIDEO, name, p=8, checkpoint=checkpoint).log
    expected = {}
    for record in log:
        key = (record.kind, record.phase, record.layer, record.stage)
        expected[key] = expected.get(key, 0) + 1
    found = {}
    how = {"gradient_sync": "flat", "checkpoint": checkpoint}
    for span in predicted_timeline(VIDEO, name, BOX, p=8, **how):
        if span.part == "communication":
            key = (span.kind, span.phase, span.layer, span.stage)
            found[key] = found.get(key, 0) + span.count
    if name == "ring":  # shifts that are all hidden have no span here
        expected = {key: count for key, count in expected.items() if key in found}
    assert found == expected


def test_dsp_switches_before_a_stage_forward_and_after_it_backward():
    spans = predicted_timeline(VIDEO, "dsp", BOX, p=8)
    main = [span for span in spans if span.lane == "step"]
    for phase, order in (("forward", 1), ("backward", -1)):
        visit = [s for s in main if (s.phase, s.layer, s.stage) == (phase, 2, 1)]
        parts = [s.part for s in visit if s.part in ("communication", "compute")]
        assert parts[::order] == ["communication", "compute", "compute", "compute"]
    assert not [s for s in main if s.part == "communication" and (s.layer, s.stage) == (0, 0)]


def test_a_wrong_gradient_sync_is_refused():
    with pytest.raises(ValueError, match="one of flat, ddp; got 'later'"):
        predicted_timeline(VIDEO, "dsp", BOX, p=8, gradient_sync="later")


def test_the_file_has_the_structure_of_the_trace_event_format():
    with pytest.raises(ValueError, match="ranks=9 of p=8: at most all"):
        predicted_timeline(VIDEO, "ring", BOX, p=8, ranks=9)
    spans = predicted_timeline(VIDEO, "ring", BOX, p=8, ranks=2)
    trace = json.loads(json.dumps(to_chrome(spans)))
    names = {(e["pid"], e["args"]["name"]) for e in trace["traceEvents"] if e["ph"] == "M"}
    assert {(0, "rank 0"), (1, "rank 1"), (0, "step"), (1, "behind it")} <= names
    complete = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert len(complete) == len(spans) == len(trace["traceEvents"]) - 8
    for event, span in zip(complete, spans, strict=True):
        assert event["ts"] == pytest.approx(1e6 * span.start_s)
        assert event["dur"] == pytest.approx(1e6 * span.seconds)
        assert (event["pid"], LANES[event["tid"]]) == (span.rank, span.lane)
        assert event["cat"] == span.part
        assert event["args"]["count"] == span.count


@pytest.mark.parametrize("name", ["dsp", "ring"])
def test_a_measured_step_joins_trace_and_log(name):
    log = wb.fake_step(SMALL, name, p=2).log
    spans = measured_timeline(SMALL, name, p=2)
    check_lanes(spans)
    for rank in (0, 1):
        made = [span for span in spans if span.rank == rank and span.index is not None]
        assert {span.index for span in made} == set(range(len(log)))
        for span in made:
            record = log[span.index]
            assert (span.kind, span.phase) == (record.kind, record.phase)
            assert (span.layer, span.stage) == (record.layer, record.stage)
            assert span.seconds > 0
        sums = totals(spans, rank)
        row = [span for span in spans if (span.rank, span.lane) == (rank, "step")]
        whole = max(s.end_s for s in row) - min(s.start_s for s in row)
        assert sum(sums.values()) - sums["hidden"] == pytest.approx(whole)
        assert {"matmul", "attention", REST} <= {span.kind for span in row}
    for index, record in enumerate(log):
        waited = {s.rank for s in spans if s.index == index and s.part == "wait"}
        assert record.kind == "ring_shift" or len(waited) < 2, "somebody is the last to come"


def test_waiting_ends_when_the_last_rank_comes():
    log = wb.fake_step(SMALL, "dsp", p=2).log
    early = _Traced(_Event("step", 10, 20), [_Event("comm:0", 12, 17)], log)
    late = _Traced(_Event("step", 10, 20), [_Event("comm:0", 15, 17)], log)
    spans = joined([early, late])
    found = [(s.rank, s.part, s.start_s, s.seconds) for s in spans if s.index == 0]
    assert found == [(0, "wait", 2, 3), (0, "communication", 5, 2), (1, "communication", 5, 2)]


def test_a_ring_waits_only_for_its_neighbour():
    log = wb.fake_step(SMALL, "ring", p=2).log
    assert log[0].kind == "ring_shift"
    asks = [_Event("comm:0", 1, 2), _Event("comm:0", 5, 9)]
    late = [_Event("comm:0", 6, 7), _Event("comm:0", 8, 9)]
    spans = joined([_Traced(_Event("step", 0, 9), asks, log),
                    _Traced(_Event("step", 0, 9), late, log)])  # fmt: skip
    found = [(s.rank, s.part, s.start_s, s.seconds) for s in spans if s.index == 0]
    assert found == [
        (0, "communication", 1, 1), (0, "wait", 5, 1), (0, "communication", 6, 3),
        (1, "communication", 6, 1), (1, "communication", 8, 1), (1, "hidden", 7, 1),
    ]  # fmt: skip


def test_nested_events_make_one_row():
    nested = [_Event("relayout", 1, 8), _Event("comm:0", 3, 5), _Event("aten::mm", 8, 9)]
    row = list(_in_a_row(_Event("step", 0, 10), nested))
    assert row == [
        (REST, 0, 1), ("relayout", 1, 3), ("comm:0", 3, 5), ("relayout", 5, 8),
        ("aten::mm", 8, 9), (REST, 9, 10),
    ]  # fmt: skip


def test_only_one_axis_is_measured():
    with pytest.raises(ValueError, match="usp needs a mesh"):
        measured_timeline(SMALL, "usp", p=2)


def test_bars_are_the_spans():
    waited = Span(0, "step", "wait", "all_to_all", 0.0, 0.5, index=3)
    moved = Span(0, "step", "communication", "all_to_all", 0.5, 1.5, index=3)
    predicted = predicted_timeline(VIDEO, "ring", BOX, p=8)
    runs = {"predicted": predicted, "measured": [waited, moved]}
    figure = figures.timeline(runs)
    drawn = sum(len(trace.x) for trace in figure.data)
    assert drawn == sum(map(len, runs.values()))
    assert sum(x for trace in figure.data if trace.yaxis == "y" for x in trace.x) == pytest.approx(
        1e3 * sum(span.seconds for span in runs["predicted"])
    )
    legend = [trace.name for trace in figure.data if trace.showlegend]
    assert len(set(legend)) == len(legend)
    text = figures.caption(figure)
    assert "Measured: 2 s a step, exposed communication 75%, waiting for the last rank 25%." in text
    assert "of transfers lie behind it" in text
