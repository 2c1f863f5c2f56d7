"""Exercises on memory: what is computed again, what is sent again, how many samples fit."""

from dataclasses import replace

from workbench.exercises.checking import Case, Exercise, by_cases
from workbench.exercises.many_dims import random_spec, words
from workbench.step import fake_step

#: Ways to checkpoint, and where the switch is.
_WAYS = (("none", "inside"), ("block", "inside"), ("block", "outside"), ("selective", "inside"))


def _flops(rng):
    cases = []
    for checkpoint in ("none", "block", "selective", "selective"):
        spec = random_spec(rng, num_layers=rng.randint(1, 2))
        blocks = len(spec.stages) * spec.num_layers
        mlp = 4 * spec.batch * spec.tokens * spec.d_model**2 * spec.mlp_ratio * blocks
        attention = spec.flops // 3 - mlp
        expected = fake_step(spec, "single", p=1, checkpoint=checkpoint).flops
        where = words({"attention": attention, "mlp": mlp}, checkpoint=repr(checkpoint))
        note = f"checkpoint={checkpoint}"
        cases.append(Case((attention, mlp, checkpoint), expected, where, None, note))
    return cases


check_step_flops = Exercise(
    "Write f(attention, mlp, checkpoint), which returns the flops of a whole step. attention and "
    "mlp are the flops of the forward pass: of all attentions with their projections, and of all "
    'MLPs. checkpoint is "none", "selective" or "block".',
    (
        "The backward costs twice the forward. What is computed again comes on top.",
        "Selective: the backward needs the hidden units. The MLP's first product makes them; its "
        "second one, just as large, makes what nobody needs any more.",
    ),
    by_cases(
        _flops,
        {
            "Selective checkpointing needs only one of an MLP's two products again.": (
                lambda attention, mlp, checkpoint: (
                    3 * (attention + mlp)
                    + {"none": 0, "block": attention + mlp, "selective": mlp}[checkpoint]
                )
            ),
            "That is the step without anything computed again.": (
                lambda attention, mlp, checkpoint: 3 * (attention + mlp)
            ),
        },
    ),
)


def _switched(rng):
    cases = []
    for p, layers, (checkpoint, switch) in zip((2, 3, 4, 2), (3, 2, 1, 2), _WAYS, strict=True):
        spec = random_spec(rng, p, num_layers=layers)
        m = spec.activation_bytes()
        step = fake_step(spec, "dsp", p=p, checkpoint=checkpoint, switch=switch)
        how = {"checkpoint": repr(checkpoint), "switch": repr(switch)}
        note = f"checkpoint={checkpoint}, switch={switch}"
        where = words({"m": m}, p=p, num_layers=layers, **how)
        given = (m, p, layers, checkpoint, switch)
        cases.append(Case(given, step.sent_bytes, where, p, note))
    return cases


def _passes(passes):
    return lambda m, p, layers, *way: passes(*way) * (2 * layers - 1) * m * (p - 1) / p**2


check_recomputed_bytes = Exercise(
    "Write f(m, p, num_layers, checkpoint, switch), which returns the bytes that one rank sends "
    "forward and backward under DSP. Each layer has two stages; m is M.",
    (
        "Count the switches of the forward, then ask how often each is made in the whole step.",
        "Two stages a layer, nothing ahead of the first: 2 num_layers - 1 switches of m/p (p-1)/p. "
        "Only a block that is computed again, with the switch inside, makes a third pass.",
    ),
    by_cases(
        _switched,
        {
            "That is the forward alone.": _passes(lambda *way: 1),
            "A switch outside is not made again.": _passes(
                lambda checkpoint, switch: 3 if checkpoint == "block" else 2
            ),
            "Selective checkpointing makes no switch again.": _passes(
                lambda checkpoint, switch: 2 + (checkpoint != "none" and switch == "inside")
            ),
        },
    ),
)


def _samples(rng):
    cases = []
    for samples, over in ((5, 0), (7, 1), (6, 0), (9, 2)):
        dims = {"time": 8, "space": 2 * rng.randint(16, 24)}  # activations outweigh the weights
        spec = random_spec(rng, 2, dims=dims, d_model=24, num_layers=1)
        how = rng.choice(("none", "block", "selective"))
        two, four, most = (
            fake_step(replace(spec, batch=batch), "dsp", p=2, checkpoint=how).peak_bytes
            for batch in (2, 4, samples)
        )
        device = most + over * (four - two) // 6
        where = words({"two": two, "four": four, "device": device})
        cases.append(Case((two, four, device), samples, where))
    return cases


check_samples_that_fit = Exercise(
    "Write f(two, four, device), which returns how many samples fit: two and four are the peak "
    "bytes of a step with two samples and with four, device is the memory there is, and more than "
    "four.",
    (
        "A part of the peak is there whatever the batch: weights.",
        "(four - two) / 2 is what each sample adds. How often does it fit into what is left?",
    ),
    by_cases(
        _samples,
        {
            "As if each pair of samples brought its own weights.": lambda two, four, device: (
                device // (two // 2)
            ),
            "You counted how many more fit, not how many.": lambda two, four, device: (
                (device - two) * 2 // (four - two)
            ),
            "A part of a sample does not fit.": lambda two, four, device: (
                2 + (device - two) * 2 / (four - two)
            ),
        },
    ),
)
