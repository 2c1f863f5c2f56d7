"""The parts of training: clips, batches, what is refused, checkpoints, the command."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

import workbench as wb
from workbench.train import (
    DIGITS,
    TrainTask,
    batch_of,
    digit_images,
    fake_training,
    from_patches,
    moving_digits,
    to_patches,
    train,
)
from workbench.train import checkpoint as checkpoints
from workbench.train.__main__ import main
from workbench.train.digits import TRAINED_ON

TASK = TrainTask(spec=replace(DIGITS, d_model=16, num_layers=1, batch=2), steps=4)
SMALL = ["--width", "16", "--layers", "1", "--batch", "2", "--time", "4"]


def test_clips_show_a_digit_that_moves_and_stays_in_the_frame():
    digit = torch.ones(1, 8, 8)
    clips = moving_digits(digit, 50, 20, 16, torch.Generator().manual_seed(1))
    bright = clips == 1
    assert (bright.sum((2, 3)) == 64).all()  # no part of it ever leaves
    assert (clips.abs() == 1).all()
    places = [bright.any(dim).double().argmax(2) for dim in (3, 2)]
    steps = torch.stack([place.diff() for place in places])
    assert steps.abs().max() <= 2
    assert (steps != 0).any((0, 2)).all()  # each clip moves


def test_a_digit_is_half_as_wide_as_its_frame_at_any_resolution():
    for side in (4, 8, 16, 32):
        clip = moving_digits(torch.ones(1, 8, 8), 1, 1, side, torch.Generator().manual_seed(0))
        assert (clip > 0.99).sum() == (side // 2) ** 2


def test_images_are_read_whole():
    images = digit_images()
    assert images.shape == (1797, 8, 8)
    assert (images.min(), images.max()) == (-1, 1)


def test_a_missing_scikit_learn_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-learn"):
        digit_images()


def test_patches_are_squares_of_the_frame_row_by_row():
    clips = torch.arange(2 * 3 * 6 * 6.0).view(2, 3, 6, 6)
    patches = to_patches(clips, 2)
    assert patches.shape == (2, 3, 9, 4)
    assert torch.equal(patches[1, 2, 5].view(2, 2), clips[1, 2, 2:4, 4:6])
    assert torch.equal(from_patches(patches, 2), clips)


def test_a_batch_is_decided_by_seed_and_step_alone():
    images = digit_images()
    first = batch_of(TASK, 3, images)
    assert all(map(torch.equal, first, batch_of(replace(TASK, lr=0.5), 3, images)))
    for other in (batch_of(TASK, 2, images), batch_of(replace(TASK, seed=1), 3, images)):
        assert not torch.equal(first.target, other.target)
    noise = (first.noisy - (1 - first.moment[:, None, None, None]) * first.target).std((1, 2, 3))
    torch.testing.assert_close(noise, first.moment, rtol=0.1, atol=0.01)


def test_held_out_clips_are_of_other_digits():
    images = torch.full((TRAINED_ON + 5, 8, 8), 0.25)
    images[TRAINED_ON:] = 0.75
    for held_out, value in ((False, 0.25), (True, 0.75)):
        target = batch_of(TASK, 0, images, held_out=held_out).target
        assert set(target.unique().tolist()) == {-1.0, value}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1"),
        ({"lr": 0.0}, "lr must be a number above 0, got 0.0"),
        ({"lr": float("nan")}, "lr must be a number above 0"),
        ({"optimizer": "adam"}, "optimizer must be one of adamw, sgd; got 'adam'"),
        ({"dtype": "bfloat16"}, "dtype must be one of float32, float64"),
        ({"seed": -1}, "seed must be .* got -1"),
        ({"buckets": [{"time": 8, "space": 15}]}, "space=15 makes no square frame.*try 9 or 16"),
        ({"buckets": [{"time": 8}]}, "dims 'time' and 'space', got .'time'."),
        ({"spec": wb.PRESETS["toy-text"]}, "got .'tokens'."),
        ({"patch": 2, "buckets": [{"time": 1, "space": 1}]}, "at least 4 x 4"),
        (
            {
                "spec": replace(DIGITS, positions="learned"),
                "buckets": [{"time": 16, "space": 16}],
            },
            "bucket of .*'time': 16.* learned positions .* give the spec the largest",
        ),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(TASK, **change)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("seed", True, "seed must be"), ("seed", 1.5, "seed must be"), ("lr", "1", "lr must be"),
     ("lr", True, "lr must be"), ("buckets", {"time": 8, "space": 16}, "buckets is a list"),
     ("buckets", None, "buckets is a list"), ("spec", None, "spec must be a TransformerSpec")],
)  # fmt: skip
def test_other_types_are_refused_in_words(name, value, words):
    task = replace(TASK)
    object.__setattr__(task, name, value)
    with pytest.raises(ValueError, match=words):
        task.__post_init__()


@pytest.mark.parametrize("damage", ["cut", "list", "parts", "metadata"])
def test_a_damaged_checkpoint_is_named_before_anything_starts(damage, tmp_path):
    found = tmp_path / "step-0000003"
    found.mkdir()
    (tmp_path / "step-final").mkdir()
    (tmp_path / "step-final" / "task.json").write_text("{}")
    text = TASK.to_json()
    (found / "task.json").write_text({"cut": text[:20], "list": "[]"}.get(damage, text))
    if damage != "metadata":
        (found / ".metadata").write_bytes(b"x")
    if damage != "parts":
        (found / "__0_0.distcp").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"step-0000003.* delete .* to go on from the one before"):
        checkpoints.start_from(tmp_path, TASK, True)


def test_the_order_of_dims_does_not_matter():
    other = {"space": 16, "time": 4}
    task = replace(TASK, spec=replace(TASK.spec, dims=other), buckets=[other])
    same = replace(TASK, spec=replace(TASK.spec, dims={"time": 4, "space": 16}),
                   buckets=[{"time": 4, "space": 16}])  # fmt: skip
    assert task == same
    assert list(task.spec.dims) == list(task.specs[0].dims) == ["time", "space"]


def test_a_run_that_cannot_be_is_refused_before_it_starts(tmp_path):
    with pytest.raises(ValueError, match=r"num_heads=4, p=3.*would run: .*ring, dsp"):
        train(TASK, "ulysses", 3)
    with pytest.raises(ValueError, match="checkpoint_every"):
        train(TASK, "dsp", 2, checkpoint_every=0)
    state = {"losses": torch.zeros(4, dtype=torch.float64)}
    checkpoints.save(tmp_path, state, TASK)
    for other, words in (
        ({"lr": 0.5}, "there lr is 0.003, not 0.5"),
        ({"steps": 3}, "has made 4 steps already, more than steps=3"),
    ):
        with pytest.raises(ValueError, match=words):
            train(replace(TASK, **other), "dsp", 2, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="resume=True"):
        train(TASK, "dsp", 2, checkpoint_dir=tmp_path, resume=False)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match="is a file; give a folder"):
        train(TASK, "dsp", 2, checkpoint_dir=file)
    with pytest.raises(ValueError, match="no axis 'data'"):
        train(TASK, "dsp", 2, mesh={"data": 2})
    with pytest.raises(ValueError, match="usp needs a mesh with the axes ulysses, ring"):
        train(TASK, "usp", 4)


def test_a_mesh_trains_to_one_devices_losses():
    task = replace(TASK, steps=2, dtype="float64")
    one = train(task, "single", 1).losses
    meshes = {"usp": {"ulysses": 1, "ring": 2}, "dsp-ulysses": {"ulysses": 2, "dsp": 1}}
    for name, mesh in meshes.items():
        run = train(task, name, 2, mesh=mesh)
        assert run.losses == pytest.approx(one, rel=1e-12)
        assert [run.sent_bytes] == [s.sent_bytes for s in fake_training(task, name, 2, mesh)]


def test_an_interrupted_checkpoint_leaves_the_one_before(tmp_path, monkeypatch):
    def state(steps):
        return {"losses": torch.arange(steps, dtype=torch.float64), "step.x": torch.tensor(3.0)}

    first = checkpoints.save(tmp_path, state(2), TASK)
    with monkeypatch.context() as patch:
        patch.setattr(TrainTask, "to_json", lambda task: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            checkpoints.save(tmp_path, state(3), TASK)
    assert checkpoints.latest(tmp_path) == first
    assert checkpoints.load(first)["losses"].tolist() == [0, 1]
    second = checkpoints.save(tmp_path, state(3), TASK)
    assert checkpoints.save(tmp_path, state(3), TASK) == second  # again: nothing changes
    assert [path.name for path in tmp_path.iterdir()] == [second.name] == ["step-0000003"]
    assert json.loads((second / "task.json").read_text())["lr"] == TASK.lr
    assert checkpoints.load(second)["step.x"] == 3


def test_the_command_trains_and_says_what_it_did(capsys, tmp_path):
    options = ["--p", "2", "--checkpoints", str(tmp_path), *SMALL]
    main(["--steps", "4", *options])
    out = capsys.readouterr().out
    assert "step 4: loss" in out
    assert "dsp, 2 ranks, float32, 4 steps" in out
    assert "predicted +0 B" in out
    assert "flops" in out
    with pytest.raises(SystemExit):
        main(["--steps", "3", *options])
    assert "has made 4 steps already" in capsys.readouterr().err


def test_the_command_runs_under_torchrun(tmp_path):
    command = "torch.distributed.run --standalone --nproc-per-node 2 -m workbench.train --steps 3"
    done = subprocess.run(
        [sys.executable, "-m", *command.split(), "--strategy", "megatron-sp", *SMALL],
        capture_output=True, text=True, timeout=600,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("megatron-sp, 2 ranks, float32, 3 steps") == 1
    assert "predicted +0 B" in done.stdout


def test_ctrl_c_stops_after_a_step_and_keeps_what_was_trained(tmp_path):
    options = ["--p", "2", "--checkpoints", str(tmp_path), "--every", "5", "--steps", "100000"]
    command = [sys.executable, "-m", "workbench.train", *options, *SMALL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 150
        while checkpoints.latest(tmp_path) is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors.decode()
    kept = checkpoints.load(checkpoints.latest(tmp_path))["losses"]
    assert f"{len(kept)} steps, stopped" in out.decode()
    assert len(kept) >= 5
