"""How long one collective takes on the wires of a cluster: alpha and beta, by algorithm and place.

The ranks of a group stand ``stride`` apart, node after node. Within a node each rank has the
link to itself; between nodes each has its share of the node's network interfaces.
"""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from math import ceil, inf, log2
from typing import NamedTuple

from workbench.cluster import Cluster
from workbench.collectives import SENT_PER_INPUT_BYTE
from workbench.dims import check_count


class Placement(NamedTuple):
    """How a group of ranks lies on nodes: on how many, and the most and the fewest on one."""

    nodes: int
    most: int
    fewest: int


def place(ranks: int, gpus_per_node: int, stride: int = 1, first: int = 0) -> Placement:
    """Lay ``ranks`` that stand ``stride`` apart on nodes, from rank ``first`` on.

    Examples
    --------
    >>> place(16, 8), place(2, 8, stride=8), place(12, 8)
    (Placement(nodes=2, most=8, fewest=8), Placement(nodes=2, most=1, fewest=1), \
Placement(nodes=2, most=8, fewest=4))
    >>> place(2, 3), place(2, 3, first=2)  # within a node, and on either side of its end
    (Placement(nodes=1, most=2, fewest=2), Placement(nodes=2, most=1, fewest=1))
    """
    on_node = Counter((first + i * stride) // gpus_per_node for i in range(ranks))
    return Placement(len(on_node), max(on_node.values()), min(on_node.values()))


@lru_cache(maxsize=1024)
def placements(
    ranks: int, gpus_per_node: int, stride: int = 1, p: int | None = None
) -> frozenset[Placement]:
    """How the groups lie that ``p`` ranks make, each of ``ranks`` that stand ``stride`` apart.

    Where nodes end within groups, they differ. ``None``: one group alone, from rank 0 on.

    Examples
    --------
    >>> sorted(placements(2, 3, p=6))  # {0, 1} and {4, 5} within nodes, {2, 3} on two
    [Placement(nodes=1, most=2, fewest=2), Placement(nodes=2, most=1, fewest=1)]
    """
    if p is None:
        return frozenset([place(ranks, gpus_per_node, stride)])
    groups = p // (ranks * stride)
    outer = {i * ranks * stride % gpus_per_node for i in range(min(groups, gpus_per_node))}
    firsts = {(start + i) % gpus_per_node for start in outer for i in range(stride)}
    return frozenset(place(ranks, gpus_per_node, stride, first) for first in firsts)


def collective_seconds(
    kind: str,
    input_bytes: float,
    ranks: int,
    cluster: Cluster,
    *,
    stride: int = 1,
    p: int | None = None,
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
    p : int or None
        Ranks of all such groups, which begin together: the one that lies worst decides. ``None``:
        one group alone.

    Notes
    -----
    An all-to-all sends ``1/ranks`` of the buffer to each peer; what leaves the node goes through
    the network interfaces that the node's ranks share. The hierarchical one sends whole buffers
    twice, within nodes and then between them, in fewer messages. Rings follow the nodes, so that
    one link in ``most`` crosses; a collective's ring is laid as often as a node has ranks, each
    through another interface, while a `ring_shift` sends its whole buffer from one rank of a
    node. Groups that begin together share the interfaces. An all-reduce takes the better of a
    ring's latency and a tree's. Left out: contention with other groups' transfers but for
    the network's shares, protocols for small messages, and waiting for late ranks.

    Sources: Thakur, Rabenseifner & Gropp (2005), IJHPCA 19(1):49-66, for the forms; NVIDIA/nccl
    src/graph/tuning.cc for steps within and between nodes; Rajbhandari et al. (2022),
    DeepSpeed-MoE, arXiv:2201.05596, for the hierarchical all-to-all.

    Examples
    --------
    >>> from workbench.cluster import CLUSTERS
    >>> box = CLUSTERS["dgx-h100"]
    >>> inside, across = (collective_seconds("all_to_all", 1e9, p, box) for p in (8, 16))
    >>> round(inside * 1e3, 2), round(across * 1e3, 1)  # 0.875 GB at 370 GB/s; 0.5 at 48.5
    (2.38, 10.3)
    """
    if kind not in SENT_PER_INPUT_BYTE:
        known = ", ".join(SENT_PER_INPUT_BYTE)
        raise ValueError(f"kind={kind!r} is no collective; known are {known}")
    check_count("ranks", ranks)
    if not 0 <= input_bytes < inf:
        raise ValueError(f"input_bytes={input_bytes!r}: a size, 0 or more")
    if ranks == 1:
        return 0.0
    lying = placements(ranks, cluster.gpus_per_node, stride, p)
    if crosses(lying) and cluster.inter is None:
        raise ValueError(
            f"{ranks} ranks, {stride} apart, are on several nodes, and nothing joins those of "
            f"cluster {cluster.name!r}: give it inter= and nodes="
        )
    alone = p is None or p <= ranks
    if kind == "all_to_all":
        return max(_all_to_all(input_bytes, ranks, cluster, at, alone) for at in lying)
    return max(_ring(kind, input_bytes, ranks, cluster, at, alone) for at in lying)


def crosses(lying: Iterable[Placement]) -> bool:
    """Tell whether any of the groups has ranks on several nodes."""
    return any(at.nodes > 1 for at in lying)


def _alpha(kind: str, cluster: Cluster, at: Placement) -> float:
    """What a collective takes whatever its size: of the links that it uses the slower one's."""
    inside = cluster.intra.alpha(kind) if at.most > 1 else 0.0
    return inside if at.nodes == 1 else max(inside, cluster.inter.alpha(kind))


def _sharing(cluster: Cluster, at: Placement, sending: int, alone: bool) -> int:
    """How many of a node's ranks send out of it, if so many of each group on it do."""
    groups = 1 if alone else -(-cluster.gpus_per_node // at.most)
    return min(sending * groups, max(sending, cluster.gpus_per_node))


def _all_to_all(
    input_bytes: float, ranks: int, cluster: Cluster, at: Placement, alone: bool
) -> float:
    kind, each, link = "all_to_all", input_bytes / ranks, cluster.intra
    alpha = _alpha(kind, cluster, at) + (at.most > 1) * link.step_s
    inside = (at.most - 1) * each / link.bandwidth(kind)
    if at.nodes == 1:
        return alpha + (ranks - 1) * link.message_s + inside
    near, far = at.fewest - 1, ranks - at.fewest  # peers of a rank on the emptiest node
    alpha += near * link.message_s + far * cluster.inter.message_s
    across = max(
        (ranks - here) * each
        / cluster.network_bytes_per_s(kind, _sharing(cluster, at, here, alone))
        for here in {at.most, at.fewest}
    )  # fmt: skip
    flat = alpha + cluster.inter.step_s + max(inside, across)
    if cluster.all_to_all == "flat" or not 1 < at.most == at.fewest:
        return flat
    alpha = link.alpha(kind) + cluster.inter.alpha(kind) + link.step_s + cluster.inter.step_s
    alpha += (at.most - 1) * link.message_s + (at.nodes - 1) * cluster.inter.message_s
    twice = alpha + at.nodes * inside + across
    return twice if cluster.all_to_all == "hierarchical" else min(flat, twice)


def _ring(
    kind: str, input_bytes: float, ranks: int, cluster: Cluster, at: Placement, alone: bool
) -> float:
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
        rate = cluster.network_bytes_per_s(kind, _sharing(cluster, at, lanes, alone))
        beta = max(beta, sent / (lanes * rate))
    if kind == "all_reduce":
        levels = ceil(log2(at.nodes))
        tree = (at.most - 1) * link.step_s + (levels * network.step_s if levels else 0.0)
        alpha = min(alpha, rounds * tree)
    return _alpha(kind, cluster, at) + alpha + beta
