"""Flower's Grid without processes: clients work one after another where the server is."""

import copy
import itertools
import logging
import math
import traceback
from collections.abc import Iterable
from contextlib import contextmanager
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

#: Flower's code for a client that raised. Source: flwr.common.constant.ErrorCode.
CLIENT_RAISED = 2
#: Clients in this process answer one after another, as long as it takes, and none gets lost [s].
ROUND_TIMEOUT_S = math.inf
#: What can't be changed needs no copy.
_AS_THEY_ARE = frozenset((type(None), bool, int, float, str, bytes))


class InProcessGrid(Grid):
    """Runs a ClientApp for each message, when its reply is asked for.

    Content is copied both ways, as if it had travelled; a client that raises answers with an
    Error; each client keeps its own Context between messages.
    """

    def __init__(self, client_app: ClientApp, num_clients: int, run_config: dict):
        self._app, self._waiting = client_app, {}
        self._numbers = itertools.count(1)
        self._run = Run.create_empty(run_id=1)
        self._contexts = {
            partition + 1: Context(
                run_id=1,
                node_id=partition + 1,
                node_config={"partition-id": partition, "num-partitions": num_clients},
                state=RecordDict(),
                run_config=dict(run_config),
            )
            for partition in range(num_clients)
        }

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = []
        for message in messages:
            number = str(next(self._numbers))
            message.metadata.__dict__["_message_id"] = number
            self._waiting[number] = message
            sent.append(number)
        return sent

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Let the next client work; its reply is the only one in the list."""
        asked = set(message_ids)
        for number in self._waiting:
            if number in asked:
                return [self._answer(self._waiting.pop(number))]
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return [self._answer(self._waiting.pop(n)) for n in self.push_messages(messages)]

    def _answer(self, message: Message) -> Message:
        """Let a client work on a copy, made only now: one is alive at a time, however many wait."""
        try:
            context = self._contexts[message.metadata.dst_node_id]
            reply = copied(self._app(copied(message), context))
        except Exception as error:
            reason = traceback.format_exception_only(error)[-1].strip()
            reply = Message(Error(CLIENT_RAISED, reason), reply_to=message)
        reply.metadata.__dict__["_message_id"] = str(next(self._numbers))
        return reply


def copied(thing: Any) -> Any:
    """A deep copy of a message; a fifth of the time of `copy.deepcopy`, which looks for cycles.

    Examples
    --------
    >>> from flwr.app import ConfigRecord, RecordDict
    >>> sent = RecordDict({"config": ConfigRecord({"rounds": [1, 2]})})
    >>> arrived = copied(sent)
    >>> arrived["config"]["rounds"].append(3)
    >>> sent["config"]["rounds"], arrived["config"]["rounds"]
    ([1, 2], [1, 2, 3])
    """
    kind = type(thing)
    if kind in _AS_THEY_ARE or callable(thing):
        return thing
    if kind is dict:
        return {key: copied(value) for key, value in thing.items()}
    if kind is list:
        return [copied(value) for value in thing]
    if isinstance(thing, str | bytes | int | float):
        return thing
    if isinstance(thing, dict | list) or not hasattr(thing, "__dict__"):
        return copy.deepcopy(thing)
    twin = object.__new__(kind)
    twin.__dict__.update(copied(thing.__dict__))
    return twin


@contextmanager
def task_identity():
    """Tell Flower which run its messages are of; what it knew before is put back afterwards."""
    names = ("_task_id", "_run_id", "_node_id")
    before = {name: getattr(TaskIdentity, name) for name in names}
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(TaskIdentity, name, value)


@contextmanager
def quiet_flower():
    """Leave reporting to the rounds: Flower logs each step, and each failure twice."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
