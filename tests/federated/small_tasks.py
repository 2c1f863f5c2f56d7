"""Small data and small changes of a task."""

import random

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
