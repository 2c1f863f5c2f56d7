"""The server of a federated run; the same in simulation and in deployment."""

import logging
import pathlib
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from tqdm.auto import tqdm

from workbench.federated.client_app import CLIENT, PARTITION, TASK
from workbench.federated.history import Evaluation, History, Round
from workbench.federated.lora import initial_adapter
from workbench.federated.partition import SAMPLE, generator
from workbench.federated.task import FederatedTask
from workbench.federated.traffic import (
    ARRAYS,
    EXAMPLES,
    METRICS,
    TRAIN_LOSS,
    count_bytes,
    evaluation_fault,
    fault,
    largest_norm,
    pack,
    request,
    unpack,
    update_norm,
)

#: Keys of the run's config beside the task.
RUN_DIR, PROGRESS = "run-dir", "progress"
#: How long the server waits for nodes to join, and for the replies of one exchange [s].
JOIN_TIMEOUT_S, ROUND_TIMEOUT_S = 120.0, 3600.0
#: How often it asks for replies that have not come yet [s].
POLL_S = 0.05
#: Rounds whose state is kept in a run's folder.
KEPT_ROUNDS = 2

log = logging.getLogger(__name__)
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds of the run config's task; leave each in the run config's folder."""
    config = context.run_config
    task = FederatedTask.from_json(str(config[TASK]))
    Server(grid, task, str(config[RUN_DIR]), bool(config.get(PROGRESS, False))).run()


@dataclass(frozen=True)
class Answers:
    """The replies of one exchange by partition, who failed and why, and the bytes both ways."""

    replies: dict[int, Message]
    failed: dict[str, str]
    sent_bytes: int
    received_bytes: int


class Server:
    """The rounds of a task, over any Grid."""

    def __init__(self, grid: Grid, task: FederatedTask, run_dir: str, progress: bool = False):
        self.grid, self.task, self.run_dir = grid, task, pathlib.Path(run_dir)
        total = task.rounds * task.clients_per_round + (task.rounds + 1) * task.num_clients
        self.bar = tqdm(total=total, disable=not progress, desc="joining", unit="message")
        self.strategy = FedAvg(weighted_by_key=EXAMPLES)
        self.nodes: dict[int, int] = {}
        self.names: dict[int, str] = {}

    def run(self) -> History:
        """Evaluate the pretrained start, then train, join and evaluate round by round."""
        with self.bar:
            self.meet()
            arrays = pack(initial_adapter(self.task))
            self.bar.set_description("pretrained start")
            start, _ = self.evaluate(arrays, 0)
            history = History(self.task, start, (), unpack(arrays))
            for number in range(1, self.task.rounds + 1):
                arrays, done = self.round(arrays, number)
                history = History(self.task, start, (*history.rounds, done), unpack(arrays))
                self.keep(history)
        return history

    def meet(self) -> None:
        """Wait until all clients have joined, and learn which node is which client."""
        deadline = time.monotonic() + JOIN_TIMEOUT_S
        while len(nodes := sorted(self.grid.get_node_ids())) < self.task.num_clients:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{len(nodes)} of {self.task.num_clients} clients joined in "
                    f"{JOIN_TIMEOUT_S:g} s: start the others, or lower num_clients."
                )
            time.sleep(POLL_S)
        for reply in self.replies(Message(RecordDict(), node, MessageType.QUERY) for node in nodes):
            if not reply.has_content():
                raise RuntimeError(f"a client could not start: {reply.error.reason}")
            record = reply.content[CLIENT]
            self.nodes[record[PARTITION]] = reply.metadata.src_node_id
            self.names[record[PARTITION]] = record["name"]
        if missing := set(range(self.task.num_clients)) - set(self.nodes):
            raise RuntimeError(f"no node is the client with {PARTITION} {sorted(missing)}")

    def round(self, arrays: ArrayRecord, number: int) -> tuple[ArrayRecord, Round]:
        """One round: the sampled clients train, their updates are joined, all evaluate."""
        started = time.perf_counter()
        self.bar.set_description(f"round {number} of {self.task.rounds}: training")
        answers = self.exchange(arrays, number, MessageType.TRAIN, sample(self.task, number))
        valid, failed = self.accept(answers, unpack(arrays))
        if len(valid) < self.task.min_clients:
            raise RuntimeError(
                f"round {number}: {len(valid)} valid updates, min_clients is "
                f"{self.task.min_clients}. " + "; ".join(f"{k}: {v}" for k, v in failed.items())
            )
        joined, metrics = self.strategy.aggregate_train(number, list(valid.values()))
        training_s = time.perf_counter() - started
        evaluation, evaluation_bytes = self.evaluate(joined, number)
        self.bar.set_postfix(eval_loss=f"{evaluation.loss:.3f}")
        seconds = time.perf_counter() - started
        return joined, Round(
            number=number,
            train_loss=metrics[TRAIN_LOSS],
            evaluation=evaluation,
            uplink_bytes=answers.received_bytes,
            downlink_bytes=answers.sent_bytes,
            evaluation_bytes=evaluation_bytes,
            seconds=seconds,
            evaluation_seconds=seconds - training_s,
            trained={self.names[i]: m.content[METRICS][TRAIN_LOSS] for i, m in valid.items()},
            failed=failed,
        )

    def accept(
        self, answers: Answers, sent: dict[str, Any]
    ) -> tuple[dict[int, Message], dict[str, str]]:
        """Sort the updates into those to be used and those refused, with the reason."""
        failed, norms = dict(answers.failed), {}
        for client, reply in answers.replies.items():
            if reason := fault(reply.content, sent):
                failed[self.names[client]] = f"refused: {reason}"
            else:
                norms[client] = update_norm(reply.content[ARRAYS], sent)
        limit = largest_norm(list(norms.values()), self.task)
        for client, norm in norms.items():
            if norm > limit:
                failed[self.names[client]] = f"refused: norm {norm:.3g} is above {limit:.3g}"
        for name, reason in failed.items():
            log.warning("client %s left out: %s", name, reason)
        used = {i: answers.replies[i] for i in norms if self.names[i] not in failed}
        return used, failed

    def evaluate(self, arrays: ArrayRecord, number: int) -> tuple[Evaluation, int]:
        """The held-out loss of every client, and the bytes that asking took."""
        answers = self.exchange(arrays, number, MessageType.EVALUATE, sorted(self.nodes))
        clients, failed = {}, dict(answers.failed)
        for client, reply in answers.replies.items():
            if reason := evaluation_fault(reply.content):
                failed[self.names[client]] = f"refused: {reason}"
            else:
                clients[self.names[client]] = dict(reply.content[METRICS])
        for name, reason in failed.items():
            log.warning("client %s not evaluated: %s", name, reason)
        evaluation = Evaluation.over(clients, failed)
        return evaluation, answers.sent_bytes + answers.received_bytes

    def exchange(
        self, arrays: ArrayRecord, number: int, kind: str, clients: Iterable[int]
    ) -> Answers:
        """Send the adapter to some clients and collect their answers, ordered by partition."""
        messages = [
            Message(request(arrays, number), self.nodes[client], kind, group_id=str(number))
            for client in clients
        ]
        partition = {node: client for client, node in self.nodes.items()}
        sent = {partition[m.metadata.dst_node_id]: count_bytes(m) for m in messages}
        replies, received = {}, 0
        failed = dict.fromkeys(sent, f"no answer within {ROUND_TIMEOUT_S:g} s")
        for reply in self.replies(messages):
            client = partition[reply.metadata.src_node_id]
            received += count_bytes(reply)
            if reply.has_content():
                replies[client] = reply
                del failed[client]
            else:
                failed[client] = reply.error.reason
        return Answers(
            dict(sorted(replies.items())),
            {self.names[client]: reason for client, reason in sorted(failed.items())},
            sum(sent.values()),
            received,
        )

    def replies(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Send messages; yield each reply as it comes, until all have or the time is over."""
        waiting = set(self.grid.push_messages(messages))
        deadline = time.monotonic() + ROUND_TIMEOUT_S
        while waiting and time.monotonic() < deadline:
            arrived = list(self.grid.pull_messages(waiting))
            for reply in arrived:
                waiting.discard(reply.metadata.reply_to_message_id)
                if reply.metadata.message_type != MessageType.QUERY:
                    self.bar.update()
                yield reply
            if not arrived:
                time.sleep(POLL_S)

    def keep(self, history: History) -> None:
        """Write the run so far into its folder; only the last rounds' folders are kept."""
        number = history.rounds[-1].number
        history.save(self.run_dir / f"round-{number:04d}")
        for old in sorted(self.run_dir.glob("round-????"))[:-KEPT_ROUNDS]:
            shutil.rmtree(old)


def sample(task: FederatedTask, number: int) -> list[int]:
    """The clients that train in a round: drawn from the seed, in the order of their partition."""
    draw = generator(task.seed, SAMPLE, number)
    return sorted(draw.choice(task.num_clients, task.clients_per_round, replace=False).tolist())
