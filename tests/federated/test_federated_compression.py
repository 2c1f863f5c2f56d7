"""What is read is near what was sent; what was not is kept; bytes are the closed form."""

import numpy as np
import pytest
import torch
from small_tasks import linear_task

from workbench.federated import Bf16, FederatedTask, Int8, TopK, round_traffic, simulate
from workbench.federated.client_memory import is_stateful
from workbench.federated.lora import initial_adapter
from workbench.federated.methods import METHODS
from workbench.federated.methods.base import ServerState, as_control, control_part, model_part
from workbench.federated.traffic import pack, reply, request, specs_of
from workbench.federated.updates import Expected, RefusedError, read_update, sendable

RUNS = [kind() for kind in METHODS if kind.available]
COMPRESSIONS = [None, Bf16(), Int8(), TopK(0.03)]


def change(seed=0):
    draw = np.random.default_rng(seed)
    shapes = {"a": (5, 7), "b": (3,), "c": (4, 2)}
    return {n: draw.normal(0, 0.01, shape).astype(np.float32) for n, shape in shapes.items()}


def flat(arrays):
    return np.concatenate([a.ravel() for a in arrays.values()])


def roundtrip(kind, delta):
    return kind.decode(kind.encode(delta), specs_of(delta))


def test_bf16_rounds_as_torch_does():
    values = np.array([1.0, -1.00390625, 3.1415927, 1e-40, -0.0, 65504.0, 0.0078125], np.float32)
    delta = change() | {"d": values}
    for name, found in roundtrip(Bf16(), delta).items():
        expected = torch.from_numpy(delta[name]).to(torch.bfloat16).float().numpy()
        assert found.tobytes() == expected.tobytes()


def test_int8_errs_by_at_most_half_a_level():
    delta = change() | {"zero": np.zeros((2, 2), np.float32)}
    found = roundtrip(Int8(), delta)
    for name, array in delta.items():
        level = np.abs(array).max() / 127
        assert np.abs(found[name] - array).max() <= 0.5001 * level


def test_top_k_keeps_the_largest_of_all_arrays_together():
    delta = change()
    found, sent = flat(roundtrip(TopK(0.25), delta)), flat(delta)
    kept = np.argsort(-np.abs(sent))[: round(0.25 * sent.size)]
    expected = np.zeros_like(sent)
    expected[kept] = sent[kept]
    assert np.array_equal(found, expected)
    assert np.array_equal(flat(roundtrip(TopK(1.0), delta)), sent)
    assert np.count_nonzero(flat(roundtrip(TopK(1e-9), delta))) == 1


def test_what_was_not_sent_is_sent_later():
    """The sum of what was read and what is kept is the sum of all changes."""
    task = FederatedTask(compression=TopK(0.2))
    sent, kept, total, read = change(1), {}, 0, 0
    for number in range(1, 6):
        delta = change(number + 10)
        arrays = {name: sent[name] + delta[name] for name in sent}
        wire, kept = sendable(task, arrays, sent, 0, number, kept)
        total = total + flat(arrays) - flat(sent)
        read = read + flat(task.compression.decode(wire, specs_of(sent)))
    assert read + flat(kept) == pytest.approx(total, abs=1e-7)
    forgetful = FederatedTask(compression=TopK(0.2, error_feedback=False))
    assert sendable(forgetful, arrays, sent, 0, 1, {})[1] == {}
    assert is_stateful(task)
    assert not is_stateful(forgetful)


BROKEN = {
    "places twice": {"places": [1, 1]},
    "places out of order": {"places": [5, 1]},
    "places too far": {"places": [1, 51]},
    "nan": {"values": [np.nan, 1]},
    "overflow": {"values": [3e38, 3e38]},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_compressed_update_that_cannot_be_used_is_refused(name):
    task = FederatedTask(compression=TopK(0.04, error_feedback=False))
    sent = {name: array + np.float32(3e38) for name, array in change().items()}
    good = {"places": np.array([1, 2], np.uint32), "values": np.zeros(2, np.float32)}
    expected = Expected.of(task, sent, 0)
    read_update(task, reply(good, 0.5, 7), expected, 0)
    wrong = {k: np.array(v, good[k].dtype) for k, v in BROKEN[name].items()}
    with np.errstate(over="ignore"), pytest.raises(RefusedError):
        read_update(task, reply(good | wrong, 0.5, 7), expected, 0)


@pytest.mark.parametrize("compression", COMPRESSIONS, ids=str)
@pytest.mark.parametrize("method", RUNS, ids=lambda m: m.label())
def test_the_closed_form_is_flowers_count_for_every_method(method, compression):
    """Of the records that the client's and the server's own code would send."""
    task = FederatedTask(clients_per_round=1, lora_rank=8, method=method, compression=compression)
    weights = initial_adapter(task)
    server = ServerState(weights, {}, method.start(weights, task.num_clients))
    sent = method.outgoing(server, 0)
    trained = {name: a + np.float32(0.1) for name, a in method.reference(sent, 0).items()}
    arrays, _ = sendable(task, trained, sent, 0, 1, {})
    kept = 0 if is_stateful(task) else None
    asked, answer = request(pack(sent), 1, kept), reply(arrays, 0.5, 7, kept)
    traffic = round_traffic(task)
    assert traffic.downlink_bytes == sum(r.count_bytes() for r in asked.values())
    assert traffic.uplink_bytes == sum(r.count_bytes() for r in answer.values())
    update = read_update(task, answer, Expected.of(task, sent, 0), 0)
    assert update.arrays.keys() == trained.keys()


def test_control_variates_do_not_crowd_out_the_model():
    """Gradients are far larger than what AdamW's steps change: each has its own share."""
    model, beside = change(), {n: 100 * a for n, a in change(1).items()}
    found = roundtrip(TopK(0.25), model | as_control(beside))
    for delta, part in ((model, model_part(found)), (beside, control_part(found))):
        assert np.array_equal(flat(part), flat(roundtrip(TopK(0.25), delta)))
    run = simulate(linear_task(method="scaffold", compression=TopK(0.1)), progress=False)
    assert any(np.abs(array).max() > 0 for array in run.weights.values())
