"""Waiting for nodes and for their replies, over any Grid, and never for ever."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

#: How long to wait before asking again, at first and at most [s].
POLL_S, LONGEST_POLL_S = 0.05, 0.5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answers:
    """What the replies of one exchange hold, by partition; who failed; the bytes both ways."""

    replies: dict[int, RecordDict]
    failed: dict[str, str]
    sent_bytes: int
    received_bytes: int
    key_bytes: int = 0


def nodes_there(grid: Grid, enough: Callable[[list[int]], bool], timeout_s: float) -> list[int]:
    """The nodes that are connected, in order, as soon as they are enough or the time is over."""
    deadline = time.monotonic() + timeout_s
    while not enough(nodes := sorted(grid.get_node_ids())) and time.monotonic() < deadline:
        time.sleep(min(LONGEST_POLL_S, max(0.0, deadline - time.monotonic())))
    return nodes


def replies_to(
    grid: Grid, messages: Iterable[Message], timeout_s: float
) -> Iterator[tuple[int, Message]]:
    """Send messages; yield each reply and the node asked, until all have come or it is too late.

    An error's own sender may be the SuperLink, so the node is the one that was asked.
    """
    messages = list(messages)  # a deployment's Grid goes through them twice
    pushed = zip(grid.push_messages(messages), messages, strict=False)
    waiting = {key: each.metadata.dst_node_id for key, each in pushed if key is not None}
    deadline, pause = time.monotonic() + timeout_s, POLL_S
    while waiting and time.monotonic() < deadline:
        arrived = list(grid.pull_messages(list(waiting)))
        for reply in arrived:
            yield waiting.pop(reply.metadata.reply_to_message_id), reply
        if arrived:
            pause = POLL_S
        else:
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_POLL_S)


def note_left_out(failed: Mapping[str, str]) -> None:
    """Log who is left out of a round, and why."""
    for name, reason in failed.items():
        log.warning("client %r left out: %s", name, reason)
