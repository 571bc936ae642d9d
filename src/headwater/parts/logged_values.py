r"""Where values start and what units they have, as far as a log says: shared by offline methods.

Values that start at 0 first have to learn the level of the return, along which all actions are
alike: with rewards near -5 that takes longer than many a run, and until then every logged action
looks better or worse than expected. They start here at the constant that satisfies the Bellman
equation on average over the log, $E[r] / (1 - \gamma(1 - p))$ with $p$ the share of terminal rows.
Rewards are divided by their standard deviation, so that weights, bounds and temperatures that stand
in units of value mean the same in every log. Neither changes an update.

Measured with IQL, two layers of 64 and three seeds, against values from 0 with 1000 over the range
of returns:

| log | updates | here | from 0 |
|---|---|---|---|
| the demo's pendulum, rate 3e-4: return | 8,000 | -179 | -377 |
| the same, rate 1e-3 | 8,000 | -181 | -162 |
| point maze, ends at the goal, 40 % reach it: share that does | 3,000 | 0.79 | 0.05 |
| the same | 12,000 | 1.00 | 0.00 |
| the same, 7 % reach it | 8,000 | 0.00 | 0.00 |

The command of the first two is in docs/choose.md; the project does not hold the logs of the maze.

Where episodes are long, their ends terminal and rewards far from 0, no constant is near the values:
how they fall towards the end takes 1/(polyak rate · $(1-\gamma)$) updates to learn from any start
(the claims of `claims/control/short_horizons.py`).
"""

from typing import Any, Literal, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.method import ActorCriticParts
from headwater.core.spaces import Spaces, Statistics
from headwater.networks.control.critics import divided
from headwater.networks.mlp import Ensemble
from headwater.networks.normaliser import Normaliser

RewardScale = Literal["deviation", "return_range"]
"""What rewards are multiplied by. `deviation`: one over the standard deviation of a logged reward;
`return_range`: 1000 over the range of logged returns."""

InitialLevel = Literal["logged", "zero"]
"""Where values start. `logged`: at the level of the log; `zero`: at 0."""

_RETURN_RANGE = 1000.0
_LARGEST_ONWARD = 0.9999
"""Beyond it the level would be that of ten thousand steps, of which no log is sure."""
_SMALLEST_SPREAD = 1e-6
"""Relative to the size of a reward or return: less is rounding."""


@runtime_checkable
class LoggedValueSettings(Protocol):
    """The hyper-parameters that `begin_values` reads from a method."""

    @property
    def discount(self) -> float | Float[Array, ""]: ...
    @property
    def normalise_observations(self) -> bool: ...
    @property
    def reward_scale(self) -> RewardScale | float: ...
    @property
    def initial_level(self) -> InitialLevel: ...


def begin_values(
    settings: LoggedValueSettings, problem: Spaces
) -> tuple[Normaliser, Float[Array, ""]]:
    """The normaliser of a method, and the level by which its values are to be raised at first.

    Without statistics of a log, rewards are multiplied by a given number only, and the level is 0.

    **Arguments:** `settings`: the method; `problem`: with the statistics of the log, if there is
    one.
    """
    statistics, scale = problem.statistics, settings.reward_scale
    if isinstance(scale, str):
        scale = 1.0 if statistics is None else scale_of_rewards(statistics, scale)
    normaliser = Normaliser(problem, settings.normalise_observations, scale)
    if statistics is None or settings.initial_level == "zero":
        return normaliser, jnp.zeros(())
    return normaliser, normaliser.reward_scale * level_of_values(statistics, settings.discount)


def scale_of_rewards(statistics: Statistics, by: RewardScale) -> Float[Array, ""]:
    """What rewards are multiplied by; 1 if they, or the returns, are all the same."""
    if by == "deviation":
        spread, size, unit = statistics.reward_std, jnp.abs(statistics.reward_mean), 1.0
    else:
        low, high = statistics.return_low, statistics.return_high
        spread, size = high - low, jnp.maximum(jnp.abs(low), jnp.abs(high))
        unit = _RETURN_RANGE
    least = _SMALLEST_SPREAD * size
    varied = (spread > least) & (spread > jnp.finfo(jnp.float32).tiny)
    return jnp.where(varied, unit / jnp.where(varied, spread, 1.0), 1.0)


def level_of_values(statistics: Statistics, discount: float | Float[Array, ""]) -> Float[Array, ""]:
    """The constant that satisfies the Bellman equation on average over the log.

    Truncated rows go on for ever, so that the mean return to go would be too small in size. Only
    where nearly no row is terminal and nearly nothing discounted is it taken.
    """
    onward = discount * (1.0 - statistics.terminal_share)
    endless = onward > _LARGEST_ONWARD
    constant = statistics.reward_mean / jnp.where(endless, 1.0, 1.0 - onward)
    return jnp.where(endless, statistics.return_to_go_mean, constant)


def parts_in_units_of_reward(
    actor: Any, normaliser: Normaliser, critics: Ensemble, target_critics: Ensemble
) -> ActorCriticParts:
    """What a warm start takes over from these, with values that count rewards as the data does."""
    scale = normaliser.reward_scale
    own, lagging = divided(critics, scale), divided(target_critics, scale)
    return ActorCriticParts(actor, normaliser.unscaled(), own, lagging)
