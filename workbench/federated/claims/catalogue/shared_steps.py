"""Many machines that share the work against one machine that has the same time."""

from dataclasses import replace

from workbench.federated.baselines import centralised
from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import base, common_end, run


def experiment(seed: int) -> dict[str, float]:
    """One machine has everybody's pairs but makes only the steps that each client makes."""
    task = base(seed)
    single = centralised(replace(task, clients_per_round=1), progress=False)
    return {
        "shared": common_end(run(task)),
        "one machine": common_end(single),
        "steps of a machine": task.rounds * task.local_steps,
    }


CLAIM = Claim(
    id="shared-steps",
    sentence="Sharing the computing among owners gets further than one machine in the same steps.",
    named=("S2", "S3"),
    metric="held-out loss on pairs of all topics",
    unit="nat",
    arms=("shared", "one machine"),
    beside=("steps of a machine",),
    smallest=0.02,
    experiment=experiment,
    limits="Steps, not seconds: messages take no time here. One learning rate for both.",
)
