"""Every kind of tuning: what is trained, what travels, what is saved, and that runs resume."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    DistilBertConfig,
    DistilBertModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from workbench.federated import (
    FederatedTask,
    FfaLora,
    generate,
    load_adapter,
    round_traffic,
    simulate,
    tuning,
)
from workbench.federated.history import same_weights
from workbench.federated.learner import Learner
from workbench.federated.lora import initial_adapter
from workbench.federated.models import load_base
from workbench.federated.objectives import Text
from workbench.federated.partition import sample
from workbench.federated.tuning import own_part

KINDS = {
    "head of an encoder": ("encoder", {"tune": "head"}),
    "head": ("causal", {"tune": "head"}),
    "prompt of an encoder": ("encoder", {"tune": "prompt", "virtual_tokens": 3}),
    "prompt": ("causal", {"tune": "prompt", "virtual_tokens": 3}),
    "prefix of an encoder": ("encoder", {"tune": "prefix", "virtual_tokens": 3}),
    "prefix": ("causal", {"tune": "prefix", "virtual_tokens": 3, "compression": "topk"}),
    "full of an encoder": ("encoder", {"tune": "full", "method": "scaffold"}),
    "full": ("causal", {"tune": "full", "method": "local-head"}),
    "random": ("encoder", {"tune": "full", "start": "random"}),
}
#: Numbers that travel, for a width of 16, 2 layers and 2 heads, by hand.
NUMBERS = {
    "head of an encoder": 16 * 16 + 16,
    "prompt of an encoder": 3 * 16,
    "prompt": 3 * 16,
    "prefix of an encoder": 3 * 2 * 2 * 16,
    "prefix": 3 * 2 * 2 * 16,
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request, task, text_task):
    model, options = KINDS[request.param]
    given = task if model == "encoder" else text_task
    return request.param, dataclasses.replace(given, lr=0.01, eval_examples=4, **options)


@pytest.fixture(scope="module")
def run(kind, tmp_path_factory):
    """The task's run, cut off after its first round and resumed."""
    folder = tmp_path_factory.mktemp("run")
    simulate(dataclasses.replace(kind[1], rounds=1), run_dir=folder, progress=False)
    return simulate(kind[1], run_dir=folder, progress=False)


def test_a_run_resumes_to_the_bits_and_learns(kind, run):
    whole = simulate(kind[1], progress=False)
    assert same_weights(run.weights, whole.weights)
    assert [each.evaluation for each in run.rounds] == [each.evaluation for each in whole.rounds]
    assert list(run.weights) == sorted(run.weights)
    start = initial_adapter(kind[1])
    moved = [name for name in start if np.abs(start[name] - run.weights[name]).max() > 1e-6]
    idle = {name for name in start if "pooler" in name or name.startswith("model.layers.1.")}
    assert idle.isdisjoint(moved)
    assert len(moved) > 0.8 * (len(start) - len(idle))


def test_bytes_are_the_closed_form(kind, run):
    name, task = kind
    if name in NUMBERS:
        assert sum(array.size for array in run.weights.values()) == NUMBERS[name]
    for each in run.rounds:
        traffic = round_traffic(task, clients=sample(task, each.number))
        assert (each.uplink_bytes, each.downlink_bytes) == (
            traffic.uplink_bytes,
            traffic.downlink_bytes,
        )


def test_the_saved_model_computes_what_the_run_evaluated(kind, run, tmp_path):
    learner, name = Learner(kind[1]), kind[0]
    path = run.save(tmp_path / "saved")
    learner.model, learner.parameters = load_adapter(path).eval(), {}
    assert not any(parameter.requires_grad for parameter in learner.model.parameters())
    if name == "full":  # each client has a block of its own beside what is saved
        return
    found, client = Learner.evaluate(learner, {}, 0), learner.clients[0].name
    assert found == run.rounds[-1].evaluation.clients[client]
    assert found != run.start.clients[client]
    if name == "random":  # transformers opens it without us
        opened = dict(AutoModel.from_pretrained(path).named_parameters())
        assert all(np.array_equal(opened[k].detach(), w) for k, w in run.weights.items())


def test_nothing_else_is_trained(kind):
    learner, base = Learner(kind[1]), load_base(kind[1].model).model
    learner.train(learner.start(), 0, 1)
    trained = {id(parameter) for parameter in learner.parameters.values()}
    rest = [p for p in learner.model.parameters() if id(p) not in trained]
    known = {p.detach().numpy().tobytes() for p in base.parameters()}
    assert all(p.detach().numpy().tobytes() in known for p in rest)
    assert len(rest) == (0 if kind[1].tune == "full" else len(list(base.parameters())) - (
        kind[0] == "head"
    ))  # fmt: skip


@pytest.mark.parametrize("model", ["encoder", "causal"])
@pytest.mark.parametrize("tune", ["head", "full"])
def test_a_head_and_all_weights_start_as_the_pretrained_model(model, tune, task, text_task):
    lora = task if model == "encoder" else text_task
    losses = []
    for each in (lora, dataclasses.replace(lora, tune=tune)):
        learner = Learner(each)
        losses.append(learner.evaluate(learner.start(), 0)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_loss_with_a_prompt_leaves_the_prompt_out(text_task):
    """Against transformers' own loss of the prompt's vectors before the text's."""
    learner = Learner(dataclasses.replace(text_task, tune="prompt", virtual_tokens=3))
    rows = [{"text": "red stone river"}, {"text": "the morning is green and blue"}]
    base = load_base(text_task.model)
    encoded = base.tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    mask, tokens = encoded["attention_mask"], encoded["input_ids"]
    prompt = torch.from_numpy(learner.start()["prompt_embeddings"]).expand(2, -1, -1)
    vectors = torch.cat([prompt, base.model.get_input_embeddings()(tokens)], 1)
    before = torch.full((2, 3), -100)
    expected = base.model(
        inputs_embeds=vectors,
        attention_mask=torch.cat([torch.ones(2, 3), mask], 1),
        labels=torch.cat([before, tokens.masked_fill(mask == 0, -100)], 1),
    )
    learner.parameters["prompt_embeddings"].data.copy_(prompt[0])
    found = Text()(learner.model, base.tokenizer, rows)
    # The prompt's last place predicts the text's first token there, which we don't count.
    first = torch.nn.functional.cross_entropy(expected.logits[:, 2], tokens[:, 0], reduction="sum")
    total = expected.loss * (mask.sum()) - first
    assert found.count == mask.sum() - 2
    assert found.mean.item() == pytest.approx(total.item() / found.count, rel=1e-5)


@pytest.mark.parametrize("tune", ["head", "prompt", "prefix", "full"])
def test_generation_is_the_likeliest_next_token(tune, text_task):
    task = dataclasses.replace(text_task, tune=tune, virtual_tokens=3)
    learner = Learner(task)
    weights = learner.start() | {
        name: array + np.float32(0.1) for name, array in learner.start().items() if array.ndim > 1
    }
    learner.evaluate(weights, 0)
    tokens = learner.tokenizer("red stone")["input_ids"]
    before = len(tokens)
    with torch.no_grad():
        for _ in range(4):
            asked = torch.tensor([tokens])
            said = learner.model(input_ids=asked, attention_mask=torch.ones_like(asked))
            tokens = [*tokens, int(said.logits[0, -1].argmax())]
    expected = learner.tokenizer.decode(tokens[before:], skip_special_tokens=True).strip()
    assert generate(task, ["red stone"], weights, max_new_tokens=4) == [expected]


def test_a_head_that_shared_the_inputs_matrix_gets_its_own():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlamaConfig(vocab_size=11, intermediate_size=8, tie_word_embeddings=True, **sizes)
    config.architectures = ["LlamaForCausalLM"]
    model = own_part("head", LlamaForCausalLM(config))
    head, inputs = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert torch.equal(head, inputs)
    assert head.data_ptr() != inputs.data_ptr()
    assert (head.requires_grad, inputs.requires_grad) == (True, False)


def test_a_model_without_an_output_layer_has_no_head(monkeypatch):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlamaConfig(vocab_size=11, intermediate_size=8, **sizes)
    config.architectures = ["LlamaForCausalLM"]
    model = LlamaForCausalLM(config)
    monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    with pytest.raises(ValueError, match=r"names no output layer. Take tune='lora'"):
        own_part("head", model)


def test_a_random_start_is_drawn_from_the_seed(task):
    random = dataclasses.replace(task, tune="full", start="random")
    state = torch.random.get_rng_state()
    first, again = initial_adapter(random), initial_adapter(random)
    other = initial_adapter(dataclasses.replace(random, seed=4))
    pretrained = initial_adapter(dataclasses.replace(random, start="pretrained"))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same_weights(first, again)
    matrices = [name for name, array in first.items() if array.ndim > 1]
    for name in matrices:
        assert not np.array_equal(first[name], other[name])
        assert not np.array_equal(first[name], pretrained[name])
    assert {n: a.shape for n, a in first.items()} == {n: a.shape for n, a in pretrained.items()}


REFUSED = [
    ({"tune": "adapter"}, r"tune='adapter'; it is one of \['lora', 'head'"),
    ({"start": "zero"}, "start='zero'; it is one of"),
    ({"start": "random"}, r"start='random' with tune='lora'.*Take tune='full'"),
    ({"tune": "head", "method": FfaLora()}, r"works with \['lora'\]. Take one of these"),
    ({"tune": "prompt", "method": "local-head"}, r"works with \['lora', 'full'\]"),
    ({"virtual_tokens": 0}, "at least 1"),
]


@pytest.mark.parametrize(("values", "reason"), REFUSED, ids=lambda v: str(v)[:30])
def test_a_tuning_that_no_run_can_have_is_refused(values, reason):
    with pytest.raises(ValueError, match=reason):
        FederatedTask(**values)


def test_a_model_that_takes_no_keys_and_values_has_no_prefix(task, monkeypatch):
    sizes = {"dim": 8, "n_layers": 1, "n_heads": 1, "hidden_dim": 8}
    model = DistilBertModel(DistilBertConfig(vocab_size=11, **sizes))
    monkeypatch.setattr(tuning, "meta_base", lambda name: model)
    with pytest.raises(ValueError, match=r"DistilBertModel takes none. Take tune='prompt'"):
        simulate(dataclasses.replace(task, tune="prefix"), progress=False)


def test_the_closed_form_of_another_tuning_than_the_tasks():
    task = FederatedTask(clients_per_round=1)
    sent = {tune: round_traffic(task, tune).uplink_bytes for tune in ("prompt", "head", "full")}
    own = {tune: round_traffic(dataclasses.replace(task, tune=tune)).uplink_bytes for tune in sent}
    assert sent == own
    assert sent["prompt"] < round_traffic(task).uplink_bytes < sent["head"] < sent["full"]
    with pytest.raises(ValueError, match=r"a closed form for \['lora'\]"):
        round_traffic(dataclasses.replace(task, method="ffa-lora"), tune="full")
