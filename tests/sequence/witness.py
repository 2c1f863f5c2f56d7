"""Two witnesses of a rank's traffic that know nothing of the library's own records.

One counts what is handed to torch's process group, by arithmetic of its own; the other asks the
kernel how many bytes the process has written.
"""

import collections
import pathlib
from fractions import Fraction
from unittest import mock

import torch
from torch.distributed import ProcessGroup

from workbench.rank import RankStep

IO = pathlib.Path("/proc/self/io")
UNEXPECTED = (
    "_allgather_base", "_reduce_scatter_base", "all_gather_single_coalesced", "allgather",
    "allgather_coalesced", "allreduce_coalesced", "alltoall", "alltoall_base", "broadcast",
    "gather", "reduce", "reduce_scatter", "reduce_scatter_single", "scatter",
)  # fmt: skip


def written():
    """Bytes that this process has written so far, to sockets too."""
    return int(dict(line.split(": ") for line in IO.read_text().splitlines())["wchar"])


class Witness:
    """Watch the steps of one rank; ``calls`` and ``wire`` hold bytes by phase."""

    def __init__(self, size):
        self.size, self.phase = size, "outside"
        self.calls, self.wire = collections.Counter(), collections.Counter()
        self.since = written() if IO.exists() else None

    def enter_phase(self, name):
        if self.since is not None:
            now = written()
            self.wire[self.phase] += now - self.since
            self.since = now
        self.phase = name

    def count(self, kind, tensor, share):
        self.calls[self.phase, kind] += share * tensor.numel() * tensor.element_size()

    def __enter__(self):
        patches = [
            self._phase(RankStep, "run", "forward", "outside"),
            self._phase(torch.Tensor, "backward", "backward", "gradients"),
            self._call("all_to_all_single", "all_to_all", 1, lambda p: Fraction(p - 1, p)),
            self._call("all_gather_single", "all_gather", 1, lambda p: p - 1),
            self._call("allreduce", "all_reduce", 0, lambda p: Fraction(2 * (p - 1), p)),
            self._call("send", "ring_shift", 0, lambda p: 1),
            *(mock.patch.object(ProcessGroup, name, self._unexpected) for name in UNEXPECTED),
        ]
        for patch in patches:
            patch.start()
        return self

    def __exit__(self, *error):
        mock.patch.stopall()

    @staticmethod
    def _unexpected(*arguments):
        raise AssertionError(f"a collective that is not counted: {arguments}")

    def _phase(self, owner, name, before, after):
        original = getattr(owner, name)

        def watched(*arguments):
            self.enter_phase(before)
            result = original(*arguments)
            self.enter_phase(after)
            return result

        return mock.patch.object(owner, name, watched)

    def _call(self, name, kind, position, share):
        original = getattr(ProcessGroup, name)

        def watched(group, *arguments, **options):
            given = arguments[position]
            tensor = given[0] if isinstance(given, list) else given
            self.count(kind, tensor, share(self.size))
            return original(group, *arguments, **options)

        return mock.patch.object(ProcessGroup, name, watched)
