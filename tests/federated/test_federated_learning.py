"""What is learnt is what the loss says; it is learnt; and what it is set beside."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from workbench.federated import FederatedTask, centralised, generate, local_only, simulate
from workbench.federated.history import same_weights
from workbench.federated.learner import Learner, batches_of
from workbench.federated.lora import initial_adapter
from workbench.federated.models import load_base
from workbench.federated.objectives import (
    Chat,
    Retrieval,
    Text,
    conversation,
    embed,
    objective,
    same_meaning,
)

PAIRS = [
    {"question": "red stone?", "answer": "a river"},
    {"question": "red stone?", "answer": "blue"},
    {"question": "green?", "answer": "a river"},
    {"question": "who is there in the morning?", "answer": "nobody at all"},
]


@pytest.fixture(scope="module")
def encoder(tiny_encoder):
    return load_base(tiny_encoder)


@pytest.fixture(scope="module")
def causal(tiny_causal):
    return load_base(tiny_causal)


def test_a_text_alone_has_the_vector_that_it_has_among_others(encoder):
    """Neither padding nor the grouping by length may show."""
    texts = [f"{'stone ' * (1 + i % 7)}{i}" for i in range(40)]
    with torch.no_grad():
        together = embed(encoder.model, encoder.tokenizer, texts)
        for i in (0, 17, 39):
            alone = embed(encoder.model, encoder.tokenizer, [texts[i]])
            assert torch.allclose(together[i], alone[0], atol=1e-5)
    assert torch.allclose(together.norm(dim=1), torch.ones(40))


def test_equal_questions_and_answers_are_no_wrong_answers(encoder):
    """Against the loss of each question, written out."""
    found = Retrieval()(encoder.model, encoder.tokenizer, PAIRS)
    asked = embed(encoder.model, encoder.tokenizer, [row["question"] for row in PAIRS])
    given = embed(encoder.model, encoder.tokenizer, [row["answer"] for row in PAIRS])
    allowed = {0: [0, 3], 1: [1, 2, 3], 2: [1, 2, 3], 3: [0, 1, 2, 3]}
    losses, hits = [], 0
    for i, answers in allowed.items():
        scores = torch.stack([20 * asked[i] @ given[j] for j in answers])
        losses.append(F.cross_entropy(scores, torch.tensor(answers.index(i))))
        hits += answers[int(scores.argmax())] == i
    assert found.mean.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert (found.count, found.hits) == (4, hits)
    assert same_meaning(["a"], ["b"]).tolist() == [[False]]


@pytest.mark.parametrize("rank", [1, 4])
def test_the_scale_of_the_adapters_is_the_same_for_every_rank(task, rank):
    """The adapter adds lora_scale B A to a weight, whatever its rank: against W + 3 B A."""
    learner = Learner(dataclasses.replace(task, lora_rank=rank, lora_scale=3.0))
    layer = learner.model.base_model.model.encoder.layer[0].attention.self.query
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        b.normal_(generator=torch.Generator().manual_seed(0))
        x = torch.ones(1, a.shape[1])
        expected = F.linear(x, layer.base_layer.weight + 3.0 * b @ a, layer.base_layer.bias)
        assert torch.allclose(layer(x), expected, atol=1e-5)


def test_the_loss_of_texts_is_transformers_own(causal):
    texts = ["red stone river", "the morning is green and blue"]
    found = Text()(causal.model, causal.tokenizer, [{"text": text} for text in texts])
    encoded = causal.tokenizer(texts, padding=True, return_tensors="pt")
    labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)
    inputs = {key: encoded[key] for key in ("input_ids", "attention_mask")}
    theirs = causal.model(**inputs, labels=labels).loss
    assert found.mean.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert found.count == int((labels[:, 1:] != -100).sum())


def test_only_the_answer_is_learnt(causal):
    found = Chat()(causal.model, causal.tokenizer, PAIRS[:2])
    total, count = 0.0, 0
    for row in PAIRS[:2]:
        prompt, answer = conversation(causal.tokenizer, row["question"], row["answer"])
        tokens = torch.tensor([prompt + answer])
        scores = causal.model(input_ids=tokens).logits[0].log_softmax(-1)
        for place in range(len(prompt), len(prompt) + len(answer)):
            total -= scores[place - 1, tokens[0, place]].item()
            count += 1
    assert found.count == count
    assert found.mean.item() == pytest.approx(total / count, rel=1e-5)


def test_a_long_conversation_is_cut(causal):
    prompt, answer = conversation(causal.tokenizer, "stone " * 300, "river " * 300)
    assert len(prompt) + len(answer) <= 128
    assert answer


def test_smollm2_speaks_in_its_own_format():
    tokenizer = load_base("smollm2-135m").tokenizer
    prompt, answer = conversation(tokenizer, "What is AI?", "Software.")
    assert tokenizer.decode(prompt).endswith("What is AI?<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(answer) == "Software.<|im_end|>"


def test_an_encoder_refuses_running_text(encoder, text_task, tiny_encoder):
    wrong = dataclasses.replace(text_task, model=tiny_encoder)
    with pytest.raises(ValueError, match="is an encoder"):
        objective(wrong, encoder)
    with pytest.raises(ValueError, match="generates no text"):
        generate(wrong, ["red"])


def test_batches_go_through_all_rows():
    rows = [{"n": i} for i in range(10)]
    batches = batches_of(rows, 4, np.random.default_rng(0))
    passes = [[row["n"] for _ in range(2) for row in next(batches)] for _ in range(2)]
    assert [len(set(each)) for each in passes] == [8, 8]
    assert passes[0] != passes[1]
    assert len(next(batches_of(rows[:3], 4, np.random.default_rng(0)))) == 3


def test_sgd_and_adamw_differ(task, history):
    sgd = simulate(dataclasses.replace(task, optimizer="sgd"), progress=False)
    assert not same_weights(sgd.weights, history.weights)


def test_few_held_out_rows_are_evaluated_when_asked(task):
    learner = Learner(dataclasses.replace(task, eval_examples=2))
    weights = initial_adapter(task)
    assert learner.evaluate(weights, 0)["predictions"] == 2
    assert Learner(task).evaluate(weights, 0)["predictions"] == 4


def test_a_causal_model_learns_texts_and_answers(text_task, task):
    chat = dataclasses.replace(text_task, dataset=task.dataset, lr=0.02)
    for each in (text_task, chat):
        longer = dataclasses.replace(each, rounds=3, local_steps=6, batch_size=8)
        run = simulate(longer, progress=False)
        assert run.rounds[-1].eval_loss < run.start.loss - 1e-3


def test_generation_before_and_after(text_task):
    run = simulate(dataclasses.replace(text_task, lr=0.5, local_steps=8), progress=False)
    before = generate(text_task, ["red stone", "blue"], max_new_tokens=5)
    after = generate(text_task, ["red stone", "blue"], run.weights, max_new_tokens=5)
    assert len(before) == len(after) == 2
    assert before == generate(text_task, ["red stone", "blue"], max_new_tokens=5)
    assert before != after


def test_the_baselines_start_where_the_run_does(task, history):
    pooled = centralised(task, progress=False)
    assert pooled.start == history.start
    assert len(pooled.rounds) == task.rounds
    assert all(each.uplink_bytes == each.downlink_bytes == 0 for each in pooled.rounds)
    assert not same_weights(pooled.weights, history.weights)
    assert same_weights(pooled.weights, centralised(task, progress=False).weights)


def test_the_baselines_make_as_many_steps(task, monkeypatch):
    counted = []
    steps = Learner.steps

    def counting(self, rows, count, draw, optimizer, *more):
        losses = steps(self, rows, count, draw, optimizer, *more)
        counted.append(len(losses))
        return losses

    monkeypatch.setattr(Learner, "steps", counting)
    totals = []
    uneven = dataclasses.replace(task, local_steps=3)  # 18 steps for 4 clients
    for run in (simulate, centralised, local_only):
        counted.clear()
        run(uneven, progress=False)
        totals.append(sum(counted))
    assert totals == [task.rounds * task.clients_per_round * 3] * 3


def test_each_client_alone_is_evaluated_on_its_own_rows(task, history):
    alone = local_only(task, progress=False)
    assert alone.clients.keys() == history.start.clients.keys()
    assert alone.loss != history.start.loss


@pytest.mark.timeout(1800)
def test_minilm_learns_from_topics_that_stay_apart():
    """Real weights, real text: below the pretrained start by a clear margin."""
    task = FederatedTask(
        num_clients=4, clients_per_round=2, rounds=4, local_steps=5, batch_size=16, eval_examples=24
    )
    run = simulate(task, progress=False)
    assert run.start.accuracy > 0.4  # it knows much already
    assert run.rounds[-1].eval_loss < run.start.loss - 0.05


@pytest.mark.timeout(1800)
def test_smollm2_learns_from_presidents_that_stay_apart():
    task = FederatedTask(
        model="smollm2-135m",
        dataset="sotu",
        num_clients=2,
        clients_per_round=1,
        rounds=1,
        local_steps=3,
        batch_size=2,
        eval_examples=2,
    )
    run = simulate(task, progress=False)
    assert np.exp(run.start.loss) < 100  # perplexity: it is pretrained
    assert run.rounds[-1].eval_loss < run.start.loss
