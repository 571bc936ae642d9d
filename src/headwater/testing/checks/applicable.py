"""Which checks apply to a method."""

from typing import Any

import equinox as eqx
import jax

from headwater.core.method import (
    AbstractArchiving,
    AbstractArmPolicy,
    AbstractCertificate,
    AbstractContinual,
    AbstractDynamics,
    AbstractLabeller,
    AbstractLikelihood,
    AbstractMethod,
    AbstractModelBased,
    AbstractPolicy,
    AbstractProposer,
    AbstractTablePolicy,
    AbstractValue,
)
from headwater.core.records import AuxiliaryTransitions, Transition, Transitions
from headwater.core.spaces import Spaces
from headwater.testing.checks.capabilities import (
    check_actions_are_inside_the_space,
    check_archiving,
    check_arm_policy,
    check_certificate,
    check_continual,
    check_dynamics,
    check_greedy_actions_are_deterministic,
    check_labels,
    check_log_probability,
    check_model_based,
    check_proposer,
    check_table_policy,
    check_value,
)
from headwater.testing.checks.every_method import (
    check_checkpoint_continues_exactly,
    check_every_option_traces,
    check_finite_on_hard_inputs,
    check_floats_can_be_swept,
    check_missing_columns_are_explained,
    check_misspelt_choices_are_refused,
    check_rewards_are_read_as_declared,
    check_row_order_is_irrelevant,
    check_same_key_gives_the_same_result,
    check_scan_equals_loop,
    check_second_call_does_not_retrace,
    check_state_holds_arrays_only,
    check_terminal_rows_ignore_the_next_observation,
    check_tracing_is_reproducible,
    check_truncated_rows_bootstrap,
    check_update_keeps_the_structure,
    check_vmap_equals_separate_runs,
)
from headwater.testing.kinds.kind import Kind

CHECKS = (
    check_state_holds_arrays_only,
    check_update_keeps_the_structure,
    check_second_call_does_not_retrace,
    check_tracing_is_reproducible,
    check_same_key_gives_the_same_result,
    check_scan_equals_loop,
    check_vmap_equals_separate_runs,
    check_checkpoint_continues_exactly,
    check_floats_can_be_swept,
    check_every_option_traces,
    check_misspelt_choices_are_refused,
    check_finite_on_hard_inputs,
    check_row_order_is_irrelevant,
)
"""For every method on every kind of data that it takes."""

TRANSITION_CHECKS = (
    check_terminal_rows_ignore_the_next_observation,
    check_truncated_rows_bootstrap,
    check_rewards_are_read_as_declared,
)
"""For methods that learn from single steps."""

POLICY_CHECKS = (check_actions_are_inside_the_space, check_greedy_actions_are_deterministic)


def checks_for(method: AbstractMethod, kind: Kind) -> list[Any]:
    """The checks that apply, by the kind of data and by capability."""
    found = list(CHECKS)
    if isinstance(kind.problem, Spaces):
        found.append(check_missing_columns_are_explained)
        batch = eqx.filter_eval_shape(kind.batch, jax.random.key(0))
        single = isinstance(batch, Transition | Transitions | AuxiliaryTransitions)
        found.extend(TRANSITION_CHECKS if single else ())
    if isinstance(method, AbstractTablePolicy):
        found.append(check_table_policy)
    if isinstance(method, AbstractArmPolicy):
        found.append(check_arm_policy)
    if isinstance(method, AbstractArchiving):
        found.append(check_archiving)
    if isinstance(method, AbstractProposer):
        found.append(check_proposer)
    if isinstance(method, AbstractCertificate):
        found.append(check_certificate)
    if isinstance(method, AbstractPolicy):
        found.extend(POLICY_CHECKS)
    if isinstance(method, AbstractLikelihood):
        found.append(check_log_probability)
    if isinstance(method, AbstractValue):
        found.append(check_value)
    if isinstance(method, AbstractLabeller):
        found.append(check_labels)
    if isinstance(method, AbstractDynamics):
        found.append(check_dynamics)
    if isinstance(method, AbstractModelBased):
        found.append(check_model_based)
    if isinstance(method, AbstractContinual):
        found.append(check_continual)
    return found
