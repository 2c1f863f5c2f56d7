"""A cluster in a box: the same results as without it, over wires that carry what the log says."""

import pathlib
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from small_spec import spec

import workbench as wb
from workbench import box
from workbench.failure import RankError
from workbench.launch import run_box
from workbench.rank import rank_step
from workbench.strategies import select

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


@here
def test_what_crosses_a_card_is_what_the_log_says():
    """Of an all-to-all among 2 x 2 ranks, two thirds of what a rank sends leave its node."""
    model = spec("time=64 space=64", ("space", "time"), heads=4, d_model=512)
    sizes = model.stream.sizes

    def on_rank(rank, comm):
        import torch.distributed as dist

        from workbench.layout import Layout

        before, after = (Layout(sizes, dim) for dim in ("time", "space"))
        x = torch.randn(before.local_shape(comm.size))
        dist.barrier()
        sent = through_the_card()
        y = comm.relayout(x, before, after)
        back = comm.relayout(y, after, before)
        dist.barrier()
        return through_the_card() - sent, [r.sent_bytes for r in comm.log], bool((back == x).all())

    for crossed, sent, same in run_box(on_rank, inter_bandwidth=BANDWIDTH):
        assert same
        assert len(sent) == 2
        # Two ranks of a node share its card; packets' headers come on top.
        assert crossed == pytest.approx(2 * sum(sent) * 2 / 3, rel=0.05)
        assert sent[0] / 3 > box.PIECE_BYTES


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
        ({"inter_bandwidth": 0}, "inter_bandwidth must be above 0 bytes/s, got 0"),
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
