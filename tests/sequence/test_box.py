"""A cluster in a box: the same results as without it, over wires that carry what the log says."""

import pathlib
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
import torch.distributed as dist
from small_spec import spec

import workbench as wb
from workbench import box
from workbench.collectives import crossing_bytes
from workbench.failure import RankError
from workbench.launch import run_box
from workbench.layout import Layout
from workbench.rank import rank_step
from workbench.strategies import select
from workbench.wires import as_gloo, measure, recorded

BANDWIDTH = 250e6
here = pytest.mark.skipif(box.missing() is not None, reason=f"no cluster in a box: {box.missing()}")


def through_the_card():
    """Bytes that this rank's node has sent to other nodes so far, headers included."""
    lines = pathlib.Path("/proc/self/net/dev").read_text().splitlines()
    card = next(line for line in lines if line.strip().startswith("eth0:"))
    return int(card.split(":")[1].split()[8])


def holders():
    """Processes that hold a namespace for this test's process."""
    return [c for c in psutil.Process().children() if c.name() == "cat"]


@here
@pytest.mark.parametrize("name", ["dsp", "ulysses", "ring", "megatron-sp", "megatron-tp"])
def test_the_same_step_as_without_it(name):
    model = spec("time=4 space=6", ("space", "time"), heads=4, d_model=16, layers=2)
    cls = select(name, model, 4)

    def on_rank(rank, comm):
        step = rank_step(comm, model, cls, "float64", 0, "time" if cls.cuts_sequence else None)
        return step["output"], step["gradients"], step["log"]

    boxed = run_box(on_rank, inter_bandwidth=BANDWIDTH)
    for one, other in zip(boxed, wb.run_local(on_rank, 4), strict=True):
        assert torch.equal(one[0], other[0])
        assert one[2] == other[2]
        for key, gradient in other[1].items():
            # gloo may add up in another order over other connections
            assert torch.allclose(one[1][key], gradient, rtol=1e-12, atol=1e-12)
    assert not holders()


def all_kinds(comm, sizes):
    """One collective of each kind, as strategies ask for them."""
    time, space = (Layout(sizes, dim) for dim in ("time", "space"))
    partial = time.with_value("partial")
    x = torch.randn(time.local_shape(comm.size))
    y = comm.relayout(x, time, space)
    assert torch.equal(comm.relayout(y, space, time), x)
    gathered = comm.relayout(x, time, time.with_split(None))
    comm.relayout(gathered, partial, time)
    comm.ring_shift(x, time, "forward", comm.site()).wait()
    comm.sum_gradients([torch.ones(1_000_000)])


@here
@pytest.mark.parametrize(("nodes", "ranks_per_node"), [(2, 2), (3, 1)])
def test_a_card_carries_what_the_log_says(nodes, ranks_per_node):
    sizes = spec("time=48 space=48", ("space", "time"), heads=4, d_model=512).stream.sizes

    def on_rank(rank, comm):
        dist.barrier()
        found = []
        sent = through_the_card()
        all_kinds(comm, sizes)
        dist.barrier()
        found = through_the_card() - sent
        return found, comm.log

    ranks = run_box(on_rank, nodes=nodes, ranks_per_node=ranks_per_node, inter_bandwidth=BANDWIDTH)
    for carried, log in ranks:
        kinds = ["all_to_all"] * 2 + ["all_gather", "reduce_scatter", "ring_shift", "all_reduce"]
        assert [record.kind for record in log] == kinds
        assert log[0].sent_bytes / (len(ranks) - 1) > box.PIECE_BYTES
        # Packets' headers come on top.
        said = crossing_bytes(as_gloo(log), nodes, ranks_per_node)
        assert carried == pytest.approx(said, rel=0.05)


@here
def test_large_messages_travel_in_pieces():
    assert (
        run_box(lambda rank, comm: comm.piece_bytes, inter_bandwidth=BANDWIDTH)
        == [box.PIECE_BYTES] * 4
    )
    assert wb.run_local(lambda rank, comm: comm.piece_bytes, 1) == [None]

    def on_rank(rank, comm):
        comm.piece_bytes = 12  # three float32
        sent = torch.arange(comm.size * 10, dtype=torch.float32).view(comm.size, 10) + 100 * rank
        return comm._exchange(sent)

    for rank, received in enumerate(wb.run_local(on_rank, 3)):
        whole = torch.arange(30, dtype=torch.float32).view(3, 10)
        assert torch.equal(received, torch.stack([whole[rank] + 100 * s for s in range(3)]))


@here
def test_three_nodes_and_a_rank_that_raises():
    names = run_box(lambda rank, comm: (rank, comm.size), nodes=3, ranks_per_node=1,
                    inter_bandwidth=BANDWIDTH)  # fmt: skip
    assert names == [(0, 3), (1, 3), (2, 3)]

    def on_rank(rank, comm):
        if rank == 2:
            raise ArithmeticError("on purpose")
        comm.sum_gradients([torch.ones(3)])

    with pytest.raises(RankError, match=r"rank 2 of 3 raised:(.|\n)*on purpose"):
        run_box(on_rank, nodes=3, ranks_per_node=1, inter_bandwidth=BANDWIDTH)
    assert not holders()


@here
def test_a_kill_leaves_no_namespace():
    script = (
        "from workbench.box import nodes_joined\n"
        "import time\n"
        "with nodes_joined(2, 1e6) as nodes:\n"
        "    print(*nodes, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as run:
        nodes = run.stdout.readline().decode().split()
        assert len(nodes) == 2
        assert all(pathlib.Path(node).exists() for node in nodes)
        run.send_signal(signal.SIGKILL)
    until = time.monotonic() + 30
    while any(pathlib.Path(node).exists() for node in nodes) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(pathlib.Path(node).exists() for node in nodes)


@here
def test_latency_works_or_says_what_the_kernel_lacks():
    try:
        assert run_box(lambda rank, comm: rank, inter_bandwidth=BANDWIDTH, latency=1e-3) == [
            0, 1, 2, 3,
        ]  # fmt: skip
    except ValueError as error:
        assert "needs the kernel's netem, which is not here" in str(error)  # noqa: PT017
    assert not holders()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"inter_bandwidth": 0}, "inter_bandwidth must be .* bytes/s, 1000 or more; got 0"),
        ({"inter_bandwidth": float("inf")}, "inter_bandwidth must be a finite number"),
        ({"inter_bandwidth": 1e6, "latency": -1.0}, "latency must be a number of seconds"),
        ({"inter_bandwidth": 1e6, "nodes": 0}, "nodes"),
        ({"inter_bandwidth": 1e6, "ranks_per_node": -1}, "ranks_per_node"),
    ],
)
def test_refused(how, said):
    with pytest.raises(ValueError, match=said):
        run_box(lambda rank, comm: rank, **how)


def test_a_machine_that_lacks_something_says_what(monkeypatch):
    monkeypatch.setattr(box.shutil, "which", lambda name: None if name == "tc" else name)
    with pytest.raises(box.NoBoxError, match=r"the programs tc .* are not here. run_local needs"):
        run_box(lambda rank, comm: rank, inter_bandwidth=1e6)
    monkeypatch.setattr(box.sys, "platform", "darwin")
    assert box.missing() == "network namespaces are Linux's; this is darwin"


@here
def test_a_measured_row_has_the_logs_bytes_and_real_times():
    model = spec("time=4 space=8", ("space", "time"), heads=4, d_model=32)
    rows = measure(model, ["dsp", "ulysses"], [1.0], repeats=1)
    assert [(row.strategy, row.gbit_per_s) for row in rows] == [("dsp", 1.0), ("ulysses", 1.0)]
    for row in rows:
        log = wb.fake_step(model, row.strategy, p=4).log
        assert row.crossing_bytes == crossing_bytes(log, 2, 2)
        assert row.wire_s == row.crossing_bytes / 125e6
        assert min(row.seconds, row.local_s) > 0
        assert row.expected_s == row.local_s + row.wire_s


def test_recorded_rows_are_of_the_benchmark():
    rows = recorded()
    assert {row.strategy for row in rows} == set(wb.STRATEGIES) - {"single"}
    assert len({row.gbit_per_s for row in rows}) >= 3
