"""Exercises on what travels: bytes of the largest numbers, levels, what was not sent, hours."""

import torch

from workbench.exercises.checking import Case, Exercise, by_cases


def _kept(rng):
    from workbench.federated.options.compression import Spec, TopK

    cases = []
    for fraction in (0.01, 0.1, 0.3, 1e-6):
        numbers = rng.randint(1000, 100_000)
        wire = TopK(fraction).wire({"a": Spec((numbers,))})
        expected = sum(spec.shape[0] * spec.dtype.itemsize for spec in wire.values())
        where = f"{numbers:,} numbers, fraction {fraction:g}"
        note = "the fraction of the numbers is less than one" if fraction < 1e-5 else "others"
        cases.append(Case((numbers, fraction), expected, where, note=note))
    return cases


def _k(numbers, fraction):
    return max(1, round(numbers * fraction))


check_top_k_bytes = Exercise(
    "Write f(numbers, fraction): bytes of a change of which only the largest numbers are sent. "
    "Each is a float32 with its place as a 4-byte whole number; how many is rounded to the "
    "nearest, but at least one. Leave headers out.",
    (
        "The receiver has to know where each number belongs.",
        "k = max(1, round(fraction x numbers)); each costs 4 bytes for the value, 4 for the place.",
    ),
    by_cases(
        _kept,
        {
            "The places are missing: nobody could tell where the numbers belong.": (
                lambda numbers, fraction: 4 * _k(numbers, fraction)
            ),
            "Those are numbers; bytes are asked for.": _k,
            "That is all of them, as without compression.": lambda numbers, fraction: 4 * numbers,
            "A bit for each place is another code; here a place is a whole number of 4 bytes.": (
                lambda numbers, fraction: 4 * _k(numbers, fraction) + numbers // 8
            ),
        },
    ),
)


def _levels(rng):
    from workbench.federated.options.compression import Int8
    from workbench.federated.traffic import specs_of

    cases = []
    for size in (5, 9, 16):
        draw = torch.Generator().manual_seed(rng.randrange(10**6))
        x = 3 * torch.randn(size, generator=draw)
        arrays = {"x": x.numpy()}
        packed = Int8()
        decoded = packed.decode(packed.encode(arrays), specs_of(arrays))["x"]
        where = f"{size} numbers, the largest {float(x.abs().max()):.3f}"
        cases.append(Case((x,), torch.from_numpy(decoded), where))
    return cases


def _rounded(x, levels=127, say=torch.round):
    scale = x.abs().max() / levels
    return say(levels * x / x.abs().max()) * scale


check_eight_bits = Exercise(
    "Write f(x), which returns the tensor as the server reads it: each number is sent as the "
    "nearest of the levels -127 to 127 times a scale, and the largest of |x| is level 127.",
    (
        "The scale is max|x| / 127. Which level is nearest to x / scale?",
        "Round x / scale to whole numbers, then multiply by the scale.",
    ),
    by_cases(
        _levels,
        {
            "Those are the levels; the server multiplies them by the scale.": lambda x: torch.round(
                127 * x / x.abs().max()
            ),
            "Rounded to the nearest, the error is half as large as when cut off.": (
                lambda x: _rounded(x, say=torch.trunc)
            ),
            "With 128 levels on each side, the largest would not fit into 8 bits.": (
                lambda x: _rounded(x, 128)
            ),
            "Nothing was lost there: 8 bits can't hold that.": lambda x: x,
        },
    ),
)


def _largest(x, k):
    sent = torch.zeros_like(x)
    places = x.abs().topk(k).indices
    sent[places] = x[places]
    return sent


def _with_feedback(changes, k, keep=True):
    from workbench.federated.options.compression import Spec, TopK

    left, sent = torch.zeros_like(changes[0]), []
    for change in changes:
        packed = TopK(k / len(change))
        wanted = change + left if keep else change
        read = packed.decode(packed.encode({"x": wanted.numpy()}), {"x": Spec((len(change),))})
        sent.append(torch.from_numpy(read["x"]).clone())
        left = wanted - sent[-1]
    return sent


def _rounds(rng):
    cases = []
    for rounds, size, k in ((2, 6, 2), (3, 8, 2), (4, 10, 3)):
        draw = torch.Generator().manual_seed(rng.randrange(10**6))
        changes = [torch.randn(size, generator=draw) for _ in range(rounds)]
        where = f"{rounds} rounds, {k} of {size} numbers sent in each"
        cases.append(Case((changes, k), _with_feedback(changes, k), where))
    return cases


def _forgetful(changes, k):
    left, sent = torch.zeros_like(changes[0]), []
    for change in changes:
        sent.append(_largest(change + left, k))
        left = change - _largest(change, k)
    return sent


def _repeating(changes, k):
    total, sent = torch.zeros_like(changes[0]), []
    for change in changes:
        total = total + change
        sent.append(_largest(total, k))
    return sent


check_error_feedback = Exercise(
    "Write f(changes, k): changes is one client's change in each round, a list of tensors of one "
    "dim. Return what it sends in each round, zeros where nothing is sent: the k largest (by "
    "size) of the change plus all that was not sent before.",
    (
        "Keep one tensor beside: what was not sent yet. At first it is 0.",
        "In each round: wanted = change + kept; send its k largest; kept = wanted - sent.",
    ),
    by_cases(
        _rounds,
        {
            "What was not sent is forgotten there.": lambda changes, k: [
                _largest(change, k) for change in changes
            ],
            "What was sent is kept, too, so it is sent again and again.": _repeating,
            "Only the last round's own remainder is kept; what was kept before gets lost.": (
                _forgetful
            ),
        },
    ),
)


def _uploads(rng):
    from workbench.federated.scale import Assumptions, round_cost
    from workbench.federated.sizes import MODELS

    cases = []
    for model in MODELS[:4]:
        mbit, rounds, clients = rng.choice((1, 5, 20)), rng.randint(10, 300), rng.randint(2, 50)
        given = Assumptions(
            rounds=rounds, clients_per_round=clients, uplink_bytes_per_s=mbit * 1e6 / 8
        )
        cost = round_cost(model, clients, given)
        where = f"{model.name}, {clients} clients, {rounds} rounds, {mbit} Mbit/s"
        hours = rounds * cost.upload_s / 3600
        cases.append(Case((cost.up_bytes, clients, rounds, mbit), hours, where))
    return cases


check_upload_hours = Exercise(
    "Write f(update_bytes, clients, rounds, mbit_per_s): the hours that uploading takes in a whole "
    "run. In each round all clients send at the same time, each over its own link.",
    (
        "A byte has 8 bits; a Mbit has 10^6 of them.",
        "Seconds of one upload: 8 x bytes / (mbit x 10^6). Each round has one such wait.",
    ),
    by_cases(
        _uploads,
        {
            "Clients send side by side: the server waits for one upload a round, not for each.": (
                lambda size, clients, rounds, mbit: (
                    8 * size / (mbit * 1e6) * rounds * clients / 3600
                )
            ),
            "The link is stated in bits: a byte has 8.": lambda size, clients, rounds, mbit: (
                size / (mbit * 1e6) * rounds / 3600
            ),
            "Those are seconds.": lambda size, clients, rounds, mbit: (
                8 * size / (mbit * 1e6) * rounds
            ),
            "That is one round.": lambda size, clients, rounds, mbit: (
                8 * size / (mbit * 1e6) / 3600
            ),
        },
    ),
)
