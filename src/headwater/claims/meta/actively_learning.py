"""Finding the best arm with few pulls, as well as can be at every difficulty."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.problems.arms import Arms
from headwater.environments.bandits.bandit import AbstractBandit, no_context
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, with_numbers
from headwater.methods.bandits.successive_halving import SuccessiveHalving
from headwater.methods.meta.learning_to_actively_learn import LearningToActivelyLearn
from headwater.runs.learn import learn
from headwater.sources.meta.tasks import DrawnTasks
from headwater.sources.pulls import LivePulls

_ARMS = 10
_FOUND = 8
"""Instances of each adversary, the most dangerous, on which all policies are tried."""
_EVENLY = 1_000_000
"""A budget of successive halving with which it drops no arm, and pulls all equally often."""


class _Shuffled(AbstractBandit):
    """Arms with given means, moved round by what the seed draws, since ties have an order."""

    means: Float[Array, " arm"]
    seed: Int[Array, ""]
    name: str = eqx.field(static=True, default="shuffled")
    reference_returns: None = None

    @property
    def problem(self) -> Arms:
        return Arms(_ARMS)

    def reset(self) -> Float[Array, " arm"]:
        return jnp.roll(self.means, self.seed % _ARMS)

    def show(self, state, *, key):
        return no_context(_ARMS)

    def mean_reward(self, state, context, features):
        return state


def _task(means: Array) -> FiniteProcess:
    """A bandit as a process of one step."""
    means = means.reshape(1, 1, _ARMS)
    return FiniteProcess(jnp.ones((*means.shape, 1)), means, jnp.ones(1), noisy=True)


def _drawn(key: jax.Array) -> FiniteProcess:
    return _task(jax.random.uniform(key, (_ARMS,)))


def _mistake(policy, means: Array, key: jax.Array, budget: int) -> jax.Array:
    """How probably an arm is recommended that is not the best, after a budget of pulls."""
    best = jnp.argmax(means)
    if isinstance(policy, SuccessiveHalving):
        seed = jax.random.randint(key, (), 0, 2**31 - 1)
        bandit = _Shuffled(means=means, seed=seed)
        state = learn(policy, bandit.problem, LivePulls(bandit), budget, key=key).state
        found = policy.probabilities(state, *no_context(_ARMS), key=key, explore=False)
        return 1.0 - found[jnp.argmax(bandit.reset())]
    method, state = policy
    return 1.0 - method.apply_rule(state, _task(means), budget, key=key)[-1, 0, 0, best]


def _structured(limit: float) -> np.ndarray:
    """Instances of this difficulty: one best arm, some arms near it, and others that earn nothing.

    Without structure, what an adversary of one policy found might spare another.
    """
    found = []
    for best in np.linspace(limit**-0.5, 1.0, 6):
        for near in (1, 2, 3, 5, _ARMS - 1):
            rest = (_ARMS - 1) * limit - (_ARMS - 1 - near) / best**2
            gap = min(np.sqrt(near / rest), best) if rest > 0.0 else best
            found.append([best] + [best - gap] * near + [0.0] * (_ARMS - 1 - near))
    return np.asarray(found)


def _worst(policy, instances: Array, budget: int, episodes: int, *, key: jax.Array):
    """The loss in the worst of some instances, which is chosen by other episodes than it is from.

    **Arguments:** `episodes`: in each instance; then as many are shared by the eight worst of them,
    and again by the worst, whose loss it is.
    """
    count = len(instances)

    def stage(order, given):
        left, key = given
        # One program for all stages.
        rows = order[jnp.arange(count * episodes) % left]
        keys = jax.random.split(key, count * episodes)
        wrong = jax.vmap(lambda row, key: _mistake(policy, instances[row], key, budget))(rows, keys)
        times = jnp.zeros(count).at[rows].add(1.0)
        losses = jnp.zeros(count).at[rows].add(wrong) / jnp.maximum(times, 1.0)
        order = jnp.argsort(jnp.where(times > 0.0, -losses, jnp.inf))
        return order, losses[order[0]]

    stages = (jnp.asarray([count, min(count, 8), 1]), jax.random.split(key, 3))
    return jax.lax.scan(stage, jnp.arange(count), stages)[1][-1]


def _difficulties(
    seed: int, *, meta_seeds: int, updates: int, particles: int, units: list[int], episodes: int
) -> Finding:
    method = LearningToActivelyLearn(
        num_particles=particles, episodes_per_particle=2, hidden_sizes=tuple(units)
    )
    problem = FiniteProblem(1, _ARMS, 1, tasks=64)
    # Every particle is drawn anew in each update, from all instances, and none counts more.
    never, all_of_them = {"adversary_weight": 0.0, "particle_learning_rate": 0.0}, 1e6
    prior = {**never, "restarts": 1.0, "easiest_class": all_of_them, "hardest_class": all_of_them}
    own = {name: getattr(method, name) for name in prior}
    numbers = {name: jnp.asarray([own[name], prior[name]]) for name in prior}
    classes = method.num_classes
    limits = np.geomspace(method.easiest_class, method.hardest_class, classes)
    structured = jnp.asarray(np.stack([_structured(x) for x in limits]), jnp.float32)

    def trained(given):
        numbers, key = given
        source = DrawnTasks(_drawn, 64)
        return learn(with_numbers(method, **numbers), problem, source, updates, key=key).state

    @eqx.filter_jit
    def one(key):
        """Losses of policies, `[policy, class]`."""
        train_key, judge_key = jax.random.split(key)
        both = jax.lax.map(trained, (numbers, jnp.stack([train_key, train_key])))
        most = jnp.argsort(-both.losses[0], axis=-1)[..., :_FOUND]
        found = jnp.take_along_axis(both.means[0], most[..., None], axis=2)
        found = jnp.concatenate([found[0], found[1]], axis=1)
        state = jax.tree.map(lambda x: x[0], both)

        def judged(given):
            kind, row, level, key = given
            put = jax.tree.map(lambda x: x[0].at[-1].set(x[kind, row]), both.samplers)
            policy = (method, eqx.tree_at(lambda s: s.samplers, state, put))
            against = jnp.concatenate([structured[level], found[level]])
            return _worst(policy, against, method.budget, episodes, key=key)

        last, each = jnp.full(classes, classes), jnp.arange(classes)
        rows = jnp.concatenate([last, each, last - 1, last])
        kinds = (jnp.arange(len(rows)) >= 3 * classes).astype(jnp.int32)
        keys = jax.random.split(judge_key, len(rows))
        losses = jax.lax.map(judged, (kinds, rows, jnp.tile(each, 4), keys))
        return losses.reshape(4, classes)

    keys = jax.random.split(jax.random.key(seed), meta_seeds + 1)
    losses = [one(key) for key in keys[:-1]]
    robust, best, hardest, uniform_prior = np.moveaxis(np.asarray(losses, np.float64), 1, 0)

    @eqx.filter_jit
    def rivals(key):
        def one(given):
            dropping, level, key = given
            policy = eqx.tree_at(lambda m: m.budget, SuccessiveHalving(), dropping)
            return _worst(policy, structured[level], method.budget, episodes, key=key)

        budgets = jnp.repeat(jnp.asarray([method.budget, _EVENLY]), classes)
        levels = jnp.tile(jnp.arange(classes), 2)
        return jax.lax.map(one, (budgets, levels, jax.random.split(key, 2 * classes)))

    halving, evenly = np.asarray(rivals(keys[-1]), np.float64).reshape(2, classes)
    excess = {
        "robust": np.max(robust - best, axis=1),
        "hardest class": np.max(hardest - best, axis=1),
        "uniform prior": np.max(uniform_prior - best, axis=1),
    }
    criteria = [
        Criterion("worst excess over the specialists", mean_of(excess["robust"]), at_most=0.05),
        *(
            Criterion(
                f"worst excess, less that of training on the {name}",
                mean_of(excess["robust"] - excess[name]),
                at_most=0.0,
            )
            for name in ("hardest class", "uniform prior")
        ),
        *(
            Criterion(
                f"loss in the class up to {limits[k]:.3g}, less that of successive halving",
                mean_of(robust[:, k] - halving[k]),
                at_most=0.0,
            )
            for k in range(classes)
        ),
    ]
    named = {
        "robust": robust,
        "specialists": best,
        "hardest class": hardest,
        "uniform prior": uniform_prior,
    }
    report = {
        **{name: mean_of(x) for name, x in excess.items()},
        "losses by class": {
            **{name: np.mean(x, axis=0).tolist() for name, x in named.items()},
            "successive halving": halving.tolist(),
            "all arms equally often": evenly.tolist(),
        },
    }
    return Finding(tuple(criteria), report)


CLAIMS = (
    Claim(
        name="one-way-to-find-the-best-arm-serves-every-difficulty",
        statement="With ten arms and 20 pulls, a policy trained against adversaries of three "
        "difficulties is wrong at most 0.05 more often, in the worst instance of each, than the "
        "policy trained for that difficulty alone; this is less than for policies trained on the "
        "hardest class or on uniform means; and it is wrong no more often than successive halving.",
        methods=("LearningToActivelyLearn", "SuccessiveHalving"),
        paper="zhang2020learning",
        where="its objective, on the smallest bandits that need one; sizes and thresholds are a "
        "reproduction's",
        scales={
            "smoke": {
                "meta_seeds": 2,
                "updates": 2,
                "particles": 8,
                "units": [4],
                "episodes": 1,
            },
            "small": {
                "meta_seeds": 3,
                "updates": 250,
                "particles": 64,
                "units": [16, 16],
                "episodes": 64,
            },
        },
        experiment=_difficulties,
        learned="Holds with seeds 0 and 2; undecided with seed 1, but for successive halving. Of "
        "that, and of pulling all arms equally often, all is clear: in the easiest class the "
        "policy is wrong in 4 to 5 % of its campaigns, they in 38 and 18 %. Beside other training "
        "it gains 0.03 to 0.04 in the middle class on the specialist of the hardest; but in the "
        "hardest that specialist, judged twice, differs from itself by 0.024, 0.014 and 0.003, as "
        "much as excesses do. More episodes and more trained policies would tell.",
    ),
)
