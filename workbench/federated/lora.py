"""What is trained and travels: its names and shapes, its start, read and written by copies."""

import json
import os
import pathlib

import peft
import torch
from safetensors.numpy import load_file

from workbench.federated import linear
from workbench.federated.linear import LINEAR, is_linear, opened
from workbench.federated.models import load_base, meta_base, quiet
from workbench.federated.partition import ADAPTER, generator
from workbench.federated.task import FederatedTask
from workbench.federated.tuning import (
    FILES,
    OF_PEFT,
    Shapes,
    Weights,
    in_model_order,
    own_part,
    start_of,
    trained_parameters,
    tuned,
)

#: Files of a saved run beside what was trained: its task; what was merged into the base, if any.
TASK, BASE = "task.json", "base_deltas.safetensors"


def adapter_shapes(task: FederatedTask) -> Shapes:
    """Name and shape of every array that travels, in peft's own names where it is peft's."""
    if is_linear(task):
        return linear.shapes(task)
    named = in_model_order(tuned(task, meta_base(task.model)))
    return {name: tuple(parameter.shape) for name, parameter in named.items()}


def full_shapes(task: FederatedTask) -> Shapes:
    """Name and shape of every weight of the model, tied ones once: what full tuning sends."""
    if is_linear(task):
        return linear.shapes(task)
    named = meta_base(task.model).named_parameters()
    return {name: tuple(weight.shape) for name, weight in named}


def initial_adapter(task: FederatedTask) -> Weights:
    """The arrays that every client starts from; see `workbench.federated.tuning.start_of`."""
    if is_linear(task):
        return linear.start(task)
    return start_of(task, adapter_shapes(task), generator(task.seed, ADAPTER))


class Base:
    """The weights under a model's LoRA adapters: the pretrained ones plus a change."""

    def __init__(self, model: torch.nn.Module):
        self.model = model
        self.pretrained: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def write(self, deltas: Weights) -> None:
        """Set each weight to the pretrained one plus its change; those without one go back."""
        for name in sorted({*self.pretrained, *deltas}):
            layer = self.model.base_model.model.get_submodule(name.removesuffix(".weight"))
            weight = layer.base_layer.weight
            start = self.pretrained.setdefault(name, weight.detach().clone())
            weight.copy_(start)
            if name in deltas:
                change = torch.from_numpy(deltas[name]).to(weight.device)
                weight.copy_(start + (change.T if layer.fan_in_fan_out else change))


def read_adapter(parameters: dict[str, torch.nn.Parameter]) -> Weights:
    """Copy the adapters out of the model."""
    return {name: p.detach().cpu().numpy().copy() for name, p in parameters.items()}


@torch.no_grad()
def write_adapter(parameters: dict[str, torch.nn.Parameter], weights: Weights) -> None:
    """Copy adapters into the model; the names and shapes must be the model's own."""
    if parameters.keys() != weights.keys():
        odd = sorted(parameters.keys() ^ weights.keys())
        raise ValueError(f"the adapters differ from the model's in {len(odd)} names: {odd[:3]}")
    for name, parameter in parameters.items():
        if parameter.shape != weights[name].shape:
            raise ValueError(
                f"{name} has shape {weights[name].shape}, but the model's is "
                f"{tuple(parameter.shape)}: both sides must have the same lora_rank and model."
            )
        parameter.copy_(torch.from_numpy(weights[name]))


def load_weights(path: str | os.PathLike, tune: str = "lora") -> Weights:
    """The arrays that were saved, in the order of their names."""
    check_saved(path, FILES[tune])
    return dict(sorted(load_file(pathlib.Path(path) / FILES[tune]).items()))


def check_saved(path: str | os.PathLike, name: str) -> None:
    """Raise FileNotFoundError if a folder is none that a history was saved to."""
    if not (pathlib.Path(path) / name).is_file():
        raise FileNotFoundError(
            f"{os.fspath(path)!r} holds no {name}: give a folder that `history.save` has written, "
            "or a round's in a run_dir."
        )


def load_adapter(path: str | os.PathLike) -> torch.nn.Module:
    """The pretrained model with what was trained, usable without Flower.

    A plain peft model for adapters, prompts and prefixes, with what the run merged into the base
    added to its weights; else the model itself, with its trained head or all its trained weights.
    A linear classifier comes as itself.
    """
    check_saved(path, TASK)
    task = json.loads((pathlib.Path(path) / TASK).read_text())
    tune = task.get("tune", "lora")
    if task["model"] == LINEAR:
        return opened(load_weights(path, tune))
    base = load_base(task["model"]).model
    if tune not in OF_PEFT:
        model = own_part(tune, base)
        write_adapter(trained_parameters(model), load_weights(path, tune))
        return model.requires_grad_(False)
    with quiet():
        model = peft.PeftModel.from_pretrained(base, path).requires_grad_(False)
    merged = pathlib.Path(path) / BASE
    if merged.exists():
        Base(model).write(load_file(merged))
    return model
