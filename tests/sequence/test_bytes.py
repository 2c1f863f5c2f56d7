"""What is recorded is what is sent: by the kernel's own count, with its place, to the byte."""

import re
import time

import pytest
import torch
import torch.distributed as dist
from cases import SPECS, assert_counted, closed_forms, spec
from witness import IO, Witness

import workbench as wb
from workbench.collectives import sent_bytes
from workbench.meter import Meter
from workbench.rank import RankStep, rank_step
from workbench.strategies import STRATEGIES
from workbench.transformer import PRESETS

PARALLEL = [name for name in STRATEGIES if name != "single"]
#: Every collective of these hands over 1 MB or more, so that headers are below one percent.
LARGE = {
    p: spec(f"time=8 space={256 * p}", ("space", "time"), heads=4, d_model=256, mlp_per="layer")
    for p in (2, 4)
}


@pytest.mark.skipif(not IO.exists(), reason="only Linux tells what a process has written")
@pytest.mark.parametrize("p", LARGE)
def test_the_kernel_counts_the_same_bytes(p):
    def on_rank(rank, comm):
        found = {}
        for name in PARALLEL:
            with Witness(comm.size) as witness:
                rank_step(comm, LARGE[p], STRATEGIES[name], shard="time")
            assert_counted(witness, comm.log)
            smallest = min(r.input_bytes for r in comm.log if r.layer is not None)
            found[name] = smallest, dict(witness.wire)
        return found

    for rank in wb.run_local(on_rank, p):
        for name, (smallest, wire) in rank.items():
            assert smallest >= 1e6, name
            predicted = closed_forms(LARGE[p], name, p, shard="time")
            for phase, sent in zip(("forward", "backward", "gradients"), predicted, strict=True):
                if sent > 1e6:
                    assert sent <= wire[phase] <= 1.01 * sent, (name, phase)
                else:  # Megatron-SP's norms and biases: a few kilobytes and their headers
                    assert sent <= wire[phase] <= sent + 10_000, (name, phase)


def test_a_witness_can_contradict():
    def on_rank(rank, comm):
        with Witness(comm.size) as witness:
            rank_step(comm, PRESETS["toy-video"], STRATEGIES["dsp"], shard="time")
        comm.log.pop(0)
        with pytest.raises(AssertionError):
            assert_counted(witness, comm.log)

    wb.run_local(on_rank, 2)


@pytest.mark.parametrize("name", PARALLEL)
def test_each_record_tells_its_place(name):
    model = SPECS[2]
    real, faked = wb.run_step(model, name, p=3, shard="time"), wb.fake_step(model, name, p=3)
    assert real.log
    assert faked.log
    for record in real.log:
        itemsize = {"float32": 4}[record.dtype]
        assert record.input_bytes % itemsize == 0
        assert record.sent_bytes == sent_bytes(record.kind, record.input_bytes, 3)
        if record.phase == "gradients":
            assert (record.layer, record.stage, record.axis) == (None, None, "*")
            assert re.fullmatch(r"rank\.py:\d+", record.where)
        else:
            assert record.phase in ("forward", "backward")
            assert record.layer in range(model.num_layers)
            assert record.stage in range(len(model.stages))
            assert record.axis == "sp"
            assert re.fullmatch(rf"{name.split('-')[0]}\.py:\d+", record.where)
    order = [(r.layer, r.stage) for r in real.log if r.phase == "forward"]
    assert order == sorted(order)
    back = [(r.layer, r.stage) for r in real.log if r.phase == "backward"]
    assert back == sorted(back, reverse=True)
    assert {r.layer for r in real.log} >= set(range(model.num_layers))


def settle_after_collectives():
    """Wait after each until gloo has let go of its tensors: its thread does so a moment late."""

    def settled(collective):
        def call(*given, **options):
            tensors = [t for t in given if isinstance(t, torch.Tensor)]
            before = [t._use_count() for t in tensors]
            result = collective(*given, **options)
            time.sleep(0.0 if tensors else 0.05)  # of a list of transfers nothing is known
            until = time.monotonic() + 10
            while [t._use_count() for t in tensors] > before and time.monotonic() < until:
                time.sleep(0.001)
            return result

        return call

    for name in ("all_to_all_single", "all_gather_single", "all_reduce", "batch_isend_irecv"):
        setattr(dist, name, settled(getattr(dist, name)))


@pytest.mark.parametrize("model", [SPECS[2], SPECS[5], SPECS[10]], ids=lambda m: str(m.dims))
def test_faked_flops_and_memory_are_those_of_the_real_run(model):
    """Rank 0 has no padding here, so that it computes as much as the faked rank."""
    names = [name for name in STRATEGIES if name != "dsp" or len(model.dims) > 1]

    def on_rank(rank, comm):  # without the tests' type checks, whose frames keep tensors alive
        settle_after_collectives()
        found = {}
        for name in names:
            shard = max(model.dims, key=model.dims.get) if STRATEGIES[name].cuts_sequence else None
            step = RankStep(comm, model, STRATEGIES[name], "float32", 0, shard, torch.device("cpu"))
            with Meter(leaf for _, leaf in step.leaves()) as meter:
                step.run()
            faked = wb.fake_step(model, name, p=comm.size, shard=shard)
            assert rank > 0 or faked.flops == meter.flops
            found[name] = meter.peak_bytes - faked.peak_bytes
        return found

    assert set(wb.run_local(on_rank, 2)[0].values()) == {0}


def test_one_rank_counts_the_flops_of_the_formula():
    for model in SPECS:
        assert wb.fake_step(model, "single", p=1).flops == model.flops
