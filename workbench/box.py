"""A cluster in a box: nodes as network namespaces of this machine, joined by wires of a set speed.

Linux only. Each node is an anonymous network namespace with one card, plugged into a switch; the
kernel's token bucket (``tc tbf``) holds each card to the speed that was asked for, in either
direction. What travels inside a node does not pass its card. Nothing else is simulated: ranks are
real processes, and their bytes really wait.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from math import inf

from workbench.dims import check_count

#: The slowest card that is made [bytes/s]: below, one message takes minutes.
SLOWEST = 1000
#: What a card may send at once without waiting [bytes]. A smaller bucket starves fast wires.
BURST_BYTES = 128 * 1024
#: A message to another node travels in pieces of at most this size [bytes]: gloo alternates
#: directions within one message between two ranks, so a large one would use half of the wire.
PIECE_BYTES = 256 * 1024
#: How long a packet may queue at a card before it is dropped [ms]; TCP then sends it again.
_QUEUE_MS = 200
#: Of Linux, to enter a network namespace. Source: setns(2), linux/sched.h.
_CLONE_NEWNET = 0x40000000
_CARD = "eth0"


class NoBoxError(OSError):
    """This machine can't make a cluster in a box; the message says what it lacks."""


def missing() -> str | None:
    """Say what this machine lacks for a cluster in a box; None if it has all."""
    if not sys.platform.startswith("linux"):
        return f"network namespaces are Linux's; this is {sys.platform}"
    tools = [tool for tool in ("ip", "tc", "unshare", "nsenter") if shutil.which(tool) is None]
    if tools:
        return f"the programs {', '.join(tools)} (packages iproute2 and util-linux) are not here"
    made = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    if made.returncode:
        return f"this process may not make network namespaces ({made.stderr.strip()})"
    return None


@contextlib.contextmanager
def nodes_joined(
    nodes: int, inter_bandwidth: float, latency: float | None = None
) -> Iterator[list[str]]:
    """Make the nodes; yield the path of each one's network namespace. They end with the block.

    Parameters
    ----------
    nodes : int
        At least 1.
    inter_bandwidth : float
        Of each node's card, each way, at least 1000 [bytes/s].
    latency : float or None
        Added to what leaves a card [s].

    Raises
    ------
    ValueError
        If a number is none, or latency is asked of a kernel without ``netem``.
    NoBoxError
        If this machine can't, with the reason.
    """
    check_count("nodes", nodes)
    if type(inter_bandwidth) not in (int, float) or not SLOWEST <= inter_bandwidth < inf:
        raise ValueError(
            f"inter_bandwidth must be a finite number of bytes/s, {SLOWEST} or more; got "
            f"{inter_bandwidth!r}"
        )
    if latency is not None and (type(latency) not in (int, float) or not 0 <= latency < inf):
        raise ValueError(f"latency must be a number of seconds, 0 or more; got {latency!r}")
    lacking = missing()
    if lacking is not None:
        raise NoBoxError(f"no cluster in a box here: {lacking}. run_local needs none of it")
    # A namespace lives as long as a process in it. `cat` ends when its standard input closes, and
    # so with this process, however that ends.
    holders: list[subprocess.Popen] = []
    try:
        for _ in range(nodes + 1):
            command = ["unshare", "--net", "sh", "-c", "echo; exec cat"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            holders.append(subprocess.Popen(command, **pipes, start_new_session=True))
        for holder in holders:
            holder.stdout.readline()  # it has its namespace now
        switch, *cards = (holder.pid for holder in holders)
        _batch(switch, "ip", ["link add name br0 type bridge", "link set br0 up"])
        for node, card in enumerate(cards):
            _plug_in(switch, card, node)
            _shape(card, _CARD, inter_bandwidth, latency)
            _shape(switch, f"card{node}", inter_bandwidth, None)
        yield [f"/proc/{card}/ns/net" for card in cards]
    finally:
        for holder in holders:
            with holder:  # closes the pipes and waits
                holder.kill()


def _plug_in(switch: int, card: int, node: int) -> None:
    """Join a node's card to the switch."""
    name = f"card{node}"
    _batch(switch, "ip", [
        f"link add name {name} type veth peer name {_CARD} netns {card}",
        f"link set {name} master br0", f"link set {name} up",
    ])  # fmt: skip
    _batch(card, "ip", [
        f"addr add 10.77.{node // 250}.{node % 250 + 1}/16 dev {_CARD}",
        f"link set {_CARD} up", "link set lo up",
    ])  # fmt: skip


def _shape(namespace: int, device: str, bytes_per_s: float, latency: float | None) -> None:
    """Hold what leaves ``device`` to a speed, and delay it."""
    bits = round(8 * bytes_per_s)
    _batch(namespace, "tc", [
        f"qdisc add dev {device} root handle 1: tbf rate {bits}bit burst {BURST_BYTES} "
        f"latency {_QUEUE_MS}ms",
    ])  # fmt: skip
    if latency:
        try:
            delay = f"qdisc add dev {device} parent 1:1 netem delay {round(latency * 1e6)}us"
            _batch(namespace, "tc", [delay])
        except NoBoxError as error:
            raise ValueError(
                f"latency={latency} s needs the kernel's netem, which is not here: {error}. Ask "
                "with latency=None; the wire's speed works without it"
            ) from error


def _batch(namespace: int, program: str, lines: list[str]) -> None:
    """Give lines to ``ip`` or ``tc`` inside a namespace."""
    command = ["nsenter", f"--net=/proc/{namespace}/ns/net", program, "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True)
    if done.returncode:
        raise NoBoxError(f"{program} refused {lines}: {done.stderr.strip()}")


def enter(namespace: str) -> None:
    """Move this process into a node. To be called before it has other threads."""
    libc = ctypes.CDLL(None, use_errno=True)
    file = os.open(namespace, os.O_RDONLY)
    try:
        if libc.setns(file, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise NoBoxError(number, f"can't enter {namespace}: {os.strerror(number)}")
    finally:
        os.close(file)
    os.environ["GLOO_SOCKET_IFNAME"] = _CARD
