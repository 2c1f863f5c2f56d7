"""Federated methods, each read as its difference from FedAvg."""

from workbench.federated.methods.base import Method
from workbench.federated.methods.ditto import Ditto
from workbench.federated.methods.fedavg import FedAvg
from workbench.federated.methods.fedex_lora import FedExLora
from workbench.federated.methods.fedopt import FedAdam, FedYogi
from workbench.federated.methods.fedprox import FedProx
from workbench.federated.methods.ffa_lora import FfaLora
from workbench.federated.methods.flex_lora import FlexLora
from workbench.federated.methods.flora import Flora
from workbench.federated.methods.het_lora import HetLora
from workbench.federated.methods.local_head import LocalHead
from workbench.federated.methods.pfedme import PFedMe
from workbench.federated.methods.scaffold import Scaffold

METHODS: tuple[type[Method], ...] = (
    FedAvg,
    FedProx,
    FedAdam,
    FedYogi,
    Scaffold,
    Ditto,
    PFedMe,
    LocalHead,
    FfaLora,
    FedExLora,
    Flora,
    HetLora,
    FlexLora,
)
