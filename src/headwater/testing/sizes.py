"""Smaller sizes for checks, by the name of the field that holds them."""

import dataclasses

from headwater.core.method import AbstractMethod

SMALL = {
    "hidden_sizes": (8, 8),
    "actor_widths": (8, 8),
    "critic_widths": (8, 8),
    "num_critics": 3,
    "num_critic_updates": 2,
    "num_action_samples": 3,
    "num_experts": 2,
    "first_active": 1,
    "target_update_interval": 2,
    "policy_period": 2,
    "actor_period": 2,
    "updates_per_round": 2,
    "num_steps": 2,
    "fit_steps": 4,
    "num_draws": 4,
    "population_size": 6,
    "cells": 4,
    "planning_steps": 2,
    "num_plans": 6,
    "planning_rounds": 2,
    "num_particles": 2,
    "removal_updates": 2,
    "shortest_lifetime": 2,
    "longest_lifetime": 5,
    "unroll_updates": 2,
    "num_predictions": 3,
    "recurrent_size": 8,
    "drift_size": 8,
    "num_layers": 1,
    "num_heads": 2,
    "num_buckets": 5,
    "contexts_per_episode": 2,
    "num_phases": 2,
    "updates_per_phase": 1,
    "updates_per_turn": 1,
    # Larger, not smaller: of two losses that are as close as MeZO's, the difference is rounding.
    "perturbation_scale": 0.1,
}
"""Field name to the value that it gets in checks, wherever a method has such a field."""


def small(cls: type[AbstractMethod]) -> AbstractMethod:
    """The method, and any that it holds, with sizes shrunk and everything else as published."""
    fields = {field.name for field in dataclasses.fields(cls)}
    method = cls(**{field: value for field, value in SMALL.items() if field in fields})
    values = {field: getattr(method, field) for field in fields}
    held = {field: small(type(v)) for field, v in values.items() if isinstance(v, AbstractMethod)}
    return dataclasses.replace(method, **held)
