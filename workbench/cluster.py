"""The machines that a model might run on. So far single devices, as their data sheets have them."""

from dataclasses import dataclass

from workbench.units import GB, TFLOP_PER_S


@dataclass(frozen=True)
class Device:
    """One accelerator.

    Parameters
    ----------
    name : str
        As its maker calls it.
    memory_bytes : int
        Size of its memory [bytes].
    peak_flops_per_s : float
        Dense bfloat16 matrix products, as the data sheet has it [flop/s]. No program reaches it.
    source : str
        Where the numbers are from.
    """

    name: str
    memory_bytes: int
    peak_flops_per_s: float
    source: str


#: Source: the vendors' data sheets, by way of the table in stas00/ml-engineering@744d01e
#: (2026-08-22), compute/accelerator/README.md, which cites them row by row.
_DATA_SHEETS = "data sheet, cited in stas00/ml-engineering@744d01e compute/accelerator/README.md"
DEVICES: dict[str, Device] = {
    "a100": Device("NVIDIA A100 SXM 80 GB", 80 * GB, 312 * TFLOP_PER_S, _DATA_SHEETS),
    "h100": Device("NVIDIA H100 SXM 80 GB", 80 * GB, 989 * TFLOP_PER_S, _DATA_SHEETS),
    "h200": Device("NVIDIA H200 SXM 141 GB", 141 * GB, 989 * TFLOP_PER_S, _DATA_SHEETS),
}
