"""Predictions add up, follow the machine, and hide no more than there is to hide behind."""

from collections import Counter
from dataclasses import replace

import pytest
from small_spec import spec

import workbench as wb
from workbench.cost import _frozen, predict, step_counts
from workbench.hiding import behind_the_backward, prefetched, round_the_ring
from workbench.strategies.ulysses import Ulysses
from workbench.traffic import Sent

VIDEO = wb.TransformerSpec(dims={"time": 64, "space": 1024}, stages=("space", "time"),
                           d_model=1152, num_heads=16, num_layers=28)  # fmt: skip
BOX = wb.CLUSTERS["dgx-h100"]
#: 1 flop and 1 byte take 1 s; nothing else takes any time.
UNIT = wb.Cluster("unit", wb.Device("unit", 10**12, 1.0, "", 1.0, 1.0, None), 8,
                  wb.Link("unit", 1.0))  # fmt: skip


@pytest.mark.parametrize("name", ["single", "dsp", "ulysses", "ring", "megatron-sp", "megatron-tp"])
@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_sync": "flat"}, {"mode": "inference"}, {"checkpoint": "block"}],
    ids=str,
)
def test_parts_add_up(name, options):
    p = 1 if name == "single" else 8
    cost = predict(VIDEO, name, BOX, p=p, **options)
    parts = cost.compute_s, cost.exposed_communication_s, cost.relayout_s, cost.overhead_s
    assert cost.seconds == sum(parts)
    assert min(cost.compute_s, cost.overhead_s) > 0
    assert cost.hidden_communication_s >= -1e-12
    for part in ("compute_s", "exposed_communication_s", "relayout_s", "hidden_communication_s"):
        stages = sum(getattr(stage, part) for stage in cost.breakdown)
        assert stages == pytest.approx(getattr(cost, part))
    kinds = cost.matmul_s + cost.attention_s + cost.elementwise_s
    assert kinds == pytest.approx(cost.compute_s)
    assert cost.samples_per_s == pytest.approx(1 / cost.seconds)
    assert cost.tokens_per_s == pytest.approx(VIDEO.tokens / cost.seconds)
    assert 0 < cost.mfu < 1


def test_one_step_by_hand():
    """On the unit machine: flops, five products where four are counted, and bytes sent."""
    model = spec("time=4 space=4", ("space", "time"), layers=2, heads=2)
    cost = predict(model, "dsp", UNIT, p=2, dtype="float32", gradient_sync="flat")
    faked = wb.fake_step(model, "dsp", p=2)
    attention = 2 * 2 * 4 * 16 * 4 * 8 / 2  # layers, stages, 4 S^2 C a group of 4, on 2 ranks
    assert cost.compute_s == faked.flops + 2 * attention * 1 / 4
    assert cost.exposed_communication_s == faked.sent_bytes + faked.gradient_bytes
    assert (cost.relayout_s, cost.overhead_s, cost.hidden_communication_s) == (0, 0, 0)


def test_a_kernel_takes_the_longer_of_flops_and_bytes():
    slow = replace(UNIT, device=replace(UNIT.device, memory_bytes_per_s=1e-6))
    model = spec("time=4 space=4", ("space", "time"))
    by_bytes, by_flops = (predict(model, "single", c, p=1).compute_s for c in (slow, UNIT))
    assert by_bytes > 1e3 * by_flops


def test_relayout_is_copies_around_collectives():
    ulysses, dsp = (predict(VIDEO, name, BOX, p=8, shard="time") for name in ("ulysses", "dsp"))
    weights = dsp.breakdown[-1].relayout_s
    ratio = (ulysses.relayout_s - weights) / (dsp.relayout_s - weights)
    assert ratio == pytest.approx(4 * 28 / (2 * 28 - 1))  # exchanges over switches


def test_the_network_binds_across_nodes():
    inside, across = (predict(VIDEO, "dsp", BOX, p=p) for p in (8, 16))
    assert inside.inter_node_s == 0
    assert across.inter_node_s > 0
    slow = replace(BOX, oversubscription=8.0)
    assert predict(VIDEO, "dsp", slow, p=16).seconds > across.seconds
    assert predict(VIDEO, "dsp", slow, p=8).seconds == inside.seconds


def test_the_last_axis_of_a_mesh_is_inside_a_node():
    model = replace(VIDEO, batch=2)
    near, far = (
        predict(model, "megatron-sp", BOX, p=16, mesh=mesh)
        for mesh in ({"data": 2, "megatron-sp": 8}, {"megatron-sp": 8, "data": 2})
    )
    assert near.seconds < far.seconds  # its activations stay on NVLink, gradients cross
    assert near.inter_node_s < far.inter_node_s


def test_gradients_hide_behind_the_backward():
    flat, ddp = (predict(VIDEO, "dsp", BOX, p=8, gradient_sync=g) for g in ("flat", "ddp"))
    assert ddp.breakdown[-1].exposed_communication_s < flat.breakdown[-1].exposed_communication_s
    assert predict(VIDEO, "dsp", BOX, p=8) == ddp


SHIFTS = Sent("ring_shift", "sp", "forward", 0, 1, 1, 3)


def test_a_ring_hides_what_its_blocks_cover():
    def exposed(phase_hops, block):
        sent = SHIFTS._replace(count=phase_hops)
        behind = {"forward": 4 * block, "backward": 4 * block}
        found, hidden = round_the_ring(sent, 1.0, 4, 1, behind)
        assert found + hidden == pytest.approx(phase_hops)
        return found

    assert exposed(3, 1.0) == 0  # each of three transfers is covered
    assert exposed(3, 0.25) == pytest.approx(3 * 0.75)
    assert exposed(7, 2.0) == 1  # only the way home is left
    assert exposed(7, 0.0) == 7
    assert exposed(7, 1.5) == pytest.approx(1 + 2 * 0.5)  # two travel at once behind two blocks


def test_buckets_end_after_the_backward():
    def seconds(size):
        return 1.5 * size / 2**20  # 25 MiB take 37.5 s

    for backward, exposed in ((1e4, 37.5), (0.0, 150.0), (100.0, 25 + 150 - 100)):
        found, hidden = behind_the_backward(100 * 2**20, seconds, backward)
        assert found == pytest.approx(exposed)
        assert found + hidden == pytest.approx(150)


class OwnDSP(wb.STRATEGIES["dsp"]):
    """As somebody else's, whose steps are counted by faking two small ones."""


@pytest.mark.parametrize(
    "how",
    [{}, {"fsdp": True}, {"fsdp": "keep"}, {"fsdp": True, "checkpoint": "block", "accumulate": 2},
     {"fsdp": True, "mesh": {"data": 2, "dsp": 2}}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("mode", ["train", "inference"])
def test_what_somebody_elses_strategy_sends_is_counted(how, mode):
    model = spec("time=8 space=16", ("space", "time"), layers=5, batch=4)
    model = replace(model, positions="learned")
    both = []
    for strategy in ("dsp", OwnDSP):
        counted = Counter()
        for sent in step_counts(model, strategy, BOX, p=4, mode=mode, **how).sent:
            counted[sent._replace(count=0)] += sent.count
        both.append(counted)
    assert both[0] == both[1]


@pytest.mark.parametrize("preset", ["axial-video", "weather-4d"])
def test_a_schedule_over_more_dims_is_counted_over_its_period(preset):
    model = wb.PRESETS[preset]
    ours, theirs = (step_counts(model, s, BOX, p=4).sent for s in ("dsp", OwnDSP))
    counts = [Counter() for _ in "ab"]
    for counter, sent in zip(counts, (ours, theirs), strict=True):
        for each in sent:
            counter[each.kind, each.phase] += each.count * each.sent_bytes
    assert all(each.count > 0 for each in theirs)
    for key, total in counts[0].items():
        assert counts[1][key] == pytest.approx(total, rel=0.05)


@pytest.mark.parametrize("strategy", ["dsp", OwnDSP])
def test_a_cost_knows_what_a_rank_holds(strategy):
    model = spec("time=8 space=16", ("space", "time"), batch=4)
    how = {"p": 4, "checkpoint": "block", "switch": "outside"}
    cost = predict(model, strategy, BOX, **how)
    held = wb.closed_form_memory(model, strategy, dtype="bfloat16", optimizer="adamw", **how)
    assert (cost.memory_bytes, cost.memory_exact) == (held.peak_bytes, True)
    texts = replace(model, context_length=5)
    guess = predict(texts, strategy, BOX, **how)
    assert guess.memory_exact is False
    assert guess.memory_bytes > predict(texts, strategy, BOX, mode="inference", **how).memory_bytes


def test_flops_of_a_forward_are_those_of_its_kernels():
    model = replace(spec("time=8 space=16", ("space", "time")), context_length=300)
    cost = predict(model, "single", BOX, p=1, mode="inference")
    done = step_counts(model, "single", BOX, p=1, mode="inference").done
    flops = cost.mfu * cost.seconds * BOX.device.peak_flops_per_s
    assert flops == pytest.approx(model.forward_flops)
    assert flops == pytest.approx(sum(k.flops * k.count for k in done))


def test_a_group_on_two_nodes_is_as_slow_as_the_network():
    """Three devices a node: of the groups {0, 1} and {2, 3} the second lies on two nodes."""
    link, net = wb.Link("fast", 200e9), wb.Link("slow", 1e9)
    took = []
    for each in (4, 3, 1):
        cluster = wb.Cluster("own", BOX.device, each, link, 4, net)
        cost = predict(replace(VIDEO, batch=2), "dsp", cluster, p=4, mesh={"data": 2, "dsp": 2},
                       gradient_sync="flat")  # fmt: skip
        took.append(sum(stage.exposed_communication_s for stage in cost.breakdown[:2]))
        assert (cost.inter_node_s > 0) == (each < 4)
    assert took[0] < took[1] == pytest.approx(took[2])


def test_weights_are_prefetched():
    assert prefetched([1.0, 1.0, 2.0], 10.0) == 2.0
    assert prefetched([1.0, 1.0, 2.0], 1.0) == 3.0
    assert prefetched([], 1.0) == 0.0
    plain, cut = (predict(VIDEO, "dsp", BOX, p=8, fsdp=fsdp) for fsdp in (False, True))
    assert cut.communication_s > plain.communication_s
    forward = predict(VIDEO, "dsp", BOX, p=8, fsdp=True, mode="inference")
    kept = predict(VIDEO, "dsp", BOX, p=8, fsdp="keep", mode="inference")
    assert forward == kept


class Mine(Ulysses):
    """Nobody knows a closed form for it."""

    name = "mine"


def test_own_strategies_are_counted_in_faked_steps():
    own, known = (predict(VIDEO, s, BOX, p=8) for s in (Mine, "ulysses"))
    assert own.communication_s == pytest.approx(known.communication_s)
    assert own.seconds == pytest.approx(known.seconds, rel=0.02)


def test_refusals():
    with pytest.raises(ValueError, match="num_heads=16, p=3"):
        predict(VIDEO, "ulysses", BOX, p=3)
    with pytest.raises(ValueError, match="p=16 ranks do not fit"):
        predict(VIDEO, "dsp", wb.CLUSTERS["8x-4090"], p=16)
    with pytest.raises(ValueError, match="mode must be"):
        predict(VIDEO, "dsp", BOX, p=8, mode="dream")
    with pytest.raises(ValueError, match="gradient_sync must be"):
        predict(VIDEO, "dsp", BOX, p=8, gradient_sync="later")


def test_a_switch_in_chunks_hides_behind_the_mlp():
    """Everything stays the same but for what is exposed, and each chunk's own latency."""
    whole, two, eight = (predict(VIDEO, "dsp", BOX, p=8, switch_chunks=n) for n in (1, 2, 8))
    assert whole == predict(VIDEO, "dsp", BOX, p=8)
    assert whole.compute_s == two.compute_s
    assert whole.relayout_s == two.relayout_s
    assert two.exposed_communication_s < whole.exposed_communication_s
    assert two.communication_s > whole.communication_s
    assert eight.communication_s > two.communication_s
    around = {"around": "attention"}
    for name, chunks, how in (("ulysses", 2, {}), ("dsp", 0, {}), ("dsp", 2, around)):
        with pytest.raises(ValueError, match="switch_chunks"):
            predict(VIDEO, name, BOX, p=8, switch_chunks=chunks, **how)


def test_a_switch_without_an_mlp_before_it_hides_nowhere():
    """With one MLP a layer, of two switches a layer one has none."""
    every, some = (replace(VIDEO, mlp_per=each) for each in ("stage", "layer"))
    hidden = []
    for model in (every, some):
        whole, two = (predict(model, "dsp", BOX, p=8, switch_chunks=n) for n in (1, 2))
        hidden.append(two.communication_s - two.exposed_communication_s)
        assert two.exposed_communication_s < whole.exposed_communication_s
    assert hidden[1] < hidden[0]


def test_an_mlp_s_seconds_are_its_part_of_the_matrix_products():
    """One switch behind an MLP that takes as long: all but the last chunk is hidden."""
    model = spec("time=4 space=4", ("space", "time"), layers=1, heads=2)
    chunks = 2
    cost = predict(model, "dsp", UNIT, p=2, dtype="float32", mode="inference",
                   switch_chunks=chunks)  # fmt: skip
    sent = wb.fake_step(model, "dsp", p=2).log
    (switch,) = (r for r in sent if r.phase == "forward")
    mlp = 2 * 2 * model.d_model**2 * model.mlp_ratio * model.tokens / 2
    part = switch.sent_bytes / chunks
    assert cost.exposed_communication_s == pytest.approx(part + max(0.0, part - mlp / chunks))


def test_a_mesh_and_a_cluster_are_what_they_are_called():
    with pytest.raises(ValueError, match="a mesh is a dict of axis -> ranks"):
        _frozen.__wrapped__([("dsp", 8)])
    with pytest.raises(ValueError, match="a Cluster is needed"):
        predict.__wrapped__(VIDEO, "dsp", "dgx-h100", p=8)


@pytest.mark.parametrize("box", ["8x-l40s", "8x-4090", "dgx-h100"])
def test_no_more_is_hidden_than_is_computed(box):
    """A ring and FSDP hide behind the same attention, and share it."""
    how = {"p": 8, "fsdp": True, "order": "zigzag"}
    cost = wb.predict(wb.PRESETS["llama-3-8b"], "ring", wb.CLUSTERS[box], **how)
    assert 0 < cost.hidden_communication_s <= cost.compute_s * (1 + 1e-9)


def test_each_chunk_of_a_switch_is_launched():
    spec = wb.PRESETS["stdit-3"]
    one, many = (
        wb.predict(spec, "dsp", wb.CLUSTERS["dgx-h100"], p=8, switch_chunks=n) for n in (1, 3)
    )
    assert many.overhead_s > one.overhead_s
    assert many.seconds == pytest.approx(
        many.compute_s + many.exposed_communication_s + many.relayout_s + many.overhead_s
    )
