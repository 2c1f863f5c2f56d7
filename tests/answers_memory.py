"""Right and planted wrong answers to the exercises on memory."""


def flops(attention, mlp, checkpoint):
    again = {"none": 0, "selective": mlp // 2, "block": attention + mlp}[checkpoint]
    return 3 * (attention + mlp) + again


def recomputed(m, p, layers, checkpoint, switch):
    passes = 3 if (checkpoint, switch) == ("block", "inside") else 2
    return passes * (2 * layers - 1) * m * (p - 1) // p**2


def fit(two, four, device):
    return 2 + (device - two) * 2 // (four - two)


#: check -> (the right answer, wrong ones).
MEMORY_ANSWERS = {
    "step_flops": (
        flops,
        lambda attention, mlp, checkpoint: 3 * (attention + mlp),
        lambda attention, mlp, checkpoint: flops(attention, 2 * mlp, checkpoint) - 3 * mlp,
        lambda attention, mlp, checkpoint: 4 * (attention + mlp),
        lambda attention, mlp, checkpoint: flops(attention, mlp, checkpoint) - attention - mlp,
    ),
    "recomputed_bytes": (
        recomputed,
        lambda m, p, layers, checkpoint, switch: recomputed(m, p, layers, "none", switch),
        lambda m, p, layers, checkpoint, switch: recomputed(m, p, layers, checkpoint, "inside"),
        lambda m, p, layers, checkpoint, switch: recomputed(m, p, layers, "block", switch),
        lambda m, p, layers, checkpoint, switch: recomputed(m, p, layers, "none", switch) // 2,
        lambda m, p, layers, checkpoint, switch: recomputed(m, p, layers + 1, checkpoint, switch),
    ),
    "samples_that_fit": (
        fit,
        lambda two, four, device: device // (two // 2),
        lambda two, four, device: fit(two, four, device) - 2,
        lambda two, four, device: fit(two, four, device) + 1,
        lambda two, four, device: 2 + (device - two) * 2 / (four - two),
        lambda two, four, device: device // (four - two) * 2,
    ),
}
