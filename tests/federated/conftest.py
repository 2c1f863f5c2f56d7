"""Tiny models of real architectures, small data, and runs that many tests look at."""

import dataclasses

import pytest
import torch
from small_tasks import rows
from transformers import AutoTokenizer, BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from workbench.federated import FederatedTask, simulate
from workbench.federated.models import package_path


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """The folder of a BERT of 2 layers with random weights and MiniLM's tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = AutoTokenizer.from_pretrained(package_path("minilm"))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(tokenizer), intermediate_size=16, **sizes)
    return save(folder, BertModel, config, tokenizer)


@pytest.fixture(scope="session")
def tiny_causal(tmp_path_factory):
    """The folder of a Llama of 2 layers with random weights and no chat format."""
    folder = tmp_path_factory.mktemp("causal")
    tokenizer = AutoTokenizer.from_pretrained(package_path("minilm"))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), intermediate_size=16, **sizes)
    return save(folder, LlamaForCausalLM, config, tokenizer)


def save(folder, kind, config, tokenizer):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def task(tiny_encoder):
    """Four clients of own data on the tiny encoder."""
    return FederatedTask(
        model=tiny_encoder,
        dataset=rows(),
        num_clients=4,
        clients_per_round=3,
        rounds=2,
        local_steps=2,
        batch_size=4,
        lora_rank=2,
        seed=3,
        lr=0.01,
    )


@pytest.fixture(scope="session")
def text_task(task, tiny_causal):
    """The same with running text on the tiny causal model."""
    return dataclasses.replace(task, model=tiny_causal, dataset=rows(columns=("text",)))


@pytest.fixture(scope="session")
def history(task):
    """The task, run in this process."""
    return simulate(task, progress=False)
