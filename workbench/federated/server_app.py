"""The server of a federated run; the same in simulation and in deployment."""

import logging
import pathlib
import time
from typing import Any

import numpy as np
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

from workbench.federated import checkpoint, run_record
from workbench.federated.accounting import epsilon_spent, most_trained
from workbench.federated.checkpoint import Checkpoint
from workbench.federated.client_app import CLIENT, PARTITION, RUN_DIR, TASK
from workbench.federated.client_memory import forget_memories, is_stateful
from workbench.federated.clock import SIMULATED, fewest, may_have_sent, simulated_round
from workbench.federated.history import Evaluation, History, Round
from workbench.federated.joining import check_enough, mean_loss, next_state
from workbench.federated.lora import initial_adapter
from workbench.federated.methods.base import Arrays, ServerState, Update
from workbench.federated.progress import told, watch_of
from workbench.federated.record import note_joined, recorded
from workbench.federated.secagg import secure_round
from workbench.federated.task import FederatedTask, task_in
from workbench.federated.traffic import (
    METRICS,
    count_bytes,
    evaluation_fault,
    packer,
    request,
    specs_of,
)
from workbench.federated.updates import (
    Expected,
    RefusedError,
    read_update,
    state_round,
    too_large,
)
from workbench.federated.waiting import Answers, nodes_there, note_left_out, replies_to

#: Keys of the run's config beside the task and the folder.
PROGRESS, KEEP, RECORD = "progress", "keep", "record"
JOIN_TIMEOUT, ROUND_TIMEOUT = "join-timeout-s", "round-timeout-s"
#: What a Grid in the server's own process may have: who is told how the run goes.
WATCH = "watch"
#: How long the server waits for nodes to join, and for the replies of one exchange [s].
JOIN_TIMEOUT_S, ROUND_TIMEOUT_S = 120.0, 3600.0

log = logging.getLogger(__name__)
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds of the run config's task; leave each in the run config's folder."""
    config = context.run_config
    task, run_dir = task_in(config[TASK]), str(config[RUN_DIR])
    with recorded(config.get(RECORD)):
        watch = getattr(grid, WATCH, None) or bool(config.get(PROGRESS, False))
        server = Server(grid, task, run_dir, watch, bool(config[KEEP]))
        server.join_timeout_s = float(config.get(JOIN_TIMEOUT, JOIN_TIMEOUT_S))
        server.round_timeout_s = float(config.get(ROUND_TIMEOUT, ROUND_TIMEOUT_S))
        server.record = config.get(RECORD)
        server.run()


class Server:
    """The rounds of a task, over any Grid."""

    def __init__(
        self,
        grid: Grid,
        task: FederatedTask,
        run_dir: str,
        progress: Any = False,
        keep: bool = True,
    ):
        self.grid, self.task, self.run_dir = grid, task, pathlib.Path(run_dir)
        self.keep, self.method = keep, task.method
        self.watch = watch_of(progress)
        self.nodes: dict[int, int] = {}
        self.names: dict[int, str] = {}
        self.used = np.zeros(task.num_clients, np.int64)  # each client's last used round
        self.join_timeout_s, self.round_timeout_s = JOIN_TIMEOUT_S, ROUND_TIMEOUT_S
        self.record: str | None = None

    def run(self) -> History:
        """Evaluate the pretrained start, then train, join and evaluate round by round.

        A run that was cut off goes on after the last round that was written.
        """
        self.watch.begin(self.task)
        try:
            self.meet()
            done = checkpoint.latest(self.run_dir, self.task) or self.begin()
            run_record.catch_up(self.run_dir, done.history)
            history, server, self.used = done.history, done.server, done.used
            self.watch.evaluated(history)
            for number in range(len(history.rounds) + 1, self.task.rounds + 1):
                server, done = self.round(server, number, history.rounds)
                rounds = (*history.rounds, done)
                history = History(
                    self.task, history.start, rounds, server.weights, server.base_deltas
                )
                if self.keep or number == self.task.rounds:
                    self.write(Checkpoint(history, server.memory, self.used))
                self.watch.evaluated(history)
        finally:
            self.watch.end()
        return history

    def write(self, state: Checkpoint) -> None:
        """Leave the run as it is now in its folder."""
        checkpoint.write(self.run_dir, state)
        run_record.write(self.run_dir, state.history)

    def begin(self) -> Checkpoint:
        """The run before round 1, with the evaluation of the pretrained start."""
        forget_memories(self.run_dir)
        weights = initial_adapter(self.task)
        server = ServerState(weights, {}, self.method.start(weights, self.task.num_clients))
        self.watch.doing(0, "pretrained start")
        start, _ = self.evaluate(server, 0)
        state = Checkpoint(History(self.task, start, (), weights), server.memory, self.used)
        if self.keep:
            self.write(state)
        return state

    def meet(self) -> None:
        """Wait until all clients have joined, and learn which node is which client."""
        wanted = self.task.num_clients
        nodes = nodes_there(self.grid, lambda there: len(there) >= wanted, self.join_timeout_s)
        if len(nodes) < wanted:
            raise TimeoutError(
                f"{len(nodes)} of {wanted} clients joined in {self.join_timeout_s:g} s: "
                "start the others, or lower num_clients."
            )
        asked = [Message(RecordDict(), node, MessageType.QUERY) for node in nodes]
        for node, reply in replies_to(self.grid, asked, self.round_timeout_s):
            if not reply.has_content():
                raise RuntimeError(f"a client could not start: {reply.error.reason}")
            record = reply.content[CLIENT]
            self.nodes[record[PARTITION]] = node
            self.names[record[PARTITION]] = record["name"]
        if missing := set(range(wanted)) - set(self.nodes):
            raise RuntimeError(f"no node is the client with {PARTITION} {sorted(missing)}")
        note_joined(self.record)

    def wait_for(self, chosen: list[int], number: int) -> None:
        """Wait until enough of a round's clients are there: those that were lost may return."""
        needed = min(self.task.min_clients, len(chosen))
        asked = {self.nodes[client]: self.names[client] for client in chosen}
        there = nodes_there(
            self.grid, lambda there: len(asked.keys() & set(there)) >= needed, self.join_timeout_s
        )
        if len(asked.keys() & set(there)) < needed:
            lost = ", ".join(name for node, name in asked.items() if node not in there)
            raise TimeoutError(
                f"round {number}: {lost} did not return in {self.join_timeout_s:g} s, and "
                f"min_clients is {self.task.min_clients}."
            )

    def round(
        self, server: ServerState, number: int, before: tuple[Round, ...]
    ) -> tuple[ServerState, Round]:
        """One round: the sampled clients train, their updates are joined, all evaluate."""
        started = time.perf_counter()
        self.watch.doing(number, "training")
        merged = sum(len(each.trained) for each in before)
        clock = simulated_round(self.task, number, specs_of(server.weights), merged)
        self.wait_for(list(clock.asked), number)
        sent = {client: self.method.outgoing(server, client) for client in clock.asked}
        answers, valid, failed, joined = self.train(sent, number, clock.left_out)
        away = {self.names[client]: f"not available {SIMULATED}" for client in clock.absent}
        check_enough(self.task, number, fewest(self.task, clock.asked), len(valid), failed | away)
        restarted = self.note_used(answers, valid, number)
        server = next_state(self.task, server, valid, number, joined)
        training_s = time.perf_counter() - started
        evaluation, evaluation_bytes = self.evaluate(server, number)
        trained = {self.names[update.client]: update.loss for update in valid}
        rounds = [*((each.trained, each.failed) for each in before), (trained, failed)]
        most = most_trained(may_have_sent(*each) for each in rounds)
        seconds = time.perf_counter() - started
        return server, Round(
            number=number,
            train_loss=mean_loss(valid),
            evaluation=evaluation,
            uplink_bytes=answers.received_bytes,
            downlink_bytes=answers.sent_bytes,
            evaluation_bytes=evaluation_bytes,
            seconds=seconds,
            evaluation_seconds=seconds - training_s,
            trained=trained,
            failed=failed,
            epsilon=epsilon_spent(self.task, number, most),
            restarted=restarted,
            key_bytes=answers.key_bytes,
            simulated_s=clock.seconds,
        )

    def train(
        self, sent: dict[int, Arrays], number: int, left_out: dict[int, str]
    ) -> tuple[Answers, list[Update], dict[str, str], Arrays | None]:
        """Let clients train; with secure aggregation, only the joined change can be read."""
        if self.task.secure_aggregation is None:
            answers = self.exchange(sent, number, MessageType.TRAIN, left_out)
            return answers, *self.accept(answers, sent), None
        places = (self.nodes, self.names, sent, number, self.round_timeout_s)
        done, joined, updates = secure_round(self.grid, self.task, *places)
        for client in sent:
            self.watch.answered(self.names[client], {})
        failed = {self.names[client]: why for client, why in sorted(done.failed.items())}
        note_left_out(failed)
        answers = Answers({}, failed, done.downlink_bytes, done.uplink_bytes, done.key_bytes)
        return answers, updates, failed, joined

    def accept(
        self, answers: Answers, sent: dict[int, Arrays]
    ) -> tuple[list[Update], dict[str, str]]:
        """Sort the updates into those to be used and those refused, with the reason."""
        failed, references, updates = dict(answers.failed), {}, {}
        for client, content in answers.replies.items():
            expected = Expected.of(self.task, sent[client], client)
            try:
                update = read_update(self.task, content, expected, client)
            except RefusedError as refused:
                failed[self.names[client]] = f"refused: {refused}"
            else:
                updates[client] = update
                references[client] = expected.reference
        for client, reason in too_large(self.task, updates, references).items():
            failed[self.names[client]] = f"refused: {reason}"
        note_left_out(failed)
        return [u for i, u in updates.items() if self.names[i] not in failed], failed

    def note_used(self, answers: Answers, valid: list[Update], number: int) -> dict[str, str]:
        """Remember whose update was used; tell which clients had lost what they keep."""
        restarted = {}
        for client in (update.client for update in valid):
            if is_stateful(self.task):
                last = state_round(answers.replies[client][METRICS])
                if last < self.used[client]:
                    restarted[self.names[client]] = (
                        f"had the state of round {last}, not of {self.used[client]}"
                    )
            self.used[client] = number
        for name, reason in restarted.items():
            log.warning("client %r %s", name, reason)
        return restarted

    def evaluate(self, server: ServerState, number: int) -> tuple[Evaluation, int]:
        """The held-out loss of every client, and the bytes that asking took."""
        sent = {client: self.method.evaluated(server, client) for client in sorted(self.nodes)}
        answers = self.exchange(sent, number, MessageType.EVALUATE, {})
        clients, failed = {}, dict(answers.failed)
        for client, content in answers.replies.items():
            if reason := evaluation_fault(content):
                failed[self.names[client]] = f"refused: {reason}"
            else:
                clients[self.names[client]] = dict(content[METRICS])
        for name, reason in failed.items():
            log.warning("client %r not evaluated: %s", name, reason)
        return Evaluation.over(clients, failed), answers.sent_bytes + answers.received_bytes

    def exchange(
        self, weights: dict[int, Arrays], number: int, kind: str, left_out: dict[int, str]
    ) -> Answers:
        """Send arrays to some clients and collect their answers, ordered by partition.

        What is sent to a client that is ``left_out`` counts, but nothing comes back.
        """
        packed, partition = packer(), {node: client for client, node in self.nodes.items()}
        used = self.used.tolist() if is_stateful(self.task) else [None] * len(self.used)
        asked = {c: request(packed(arrays), number, used[c]) for c, arrays in weights.items()}
        group = {"message_type": kind, "group_id": str(number)}
        messages = {c: Message(content, self.nodes[c], **group) for c, content in asked.items()}
        sent = {client: count_bytes(message) for client, message in messages.items()}
        replies, received = {}, 0
        failed = dict.fromkeys(sent, f"no answer within {self.round_timeout_s:g} s") | left_out
        for client in left_out:
            self.watch.answered(self.names[client], {})
        there = [message for client, message in messages.items() if client not in left_out]
        for node, reply in replies_to(self.grid, there, self.round_timeout_s):
            client = partition[node]
            received += count_bytes(reply)
            if reply.has_content():
                replies[client] = reply.content
                del failed[client]
            else:
                failed[client] = reply.error.reason
            self.watch.answered(self.names[client], told(reply))
        return Answers(
            dict(sorted(replies.items())),
            {self.names[client]: reason for client, reason in sorted(failed.items())},
            sum(sent.values()),
            received,
        )
