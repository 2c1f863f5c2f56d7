"""Small models for tests, written in one line."""

import workbench as wb


def spec(dims, stages, layers=1, heads=2, batch=1, mlp_per="stage", d_model=8):
    """A small model; ``dims`` as "time=3 space=5"."""
    sizes = {name: int(size) for name, size in (part.split("=") for part in dims.split())}
    return wb.TransformerSpec(
        dims=sizes, stages=stages, d_model=d_model, num_heads=heads, num_layers=layers,
        batch=batch, mlp_per=mlp_per,
    )  # fmt: skip
