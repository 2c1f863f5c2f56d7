"""The last adapted block stays with its client."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.federated.methods.base import Arrays, Method, Trained


@dataclass(frozen=True)
class LocalHead(Method):
    """FedAvg on all trained arrays but those of the last block, which each client keeps.

    The last block is that with the highest number in the arrays' names. A client that has never
    trained has the pretrained one.

    References
    ----------
    Arivazhagan et al., arXiv 1912.00818 (personalisation layers).
    """

    stateful: ClassVar[bool] = True
    personal: ClassVar[bool] = True
    tunes: ClassVar[tuple[str, ...]] = ("lora", "full")

    def shared(self, weights: dict[str, Any], client: int) -> dict[str, Any]:
        last = max(map(block, weights))
        travels = {name: array for name, array in weights.items() if block(name) < last}
        if not travels:
            raise ValueError(
                f"{self!r}: all that is trained is in one block, which each client would keep, so "
                "nothing would travel. Take a model of more blocks, or method='ditto'."
            )
        return travels

    def train(
        self, learner: Any, sent: Arrays, client: int, number: int, memory: Arrays
    ) -> Trained:
        weights, loss = learner.train(self.own(sent, memory, learner.start), client, number)
        mine = {name: array for name, array in weights.items() if name not in sent}
        return Trained({name: weights[name] for name in sent}, loss, mine)

    def own(self, sent: Arrays, memory: Arrays, start: Callable[[], Arrays]) -> Arrays:
        head = memory or {name: a for name, a in start().items() if name not in sent}
        return sent | head


def block(name: str) -> int:
    """The number of the block that an array is in, -1 outside of blocks.

    Examples
    --------
    >>> block("base_model.model.encoder.layer.5.attention.self.query.lora_A.weight")
    5
    """
    numbers = re.findall(r"\.(\d+)\.", name)
    return int(numbers[0]) if numbers else -1
