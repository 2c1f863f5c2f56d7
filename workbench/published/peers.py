"""What the authors of the other methods report, beside our prediction for their machines.

Nothing is fitted: machines are presets, or derived from one. Where a paper doesn't say what was
run, the most likely is taken and the row says so (`PublishedRow.left_out`).
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from workbench.closed_form import prepared
from workbench.cluster import CLUSTERS, Cluster, Device, Figure, Link
from workbench.cost import Cost, predict, step_counts
from workbench.dims import Stage
from workbench.footprint import closed_form_memory
from workbench.published.table import PublishedRow
from workbench.shares import shares
from workbench.timing import timed
from workbench.transformer import PRESETS, TransformerSpec
from workbench.units import TFLOP_PER_S
from workbench.work import of_attention

_A100 = CLUSTERS["dgx-a100"]
#: Source: data sheets: NVLink of an A800 400 GB/s, of an A100 600 GB/s, both ways together.
_A800_NVLINK = 400 / 600


def _slower(link: Link, share: float, source: str) -> Link:
    rates = {kind: Figure(rate * share, "derived", source) for kind, rate in link.rates.items()}
    return replace(link, name="NVLink of an A800", bandwidth_bytes_per_s=rates)


#: USP's machine: 8 A800 a node; between nodes 1.6 Tbit/s, as in a DGX A100.
A800 = replace(
    _A100, name="8 x A800",
    intra=_slower(_A100.intra, _A800_NVLINK, "the A100's, times 400/600 of the data sheets"),
)  # fmt: skip


def _text(
    tokens: int, *, width: int, heads: int, layers: int, batch: int = 1, causal: bool = True
) -> TransformerSpec:
    """A language model of GPT's kind, without embeddings and logits."""
    stage = Stage("tokens", causal=causal)
    return TransformerSpec(dims={"tokens": tokens}, stages=(stage,), d_model=width,
                           num_heads=heads, num_layers=layers, batch=batch)  # fmt: skip


def whole_flops(spec: TransformerSpec) -> int:
    """Flops of a step as Megatron-LM counts them: masked pairs of an attention, too.

    References
    ----------
    Narayanan et al. (2021), arXiv:2104.04473, equation 3, without its logits.

    Examples
    --------
    >>> llama = PRESETS["llama-3-8b"]
    >>> whole_flops(llama) > llama.flops
    True
    """
    stages = [tuple(stage) for stage in spec.stages]
    return replace(spec, stages=stages).flops


def peers() -> list[PublishedRow]:
    """Headline results of Megatron-SP, Ulysses, ring attention and USP, each beside ours.

    Examples
    --------
    >>> rows = peers()
    >>> {row.fitted for row in rows}, all(row.source and row.left_out for row in rows)
    ({False}, True)
    """
    return [*_megatron(), *_ulysses(), *_ring(), *_longest(), *_usp()]


#: Seconds of an iteration of a GPT of 22 billion weights on 8 A100: tensor parallel with full
#: recomputation, and with sequence parallelism and selective recomputation.
#: Source: arXiv:2205.05198, Table 5, quoted by calculon (grade B), which has its settings, too.
_TABLE_5 = (1.42, 1.10)
_CALCULON = "arXiv:2205.05198, in calculon-ai/calculon@2dd9c5c calculon/llm/validation.py"


def _megatron() -> Iterator[PublishedRow]:
    """Attention was not fused then: all pairs are computed, and its core a second time."""
    model = _text(2048, width=6144, heads=64, layers=48, batch=4, causal=False)
    runs = (
        ("megatron-tp, all computed again", "megatron-tp", {"checkpoint": "block"}),
        ("megatron-sp, attention's core again", "megatron-sp", {"regather": True}),
    )
    lacks = "embeddings and logits, dropout, the softmax's own passes over memory, optimizer"
    ours = [predict(model, name, _A100, p=8, **how).seconds for _, name, how in runs]
    for (case, _, _), published, seconds in zip(runs, _TABLE_5, ours, strict=True):
        yield PublishedRow("Table 5", f"GPT 22B, 8 A100, {case}", published, seconds,
                           "s an iteration", "B", _CALCULON, False, lacks)  # fmt: skip
    yield PublishedRow("Table 5", "the same: first over second", _TABLE_5[0] / _TABLE_5[1],
                       ours[0] / ours[1], "times", "B", _CALCULON, False, lacks)  # fmt: skip


#: TFLOP/s of a GPU: a GPT of 7 billion weights on 32 A100; tokens, method, value; one pixel is 0.3.
#: Source: Fig. 3 of the blog, read off its pixels (A-dig).
_FIGURE_3 = ((2**16, "ulysses", 181.1), (2**16, "megatron-sp", 164.6), (2**18, "ulysses", 174.3))
_BLOG = "microsoft/DeepSpeed@38327e0 blogs/deepspeed-ulysses/media/dense7B.png"
_DEGREES = {"ulysses": {"ulysses": 32}, "megatron-sp": {"data": 4, "megatron-sp": 8}}


def _ulysses() -> Iterator[PublishedRow]:
    """Their count has a second forward in it (microsoft/Megatron-DeepSpeed@0782d75).

    Shape as GPT-3's 6.7B; one sequence at a time over all ranks under Ulysses; Megatron in a node.
    """
    lacks = ("shape, degrees of parallelism and batch are not said, nor whether masked pairs were "
             "skipped; embeddings, logits, optimizer")  # fmt: skip
    for tokens, method, published in _FIGURE_3:
        mesh = _DEGREES[method]
        for causal in (True, False):
            model = _text(tokens, width=4096, heads=32, layers=32, batch=mesh.get("data", 1),
                          causal=causal)  # fmt: skip
            how = {"fsdp": True} if method == "ulysses" else {"mesh": mesh}
            cost = predict(model, method, _A100, p=32, checkpoint="block", **how)
            ours = whole_flops(model) * 4 / 3 / 32 / cost.seconds / TFLOP_PER_S
            pairs = "skipped" if causal else "computed"
            case = f"GPT 7B, 32 A100, {tokens // 1024}K tokens, {method}, masked pairs {pairs}"
            yield PublishedRow("Fig. 3", case, published, ours, "TFLOP/s", "A-dig", _BLOG, False,
                               lacks)  # fmt: skip


#: Iterations a second of forward and backward of one attention as in Llama 3.1 8B, 8,192 tokens
#: on each of 8 GPUs: one GPU's divided by 8, and three orders of the ring.
#: Source: zhuzilin/ring-flash-attention@01c8baf README.md (A).
_ITERATIONS = {
    "dgx-a100": {"single": 94.7 / 8, "contiguous": 6.2, "zigzag": 10.6, "striped": 9.75},
    "hgx-h800": {"single": 154.7 / 8, "contiguous": 10.4, "zigzag": 17.4, "striped": 16.0},
}
_RING_PARTS = 8
_README = "zhuzilin/ring-flash-attention@01c8baf README.md, benchmark/benchmark_kvpacked_func.py"


def attention_seconds(
    spec: TransformerSpec, strategy: str, cluster: Cluster, *, p: int, **options
) -> float:
    """Forward and backward of a model's attentions alone, with what a ring sends [s].

    Projections, MLPs, weights' gradients and everything around them are left out. For ``single``
    and ``ring``, whose every collective is part of an attention.

    Examples
    --------
    >>> box, model = CLUSTERS["dgx-a100"], replace(PRESETS["llama-3-8b"], num_layers=1)
    >>> one = attention_seconds(model, "single", box, p=1)
    >>> one / 8 < attention_seconds(model, "ring", box, p=8, order="zigzag") < one
    True
    """
    dtype, memory = "bfloat16", {"checkpoint": "none", "switch": "inside", "accumulate": 1}
    cls, shard = prepared(spec, strategy, p, dtype, None, None, {**memory, "fsdp": False}, options)
    itemsize = getattr(torch, dtype).itemsize
    done = [
        kernel._replace(count=kernel.count * count)
        for (number, share), count in shares(cls, spec, p, shard).items()
        for kernel in of_attention(spec, number, share, itemsize)
    ]
    step = step_counts(spec, strategy, cluster, p=p, dtype=dtype, **options)
    sent = [each for each in step.sent if each.phase != "gradients"]
    step = replace(step, done=tuple(done), sent=tuple(sent))
    stages, _ = timed(step, cluster, "flat")
    shown = sum(s.compute_s + s.exposed_communication_s + s.relayout_s for s in stages)
    return shown + step.launches * cluster.device.launch_s


def _ring() -> Iterator[PublishedRow]:
    spec = replace(PRESETS["llama-3-8b"], num_layers=1)
    whole = replace(spec, dims={"tokens": _RING_PARTS * spec.dims["tokens"]})
    lacks = "the rate of this very kernel: the presets' are of other head widths or lengths"
    for machine, found in _ITERATIONS.items():
        box, gpu = CLUSTERS[machine], machine[-4:].upper()
        for order, published in found.items():
            if order == "single":
                case = f"attention, 1 {gpu}, divided by {_RING_PARTS}"
                ours = 1 / attention_seconds(spec, "single", box, p=1) / _RING_PARTS
            else:
                case = f"attention, {_RING_PARTS} {gpu}, ring, {order}"
                ours = 1 / attention_seconds(whole, "ring", box, p=_RING_PARTS, order=order)
            yield PublishedRow("README", case, published, ours, "iterations/s", "A", _README,
                               False, lacks)  # fmt: skip


#: Longest context [1024 tokens] that ring attention trained with FSDP, all in float32, by model and
#: number of A100 of 80 GB; and the models' width, heads and layers (LLaMA's; 3B OpenLLaMA's).
#: Source: arXiv:2310.01889v4, Table 3 and appendix B, as transcribed in the source below (grade B).
_TABLE_3 = {("3B", 8): 512, ("7B", 8): 256, ("13B", 8): 128, ("7B", 32): 4096, ("13B", 32): 2048}
_LLAMA = {"3B": (3200, 32, 26), "7B": (4096, 32, 32), "13B": (5120, 40, 40)}
_TRANSCRIPT = (
    "arXiv:2310.01889, in viktor-shcherb/msc_thesis@7336389 "
    "references/2024-05-ring-attention-near-infinite-context/sections/05_results.md"
)


def longest_context(model: str, p: int, device: Device) -> int:
    """Most tokens, a power of two, that a ring with FSDP and AdamW holds on ``p`` devices.

    In float32, each block computed again. ``model`` is ``"3B"``, ``"7B"`` or ``"13B"``.

    Examples
    --------
    >>> small, large = (longest_context("7B", p, _A100.device) for p in (8, 32))
    >>> large > small
    True
    """
    width, heads, layers = _LLAMA[model]
    power = 10
    how = {"p": p, "fsdp": True, "checkpoint": "block", "optimizer": "adamw"}
    while True:
        spec = _text(2 ** (power + 1), width=width, heads=heads, layers=layers)
        if closed_form_memory(spec, "ring", **how).peak_bytes > device.memory_bytes:
            return 2**power
        power += 1


def _longest() -> Iterator[PublishedRow]:
    lacks = ("their MLPs run in blocks of tokens; a margin for scratch and gaps; embeddings and "
             "logits; how many sequences they had at once")  # fmt: skip
    for (model, p), published in _TABLE_3.items():
        ours = longest_context(model, p, _A100.device) / 1024
        case = f"LLaMA {model}, {p} A100, ring with FSDP: longest context"
        yield PublishedRow("Table 3", case, published, ours, "K tokens", "B", _TRANSCRIPT, False,
                           lacks)  # fmt: skip


#: TFLOP/s of a GPU: Llama 3 8B on 16 A800 in 2 nodes, by tokens, then Ulysses' degree (ring: the
#: rest). Masked pairs count as computed, as in Megatron-LM.
#: Source: the authors' report, Table 6, feifeibear/long-context-attention@5f80b4d (A).
_TABLE_6 = {
    64: {8: 220.3, 4: 222.2, 2: 209.2, 1: 196.9},
    80: {8: 245.4, 4: 247.8, 2: 233.2, 1: 221.1},
}
_REPORT = "feifeibear/long-context-attention@5f80b4d media/unified_seq_parallel_tech_report.pdf"
#: Model flops over the peak, tensor parallel 8 x ring 2: the first report's abstract, where masked
#: pairs count, and the later paper's, where it seems they don't (I).
#: Source: the report; arXiv:2405.07719, abstract (A).
_FIRST_MFU, _LATER_MFU = 0.86, 0.47


def _usp() -> Iterator[PublishedRow]:
    lacks = ("embeddings and logits, gradients in float32, optimizer, and the gathers of weights "
             "where its state is cut (ZeRO-1)")  # fmt: skip
    for thousands, found in _TABLE_6.items():
        model = replace(PRESETS["llama-3-8b"], dims={"tokens": thousands * 1024})
        for degree, published in found.items():
            cost = _usp_step(model, degree, 16 // degree)
            ours = whole_flops(model) / 16 / cost.seconds / TFLOP_PER_S
            case = f"Llama 3 8B, 16 A800, {thousands}K tokens, Ulysses {degree} x ring"
            yield PublishedRow("Table 6", f"{case} {16 // degree}", published, ours, "TFLOP/s",
                               "A", _REPORT, False, lacks)  # fmt: skip
    model = replace(PRESETS["llama-3-8b"], dims={"tokens": 208 * 1024})
    mfu = _usp_step(model, 8, 2).mfu
    lacks = "tensor parallel 8 x ring 2 is no mesh here: Ulysses stands for it; " + lacks
    for words, published, counted, source in (
        ("masked pairs counted", _FIRST_MFU, whole_flops(model) / model.flops, _REPORT),
        ("masked pairs not counted", _LATER_MFU, 1.0, "arXiv:2405.07719"),
    ):
        case = f"Llama 3 8B, 16 A800, 208K tokens, {words}"
        yield PublishedRow("abstract", case, published, mfu * counted, "of the peak", "A", source,
                           False, lacks)  # fmt: skip


def _usp_step(model: TransformerSpec, degree: int, ring: int) -> Cost:
    """Zigzag rings between Ulysses' groups, which are neighbours."""
    if degree == 1:
        return predict(model, "ring", A800, p=ring, order="zigzag")
    mesh = {"ring": ring, "ulysses": degree}
    return predict(model, "usp", A800, p=degree * ring, mesh=mesh, order="zigzag")
