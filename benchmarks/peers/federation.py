"""A federation's overhead against pfl-research's simulator: ``make bench-pfl``.

The same FedAvg of a linear head on both: full batches by SGD, so that both must end with the same
weights, which is checked. Both take turns in one process; both evaluate every client before
and after its training (pfl-research on its training rows, ours on its held-out ones).
"""

import argparse
import logging

import numpy as np
import torch
import torch.nn.functional as F
from federated import in_turn, linear, middle
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Weighted
from pfl.model.pytorch import PyTorchModel

from workbench.federated import FederatedTask, simulate
from workbench.federated.linear import LinearHead, sizes, tensors
from workbench.federated.partition import clients_of


class Head(LinearHead):
    """The linear head with what pfl-research asks of a module."""

    def loss(self, features, labels):
        return F.cross_entropy(self(features), labels)

    def metrics(self, features, labels):
        with torch.no_grad():
            total = F.cross_entropy(self(features), labels, reduction="sum").item()
        return {"loss": Weighted(total, len(labels))}


def theirs(task: FederatedTask) -> dict[str, np.ndarray]:
    """Run the task in pfl-research's simulator; return the weights."""
    hands = [tensors(client.train) for client in clients_of(task)]
    users = list(range(task.num_clients))
    cohort = FederatedDataset(
        lambda user: Dataset(hands[user], user_id=str(user)),
        get_user_sampler("minimize_reuse", users),
    )
    head = Head(*sizes(task.dataset))
    model = PyTorchModel(head, torch.optim.SGD, torch.optim.SGD(head.parameters(), lr=1.0))
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=task.rounds, evaluation_frequency=1,
            train_cohort_size=task.num_clients, val_cohort_size=0,
        ),
        SimulatedBackend(training_data=cohort, val_data=cohort),
        model,
        NNTrainHyperParams(
            local_num_epochs=task.local_steps, local_learning_rate=task.learning_rate,
            local_batch_size=None,
        ),
        NNEvalHyperParams(local_batch_size=None),
        send_metrics_to_platform=False,
    )  # fmt: skip
    return {name: p.detach().numpy() for name, p in head.named_parameters()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    print(__doc__)
    for clients in given.clients:
        task = linear(clients, optimizer="sgd", batch_size=20)
        ways = {
            "pfl-research": lambda task=task: theirs(task),
            "messages": lambda task=task: simulate(task, progress=False).weights,
            "vectorised": lambda task=task: simulate(task, "vectorised", progress=False).weights,
        }
        found = in_turn(ways, given.repeats)
        weights = {name: runs[0][2] for name, runs in found.items()}
        for name, arrays in weights.items():
            far = max(np.abs(arrays[k] - w).max() for k, w in weights["pfl-research"].items())
            assert far < 1e-5, (name, far)
        walls = {name: middle(runs, 0) for name, runs in found.items()}
        print(f"{clients} clients of a linear head, one round, median of {given.repeats}")
        for name, wall in walls.items():
            ratio = wall / walls["pfl-research"]
            print(f"  {name:>12}: {wall:6.3f} s, {1e3 * wall / clients:5.2f} ms a client, "
                  f"{ratio:.2f}x pfl-research", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
