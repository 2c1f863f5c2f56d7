"""Cost on paper: bytes equal to the closed forms of real tasks, seconds to the simulated clock."""

import dataclasses
from statistics import median

import numpy as np
import pytest

from workbench.federated import Assumptions, FederatedTask, System, round_traffic, scale_cost
from workbench.federated.clock import client_seconds
from workbench.federated.lora import adapter_shapes, full_shapes
from workbench.federated.options.compression import Bf16, Int8, TopK
from workbench.federated.scale import SOURCES, client_bytes, round_cost, slowest
from workbench.federated.sizes import MODELS

SMALLEST = MODELS[0]
#: Source: the model cards of meta-llama's and HuggingFaceTB's models at huggingface.co.
PUBLISHED = {
    "SmolLM2-360M": 361_821_120,
    "Llama-3-8B": 8_030_261_248,
    "Llama-3-70B": 70_553_706_496,
}


def test_the_smallest_model_is_the_real_one():
    task = FederatedTask(model="smollm2-135m", lora_rank=4)
    for tune, shapes in (("lora", adapter_shapes(task)), ("full", full_shapes(task))):
        found = {name: spec.shape for name, spec in SMALLEST.specs(tune, 4).items()}
        assert found == shapes
    assert SMALLEST.parameters == sum(map(np.prod, full_shapes(task).values()))


def test_sizes_are_the_published_ones():
    for model in MODELS:
        counted = sum(np.prod(spec.shape) for spec in model.specs("full", 1).values())
        assert counted == model.parameters == PUBLISHED.get(model.name, counted)


@pytest.mark.parametrize("compression", [None, Bf16(), Int8(), TopK(0.1)], ids=str)
def test_bytes_are_those_of_a_task(compression):
    task = FederatedTask(
        model="smollm2-135m", clients_per_round=1, lora_rank=8, compression=compression
    )
    given, traffic = Assumptions(compression=compression), round_traffic(task)
    assert client_bytes(SMALLEST, given) == (traffic.uplink_bytes, traffic.downlink_bytes)


def test_seconds_are_those_of_the_simulated_clock():
    given = Assumptions(speed_sigma=0.0)
    flops = 4 * SMALLEST.parameters * given.batch_tokens
    system = System(speed_sigma=0.0, step_s=flops / given.flop_per_s)
    task = FederatedTask(model="smollm2-135m", local_steps=given.local_steps, system=system)
    specs = SMALLEST.specs("lora", 8)
    assert round_cost(SMALLEST, 10, given).seconds == pytest.approx(client_seconds(task, 0, specs))
    assert flops / given.flop_per_s == pytest.approx(3.7, rel=0.02)  # as it was measured


def test_the_slowest_of_many_is_the_median_of_maxima():
    draw = np.random.default_rng(0).standard_normal((4000, 50))
    assert slowest(50, 0.7) == pytest.approx(median(np.exp(0.7 * draw.max(1))), rel=0.03)
    assert slowest(1, 0.7) == pytest.approx(1)


def test_the_table_has_the_scales_that_were_asked_for_and_adds_up():
    table = scale_cost()
    assert (table.clients.min(), table.clients.max()) == (10, 100_000)
    assert 134e6 < table.parameters.min() < 135e6
    assert 70e9 < table.parameters.max() < 71e9
    both = table.up_bytes + table.down_bytes
    assert (table.run_bytes == 100 * table.taking_part * both).all()
    assert table.hours.to_numpy() * 36 == pytest.approx(
        (table.download_s + table.compute_s + table.upload_s).to_numpy()
    )
    large = table[table.model == "Llama-3-70B"].set_index("clients")
    assert large.taking_part.to_dict() == {10: 10, 100: 100, 1000: 100, 10_000: 100, 100_000: 100}
    assert large.rounds_per_client[100_000] == pytest.approx(0.1)


def test_a_full_server_link_is_waited_for():
    given = Assumptions(server_bytes_per_s=1e6, clients_per_round=50)
    up, down = client_bytes(SMALLEST, given)
    cost = round_cost(SMALLEST, 1000, given)
    assert cost.upload_s == pytest.approx(50 * up / 1e6)
    assert cost.download_s == pytest.approx(50 * down / 1e6)
    alone = round_cost(SMALLEST, 1, given)
    assert alone.upload_s == pytest.approx(up / 1e6)  # the server's is the slower one still
    assert round_cost(SMALLEST, 50, Assumptions()).upload_s == pytest.approx(up / 2.5e6)


def test_every_assumption_can_be_changed_and_has_a_source():
    names = {each.name for each in dataclasses.fields(Assumptions)}
    assert names == set(SOURCES)
    mine = (
        Assumptions(uplink_bytes_per_s=1e6, compression="int8").to_frame().set_index("assumption")
    )
    changed = mine.index[mine.source == "yours"].tolist()
    assert sorted(changed) == ["compression", "uplink_bytes_per_s"]
    for name in names - {"tune", "compression", "speed_sigma"}:
        with pytest.raises(ValueError, match=f"{name}=0"):
            Assumptions(**{name: 0})
    with pytest.raises(ValueError, match="tune='prompt'"):
        Assumptions(tune="prompt")
    with pytest.raises(ValueError, match=r"clients=\[0\]; each is a whole number of at least 1"):
        scale_cost(clients=[0])


def test_what_changes_moves_the_cost():
    """Each assumption has an effect on the smallest or the largest model's cost."""
    other = {"tune": "full", "compression": "int8", "server_bytes_per_s": 1e4}
    for each in dataclasses.fields(Assumptions):
        value = other.get(each.name)
        value = each.default * 2 if value is None else value
        changed = scale_cost(Assumptions(**{each.name: value}), clients=[1000], models=[SMALLEST])
        assert not changed.equals(scale_cost(clients=[1000], models=[SMALLEST])), each.name


@pytest.mark.parametrize("values", [{"rounds": "3"}, {"rounds": None}, {"rounds": True}])
def test_an_assumption_is_a_number(values):
    given = Assumptions()
    object.__setattr__(given, "rounds", values["rounds"])
    with pytest.raises(ValueError, match="rounds="):
        given.__post_init__()


@pytest.mark.parametrize("count", [10.5, float("nan"), True])
def test_clients_are_whole_numbers(count):
    with pytest.raises(ValueError, match="each is a whole number"):
        scale_cost.__wrapped__(clients=[count])
