"""Understand, explore and check sequence parallelism and federated fine-tuning."""

from importlib import import_module

#: Every public name and the module it is from. Loaded on first use, so that ``import workbench``
#: is quick and ``python -m workbench.step`` runs a module that was not imported before.
_HOME = {
    "TransformerSpec": "transformer",
    "Stage": "dims",
    "PRESETS": "transformer",
    "STRATEGIES": "strategies",
    "Strategy": "strategies",
    "fake_step": "step",
    "run_step": "step",
    "closed_form_bytes": "closed_form",
    "closed_form_memory": "footprint",
    "fits": "footprint",
    "explain": "explain_step",
    "diff": "explain_step",
    "run_local": "launch",
    "verify": "conformance",
    "Cluster": "cluster",
    "CLUSTERS": "cluster",
    "Device": "cluster",
    "Link": "cluster",
    "predict": "cost",
    "calibrate": "calibration",
    "plan": "planner",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}; it has {__all__}")
    return getattr(import_module(f"workbench.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
