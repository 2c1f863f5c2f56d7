"""The server's side of secure aggregation: Flower's SecAgg+ over any Grid, and what it saw.

Flower has the protocol in its legacy API only: `SecAggPlusWorkflow` on the server, `secaggplus_mod`
on a client. Both are used as they are, but for clients that are lost before they have shared keys:
there Flower's workflow ends without a word. Keys and masks are random anew in each run; they cancel
to the last unit, so the sum has the same bits again.

Flower stretches a mask from 32 bits of a key by NumPy's Mersenne Twister
(flwr.common.secure_aggregation.secaggplus_utils.pseudo_rand_gen). Whoever tries all 2^32 seeds
finds it, so this shows how the protocol works, and stops nobody who computes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.serverapp import Grid

from workbench.federated.in_process import quiet_flower
from workbench.federated.masking import PROTOCOL, stage_of
from workbench.federated.methods.base import Arrays
from workbench.federated.options.compression import Specs
from workbench.federated.options.secure_aggregation import MODULUS, SecAggPlus
from workbench.federated.traffic import METRICS, count_bytes, metrics_fault
from workbench.federated.waiting import replies_to

#: The protocol's messages in order, by Flower's names: public keys, shares of secret ones, the
#: masked change, and the shares that take the masks away.
STAGES = ("setup", "share_keys", "collect_masked_vectors", "unmask")
SETUP, SHARE_KEYS, COLLECT, UNMASK = STAGES
#: What a client's answer in each stage holds.
ANSWERS = {
    SETUP: {Key.PUBLIC_KEY_1, Key.PUBLIC_KEY_2},
    SHARE_KEYS: {Key.DESTINATION_LIST, Key.CIPHERTEXT_LIST},
    COLLECT: {Key.MASKED_PARAMETERS},
    UNMASK: {Key.NODE_ID_LIST, Key.SHARE_LIST},
}


@dataclass(frozen=True)
class SecureSum:
    """What the server has after the protocol, and all that it has seen.

    Parameters
    ----------
    mean : dict
        The weighted mean of the changes, in float64; no arrays if the protocol could not end.
    replies : dict
        Client -> what came with its masked change, in the clear.
    masked : dict
        Client -> its masked change, whole numbers below 2^32.
    failed : dict
        Client -> why no masked change of it is in the sum.
    uplink_bytes, downlink_bytes : int
        Flower's count of the masked changes and what came with them, and of what the clients were
        sent to train on.
    key_bytes : int
        The same for keys and shares, both ways.
    levels : int
        Into how many levels changes were quantised.
    broken : str
        Why the protocol could not end though enough answered, if so.
    """

    mean: Arrays
    replies: dict[int, RecordDict]
    masked: dict[int, Arrays]
    failed: dict[int, str]
    uplink_bytes: int
    downlink_bytes: int
    key_bytes: int
    levels: int
    broken: str = ""


@dataclass
class Watched:
    """A Grid as Flower's workflow uses it: it keeps what comes, and who failed and why."""

    grid: Grid
    contents: dict[int, RecordDict]
    clients: dict[int, int]
    specs: Specs
    timeout_s: float
    replies: dict[int, RecordDict] = field(default_factory=dict)
    masked: dict[int, Arrays] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0, "keys": 0})

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send one stage's messages; only answers that can be used are handed on."""
        messages = list(messages)
        stage = stage_of(messages[0])
        asked = {each.metadata.dst_node_id: each for each in messages}
        self.bytes["keys"] += sum(protocol_bytes(each.content) for each in messages)
        if stage == COLLECT:
            self._add_requests(messages)
        reasons = dict.fromkeys(asked, f"no answer in {self.timeout_s:g} s")
        usable = []
        for node, answer in replies_to(self.grid, messages, self.timeout_s):
            if stage == COLLECT:
                self.bytes["up"] += count_bytes(answer)
            elif answer.has_content():
                self.bytes["keys"] += protocol_bytes(answer.content)
            reasons[node] = self._fault(stage, answer, asked[node])
            if reasons[node] is None:
                usable.append(answer)
                if stage == COLLECT:
                    self._keep(node, answer.content)
        for node, why in reasons.items():
            if why is not None:
                self.failed[self.clients[node]] = f"{why} ({stage})"
        return usable

    def _add_requests(self, messages: Sequence[Message]) -> None:
        """Put what a client trains on into the message that asks for its masked change."""
        for message in messages:
            for legacy in ("fitins.parameters", "fitins.config"):
                del message.content[legacy]
            request = self.contents[message.metadata.dst_node_id]
            message.content.update(request)
            self.bytes["down"] += sum(record.count_bytes() for record in request.values())

    def _fault(self, stage: str, answer: Message, asked: Message) -> str | None:
        """Why an answer can't be used; ``None`` if it can."""
        if not answer.has_content():
            return str(answer.error.reason)
        record = answer.content.get(PROTOCOL)
        if not isinstance(record, ConfigRecord) or not ANSWERS[stage] <= set(record):
            return f"refused: no {sorted(ANSWERS[stage])} in the answer"
        if stage != COLLECT:
            good = _has_shares(stage, record, asked)
            return None if good else f"refused: {sorted(ANSWERS[stage])} are not what was asked for"
        try:
            arrays = _numbers(record)
        except Exception as error:  # bytes that lie can make NumPy raise almost anything
            return f"refused: the masked change can't be read: {type(error).__name__}"
        shapes = [(1,), *(spec.shape or (1,) for spec in self.specs.values())]
        if [getattr(a, "shape", None) for a in arrays] != shapes:
            return "refused: the masked change has other shapes"
        if any(a.dtype != np.int64 for a in arrays):
            return "refused: the masked change has other types"
        if any(a.size and not 0 <= a.min() <= a.max() < MODULUS for a in arrays):
            return "refused: the masked change has numbers outside of 0 to 2^32 - 1"
        metrics = answer.content.get(METRICS)
        reason = "no metrics" if metrics is None else metrics_fault(metrics)
        return reason and f"refused: {reason}"

    def _keep(self, node: int, content: RecordDict) -> None:
        _, *numbers = _numbers(content[PROTOCOL])
        client = self.clients[node]
        self.masked[client] = self.shaped(numbers)
        self.replies[client] = content

    def shaped(self, numbers: Sequence[np.ndarray]) -> Arrays:
        """The numbers by name, those of one number with no dims again."""
        named = zip(self.specs.items(), numbers, strict=True)
        return {name: each.reshape(spec.shape) for (name, spec), each in named}


def _has_shares(stage: str, record: ConfigRecord, asked: Message) -> bool:
    """Whether keys or shares are there for those that were asked about, each once."""
    said = asked.content[PROTOCOL]
    if stage == SETUP:
        return all(isinstance(record[key], bytes) for key in ANSWERS[SETUP])
    if stage == SHARE_KEYS:
        whom, shares = record[Key.DESTINATION_LIST], record[Key.CIPHERTEXT_LIST]
        wanted = {int(node) for node in said if node != Key.STAGE} - {asked.metadata.dst_node_id}
    else:
        whom, shares = record[Key.NODE_ID_LIST], record[Key.SHARE_LIST]
        wanted = {*said[Key.ACTIVE_NODE_ID_LIST], *said[Key.DEAD_NODE_ID_LIST]}
    lists = isinstance(whom, list) and isinstance(shares, list) and len(whom) == len(shares)
    return lists and sorted(whom) == sorted(wanted) and all(type(x) is bytes for x in shares)


def protocol_bytes(content: RecordDict) -> int:
    """Flower's count of the keys and shares in a message; it can't count an empty list itself."""
    record = content.get(PROTOCOL, ConfigRecord())
    full = ConfigRecord({key: value for key, value in record.items() if value != []})
    return full.count_bytes() + sum(len(key) for key in record if key not in full)


def _numbers(record: ConfigRecord) -> list[np.ndarray]:
    from flwr.common import bytes_to_ndarray

    return [bytes_to_ndarray(each) for each in record[Key.MASKED_PARAMETERS]]


def run_protocol(
    watched: Watched, option: SecAggPlus, weights: tuple[int, int], number: int = 1
) -> SecureSum:
    """Let Flower's workflow sum what the clients of ``watched.contents`` hand in.

    Parameters
    ----------
    weights : tuple of two int
        The smallest and the largest weight that a client may have.
    number : int
        The round.
    """
    nodes = list(watched.contents)
    strategy = _Strategy(nodes)
    context = _context(strategy, number)
    least, most = weights
    levels = option.levels(len(nodes), most / least)
    workflow = _workflow(option, len(nodes), most, levels)
    before, broken = context.state["parameters"], ""
    try:
        with quiet_flower():
            workflow(watched, context)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        broken = f"shares do not make a key ({type(error).__name__}: {error})"
    mean: Arrays = {}
    if context.state["parameters"] is not before:  # the workflow ends without a word if it can't
        mean = watched.shaped([each.numpy() for each in context.state["parameters"].values()])
        if not all((np.abs(a) <= option.clipping_range + option.step).all() for a in mean.values()):
            mean, broken = {}, "their sum is none of clipped changes: somebody's numbers lie"
    failed = {n: why for n, why in watched.failed.items() if not (mean and n in watched.masked)}
    count = watched.bytes
    return SecureSum(
        mean,
        watched.replies,
        watched.masked,
        failed,
        count["up"],
        count["down"],
        count["keys"],
        levels,
        broken,
    )


def _workflow(option: SecAggPlus, clients: int, most: int, levels: int) -> Any:
    """Flower's workflow, in which also clients may be lost that have not shared keys yet."""
    from flwr.server.workflow import SecAggPlusWorkflow

    class Workflow(SecAggPlusWorkflow):
        def share_keys_stage(self, grid: Any, context: Any, state: Any) -> bool:
            super().share_keys_stage(grid, context, state)
            there = set(state.active_node_ids)  # no other's mask is in the sum
            state.sampled_node_ids = there
            state.nid_to_neighbours = {n: state.nid_to_neighbours[n] & there for n in there}
            return len(there) >= state.threshold

    return Workflow(
        num_shares=1.0,  # each client gives a share to every other
        reconstruction_threshold=option.needed(clients),
        max_weight=float(most),
        clipping_range=float(option.clipping_range),
        quantization_range=levels,
    )


@dataclass
class _Strategy:
    """The part of a legacy strategy that the workflow calls: these clients, and their sum."""

    nodes: list[int]

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> list:
        from flwr.common import FitIns, Parameters

        empty = FitIns(Parameters([], "numpy.ndarray"), {})
        return [(SimpleNamespace(node_id=node), empty) for node in self.nodes]

    def aggregate_fit(self, server_round: int, results: list, failures: list) -> tuple[Any, dict]:
        return results[0][1].parameters, {}  # the same sum stands in every result


def _context(strategy: _Strategy, number: int) -> Any:
    from flwr.server import LegacyContext

    state = RecordDict(
        {"config": ConfigRecord({"current_round": number}), "parameters": ArrayRecord()}
    )
    plain = Context(run_id=1, node_id=0, node_config={}, state=state, run_config={})
    manager = SimpleNamespace(num_available=lambda: len(strategy.nodes))
    return LegacyContext(plain, strategy=strategy, client_manager=manager)
