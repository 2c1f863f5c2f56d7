"""Low-rank adapters: made, named, drawn from a seed, read and written without copies to spare."""

from math import sqrt

import numpy as np
import torch
from peft import LoraConfig, TaskType, get_peft_model, get_peft_model_state_dict
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

from workbench.federated.models import is_causal, meta_base, quiet
from workbench.federated.partition import ADAPTER, generator
from workbench.federated.task import FederatedTask

Weights = dict[str, np.ndarray]


def lora_config(task: FederatedTask, config) -> LoraConfig:
    """The task's adapters as peft describes them; one scale for every rank."""
    targets = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(config.model_type)
    return LoraConfig(
        r=task.lora_rank,
        lora_alpha=task.lora_scale * task.lora_rank,
        lora_dropout=0.0,
        target_modules=targets or "all-linear",
        task_type=TaskType.CAUSAL_LM if is_causal(config) else None,
    )


def add_adapters(task: FederatedTask, model: torch.nn.Module) -> torch.nn.Module:
    """Put the task's adapters into ``model``; only they are trained."""
    with quiet():
        return get_peft_model(model, lora_config(task, model.config))


def adapter_shapes(task: FederatedTask) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array that travels, in peft's own names."""
    state = get_peft_model_state_dict(add_adapters(task, meta_base(task.model)))
    return {name: tuple(array.shape) for name, array in state.items()}


def full_shapes(task: FederatedTask) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of the model, tied ones once: what full tuning would send."""
    named = meta_base(task.model).named_parameters()
    return {name: tuple(weight.shape) for name, weight in named}


def initial_adapter(task: FederatedTask) -> Weights:
    """The start of every client: B = 0, and A drawn from the seed as `torch.nn.Linear` would.

    With B = 0 the model is the pretrained one.
    """
    draw, weights = generator(task.seed, ADAPTER), {}
    for name, shape in adapter_shapes(task).items():
        bound = 1 / sqrt(np.prod(shape[1:]))
        drawn = draw.uniform(-bound, bound, shape) if "lora_A" in name else np.zeros(shape)
        weights[name] = drawn.astype(np.float32)
    return weights


def adapter_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The trained parameters of a model with adapters, by the names that travel."""
    return {
        name.replace(".default.", "."): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


class Base:
    """The weights under a model's adapters: the pretrained ones plus a change."""

    def __init__(self, model: torch.nn.Module):
        self.model = model.base_model.model
        self.pretrained: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def write(self, deltas: Weights) -> None:
        """Set each weight to the pretrained one plus its change; those without one go back."""
        for name in sorted({*self.pretrained, *deltas}):
            layer = self.model.get_submodule(name.removesuffix(".weight"))
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
