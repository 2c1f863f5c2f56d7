"""Ranks as a grid: which of them communicate along which axis."""

from collections.abc import Mapping
from math import prod

import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from workbench.comm import Comm
from workbench.dims import check_count

#: The axis over which samples are cut; every strategy can be combined with it.
DATA = "data"


def check_mesh(mesh: Mapping[str, int], p: int) -> dict[str, int]:
    """The axes and their sizes, the outermost (between nodes) first.

    Raises
    ------
    ValueError
        If a size is no count, or their product is not ``p``.

    Examples
    --------
    >>> check_mesh({"ulysses": 2, "ring": 4}, 8)
    {'ulysses': 2, 'ring': 4}
    """
    if not isinstance(mesh, Mapping):
        raise ValueError(
            f"a mesh is a dict, such as {{'data': 2, 'sp': {max(p // 2, 1)}}}, got {mesh!r}"
        )
    for axis, size in mesh.items():
        check_count(f"the size of mesh axis {axis!r}", size)
    if prod(mesh.values()) != p:
        sizes = " x ".join(f"{axis}={size}" for axis, size in mesh.items())
        raise ValueError(f"the mesh {sizes} has {prod(mesh.values())} ranks, but p={p}")
    return dict(mesh)


def coordinates(rank: int, mesh: Mapping[str, int]) -> dict[str, int]:
    """The place of a rank on each axis; neighbours on the last axis have neighbouring ranks.

    Examples
    --------
    >>> coordinates(5, {"ulysses": 2, "ring": 4})
    {'ulysses': 1, 'ring': 1}
    """
    places = {}
    for axis in reversed(mesh):
        rank, places[axis] = divmod(rank, mesh[axis])
    return {axis: places[axis] for axis in mesh}


class Mesh:
    """The axes of a mesh, each a `Comm`, seen from one rank. All of them write one log.

    Parameters
    ----------
    world : Comm
        All ranks.
    axes : mapping of str to int
        Ranks along each axis, the outermost first. Along an axis of size 1 nothing is sent.

    Attributes
    ----------
    size, rank, log : int, int, list of Collective
        Of all ranks together.
    """

    def __init__(self, world: Comm, axes: Mapping[str, int]):
        self.world, self.size, self.rank, self.log = world, world.size, world.rank, world.log
        places = coordinates(world.rank, axes)
        groups = dict.fromkeys(axes)
        if world.group is not None:
            kind = "cuda" if dist.get_backend(world.group) == "nccl" else "cpu"
            device_mesh = init_device_mesh(kind, tuple(axes.values()), mesh_dim_names=tuple(axes))
            groups = {axis: device_mesh.get_group(axis) for axis in axes}
        self.axes = {
            axis: world.beside(axis, size, places[axis], groups[axis])
            for axis, size in axes.items()
        }

    def __getitem__(self, axis: str) -> Comm:
        return self.axes[axis]

    def at(self, layer: int, stage: int) -> None:
        """Say which layer and stage the following collectives belong to."""
        self.world.at(layer, stage)

    def again(self):
        """As `Comm.again`."""
        return self.world.again()

    def relayout(self, x: Tensor, before, after) -> Tensor:
        """Turn one layout into another along the axis that both name."""
        return x if before == after else self.axes[after.axis].relayout(x, before, after)
