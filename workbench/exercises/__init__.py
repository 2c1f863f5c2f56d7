"""Exercises for the notebooks: ``check_...(answer)`` says whether an answer is right, and hints."""

from workbench.exercises.averaging import (
    check_merged_bytes,
    check_relative_gap,
    check_stacked_factors,
)
from workbench.exercises.claims import check_holm, check_paired_interval, check_verdict
from workbench.exercises.communication import (
    check_eight_bits,
    check_error_feedback,
    check_top_k_bytes,
    check_upload_hours,
)
from workbench.exercises.deployment import check_answers, check_round_bytes, check_survivors_mean
from workbench.exercises.family import (
    check_causal_pairs,
    check_group,
    check_usp_bytes,
    check_zigzag,
)
from workbench.exercises.federated import (
    check_adapter_bytes,
    check_factor_gap,
    check_paired_mean,
    check_weighted_mean,
)
from workbench.exercises.fitting import (
    check_longest_video,
    check_smallest_change,
    check_standing_bytes,
)
from workbench.exercises.heterogeneity import (
    check_deadline,
    check_dealt_rows,
    check_proximal_gradient,
)
from workbench.exercises.links import (
    check_half_size,
    check_line,
    check_noise,
)
from workbench.exercises.many_dims import (
    check_activation_bytes,
    check_attention_flops,
    check_sequences,
)
from workbench.exercises.memory import (
    check_recomputed_bytes,
    check_samples_that_fit,
    check_step_flops,
)
from workbench.exercises.own_strategy import (
    check_by_heads,
    check_by_switch,
    check_gather_elements,
    check_merge,
)
from workbench.exercises.planner import (
    check_efficiency,
    check_pareto,
    check_waiting_share,
)
from workbench.exercises.privacy import (
    check_masks,
    check_private_mean,
    check_tokens,
)
from workbench.exercises.prompts import beside, recall
from workbench.exercises.published import (
    check_attention_share,
    check_mean_error,
    check_total_volume,
)
from workbench.exercises.robustness import (
    check_krum_choice,
    check_most_attackers,
    check_trimmed_mean,
    check_turning_scale,
)
from workbench.exercises.running import (
    check_join,
    check_own_strategy,
    check_peers,
    check_runnable,
)
from workbench.exercises.schedules import (
    BYTES_PUZZLE,
    BYTES_START,
    PUZZLE,
    PUZZLE_START,
    check_fewest_bytes,
    check_fewest_switches,
    check_next_cut,
    check_padded_switch,
)
from workbench.exercises.seconds import (
    check_exchange_seconds,
    check_exposed_hops,
    check_kernel_seconds,
)
from workbench.exercises.sequence import (
    check_dsp_bytes,
    check_local_shape,
    check_megatron_sp_order,
    check_ring_bytes,
    check_sent_bytes,
    check_switch,
    check_switch_count,
    check_switchable,
    check_ulysses_layouts,
)
from workbench.exercises.together import (
    check_rounds_to_target,
    check_trained_numbers,
    check_worst_clients,
)
from workbench.exercises.training import (
    check_loss_part,
    check_reshard,
    check_summed_gradients,
)
from workbench.exercises.wires import (
    check_card_bytes,
    check_crossover,
    check_wire_seconds,
)

__all__ = [
    "BYTES_PUZZLE",
    "BYTES_START",
    "PUZZLE",
    "PUZZLE_START",
    "beside",
    "check_activation_bytes",
    "check_adapter_bytes",
    "check_answers",
    "check_attention_flops",
    "check_attention_share",
    "check_by_heads",
    "check_by_switch",
    "check_card_bytes",
    "check_causal_pairs",
    "check_crossover",
    "check_deadline",
    "check_dealt_rows",
    "check_dsp_bytes",
    "check_efficiency",
    "check_eight_bits",
    "check_error_feedback",
    "check_exchange_seconds",
    "check_exposed_hops",
    "check_factor_gap",
    "check_fewest_bytes",
    "check_fewest_switches",
    "check_gather_elements",
    "check_group",
    "check_half_size",
    "check_holm",
    "check_join",
    "check_kernel_seconds",
    "check_krum_choice",
    "check_line",
    "check_local_shape",
    "check_longest_video",
    "check_loss_part",
    "check_masks",
    "check_mean_error",
    "check_megatron_sp_order",
    "check_merge",
    "check_merged_bytes",
    "check_most_attackers",
    "check_next_cut",
    "check_noise",
    "check_own_strategy",
    "check_padded_switch",
    "check_paired_interval",
    "check_paired_mean",
    "check_pareto",
    "check_peers",
    "check_private_mean",
    "check_proximal_gradient",
    "check_recomputed_bytes",
    "check_relative_gap",
    "check_reshard",
    "check_ring_bytes",
    "check_round_bytes",
    "check_rounds_to_target",
    "check_runnable",
    "check_samples_that_fit",
    "check_sent_bytes",
    "check_sequences",
    "check_smallest_change",
    "check_stacked_factors",
    "check_standing_bytes",
    "check_step_flops",
    "check_summed_gradients",
    "check_survivors_mean",
    "check_switch",
    "check_switch_count",
    "check_switchable",
    "check_tokens",
    "check_top_k_bytes",
    "check_total_volume",
    "check_trained_numbers",
    "check_trimmed_mean",
    "check_turning_scale",
    "check_ulysses_layouts",
    "check_upload_hours",
    "check_usp_bytes",
    "check_verdict",
    "check_waiting_share",
    "check_weighted_mean",
    "check_wire_seconds",
    "check_worst_clients",
    "check_zigzag",
    "recall",
]
