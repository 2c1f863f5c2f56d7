"""Known devices and clusters. Each number has its kind and its source; none is invented.

All numbers are of bfloat16, in SI units. Where no public figure exists, the note says so, and
either the number is derived from others, in words, or the cluster has no network at all.
"""

from dataclasses import replace

from workbench.cluster.figure import Figure
from workbench.cluster.parts import Cluster, Device, Link
from workbench.units import GB, TFLOP_PER_S

_ML = "stas00/ml-engineering@744d01e compute/accelerator/README.md"
_NET = "stas00/ml-engineering@744d01e network/README.md"
_AZURE = "Azure/AI-benchmarking-guide@8fd0c6e Azure_Results"
_NCCL = "NVIDIA/nccl@5067397c src/graph/tuning.cc"
_TOPO = "NVIDIA/nccl@5067397c src/graph/topo.h"
_DEEP_EP = "deepseek-ai/DeepEP@0297fc8 docs/legacy.md"
_SHEET = f"data sheet, cited in {_ML}"
_L40S = "data sheet, as mullet.se product 355414 reproduces it"
_NVLS = "above the wire's rate, for the switch adds up (NVLS)"

#: Source: https://www.cs.virginia.edu/~mwb7w/cuda_support/kernel_overhead.html: 334,000 calls/s.
_LAUNCH = Figure(3.0e-6, "measured", "cs.virginia.edu/~mwb7w/cuda_support: 334,000 launches a s")


def _device(name, memory, peak, sheet, matmul, attention, memory_rate) -> Device:
    kind = "derived" if sheet.startswith("derived") else "spec"
    return Device(name, memory * GB, _flops(peak, kind, sheet), sheet, matmul, attention,
                  memory_rate, _LAUNCH)  # fmt: skip


def _flops(tera: float, kind: str, source: str) -> Figure:
    return Figure(tera * TFLOP_PER_S, kind, source)


def _rate(giga: float, kind: str, source: str) -> Figure:
    return Figure(giga * GB, kind, source)


def _like_h100(share: float, peak: float, what: str) -> Figure:
    """A rate that nobody published: the H100's share of its peak."""
    return _flops(round(share * peak, 1), "derived", f"no public figure: the H100's {what} / peak")


#: Source: what an H100 SXM reaches of its 989 TFLOP/s, as in its entry below.
_MATMUL, _ATTENTION = 794.5 / 989, 327.9 / 989

#: Source: by the line; see the `Figure`s.
DEVICES: dict[str, Device] = {
    "a100": _device(
        "NVIDIA A100 SXM 80 GB", 80, 312, _SHEET, _flops(271.2, "measured", f"{_ML}, torch 2.6"),
        _flops(179.5, "measured", f"{_AZURE}: FlashAttention-2, head 64 wide"),
        _rate(1700, "measured", f"{_AZURE}: stream triad; 2039 in the data sheet"),
    ),
    "h100": _device(
        "NVIDIA H100 SXM 80 GB", 80, 989, _SHEET, _flops(794.5, "measured", f"{_ML}, torch 2.7"),
        _flops(327.9, "measured", f"{_AZURE}: FlashAttention-2, head 128 wide; 3 is faster"),
        _rate(2970, "measured", f"{_AZURE}: stream triad; 3350 in the data sheet"),
    ),
    "h200": _device(
        "NVIDIA H200 SXM 141 GB", 141, 989, _SHEET, _flops(794.5, "measured", f"{_ML}: as H100"),
        _flops(329.3, "measured", f"{_AZURE}: FlashAttention-2, head 128 wide"),
        _rate(4150, "measured", f"{_AZURE}: stream triad; 4800 in the data sheet"),
    ),
    "b200": _device(
        "NVIDIA B200 SXM 180 GB", 180, 2250, _SHEET, _flops(1745, "measured", f"{_ML}, torch 2.7"),
        _like_h100(_ATTENTION, 2250, "attention"),
        _rate(7093, "derived", "no public figure: the 8000 of the data sheet x H100's 2970/3350"),
    ),
    "h800": _device(
        "NVIDIA H800 SXM 80 GB", 80, 989,
        "data sheet of the H100: the same chip, with less NVLink (aiwiki.ai/wiki/nvidia_h800)",
        _flops(794.5, "derived", "as the H100, the same chip"),
        _flops(327.9, "derived", "as the H100, the same chip"),
        _rate(2970, "derived", "as the H100, the same chip"),
    ),
    "l40s": _device(
        "NVIDIA L40S PCIe 48 GB", 48, 362, _L40S, _like_h100(_MATMUL, 362, "matrix product"),
        _like_h100(_ATTENTION, 362, "attention"),
        _rate(766, "derived", "no public figure: the 864 of the data sheet x H100's 2970/3350"),
    ),
    "a10": _device(
        "NVIDIA A10 PCIe 24 GB", 24, 125,
        "data sheet (memory); derived (peak): 288 tensor cores at 1.695 GHz, and the A40's data "
        "sheet: 149.7 of 336 at 1.74",
        _like_h100(_MATMUL, 125, "matrix product"), _like_h100(_ATTENTION, 125, "attention"),
        _rate(532, "derived", "no public figure: the 600 of the data sheet x H100's 2970/3350"),
    ),
    "4090": _device(
        "NVIDIA RTX 4090 24 GB", 24, 165.2,
        "data sheet, as vast.ai/pricing/gpu/RTX-4090 reproduces it",
        _like_h100(_MATMUL, 165.2, "matrix product"), _like_h100(_ATTENTION, 165.2, "attention"),
        _rate(894, "derived", "no public figure: the 1008 of the data sheet x H100's 2970/3350"),
    ),
}  # fmt: skip

_BASE = Figure(8.4e-6, "vendor-model", f"{_NCCL}: ring, simple protocol")
_STEP = Figure(3.4e-6, "vendor-model", f"{_NCCL}: each step over NVLink, simple protocol")
_PEER = Figure(
    0.6e-6, "derived", f"{_NCCL}: a low-latency step over NVLink; assumed for a message on any link"
)  # fmt: skip
_PCI = Figure(5.7e-6, "vendor-model", f"{_NCCL}: each step over PCIe, simple protocol")
_HOP = Figure(14.0e-6, "vendor-model", f"{_NCCL}: each step over the network, simple protocol")


def _nvlink(name: str, others: Figure, all_reduce: Figure, all_to_all: Figure) -> Link:
    rates = {"*": others, "all_reduce": all_reduce, "all_to_all": all_to_all}
    return Link(name, rates, _BASE, _STEP, _PEER)


def _network(name: str, rate: Figure) -> Link:
    return Link(name, rate, _BASE, _HOP, _PEER)


_H100_RATE = "nccl-tests issue 212 (NVIDIA): 450 at line rate, about 370 but for all-reduce"
_LINKS = {
    "a100": _nvlink(
        "NVLink 3, NVSwitch", _rate(230, "derived", f"the all-reduce's ring, {_AZURE}"),
        _rate(231.6, "measured", f"{_AZURE}, 8 GB"),
        _rate(230, "derived", f"the same wires as the all-reduce's ring; bounded by {_TOPO}"),
    ),
    "h100": _nvlink(
        "NVLink 4, NVSwitch", _rate(370, "vendor-statement", _H100_RATE),
        _rate(478.9, "measured", f"{_AZURE}: {_NVLS}"),
        _rate(370, "vendor-statement", f"{_H100_RATE}; an upper bound"),
    ),
    "h200": _nvlink(
        "NVLink 4, NVSwitch", _rate(361.4, "measured", f"{_NET}: all-gather, 16 GiB"),
        _rate(480.0, "measured", f"{_NET}, 16 GiB: {_NVLS}"),
        _rate(361, "derived", "the same wires as the all-gather; an upper bound"),
    ),
    "b200": _nvlink(
        "NVLink 5, NVSwitch", _rate(680, "derived", f"the ring's all-reduce, 682 in {_NET}"),
        _rate(838.0, "measured", f"{_NET}, 8 GiB: {_NVLS}"),
        _rate(640, "derived", "7/8 of the 726 to 740 of deepseek-ai/DeepEP@dd758ca README.md"),
    ),
    "h800": _nvlink(
        "NVLink 4 of an H800, NVSwitch", _rate(160, "measured", f"{_DEEP_EP}: the most seen"),
        _rate(160, "derived", "as the others: no figure for its all-reduce was found"),
        _rate(153, "measured", f"{_DEEP_EP}: dispatch among 8"),
    ),
}  # fmt: skip
#: Source: see the `Figure`. Devices that share a root complex may get half of it.
_PCIE = Link("PCIe 4 x16", _rate(16.8, "derived",
             f"no public figure: 0.7 of the 24 in {_TOPO}; 0.5 to 0.9 is likely"),
             _BASE, _PCI, _PEER)  # fmt: skip
_CX7_RATE = _rate(48.5, "vendor-statement", "nccl-tests issue 267 (NVIDIA): 48 to 49")
_CX7 = _network("ConnectX-7, 400 Gbit/s", _CX7_RATE)
_HDR = _network("HDR InfiniBand, 200 Gbit/s", _rate(25, "spec", f"{_NET}: DGX A100"))
_EFA = _network("EFA, 400 Gbit/s", _rate(36.5, "measured", f"{_NET}: all-reduce of 4 nodes"))

#: As many nodes as a curve may need; how many there are is up to whoever runs.
_MANY = 512


def _box(name: str, device: str, inter: Link, **changes) -> Cluster:
    return Cluster(name, DEVICES[device], 8, _LINKS[device], _MANY, inter, **changes)


def _pcie_box(name: str, device: str) -> Cluster:
    unknown = "one node: for its network no public figure was found, so give inter="
    return Cluster(name, DEVICES[device], 8, _PCIE, notes=unknown)


_DGX = {
    "dgx-a100": _box("dgx-a100", "a100", _HDR),
    "dgx-h100": _box("dgx-h100", "h100", _CX7),
    "dgx-h200": _box("dgx-h200", "h200", _CX7),
    "dgx-b200": _box("dgx-b200", "b200", _CX7),
}
#: Clusters by name. Of DGX and cloud nodes there are as many as one likes.
CLUSTERS: dict[str, Cluster] = {
    **_DGX,
    "hgx-h800": _box("hgx-h800", "h800", _network(
        "ConnectX-7, 400 Gbit/s", _rate(43, "measured", f"{_DEEP_EP}: 16 ranks"))),
    "azure-nd-a100-v4": replace(_DGX["dgx-a100"], name="azure-nd-a100-v4"),
    "azure-nd-h100-v5": replace(_DGX["dgx-h100"], name="azure-nd-h100-v5"),
    "azure-nd-h200-v5": replace(_DGX["dgx-h200"], name="azure-nd-h200-v5"),
    "aws-p6-b200": _box("aws-p6-b200", "b200", _EFA),
    "8x-l40s": _pcie_box("8x-l40s", "l40s"),
    "8x-a10": _pcie_box("8x-a10", "a10"),
    "8x-4090": _pcie_box("8x-4090", "4090"),
}  # fmt: skip
