"""Right and planted wrong answers to the exercises on training."""

import torch


def loss_part(said, target, valid, whole):
    return (said - target)[:, :valid].square().sum().item() / whole


def summed(strategy, weight):
    if strategy == "megatron-tp":
        return False
    return strategy != "megatron-sp" or weight in ("norm.weight", "output.bias")


def reshard(parts, dim, p):
    return [parts[0]] * p if dim is None else list(torch.cat(parts, dim).chunk(p, dim))


#: check -> (the right answer, wrong ones).
TRAINING_ANSWERS = {
    "loss_part": (
        loss_part,
        lambda said, target, valid, whole: loss_part(said, target, said.shape[1], whole),
        lambda said, target, valid, whole: (said - target)[:, :valid].square().mean().item(),
        lambda said, target, valid, whole: loss_part(said, target, valid, 1),
        lambda said, target, valid, whole: (said - target)[:, :valid].abs().sum().item() / whole,
        lambda said, target, valid, whole: loss_part(said[:, 1:], target[:, 1:], valid, whole),
    ),
    "summed_gradients": (
        summed,
        lambda strategy, weight: True,
        lambda strategy, weight: strategy != "megatron-tp",
        lambda strategy, weight: "megatron" not in strategy,
        lambda strategy, weight: summed("megatron-sp", weight),
        lambda strategy, weight: "yes" if summed(strategy, weight) else "no",
    ),
    "reshard": (
        reshard,
        lambda parts, dim, p: reshard(parts, None if dim is None else 0, p),
        lambda parts, dim, p: [parts[0] if dim is None else torch.cat(parts, dim)] * p,
        lambda parts, dim, p: reshard(parts, dim or 0, p),
        lambda parts, dim, p: reshard(parts[::-1], dim, p),
        lambda parts, dim, p: reshard(parts, dim, len(parts)),
        lambda parts, dim, p: parts[:p],
    ),
}
