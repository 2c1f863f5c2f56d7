"""The volumes of communication that papers state, beside those that the logs have."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, NamedTuple

from workbench.dims import Stage
from workbench.step import fake_step
from workbench.transformer import TransformerSpec

_TABLE_3 = "Zhao et al., arXiv:2403.10266, Table 3"


class _Published(NamedTuple):
    strategy: str
    blocks: Literal["one", "both"]
    mlp_per: Literal["stage", "layer"]
    formula: str
    volumes: Callable[[int], Fraction]
    grade: str
    source: str


#: Forward volume of one layer (one spatial and one temporal block) as a multiple of M, for N ranks.
#: Source: Table 3 of arXiv:2403.10266, as quoted in its public reviews; where the grade is I, ours.
_VOLUMES = (
    _Published("dsp", "one", "stage", "2M/N", lambda n: Fraction(2, n), "B", _TABLE_3),
    _Published("ulysses", "one", "stage", "4M/N", lambda n: Fraction(4, n), "B", f"{_TABLE_3}, v5"),
    _Published(
        "ulysses", "both", "stage", "8M/N", lambda n: Fraction(8, n), "B", f"{_TABLE_3}, v1 to v4"
    ),
    _Published("ring", "one", "stage", "2M", lambda n: Fraction(2), "B", _TABLE_3),
    _Published("ring", "both", "stage", "4M", lambda n: Fraction(4), "I", "twice the row above"),
    _Published("megatron-sp", "one", "stage", "8M", lambda n: Fraction(8), "B", _TABLE_3),
    _Published("megatron-sp", "one", "layer", "6M", lambda n: Fraction(6), "I", "one MLP less"),
    _Published("megatron-tp", "one", "stage", "8M", lambda n: Fraction(8), "I", "4 all-reduces"),
    _Published("megatron-tp", "one", "layer", "6M", lambda n: Fraction(6), "I", "one MLP less"),
)


@dataclass(frozen=True)
class VolumeRow:
    """What one rank sends for one more layer, published and counted.

    Attributes
    ----------
    strategy : str
        A key of `STRATEGIES`.
    blocks : {"one", "both"}
        How many of the layer's two attentions run along the cut dim. ``"one"``: each attends
        along its own dim. ``"both"``: the model's second attention is joint, so that it runs
        along the cut dim too; a program that treats all tokens as one sequence pays like this.
    mlp_per : {"stage", "layer"}
        Of the spec that was counted.
    published : str
        The forward volume as papers write it; M is the whole activation, N the ranks.
    published_bytes : int
        That volume times (p-1)/p, what one rank really sends [bytes]; rounded.
    forward_bytes, backward_bytes, gradient_bytes : int
        Counted in the logs: what the step with one layer more sends more [bytes]. The backward
        and the gradients of replicated weights are no part of the published volume.
    grade, source : str
        A key of `GRADES`, and where the published figure is from.
    """

    strategy: str
    blocks: str
    mlp_per: str
    published: str
    published_bytes: int
    forward_bytes: int
    backward_bytes: int
    gradient_bytes: int
    grade: str
    source: str


def volume_table(spec: TransformerSpec, *, p: int, dtype: str = "float32") -> list[VolumeRow]:
    """Count the paper's table of communication volumes, from the logs of faked steps.

    Each row is a slope: the bytes of a step with ``num_layers + 1`` layers less those of one with
    ``num_layers``, so that what happens only at the ends of a model drops out.

    Parameters
    ----------
    spec : TransformerSpec
        Of two dims and two stages, each of which attends along one of them, like the paper's
        models. Its first dim is the one that is cut. Its ``mlp_per`` is replaced by the row's.
    p : int
        Ranks. Where it divides both dims, counted and published bytes are equal; elsewhere
        padding makes the counted ones larger.
    dtype : str
        As for `fake_step`.

    Raises
    ------
    ValueError
        If the spec is not of that kind, or a strategy can't run it on ``p`` ranks.

    Examples
    --------
    >>> from workbench.transformer import PRESETS
    >>> dsp = volume_table(PRESETS["toy-video"], p=4)[0]
    >>> dsp.published, dsp.published_bytes, dsp.forward_bytes
    ('2M/N', 6144, 6144)
    """
    dims = list(spec.dims)
    if len(dims) != 2 or sorted(spec.stages) != sorted((dim,) for dim in dims):
        raise ValueError(
            "the published table is of layers with two dims and one attention along each, such as "
            f"dims time and space, stages ('space',) and ('time',); got dims {dims} and stages "
            f"{list(spec.stages)}. For other models ask closed_form_bytes or fake_step"
        )
    return [_row(spec, row, p, dtype) for row in _VOLUMES]


def _row(spec: TransformerSpec, row: _Published, p: int, dtype: str) -> VolumeRow:
    cut = next(iter(spec.dims))
    stages = spec.stages if row.blocks == "one" else [_joined(s, cut) for s in spec.stages]
    model = replace(spec, stages=stages, mlp_per=row.mlp_per)
    deeper = replace(model, num_layers=spec.num_layers + 1)
    less, more = (fake_step(m, row.strategy, p=p, dtype=dtype, shard=cut) for m in (model, deeper))
    volume = row.volumes(p) * spec.activation_bytes(dtype) * Fraction(p - 1, p)
    return VolumeRow(
        row.strategy,
        row.blocks,
        row.mlp_per,
        row.formula,
        round(volume),
        more.forward_bytes - less.forward_bytes,
        more.backward_bytes - less.backward_bytes,
        more.gradient_bytes - less.gradient_bytes,
        row.grade,
        row.source,
    )


def _joined(stage: Stage, cut: str) -> Stage:
    return stage if cut in stage else Stage((*stage, cut))
