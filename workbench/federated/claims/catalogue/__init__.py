"""The survey's claims, one file each, in the order in which they are told."""

from workbench.federated.claims.catalogue import (
    compression,
    contribution,
    control_variates,
    distilled,
    exact_mean,
    fairness,
    few_weights,
    forgetting,
    incentive,
    lora_mean,
    membership,
    memorised,
    new_era,
    personal,
    pretrained_rounds,
    pretrained_unlike,
    proximal,
    robust_rule,
    server_gone,
    shared_steps,
    small_owners,
    synthetic_leak,
    synthetic_text,
    together,
    tokens_read,
    unlearning,
    unlike_data,
    watermark,
)
from workbench.federated.claims.claim import Claim

#: Every claim that has an experiment.
CLAIMS: tuple[Claim, ...] = tuple(
    module.CLAIM
    for module in (
        *(pretrained_rounds, pretrained_unlike),
        *(together, small_owners, shared_steps, new_era, forgetting, server_gone),
        *(unlike_data, proximal, control_variates, personal, fairness),
        *(few_weights, compression, distilled, lora_mean, exact_mean),
        *(memorised, membership, tokens_read, synthetic_text, synthetic_leak, robust_rule),
        *(unlearning, watermark, contribution, incentive),
    )
)

#: What the survey names and nothing here tests, and why.
NOT_TESTED: dict[str, str] = {
    "one model for several kinds of data (S3)": "the models here read text only",
    "memory of a client's machine (ST)": "not measured",
    "stragglers and unlike machines (P)": "time is not simulated in these experiments",
}
