"""How long one collective takes on the wires of a cluster: alpha and beta, by algorithm and place.

The ranks of a group stand ``stride`` apart, node after node. Within a node each rank has the
link to itself; between nodes each has its share of the node's network interfaces.
"""

from math import ceil, log2
from typing import NamedTuple

from workbench.cluster import Cluster
from workbench.collectives import SENT_PER_INPUT_BYTE


class Placement(NamedTuple):
    """How a group of ranks lies on nodes: on how many, and the most and the fewest on one."""

    nodes: int
    most: int
    fewest: int


def place(ranks: int, gpus_per_node: int, stride: int = 1) -> Placement:
    """Lay ``ranks`` that stand ``stride`` apart on nodes.

    Examples
    --------
    >>> place(16, 8), place(2, 8, stride=8), place(12, 8)
    (Placement(nodes=2, most=8, fewest=8), Placement(nodes=2, most=1, fewest=1), \
Placement(nodes=2, most=8, fewest=4))
    """
    most = min(ranks, max(1, gpus_per_node // stride))
    nodes = -(-ranks // most)
    return Placement(nodes, most, ranks - (nodes - 1) * most)


def collective_seconds(
    kind: str, input_bytes: float, ranks: int, cluster: Cluster, *, stride: int = 1
) -> float:
    """Seconds that one collective takes, if all ranks begin together [s].

    Parameters
    ----------
    kind : str
        A key of `workbench.collectives.SENT_PER_INPUT_BYTE`.
    input_bytes : float
        What each rank hands over [bytes].
    ranks : int
        In the group.
    cluster : Cluster
        Where they are.
    stride : int
        How far apart neighbours of the group are among all ranks: 1, if they fill a node first.

    Notes
    -----
    An all-to-all sends ``1/ranks`` of the buffer to each peer; what leaves the node goes through
    the rank's share of the network. Rings follow the nodes, so that one link in ``most`` crosses;
    a collective's ring is laid as often as a node has ranks, each through another interface,
    while a `ring_shift` has to send its whole buffer through one. An all-reduce takes the better
    of a ring's latency and a tree's. Left out: contention with other groups' transfers but for
    the network's shares, protocols for small messages, and waiting for late ranks.

    Sources: Thakur, Rabenseifner & Gropp (2005), IJHPCA 19(1):49-66, for the forms; NVIDIA/nccl
    src/graph/tuning.cc for steps within and between nodes.

    Examples
    --------
    >>> from workbench.cluster import CLUSTERS
    >>> box = CLUSTERS["dgx-h100"]
    >>> inside, across = (collective_seconds("all_to_all", 1e9, p, box) for p in (8, 16))
    >>> round(inside * 1e3, 2), round(across * 1e3, 1)  # 0.875 GB at 370 GB/s; 0.5 at 48.5
    (2.38, 10.3)
    """
    if ranks == 1:
        return 0.0
    at = place(ranks, cluster.gpus_per_node, stride)
    assert at.nodes == 1 or cluster.inter is not None, "checked by Cluster.check_ranks"
    if kind == "all_to_all":
        return _all_to_all(input_bytes, ranks, cluster, at)
    return _ring(kind, input_bytes, ranks, cluster, at)


def _all_to_all(input_bytes: float, ranks: int, cluster: Cluster, at: Placement) -> float:
    each, link = input_bytes / ranks, cluster.intra
    alpha = link.alpha("all_to_all") + (at.most > 1) * link.step_s + (ranks - 1) * link.message_s
    inside = (at.most - 1) * each / link.bandwidth("all_to_all")
    if at.nodes == 1:
        return alpha + inside
    across = (ranks - at.fewest) * each / cluster.nic_bytes_per_s
    return alpha + cluster.inter.step_s + max(inside, across)


def _ring(kind: str, input_bytes: float, ranks: int, cluster: Cluster, at: Placement) -> float:
    numerator, denominator = SENT_PER_INPUT_BYTE[kind](ranks)
    sent = input_bytes * numerator / denominator
    link, network = cluster.intra, cluster.inter
    rounds = 2 if kind == "all_reduce" else 1
    steps = 1 if kind == "ring_shift" else rounds * (ranks - 1)
    beta = sent / link.bandwidth(kind) if at.most > 1 else 0.0
    if at.nodes == 1:
        alpha = steps * link.step_s
    else:
        crossing = min(steps, rounds * (at.nodes - 1)) if steps > 1 else 1
        alpha = (steps - crossing) * link.step_s + crossing * network.step_s
        lanes = 1 if kind == "ring_shift" else at.fewest
        beta = max(beta, sent / (lanes * cluster.nic_bytes_per_s))
    if kind == "all_reduce":
        levels = ceil(log2(at.nodes))
        tree = (at.most - 1) * link.step_s + (levels * network.step_s if levels else 0.0)
        alpha = min(alpha, rounds * tree)
    return link.alpha(kind) + alpha + beta
