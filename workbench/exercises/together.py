"""Exercises on why owners train together: what is trained, how soon, and for whom."""

from statistics import fmean

from workbench.exercises.checking import Case, Exercise, by_cases

#: What a model has to offer: its width, that of its keys, its layers.
_SIZES = {"minilm": (384, 384, 6), "smollm2-135m": (576, 192, 30)}


def _tuned(rng):
    from workbench.federated import FederatedTask
    from workbench.federated.lora import adapter_shapes

    cases = []
    for model, sizes in _SIZES.items():
        for tune in ("prompt", "prefix"):
            tokens = rng.randint(2, 20)
            task = FederatedTask(model=model, tune=tune, virtual_tokens=tokens)
            (shape,) = adapter_shapes(task).values()
            where = f"a {tune} of {tokens} virtual tokens for {model}, sizes {sizes}"
            given = (tune, tokens, *sizes)
            cases.append(Case(given, shape[0] * shape[1], where, note=f"tune is {tune}"))
    return cases


check_trained_numbers = Exercise(
    "Write f(tune, tokens, width, kv_width, layers), which returns how many numbers a client "
    "sends: tune is 'prompt' or 'prefix', tokens its length.",
    (
        "A prompt is a few tokens' vectors before the text. A prefix stands in every layer.",
        "A prompt token has `width` numbers. A prefix token has, in each layer, a key and a value "
        "of `kv_width` numbers each.",
    ),
    by_cases(
        _tuned,
        {
            "A prefix has keys and values: one of the two is missing.": (
                lambda tune, t, width, kv, layers: t * (width if tune == "prompt" else layers * kv)
            ),
            "Those are bytes; numbers are asked for.": lambda tune, t, width, kv, layers: (
                4 * t * (width if tune == "prompt" else 2 * layers * kv)
            ),
            "A prefix stands in every layer, not in one.": lambda tune, t, width, kv, layers: (
                t * (width if tune == "prompt" else 2 * kv)
            ),
            "Keys and values may be narrower than the model: see kv_width.": (
                lambda tune, t, width, kv, layers: (
                    t * (width if tune == "prompt" else 2 * layers * width)
                )
            ),
        },
    ),
)


def _curves(rng):
    cases = []
    for rounds, level in ((4, 0.0), (6, 0.35), (8, 0.6), (5, 2.0)):
        losses = [rng.uniform(2.5, 3.0)]
        for _ in range(rounds):
            losses.append(losses[-1] + rng.uniform(-0.4, 0.1))
        target = losses[0] - level if level < 1 else min(losses) - 0.1
        reached = [number for number, loss in enumerate(losses) if loss <= target]
        where = f"{rounds} rounds, a target {losses[0] - target:.2f} nat below the start"
        note = "the target is reached" if reached else "the target is never reached"
        expected = reached[0] if reached else -1
        cases.append(Case((losses, target), expected, where, note=note))
    return cases


check_rounds_to_target = Exercise(
    "Write f(losses, target): after how many rounds is the loss at the target or below for the "
    "first time? losses[0] is the start, before any round. Return -1 if it never is.",
    (
        "Go through the losses in order, with their numbers, and stop at the first that is there.",
        "enumerate counts from 0, as rounds do here: losses[0] is after 0 rounds.",
    ),
    by_cases(
        _curves,
        {
            "The start is before round 1: it counts 0.": lambda losses, target: next(
                (i + 1 for i, loss in enumerate(losses) if loss <= target), -1
            ),
            "A run that never gets there has no number of rounds: -1 is asked for.": (
                lambda losses, target: next(
                    (i for i, loss in enumerate(losses) if loss <= target), len(losses) - 1
                )
            ),
            "That is the last such round; the first is asked for.": lambda losses, target: max(
                (i for i, loss in enumerate(losses) if loss <= target), default=-1
            ),
        },
    ),
)


def _clients(rng):
    from workbench.federated import fairness

    cases = []
    for count in (4, 9, 10, 25, 40):
        losses = {f"client {i}": rng.uniform(1.0, 3.0) for i in range(count)}
        found = fairness(losses)
        where, note = f"{count} clients", f"there are {'10 or more' if count >= 10 else 'few'}"
        given = list(losses.values())
        cases.append(Case((given,), found.worst, where, note=note))
    return cases


def _count(losses):
    from workbench.federated import fairness

    return fairness({str(i): loss for i, loss in enumerate(losses)}).clients


check_worst_clients = Exercise(
    "Write f(losses), which returns the loss of those worst off: of the worst client if there are "
    "fewer than 10, else the mean of the worst tenth, rounded up to whole clients.",
    (
        "A high loss is bad. Sort, then take from the right end.",
        "The worst tenth of 25 clients is 3 of them: 2.5, rounded up. math.ceil rounds up.",
    ),
    by_cases(
        _clients,
        {
            "That is the worst client alone, however many there are.": max,
            "Those are the best off: a low loss is good.": lambda losses: fmean(
                sorted(losses)[: _count(losses)]
            ),
            "That is the mean client.": fmean,
            "A tenth is rounded down there.": lambda losses: fmean(
                sorted(losses)[-max(1, len(losses) // 10) :]
            ),
        },
    ),
)
