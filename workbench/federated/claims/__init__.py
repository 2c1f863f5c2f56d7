"""The survey's claims as experiments: each with an effect, an interval and a verdict.

``python -m workbench.federated.claims run`` measures what is missing, ``show`` prints the table.
"""

from workbench.federated.claims.catalogue import CLAIMS, NOT_TESTED
from workbench.federated.claims.claim import SOURCES, Claim
from workbench.federated.claims.results import RESULTS
from workbench.federated.claims.running import measure, run
from workbench.federated.claims.table import Evidence, evidence, survey, to_frame
from workbench.federated.claims.verdict import Interval, holm, paired_interval, verdict

__all__ = [
    "CLAIMS",
    "NOT_TESTED",
    "RESULTS",
    "SOURCES",
    "Claim",
    "Evidence",
    "Interval",
    "evidence",
    "holm",
    "measure",
    "paired_interval",
    "run",
    "survey",
    "to_frame",
    "verdict",
]
