"""Federated fine-tuning of a pretrained model with Flower; only adapters travel."""

import os
from importlib import import_module

# Nobody is told that a run has started, here or in any process that a run starts.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# Nothing is fetched from a model hub either, unless you have set HF_HUB_OFFLINE=0 before.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

#: Every public name and the module it is from, loaded on first use.
_HOME = {
    "FederatedTask": "task",
    "simulate": "simulation",
    "run_deployment": "deploy",
    "make_credentials": "credentials",
    "centralised": "baselines",
    "local_only": "baselines",
    "local_models": "baselines",
    "History": "history",
    "Round": "history",
    "Evaluation": "history",
    "load_adapter": "lora",
    "Traffic": "traffic",
    "round_traffic": "traffic",
    "generate": "generation",
    **dict.fromkeys(["evaluate", "report", "fairness", "forgetting", "samples"], "evaluation"),
    "clients_of": "partition",
    "secure_mean": "secagg",
    "backdoor_success": "backdoor",
    "tokens_in_update": "leakage",
    "membership": "leakage",
    "prepare": "models",
    "Watch": "progress",
    "recorded_deployment": "recorded",
    **dict.fromkeys(["digit_rows", "embedded_rows"], "linear"),
    "compare_runs": "comparison",
    **dict.fromkeys(["new_run_dir", "keep_samples", "to_tensorboard"], "run_record"),
    **dict.fromkeys(["FedAvg", "FedProx", "FedAdam", "FedYogi", "Scaffold"], "methods"),
    **dict.fromkeys(["Ditto", "PFedMe", "LocalHead"], "methods"),
    **dict.fromkeys(["FfaLora", "FedExLora", "Flora", "HetLora", "FlexLora"], "methods"),
    **dict.fromkeys(["Natural", "Iid", "Dirichlet", "QuantitySkew"], "options"),
    **dict.fromkeys(["CentralDP", "LocalDP", "SecAggPlus"], "options"),
    **dict.fromkeys(["Bf16", "Int8", "TopK"], "options"),
    **dict.fromkeys(["LabelFlip", "SignFlip", "Backdoor"], "options"),
    **dict.fromkeys(["Median", "TrimmedMean", "Krum", "MultiKrum", "Bulyan"], "options"),
    "System": "options",
    "simulated_clock": "clock",
    **dict.fromkeys(["Assumptions", "scale_cost"], "scale"),
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"workbench.federated has no attribute {name!r}; it has {__all__}")
    try:
        module = import_module(f"workbench.federated.{_HOME[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("workbench"):
            raise
        raise ImportError(
            f"workbench.federated needs {error.name!r}, which is not installed: run "
            "`pip install 'workbench[federated]'`, or `make setup` in the project's folder."
        ) from None
    return getattr(module, name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
