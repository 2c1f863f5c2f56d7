"""What a causal model says, before and after fine-tuning."""

import warnings
from collections.abc import Sequence

import torch

from workbench.federated.learner import torch_threads
from workbench.federated.lora import (
    Base,
    Weights,
    initial_adapter,
    write_adapter,
)
from workbench.federated.models import load_base
from workbench.federated.objectives import conversation
from workbench.federated.task import FederatedTask
from workbench.federated.task_checks import text_columns
from workbench.federated.tuning import trained_parameters, tuned


def generate(
    task: FederatedTask,
    prompts: Sequence[str],
    weights: Weights | None = None,
    max_new_tokens: int = 40,
    base_deltas: Weights | None = None,
) -> list[str]:
    """Continue each prompt with the likeliest next tokens.

    Parameters
    ----------
    task : FederatedTask
        Says which model and adapters; prompts are questions if its data are questions and answers.
    prompts : sequence of str, or one
        Beginnings of a text, or questions, which are put in the model's own chat format.
    weights : dict or None
        A run's ``history.weights``; ``None`` is what it starts from: the pretrained model, with a
        prompt or prefix that means nothing yet where the task trains one.
    max_new_tokens : int
        Most tokens that are added.
    base_deltas : dict or None
        A run's ``history.base_deltas``, where its method merges into the base.

    Raises
    ------
    ValueError
        If the model is an encoder, or a prompt is empty.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if empty := [i for i, prompt in enumerate(prompts) if not prompt.strip()]:
        raise ValueError(f"prompts {empty} are empty; give each at least a word to go on from.")
    base = load_base(task.model)
    if not base.causal:
        raise ValueError(f"model {task.model!r} is an encoder and generates no text.")
    model = tuned(task, base.model).eval()
    write_adapter(trained_parameters(model), weights or initial_adapter(task))
    Base(model).write(base_deltas or {})
    with torch_threads(task.threads), torch.no_grad():
        return [_continue(task, model, base.tokenizer, each, max_new_tokens) for each in prompts]


def _continue(task: FederatedTask, model, tokenizer, prompt: str, max_new_tokens: int) -> str:
    if text_columns(task) == ("text",):
        tokens = tokenizer(prompt)["input_ids"]
    else:
        tokens, _ = conversation(tokenizer, prompt, None)
    asked = torch.tensor([tokens], device=model.device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Position ids are not supported")  # behind a prompt
        said = model.generate(
            input_ids=asked,
            attention_mask=torch.ones_like(asked),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )
    return tokenizer.decode(said[0, len(tokens) :], skip_special_tokens=True).strip()
