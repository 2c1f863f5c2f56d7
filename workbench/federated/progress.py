"""Who is told how a run goes: a bar in a terminal, a dashboard, or nobody."""

from collections.abc import Mapping
from typing import Any

from flwr.app import Message, MetricRecord
from tqdm.auto import tqdm

from workbench.federated.accounting import epsilon_said
from workbench.federated.history import History
from workbench.federated.task import FederatedTask
from workbench.federated.traffic import METRICS

#: What a watch is asked for, in this order.
HOOKS = ("begin", "doing", "answered", "evaluated", "end")


class Watch:
    """Told what a run does, as it does it; a subclass overrides what it wants to know.

    ``simulate(task, progress=watch)`` calls the hooks from where the server is: with the engine
    "ray" from another thread. What a hook raises ends the run; its rounds are kept.
    """

    def begin(self, task: FederatedTask) -> None:
        """The run begins, or goes on."""

    def doing(self, number: int, text: str) -> None:
        """What is done now, and in which round; 0 is the pretrained start."""

    def answered(self, client: str, metrics: Mapping[str, Any]) -> None:
        """A client has answered: what it told of a training or an evaluation, by name."""

    def evaluated(self, history: History) -> None:
        """The start or a round is done; also called once for what is gone on from."""

    def end(self) -> None:
        """The run has ended, in whatever way."""


class Bar(Watch):
    """A bar of tqdm that counts the clients' answers, with the last loss and the spent epsilon."""

    def begin(self, task: FederatedTask) -> None:
        self.task, self.said = task, {}
        self.bar = tqdm(total=messages(task, task.rounds), desc="joining", unit="message")

    def doing(self, number: int, text: str) -> None:
        rounds = f"round {number} of {self.task.rounds}: " if number else ""
        self.bar.set_description(f"{rounds}{text}")

    def answered(self, client: str, metrics: Mapping[str, Any]) -> None:
        self.bar.update()

    def evaluated(self, history: History) -> None:
        done = len(history.rounds)
        self.bar.n = messages(self.task, done)  # a resumed run begins in the midst
        last = history.rounds[-1] if done else history.start
        shown = {"eval_loss": f"{last.eval_loss if done else last.loss:.3f}"}
        if done and last.epsilon is not None:
            shown["epsilon"] = f"{last.epsilon:.4g}"  # what it means has no room beside a bar
            self.said = epsilon_said(self.task, last.epsilon)
        self.bar.set_postfix(**shown)

    def end(self) -> None:
        self.bar.close()
        for name, meaning in self.said.items():
            self.bar.write(f"{name} {meaning}")


def watch_of(progress: Any) -> Any:
    """The bar for True, nobody for False; a watch, or anything with its hooks, as it is.

    Raises
    ------
    ValueError
        For anything else.
    """
    if all(callable(getattr(progress, hook, None)) for hook in HOOKS):
        return progress
    if not isinstance(progress, bool):
        raise ValueError(
            f"progress={progress!r}; it is True, False or a Watch, which has {list(HOOKS)}."
        )
    return Bar() if progress else Watch()


def messages(task: FederatedTask, rounds: int) -> int:
    """Answers of clients after so many rounds: who trains, and everybody's evaluations.

    With Poisson sampling, the expected number.

    Examples
    --------
    >>> messages(FederatedTask(num_clients=8, clients_per_round=4), rounds=2)
    32
    """
    return rounds * task.clients_per_round + (rounds + 1) * task.num_clients


def told(reply: Message) -> dict[str, Any]:
    """The numbers of an answer, as they came; none of an error."""
    metrics = reply.content.get(METRICS) if reply.has_content() else None
    return dict(metrics) if isinstance(metrics, MetricRecord) else {}
