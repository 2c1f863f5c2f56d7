"""Training: every strategy has one device's curve, and goes on where another has stopped."""

from dataclasses import replace

import pytest
import torch

import workbench as wb
from workbench.comm import Comm
from workbench.strategies import STRATEGIES, Strategy
from workbench.train import (
    TrainTask,
    digit_images,
    fake_training,
    first_weights,
    generate,
    held_out_loss,
    train,
)
from workbench.train.trainer import Trainer, rank_train

TINY = wb.TransformerSpec(
    dims={"time": 3, "space": 4}, stages=("space", "time"), d_model=16, num_heads=4,
    num_layers=1, batch=2, mlp_per="layer",
)  # fmt: skip
SMALL = {"spec": TINY, "patch": 2, "steps": 200, "lr": 3e-3}
#: Frames of 4 x 4 and 6 x 6 pixels, of which no more than one dim is a multiple of 2.
BUCKETS = [{"time": 3, "space": 4}, {"time": 2, "space": 9}]
PARALLEL = [name for name in STRATEGIES if name != "single"]


def quiet(step, loss):
    return False


def curves(p, tasks, strategies):
    """Losses by task and strategy, all in one launch of p ranks."""
    images = digit_images()

    def on_rank(rank, comm):
        runs = [(task, STRATEGIES[name]) for task in tasks for name in strategies]
        return [rank_train(comm, task, cls, images, quiet)["losses"] for task, cls in runs]

    ranks = wb.run_local(on_rank, p)
    assert all(losses == ranks[0] for losses in ranks)
    each = iter(ranks[0])
    return {(i, name): next(each) for i in range(len(tasks)) for name in strategies}


def one_device(task):
    images = digit_images()
    return rank_train(Comm(1), task, Strategy, images, quiet)["losses"]


def apart(losses, expected):
    assert len(losses) == len(expected)
    return max(abs(a - b) / b for a, b in zip(losses, expected, strict=True))


@pytest.mark.parametrize(
    ("p", "tasks"),
    [
        (
            2,
            [
                (TrainTask(**SMALL), 1e-2),
                (TrainTask(**SMALL, optimizer="sgd"), 1e-4),
            ],
        ),
        (4, [(TrainTask(**SMALL, dtype="float64", buckets=BUCKETS), 1e-9)]),
    ],
    ids=["2-ranks", "4-ranks-and-buckets"],
)
def test_after_200_steps_all_curves_are_one_devices(p, tasks):
    found = curves(p, [task for task, _ in tasks], PARALLEL)
    for i, (task, allowed) in enumerate(tasks):
        expected = one_device(task)
        assert expected[-1] < 0.8 * expected[0]
        for name in PARALLEL:
            assert 0 <= apart(found[i, name], expected) < allowed, (name, task)


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({"dtype": "float64", "buckets": BUCKETS}, 1e-9),
        ({"dtype": "float32", "optimizer": "sgd"}, 1e-4),
    ],
    ids=["adamw", "sgd"],
)
def test_another_strategy_on_other_ranks_goes_on_with_the_same_curve(tmp_path, options, allowed):
    task = TrainTask(**{**SMALL, **options, "steps": 60})
    expected = one_device(task)
    for steps, strategy, p in ((20, "dsp", 4), (40, "megatron-sp", 2), (60, "single", 1)):
        part = replace(task, steps=steps)
        run = train(part, strategy, p, checkpoint_dir=tmp_path, checkpoint_every=15)
        assert len(run.losses) == steps
        assert len(run.step_seconds) == 20
        assert apart(run.losses, expected[:steps]) < allowed
        assert [path.name for path in tmp_path.iterdir()] == [f"step-{steps:07d}"]
    again = train(task, "ulysses", 2, checkpoint_dir=tmp_path)  # nothing is left to do
    assert again.losses == run.losses
    assert again.step_seconds == again.logs == ()
    assert all(torch.equal(again.weights[name], w) for name, w in run.weights.items())


def test_a_checkpoint_has_whole_weights_by_logical_name(tmp_path):
    from workbench.train.checkpoint import latest, load

    task = TrainTask(**{**SMALL, "steps": 2})
    train(task, "megatron-tp", 2, checkpoint_dir=tmp_path)
    state, logical = load(latest(tmp_path)), first_weights(task)
    assert {name for name in state if name.startswith("weights.")} == {
        f"weights.{name}" for name in logical
    }
    for name, weight in logical.items():
        assert state[f"weights.{name}"].shape == weight.shape
        assert state[f"exp_avg.{name}"].shape == weight.shape
    for part in ("query", "key", "value"):
        assert f"weights.layers.0.attention.0.{part}.weight" in state


def test_all_ranks_stop_after_the_same_step_and_keep_what_was_trained(tmp_path):
    task, seen = TrainTask(**{**SMALL, "steps": 5000}), []

    def stop_soon(step, loss):
        seen.append((step, loss))
        return step >= 3

    run = train(task, "ring", 2, checkpoint_dir=tmp_path, checkpoint_every=1000, on_step=stop_soon)
    made = len(run.losses)
    assert run.stopped
    assert 3 < made < 5000
    assert seen == list(enumerate(run.losses, start=1))
    further = train(replace(task, steps=made + 5), "dsp", 2, checkpoint_dir=tmp_path)
    assert apart(further.losses, one_device(replace(task, steps=made + 5))) < 1e-2
    assert not further.stopped


def test_an_error_in_on_step_stops_the_run_and_is_raised():
    def fails(step, loss):
        raise ZeroDivisionError("out of luck")

    with pytest.raises(ZeroDivisionError, match="out of luck"):
        train(TrainTask(**{**SMALL, "steps": 5000}), "dsp", 2, on_step=fails, timeout_s=60)


def test_the_faked_step_has_the_real_ones_log():
    task, images = TrainTask(**{**SMALL, "steps": 2}, buckets=BUCKETS), digit_images()

    def on_rank(rank, comm):
        classes = [STRATEGIES[name] for name in PARALLEL]
        return [rank_train(comm, task, cls, images, quiet)["logs"] for cls in classes]

    for name, found in zip(PARALLEL, wb.run_local(on_rank, 2)[0], strict=True):
        faked = fake_training(task, name, 2)
        assert [step.log for step in faked] == found
        assert all(
            step.flops > spec.flops / 3 for step, spec in zip(faked, task.specs, strict=True)
        )
        assert sum(record.sent_bytes for log in found for record in log) > 0


def test_the_result_tells_what_was_learned_and_sent():
    task = TrainTask(**{**SMALL, "steps": 60})
    run = train(task, "dsp", 2)
    before, after = run.held_out
    assert after < before
    assert before == held_out_loss(task, first_weights(task))
    assert run.samples.shape == (4, 3, 4, 4)
    assert run.samples.abs().max() <= 1
    assert torch.equal(run.samples, generate(task, run.weights))
    (faked,) = fake_training(task, "dsp", 2)
    assert (run.sent_bytes, run.gradient_bytes) == (faked.sent_bytes, faked.gradient_bytes)
    assert run.tokens_per_s == pytest.approx(2 * 12 / run.seconds)
    assert "weights" not in repr(run)


def test_shapes_share_one_set_of_weights():
    task = TrainTask(**SMALL, buckets=BUCKETS)
    trainer = Trainer(Comm(1), task, Strategy, digit_images(), torch.device("cpu"))
    first, second = (dict(model.named_weights()) for model in trainer.models)
    assert all(first[name] is second[name] for name in first)
    trainer.step()
    trainer.step()
    assert first.keys() == first_weights(task).keys()
