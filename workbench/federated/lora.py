"""What is trained and travels: its names and shapes, its start, read and written by copies."""

import torch

from workbench.federated import linear
from workbench.federated.linear import is_linear
from workbench.federated.models import meta_base
from workbench.federated.partition import ADAPTER, generator
from workbench.federated.task import FederatedTask
from workbench.federated.tuning import (
    Shapes,
    Weights,
    in_model_order,
    start_of,
    tuned,
)


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
