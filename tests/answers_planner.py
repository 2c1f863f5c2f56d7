"""Right and planted wrong answers to the exercises on plans."""


def front(plans):
    return {
        one for one in plans
        if not any(a <= one[0] and b <= one[1] and (a, b) != one for a, b in plans)
    }  # fmt: skip


def waiting(seconds, faster, factor):
    return (1 - faster / seconds) / (1 - 1 / factor)


#: check -> (the right answer, wrong ones).
PLANNER_ANSWERS = {
    "pareto": (
        front,
        lambda plans: {min(plans)},
        lambda plans: {min(plans), min(plans, key=lambda q: (q[1], q[0]))},
        lambda plans: set(plans),
        lambda plans: sorted(front(plans)),
    ),
    "waiting_share": (
        waiting,
        lambda seconds, faster, factor: 1 - faster / seconds,
        lambda seconds, faster, factor: seconds * waiting(seconds, faster, factor),
        lambda seconds, faster, factor: (seconds - faster) / (factor - 1) / faster,
        lambda seconds, faster, factor: 1 / factor,
    ),
    "efficiency": (
        lambda one, many, p: one / many / p,
        lambda one, many, p: one / many,
        lambda one, many, p: p * many / one,
        lambda one, many, p: many / one,
    ),
}
