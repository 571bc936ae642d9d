"""Off-policy evaluation: what a policy is worth, from logged experience alone, with intervals.

The worth of a policy is its expected discounted return from the logged initial observations.

| estimator | what it does |
|---|---|
| `fqe` | learns the policy's action value; no probabilities needed; biased where the log is thin |
| `is` | weighs each episode's return by the ratio of its probabilities; unbiased, high variance |
| `wis` | the same with weights that add up to 1; consistent, far less variance |
| `pdis` | weighs each reward by the ratio up to its step |
| `wpdis` | the same with weights that add up to 1 at every step |
| `dr` | `pdis` of what the learned value does not explain: unbiased if either part is right |
| `wdr` | the same with weights that add up to 1 at every step |
| `mis` | weighs each row by how often the policy would visit it; no probabilities needed |
| `drl` | the learned value, corrected by those weights where the rows contradict it |

`is` to `wdr` weigh by probabilities: those that were logged (`Dataset.log_propensities`), else
those of a policy cloned from the log, which the estimate says. A greedy policy over a finite set of
actions has probabilities 0 and 1; one over continuous actions has none, so that only `fqe`, `mis`
and `drl` judge it. Where an episode is truncated, `is` to `wpdis` see only the rewards before it;
the others go on from there by a learned value.

Every estimate is, to first order, a mean over episodes, whose interval is the bootstrap of its t
statistic. That of `fqe` uses the weights of `mis`; it has none where these are worthless, unless
`refits` asks for fits on resampled episodes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from headwater.core.errors import DataError, SpecificationError, nearest
from headwater.core.method import AbstractLikelihood, AbstractMethod, AbstractPolicy
from headwater.core.spaces import Discrete
from headwater.datasets.dataset import Dataset
from headwater.evaluation.estimators.bootstrap import episode_interval
from headwater.evaluation.estimators.importance import (
    WEIGHING,
    WITH_MODEL,
    Judged,
    WeightedEpisodes,
    weighted_estimate,
)
from headwater.evaluation.estimators.marginal import (
    Marginal,
    doubly_robust_marginal,
    marginal_estimate,
    marginal_weights,
)
from headwater.evaluation.fitted_value import (
    FittedValue,
    fit_value,
    log_probabilities,
    policy_choices,
)
from headwater.networks.control.actors import stochastic_actor
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.gradient_steps import begin, descend
from headwater.runs.progress import Progress

MARGINAL = ("mis", "drl")
ESTIMATORS = ("fqe", *WEIGHING, *MARGINAL)
WITH_VALUE = ("fqe", "drl", *WITH_MODEL)
"""Those that learn the value of the policy."""

_FEWEST_EFFECTIVE = 10.0
"""Below this many effective episodes an estimate says nothing, and is refused."""
_SMALL_SHARE = 0.1
"""Share of effective episodes below which normalised weights are doubtful."""
_MOST_NEGATIVE = 0.25
"""Share of weight of the wrong sign from which the weights of rows are no weights."""
_MOST_BEYOND = 0.15
"""Share of what a policy does, unlike anything in the log, from which the weights of rows are none.

In trials with logs of a pendulum and of intensive care it was 0.01 to 0.14, whatever the policy."""
_INITIAL_SAMPLES = 16


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What one estimator says.

    **Arguments:** `estimator`; `value`: expected discounted return; `low`, `high`: interval over
    episodes, `None` if there are too few; `level`: nominal coverage; `episodes`: how many;
    `effective_episodes`: how many episodes of the policy itself would weigh as much (harmonic
    mean over steps for estimators that weigh steps), `None` for `fqe`; `warnings`: why to distrust
    it; `refused`: why the value says nothing and must not be used, `None` if it may be;
    `behaviour`: whose probabilities it was weighed by: `logged`, `given`, `estimated` or `None`;
    `influence`: `[episode]`, of which the value is the mean.
    """

    estimator: str
    value: float
    low: float | None
    high: float | None
    level: float
    episodes: int
    effective_episodes: float | None
    warnings: tuple[str, ...] = ()
    refused: str | None = None
    behaviour: str | None = None
    influence: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def verdict(self) -> str:
        """`refused`, `doubtful` if there are warnings, else `usable`."""
        return "refused" if self.refused else "doubtful" if self.warnings else "usable"

    def to_json(self) -> dict[str, Any]:
        """Everything as values that JSON can hold; what is refused has no value."""
        fields = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "influence"
        }
        if self.refused is not None:
            fields |= {"value": None, "low": None, "high": None}
        return {**fields, "verdict": self.verdict}

    def __str__(self) -> str:
        if self.refused is not None:
            return f"{self.estimator}: refused, {self.refused}"
        between = "no interval" if self.low is None else f"{self.low:.4g} to {self.high:.4g}"
        size = self.effective_episodes
        effective = "" if size is None else f", {size:.1f} effective episodes"
        return f"{self.estimator}: {self.value:.4g} ({between}{effective})" + "".join(
            f"; {warning}" for warning in self.warnings
        )


def evaluate_off_policy(
    data: Dataset,
    method: AbstractMethod | AbstractPolicy,
    state: Any,
    *,
    estimators: Sequence[str] = ESTIMATORS,
    discount: float = 0.99,
    behaviour: Any = None,
    explore: bool = True,
    model: FittedValue | None = None,
    max_weight: float = float("inf"),
    level: float = 0.95,
    resamples: int = 1000,
    refits: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
    **fit: Any,
) -> dict[str, Estimate]:
    """Estimates what a policy is worth from logged experience.

    **Arguments:** `data`: what was logged; `method`, `state`: the policy, without a seed axis;
    `estimators`: which; `discount`; `behaviour`: log-probability of each logged action under the
    policy that logged it, `[row]`, in units of canonical actions (default: those logged with the
    data, else estimated by behavioural cloning); `explore`: whether to evaluate the exploring
    policy or the greedy one; `model`: the value of that policy, learned if not given;
    `max_weight`: what ratios of probabilities are clipped at, for less variance and some bias;
    `level`: nominal coverage; `resamples`: of episodes; `refits`: of `fqe` on resampled episodes,
    which its interval then comes from; `seed`: of everything; `progress`: is told of the updates of
    fits; `fit`: settings of `fit_value`.

    Raises `SpecificationError` if an estimator is unknown or needs what the method cannot do.
    """
    for name in estimators:
        if name not in ESTIMATORS:
            raise SpecificationError(nearest(name, ESTIMATORS, "estimator"))
    if not 0.0 < level < 1.0:
        raise SpecificationError(f"level = {level}: a nominal coverage lies between 0 and 1")
    if not max_weight > 0.0:
        raise SpecificationError(f"max_weight = {max_weight}: it must be above 0")
    weighing = [name for name in estimators if name in WEIGHING]
    if not weighing and max_weight != float("inf"):
        raise SpecificationError(
            f"max_weight = {max_weight}: none of {', '.join(estimators)} weighs by probabilities: "
            f"leave it out, or ask for one of {', '.join(WEIGHING)}"
        )
    if weighing:
        _require_probabilities(method, data, explore, weighing)
    clone_key, fit_key, choice_key = jax.random.split(jax.random.key(seed), 3)
    fits, counts = ([model] if model is not None else []), np.ones((1, data.episodes), np.int64)
    if not fits and set(estimators) & set(WITH_VALUE):
        fits, counts = fit_value(
            data,
            method,
            state,
            discount=discount,
            explore=explore,
            resampled=refits if "fqe" in estimators else 0,
            progress=progress,
            key=fit_key,
            **fit,
        )
    first, following = _choices(method, state, data, explore, choice_key)
    values = errors = None
    if fits:
        values, errors = _residuals(data, fits[0], first, following, discount)
    found: dict[str, Judged] = {}
    marginal = None
    if set(estimators) & {"fqe", *MARGINAL}:
        marginal = marginal_weights(data, first, following, discount, seed)
        found["mis"] = marginal_estimate(data, marginal)
        if values is not None and errors is not None:
            robust = doubly_robust_marginal(data, marginal, values, errors)
            value = float(values.mean())
            found["drl"] = robust
            found["fqe"] = Judged(value, robust.influence - robust.value + value)
    episodes = whose = None
    if weighing:
        behaviour, whose = _behaviour(data, behaviour, clone_key)
        ours = _log_probabilities(method, state, data, explore, choice_key)
        episodes = WeightedEpisodes(data, ours - behaviour, discount, max_weight)
        for name in weighing:
            found[name] = weighted_estimate(name, episodes, values, errors)
    diverged = _divergence(data, values, discount)
    made = {}
    for name in estimators:
        if name == "fqe" and refits:
            scatter = _scatter(fits, counts, data, first)
            made[name] = _fitted_estimate(found[name], scatter, level, data.episodes, diverged)
            continue
        if name in WEIGHING:
            assert episodes is not None
            doubts = _doubts_of_episodes(name, episodes, marginal)
        else:
            assert marginal is not None
            doubts = _doubts_of_rows(name, marginal, data.episodes)
        if diverged is not None and name in WITH_VALUE:
            doubts = doubts._replace(refused=diverged)
        between = None
        if doubts.interval and np.isfinite(found[name].influence).all():
            between = episode_interval(found[name].influence, level, resamples, seed)
        low, high = between or (None, None)
        made[name] = Estimate(
            name,
            found[name].value,
            low,
            high,
            level,
            data.episodes,
            doubts.effective,
            doubts.warnings,
            doubts.refused,
            whose if name in WEIGHING else None,
            found[name].influence,
        )
    return made


class _Doubts(NamedTuple):
    """How far an estimate can be trusted."""

    effective: float | None
    warnings: tuple[str, ...]
    refused: str | None
    interval: bool = True


def _doubts_of_episodes(
    name: str, episodes: WeightedEpisodes, marginal: Marginal | None
) -> _Doubts:
    effective, warnings, refused = episodes.effective(name), [], None
    if effective < _FEWEST_EFFECTIVE:
        # Others are recommended unless they have failed on this very log.
        others = marginal is None or _fault(marginal, episodes.count) is None
        refused = (
            f"only {effective:.1f} of {episodes.count:,} episodes effectively count, because the "
            "policy differs too much from the one that logged: neither value nor interval can be "
            f"trusted; {'use fqe, mis or drl, ' * others}judge a policy nearer to the log, or log "
            "more episodes"
        )
    elif effective < _SMALL_SHARE * episodes.count:
        warnings.append(
            f"few episodes carry the weight ({effective:.0f} of {episodes.count:,}), so that an "
            "estimate with normalised weights may be biased by more than its interval"
        )
    if episodes.clipped:
        warnings.append(
            f"clipping took {100 * episodes.clipped:.2g}% of the weight, and the bias of that is "
            "not in the interval"
        )
    average = episodes.average(name)
    if not 0.5 < average < 2.0:
        warnings.append(
            f"the weights average {average:.2g} where 1 is expected: the log misses what the "
            "policy does, or the behaviour's probabilities are wrong"
        )
    if name not in WITH_MODEL and episodes.lost > 0.05:
        warnings.append(
            f"truncated episodes leave {100 * episodes.lost:.0f}% of the discounted future unseen, "
            "which counts as worth nothing here: use fqe, drl, dr or wdr"
        )
    return _Doubts(effective, tuple(warnings), refused)


def _doubts_of_rows(name: str, marginal: Marginal, episodes: int) -> _Doubts:
    wrong = _fault(marginal, episodes)
    if name == "fqe":
        note = f"there is no interval, as the log hardly holds what the policy does ({wrong})"
        return _Doubts(None, (note,) if wrong else (), None, interval=wrong is None)
    if wrong is not None:
        wrong += (
            ", so that the log hardly holds what the policy does: judge a policy nearer to the "
            "log, or log more of what it does"
        )
    return _Doubts(marginal.effective_episodes, (), wrong)


def _fault(marginal: Marginal, episodes: int) -> str | None:
    """Why the weights of rows are worthless, if they are."""
    effective = marginal.effective_episodes
    if effective < min(_FEWEST_EFFECTIVE, episodes):
        return f"only {effective:.1f} of {episodes:,} episodes effectively count"
    if marginal.negative > _MOST_NEGATIVE:
        return f"{100 * marginal.negative:.0f}% of the weight has the wrong sign"
    if marginal.beyond > _MOST_BEYOND:
        return f"about {100 * marginal.beyond:.0f}% of what the policy does was never logged"
    return None


def _divergence(data: Dataset, values: np.ndarray | None, discount: float) -> str | None:
    if values is None:
        return None
    largest = float(np.abs(data.rewards).max()) / max(1.0 - discount, 1e-9)
    if np.isfinite(values).all() and abs(float(values.mean())) <= largest:
        return None
    return (
        "the value is out of all proportion to the rewards: the fit diverged, so lower its "
        "learning_rate or the discount"
    )


def _require_probabilities(method, data: Dataset, explore: bool, weighing: list[str]) -> None:
    if isinstance(data.spaces.action, Discrete) and not explore:
        return
    name = type(method).__name__
    if not isinstance(method, AbstractLikelihood):
        raise SpecificationError(
            f"{name} does not know the probabilities of its actions, which "
            f"{', '.join(weighing)} need: use the estimators fqe, mis and drl with explore=False"
        )
    if not explore:
        raise SpecificationError(
            f"the greedy policy of {name} has no probabilities over continuous actions, which "
            f"{', '.join(weighing)} need: use the estimators fqe, mis and drl, or evaluate the "
            "exploring policy with explore=True (--explore)"
        )


def _behaviour(data: Dataset, given: Any, key) -> tuple[np.ndarray, str]:
    """Log-probabilities of the logged actions `[row]`, and where they come from."""
    if given is None and data.log_propensities is not None:
        return data.log_propensities.astype(np.float64), "logged"
    if given is None:
        return behaviour_log_probabilities(data, key=key), "estimated"
    given = np.asarray(given, np.float64)
    if given.shape != (data.size,) or not np.isfinite(given).all():
        raise DataError(
            f"the behaviour's log-probabilities have shape {given.shape}: one finite number "
            f"for each of the {data.size:,} rows is needed"
        )
    return given, "given"


def _log_probabilities(method, state, data: Dataset, explore: bool, key) -> np.ndarray:
    """Of each logged action under the evaluated policy, minus infinity for what it never does."""
    if not isinstance(data.spaces.action, Discrete):
        logs = log_probabilities(method, state, data.observations, data.actions)
        return np.asarray(logs, np.float64)
    every = policy_choices(
        method, state, data.observations, data.spaces.action, explore=explore, samples=1, key=key
    )
    taken = np.asarray(every.weights, np.float64)[np.arange(data.size), data.actions]
    with np.errstate(divide="ignore"):
        return np.log(taken)


def _choices(method, state, data: Dataset, explore: bool, key):
    """What the policy does in first observations, and in those that follow rows."""
    here_key, next_key = jax.random.split(key)
    settings: dict[str, Any] = {"explore": explore, "samples": _INITIAL_SAMPLES}
    first = data.observations[data.episode_starts[:-1]]
    space = data.spaces.action
    here = policy_choices(method, state, first, space, key=here_key, **settings)
    after = policy_choices(method, state, data.next_observations, space, key=next_key, **settings)
    return here, after


def _residuals(data: Dataset, model: FittedValue, here, following, discount: float):
    """Value of each first observation `[episode]`, and temporal-difference error of each row."""
    first = jnp.asarray(data.observations[data.episode_starts[:-1]])
    values = np.asarray(_expected_values(model, first, here), np.float64)
    following = jnp.asarray(data.next_observations), following
    next_values = np.asarray(_expected_values(model, *following), np.float64)
    logged = np.asarray(
        _logged_values(model, jnp.asarray(data.observations), jnp.asarray(data.actions)),
        np.float64,
    )
    return values, data.rewards + discount * np.where(data.terminals, 0.0, next_values) - logged


def behaviour_log_probabilities(
    data: Dataset,
    *,
    hidden_sizes: tuple[int, ...] = (64, 64),
    updates: int = 2000,
    batch: int = 256,
    learning_rate: float = 1e-3,
    key: PRNGKeyArray,
) -> np.ndarray:
    """Log-probability of each logged action under a policy cloned from the data, `[row]`.

    The clone is a softmax over discrete actions, or a squashed normal.
    """
    actor = stochastic_actor(data.spaces, hidden_sizes, key=key, log_std_range=(-5.0, 2.0))
    observations = Normaliser(data.spaces, True)(jnp.asarray(data.observations))
    rate = jnp.asarray(learning_rate, jnp.float32)
    actions = jnp.asarray(data.actions)
    return np.asarray(_clone(actor, observations, actions, rate, key, updates, batch), np.float64)


@eqx.filter_jit
def _clone(actor, observations, actions, learning_rate, key, updates, batch):
    pace = lambda step: learning_rate * 0.5 * (1.0 + jnp.cos(jnp.pi * step / updates))
    optimiser = optax.adam(pace)

    def update(i, carry):
        actor, moments = carry
        draw = jax.random.fold_in(key, i)
        rows = jax.random.randint(draw, (batch,), 0, observations.shape[0])
        loss = lambda a: -jnp.mean(a(observations[rows]).log_density(actions[rows]))
        return descend(optimiser, jax.grad(loss)(actor), moments, actor)

    actor, _ = jax.lax.fori_loop(0, updates, update, (actor, begin(optimiser, actor)))
    one = lambda row: actor(row[0]).log_density(row[1])
    return jax.lax.map(one, (observations, actions), batch_size=4096)


@eqx.filter_jit
def _expected_values(model, observations, choices):
    one = lambda row: model.expected(*jax.tree.map(lambda x: x[None], row))[0]
    return jax.lax.map(one, (observations, choices), batch_size=4096)


@eqx.filter_jit
def _logged_values(model, observations, actions):
    return jax.lax.map(lambda row: model(*row), (observations, actions), batch_size=4096)


def _scatter(fits, counts, data: Dataset, choices) -> np.ndarray:
    """What each fit on resampled episodes says of the policy, `[fit]`."""
    first = jnp.asarray(data.observations[data.episode_starts[:-1]])
    each = [np.asarray(_expected_values(fit, first, choices), np.float64) for fit in fits[1:]]
    return np.asarray([np.average(v, weights=count) for v, count in zip(each, counts[1:])])


def _fitted_estimate(judged: Judged, scatter, level, episodes: int, diverged) -> Estimate:
    """The first fit's value, with a t interval from how the resampled fits scatter."""
    from scipy import stats

    low = high = None
    if scatter.size >= 3 and episodes >= 3:
        half = float(stats.t.ppf(0.5 + 0.5 * level, scatter.size - 1) * scatter.std(ddof=1))
        low, high = judged.value - half, judged.value + half
    return Estimate(
        *("fqe", judged.value, low, high, level, episodes, None),
        refused=diverged,
        influence=judged.influence,
    )
