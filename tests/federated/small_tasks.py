"""Small data and small changes of a task."""

import random

import numpy as np

from workbench.federated import FederatedTask

WORDS = "red green blue stone river cloud apple tiger paper winter morning silver"


def rows(num_clients=4, each=20, columns=("question", "answer")):
    """Own data: for each client, different sentences of a few words."""
    draw, made = random.Random(0), []
    for client in range(num_clients):
        for number in range(each):
            texts = {
                name: f"{client} {number} {' '.join(draw.choices(WORDS.split(), k=6))}"
                for name in columns
            }
            made.append({"client": f"site {client}", **texts})
    return made


def linear_rows(num_clients=4, each=20, classes=3, features=5, seed=0):
    """Points around each class's own centre; a quarter of each client's are held out.

    Clients differ in size, and the last has fewer rows than a batch.
    """
    draw, made = np.random.default_rng(seed), []
    centres = draw.normal(size=(classes, features))
    for client in range(num_clients):
        count = 4 if client == num_clients - 1 else each + client
        for number in range(count):
            label = int(draw.integers(classes))
            point = (centres[label] + draw.normal(size=features)).round(3)
            split = "train" if number % 4 else "test"
            row = {"client": f"{client:05d}", "features": point.tolist(), "label": label}
            made.append(row | {"split": split})
    return made


def linear_task(**changes):
    """Four clients of a linear classifier, three of which train in a round."""
    given = {"model": "linear", "tune": "head", "dataset": linear_rows(), "num_clients": 4}
    given |= {"clients_per_round": 3, "rounds": 2, "local_steps": 3, "batch_size": 6, "lr": 0.05}
    return FederatedTask(**given | changes)
