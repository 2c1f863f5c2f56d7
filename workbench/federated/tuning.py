"""What is trained of a model: adapters, a prompt, a prefix, the head, or all weights.

peft brings adapters, prompts and prefixes; a head and all weights are the model's own.
"""

import inspect
import os
from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

from workbench.federated.linear import is_linear
from workbench.federated.models import (
    base_config,
    is_causal,
    load_base,
    meta_base,
    public_name,
    quiet,
    random_model,
)

Weights = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]
#: Those that peft describes, opens and saves.
OF_PEFT = ("lora", "prompt", "prefix")
#: Where each is saved: under peft's name, our own, or that of transformers for a whole model.
FILES = dict.fromkeys(OF_PEFT, "adapter_model.safetensors") | {
    "head": "head.safetensors",
    "full": "model.safetensors",
}
#: The name under which a prompt or a prefix travels is peft's own for its file.
PROMPT, PROMPT_IN_MODEL = "prompt_embeddings", "prompt_encoder.default.embedding.weight"
#: Standard deviation of a prefix at the start: small, so that it adds little to any layer.
PREFIX_STD = 0.02


def peft_config(task: Any, config: Any) -> PeftConfig:
    """The task's adapters, prompt or prefix as peft describes them.

    Adapters have one scale for every rank. A prompt or prefix is ``task.virtual_tokens`` long.
    """
    causal = is_causal(config)
    if task.tune == "lora":
        targets = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(config.model_type)
        return LoraConfig(
            r=task.lora_rank,
            lora_alpha=task.lora_scale * task.lora_rank,
            lora_dropout=0.0,
            target_modules=targets or "all-linear",
            task_type=TaskType.CAUSAL_LM if causal else None,
        )
    kind = PromptTuningConfig if task.tune == "prompt" else PrefixTuningConfig
    return kind(
        num_virtual_tokens=task.virtual_tokens,
        task_type=TaskType.CAUSAL_LM if causal else TaskType.FEATURE_EXTRACTION,
    )


def write_config(task: Any, folder: str | os.PathLike) -> None:
    """Write what peft or transformers need to open the saved arrays; a head needs neither."""
    config = base_config(task.model)
    if task.tune in OF_PEFT:
        config = peft_config(task, config)
        config.base_model_name_or_path = public_name(task.model)
        config.inference_mode = True
    if task.tune != "head":
        config.save_pretrained(folder)


def check_model(task: Any) -> None:
    """Refuse a model that the task can't train, before its weights are loaded."""
    if not is_linear(task):
        _check_kind(task, base_config(task.model))
    # peft puts LoRA into any linear layers; some methods ask for more.
    if not is_linear(task) and (task.tune != "lora" or task.method.personal):
        model = tuned(task, meta_base(task.model))
        task.method.shared(trained_parameters(model), 0)


def _check_kind(task: Any, config: Any) -> None:
    if config.is_encoder_decoder:
        raise ValueError(
            f"model={task.model!r} is an encoder with a decoder ({config.model_type}); a run "
            "trains causal models and encoders. Take one of these."
        )
    if task.batch_size == 1 and not is_causal(config):
        raise ValueError(
            f"batch_size=1 with model={task.model!r}, an encoder: it chooses among the answers "
            "of a batch, and one alone has nothing to learn from. Take 2 or more."
        )


def tuned(task: Any, model: torch.nn.Module) -> torch.nn.Module:
    """The model with what the task trains; nothing else of it takes a gradient.

    Raises
    ------
    ValueError
        If the model takes no prefix, or has nothing that could be its head.
    """
    if task.tune == "prefix" and not _takes_prefix(model):
        raise ValueError(
            f"tune='prefix' with model={task.model!r}; a prefix stands where a model keeps keys "
            f"and values of earlier tokens, and {type(model).__name__} takes none. Take "
            "tune='prompt' or 'lora'."
        )
    if task.tune in OF_PEFT:
        try:
            with quiet():
                return get_peft_model(model, peft_config(task, model.config))
        except ValueError as error:
            raise ValueError(
                f"tune={task.tune!r} with model={task.model!r}: peft can't do it ({error}). Take "
                "tune='lora', or 'full'."
            ) from None
    return own_part(task.tune, model)


def _takes_prefix(model: torch.nn.Module) -> bool:
    return "past_key_values" in inspect.signature(model.forward).parameters


def own_part(tune: str, model: torch.nn.Module) -> torch.nn.Module:
    """The model with its head trained, ``tune="head"``, or all its weights, ``tune="full"``."""
    if tune == "full":
        return model.requires_grad_(True)
    return _with_own_head(model) if is_causal(model.config) else Projected(model)


def _with_own_head(model: torch.nn.Module) -> torch.nn.Module:
    """Train the output layer alone; where it shares its matrix with the input, it gets a copy."""
    head = model.get_output_embeddings()
    if head is None:
        raise ValueError(
            f"tune='head', but {type(model).__name__} names no output layer. Take tune='lora', "
            "or 'full'."
        )
    model.requires_grad_(False)
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    model.config.tie_word_embeddings = False
    head.requires_grad_(True)
    return model


class Projected(torch.nn.Module):
    """An encoder with a projection ``W h + b`` behind its last layer; W starts as the identity.

    A mean over tokens commutes with it, so it is a projection of the text's vector. An encoder
    has no head of its own that this could be: the pooling layer that some have is not used for
    the vectors.
    """

    def __init__(self, encoder: torch.nn.Module):
        super().__init__()
        width = getattr(encoder.config, "hidden_size", None)
        if width is None:
            raise ValueError(
                f"tune='head', but the configuration of {type(encoder).__name__} names no "
                "hidden_size, the width of its vectors. Take tune='lora', or 'full'."
            )
        self.encoder = encoder.requires_grad_(False)
        self.projection = torch.nn.Linear(width, width, device=encoder.device)
        torch.nn.init.eye_(self.projection.weight)
        torch.nn.init.zeros_(self.projection.bias)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.projection.weight.device

    def forward(self, **inputs: Any) -> Any:
        """What the encoder says, its last layer projected."""
        said = self.encoder(**inputs)
        said.last_hidden_state = self.projection(said.last_hidden_state)
        return said


def in_model_order(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The trained parameters of a model by the names that travel; random starts keep this order."""
    return {
        PROMPT if name == PROMPT_IN_MODEL else name.replace(".default.", "."): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def trained_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The same in the order of the names, which is that of a file: sums and noise follow it."""
    return dict(sorted(in_model_order(model).items()))


def start_of(task: Any, shapes: Shapes, draw: np.random.Generator) -> Weights:
    """The arrays that every client starts from, drawn or read, in the order of the names.

    With adapters, or a head, or all weights, the first model is the pretrained one, unless the
    task says ``start="random"``. A prompt or a prefix is not nothing, so the first model differs
    from the pretrained one there.
    """
    return dict(sorted(_STARTS[task.tune](task, shapes, draw).items()))


def _factors(task: Any, shapes: Shapes, draw: np.random.Generator) -> Weights:
    """B = 0, and A as `torch.nn.Linear` would draw it."""
    weights = {}
    for name, shape in shapes.items():
        bound = 1 / sqrt(np.prod(shape[1:]))
        drawn = draw.uniform(-bound, bound, shape) if "lora_A" in name else np.zeros(shape)
        weights[name] = drawn.astype(np.float32)
    return weights


def _words(task: Any, shapes: Shapes, draw: np.random.Generator) -> Weights:
    """The embeddings of tokens drawn from the vocabulary, as in Lester et al. 2021."""
    known = load_base(task.model).model.get_input_embeddings().weight
    tokens = torch.from_numpy(draw.integers(len(known), size=shapes[PROMPT][0]))
    return {PROMPT: known.detach().cpu()[tokens].numpy()}


def _small(task: Any, shapes: Shapes, draw: np.random.Generator) -> Weights:
    return {PROMPT: draw.normal(0.0, PREFIX_STD, shapes[PROMPT]).astype(np.float32)}


def _own(task: Any, shapes: Shapes, draw: np.random.Generator) -> Weights:
    """The pretrained weights, or the model's own random ones from the task's seed."""
    if task.start == "random":
        model = random_model(task.model, int(draw.integers(2**63)))
    else:
        model = load_base(task.model).model
    parameters = trained_parameters(own_part(task.tune, model))
    return {name: p.detach().cpu().numpy().copy() for name, p in parameters.items()}


_STARTS: dict[str, Callable[[Any, Shapes, np.random.Generator], Weights]] = {
    "lora": _factors,
    "prompt": _words,
    "prefix": _small,
    "head": _own,
    "full": _own,
}
