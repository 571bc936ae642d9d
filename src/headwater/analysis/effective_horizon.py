"""How many steps of planning a finite process needs on top of acting at random.

Exact quantities of a known `FiniteProcess` that bound, or predict, what it costs to learn it by
random exploration (Laidlaw et al. 2023, arXiv:2304.09853 and arXiv:2312.08369). On the host, in
double precision: they are properties of instances, worked out once. Values that differ by less
than `TOLERANCE` times the best return count as equal, since models are stored in single precision.
"""

import itertools
import math
from typing import Literal

import jax.numpy as jnp
import numpy as np

from headwater.core.errors import SpecificationError
from headwater.core.fields import check_choice
from headwater.core.finite import FiniteProcess

TOLERANCE = 1e-5

Leaf = Literal["uniform", "reward"]
"""What the first of the k steps looks at: the value of acting at random from there on, or the
immediate reward alone."""


def k_step_values(process: FiniteProcess, k: int, leaf: Leaf = "uniform") -> np.ndarray:
    """$Q^k$ `[step, state, action]`: $Q^1$ by `leaf`, then `k - 1` optimal backups of it.

    Raises `SpecificationError` if `k` is below one or the process is stacked.
    """
    _require(process, k)
    transition, reward = _model(process)
    check_choice(leaf, Leaf, "leaf")
    first = _backwards(transition, reward, np.mean) if leaf == "uniform" else reward
    return _back_up(transition, reward, first, k - 1)


def least_k(process: FiniteProcess, leaf: Leaf = "uniform") -> int:
    """Least $k$ for which every greedy policy of $Q^k$ is optimal from the first states on.

    With the values of acting at random at the leaves this is $\\min k$ of k-QVI-solvability; with
    rewards alone, the *effective planning window* W. At most the horizon.
    """
    for k in range(1, process.horizon + 1):
        if greedy_is_optimal(process, k, leaf):
            return k
    return process.horizon


def greedy_is_optimal(process: FiniteProcess, k: int, leaf: Leaf = "uniform") -> bool:
    """Whether every policy that is greedy in $Q^k$ is optimal, however it breaks ties."""
    value = k_step_values(process, k, leaf)
    best = _optimal(process)
    chosen = _largest(value, _slack(process))
    wrong = ~_largest(best, _slack(process)) & chosen
    return not bool((wrong & _reached(process, chosen)[:, :, None]).any())


def greedy_return(process: FiniteProcess, k: int, leaf: Leaf = "uniform") -> float:
    """Expected return of the greedy policy of $Q^k$ that breaks its ties worst."""
    transition, reward = _model(process)
    chosen = _largest(k_step_values(process, k, leaf), _slack(process))
    following = np.zeros(process.states)
    for step in reversed(range(process.horizon)):
        value = reward[step] + transition[step] @ following
        following = np.where(chosen[step], value, np.inf).min(axis=-1)
    return float(_initial(process) @ following)


def covering_length(process: FiniteProcess) -> float:
    """Episodes of random actions after which everything was tried, with probability a half.

    An upper bound: with $p$ the least probability, over states and actions that can be tried at
    all, of doing so in an episode (at its likeliest step), $\\ln(2 S A) / p$.
    """
    here = np.zeros((process.horizon, process.states))
    here[0] = _initial(process)
    transition, _ = _model(process)
    for step in range(process.horizon - 1):
        here[step + 1] = here[step] @ transition[step].mean(axis=1)
    chance = here.max(axis=0) / process.actions
    chance = chance[chance > 0.0]
    return float(math.log(2 * process.states * process.actions) / chance.min())


def effective_horizon_bound(process: FiniteProcess, deepest: int | None = None) -> float:
    """An upper bound of the effective horizon of a deterministic process; at most its horizon.

    The least, over $k$, of $k + \\log_A m_k$. With $m_k$ rollouts of each of $A^k$ sequences,
    Bernstein's inequality lets GORP choose an optimal action in each of $T$ steps with probability
    $1 - 1/(2T)$:
    $m_k = \\max_s \\lceil (8 \\sigma^2/\\Delta^2 + 4 R/(3 \\Delta)) \\ln(2 T A^k) \\rceil$, over
    states that it can get to, with $\\Delta$ the gap in $Q^k$ to the best of the actions that are
    not optimal, $R$ the range of a sequence's returns (best less worst continuation) and
    $\\sigma^2 = (Q^* - Q^{rnd})(Q^{rnd} - Q^{worst})$ their largest variance, each the largest of
    the sequences.

    **Arguments:** `deepest`: largest $k$ to look at, the horizon if it is not given.

    Raises `SpecificationError` if the process is not deterministic.
    """
    _require_deterministic(process)
    transition, reward = _model(process)
    horizon, actions = process.horizon, process.actions
    random = _backwards(transition, reward, np.mean)
    best, worst = _optimal(process), _backwards(transition, reward, np.min)
    spread = (best - random) * (random - worst)
    extent = best - worst
    slack, optimal = _slack(process), _largest(best, _slack(process))
    found = float(horizon)
    for k in range(1, min(deepest or horizon, horizon) + 1):
        if k >= found:
            break
        value = _back_up(transition, reward, random, k - 1)
        # What a sequence can return from its last action on is the same seen from its first.
        variance = _back_up(transition, np.zeros_like(reward), spread, k - 1)
        extents = _back_up(transition, np.zeros_like(reward), extent, k - 1)
        gap = value.max(axis=-1) - np.where(optimal, -np.inf, value).max(axis=-1)
        decisive = ~optimal.all(axis=-1)
        at = _reached(process, optimal) & decisive
        if (gap[at] <= slack).any():
            continue
        needed = 8.0 * variance.max(-1)[at] / gap[at] ** 2 + 4.0 * extents.max(-1)[at] / (
            3.0 * gap[at]
        )
        samples = math.log(2 * horizon * actions**k) * needed.max(initial=0.0)
        found = min(found, k + math.log(max(math.ceil(samples), 1), max(actions, 2)))
    return found


def stochastic_effective_horizon(process: FiniteProcess, deepest: int | None = None) -> float:
    """$\\bar H = \\min_k k + \\log_A(1 / \\Delta_k^2)$, over the $k$ whose greedy policies are
    optimal.

    $\\Delta_k$ is the least gap in $Q^k$ between the best actions and the next best, over states
    that some policy gets to, in units of the best return. Infinite if nothing can be earned.

    **Arguments:** `deepest`: largest $k$ to look at, the horizon if it is not given.
    """
    scale = float(_initial(process) @ _optimal(process)[0].max(axis=-1))
    if scale <= 0.0:
        return math.inf
    slack = _slack(process)
    reached = _reached(process, np.ones(process.reward.shape, bool))
    found = math.inf
    for k in range(1, min(deepest or process.horizon, process.horizon) + 1):
        if k >= found or not greedy_is_optimal(process, k):
            continue
        value = k_step_values(process, k)
        below = np.where(_largest(value, slack), -np.inf, value).max(axis=-1)
        gap = np.min((value.max(axis=-1) - below)[reached]) / scale
        exponent = 0.0 if np.isinf(gap) else -2.0 * math.log(gap, max(process.actions, 2))
        found = min(found, k + max(exponent, 0.0))
    return found


def gorp_success(
    process: FiniteProcess, k: int, samples: int, *, runs: int = 101, seed: int = 0
) -> float:
    """Share of `runs` of GORP, with `samples` rollouts of each sequence, that end up optimal.

    Rollouts are drawn from their exact distribution of returns where it has few atoms, and one by
    one otherwise.

    Raises `SpecificationError` if the process is not deterministic or `k` is out of range.
    """
    _require_deterministic(process)
    _require(process, k)
    if k > process.horizon:
        raise SpecificationError(f"k = {k} looks further than an episode has steps")
    return float(_Gorp(process, k).run(samples, runs, np.random.default_rng(seed)).mean())


def empirical_effective_horizon(
    process: FiniteProcess,
    k: int = 1,
    *,
    runs: int = 101,
    most_samples: int = 2**20,
    seed: int = 0,
) -> float:
    """$H_k = k + \\log_A m$, with the least $m$ for which GORP is optimal in half of its runs.

    Infinite if that takes more than `most_samples`. The least over $k$ is the effective horizon;
    learning costs about $T^2 A^H$ steps.

    Raises what `gorp_success` raises.
    """
    _require_deterministic(process)
    _require(process, k)
    gorp, generator = _Gorp(process, min(k, process.horizon)), np.random.default_rng(seed)

    def enough(samples: int) -> bool:
        return bool(gorp.run(samples, runs, generator).mean() >= 0.5)

    high = 1
    while not enough(high):
        high *= 2
        if high > most_samples:
            return math.inf
    low = high // 2
    while high - low > max(1, high // 16):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return k + math.log(high, max(process.actions, 2))


def sticky(process: FiniteProcess, probability: float = 0.25) -> FiniteProcess:
    """The process in which the last executed action is repeated with `probability` instead.

    State `s * (A + 1) + a` is state `s` after action `a`, and `a = A` before the first action,
    which is never replaced.

    Raises `SpecificationError` for a probability out of range, a stacked process or one with costs.
    """
    _require(process, 1)
    if not 0.0 <= probability <= 1.0:
        raise SpecificationError(f"probability = {probability:g} must lie between 0 and 1")
    if process.cost is not None:
        raise SpecificationError("sticky actions are not defined for processes with costs")
    transition, reward = _model(process)
    horizon, states, actions = reward.shape
    # chance[last, chosen, executed]
    chance = np.zeros((actions + 1, actions, actions))
    chance[:] = np.eye(actions)
    for last in range(actions):
        chance[last] *= 1.0 - probability
        chance[last, :, last] += probability
    rows = np.zeros((horizon, states, actions + 1, actions, states, actions + 1))
    rows[..., :actions] = np.einsum("lce,hset->hslcte", chance, transition)
    initial = np.zeros((states, actions + 1))
    initial[:, actions] = _initial(process)
    size = states * (actions + 1)
    return FiniteProcess(
        jnp.asarray(rows.reshape(horizon, size, actions, size), jnp.float32),
        jnp.asarray(
            np.einsum("lce,hse->hslc", chance, reward).reshape(horizon, size, actions), jnp.float32
        ),
        jnp.asarray(initial.reshape(-1), jnp.float32),
        noisy=process.noisy,
    )


class _Gorp:
    """Simulates GORP on a deterministic process, many runs at once."""

    most_atoms = 4096

    def __init__(self, process: FiniteProcess, k: int):
        transition, self.reward = _model(process)
        self.following = transition.argmax(axis=-1)
        self.start = int(_initial(process).argmax())
        self.optimal = _largest(_optimal(process), _slack(process))
        self.horizon, self.states, self.actions = self.reward.shape
        self.sequences = np.asarray(list(itertools.product(range(self.actions), repeat=k)))
        self.atoms = self._atoms()

    def run(self, samples: int, runs: int, generator: np.random.Generator) -> np.ndarray:
        """Which of the runs were optimal."""
        state = np.full(runs, self.start)
        good = np.ones(runs, bool)
        for step in range(self.horizon):
            # Runs that failed stay failed, and runs in one state are alike until they draw.
            mean = np.full((runs, len(self.sequences)), -np.inf)
            for here in np.unique(state[good]):
                who = np.flatnonzero(good & (state == here))
                mean[who] = self._means(step, int(here), len(who), samples, generator)
            # Ties are broken at random: whoever numbers the actions must not decide.
            level = mean.max(axis=-1, keepdims=True) - 1e-9
            best = (mean >= level) * generator.random(mean.shape)
            chosen = self.sequences[best.argmax(axis=-1), 0]
            good &= self.optimal[step, state, chosen]
            state = self.following[step, state, chosen]
            if not good.any():
                break
        return good

    def _means(self, step, state, runs, samples, generator) -> np.ndarray:
        found = np.empty((runs, len(self.sequences)))
        for index, sequence in enumerate(self.sequences):
            here, collected, late = state, 0.0, step
            for action in sequence[: self.horizon - step]:
                collected += self.reward[late, here, action]
                here = self.following[late, here, action]
                late += 1
            found[:, index] = collected + self._leaf(late, int(here), runs, samples, generator)
        return found

    def _leaf(self, step, state, runs, samples, generator) -> np.ndarray:
        if step == self.horizon:
            return np.zeros(runs)
        if self.atoms is not None:
            values, probabilities = self.atoms[step][state]
            return generator.multinomial(samples, probabilities, runs) @ values / samples
        here = np.full((runs, samples), state)
        total = np.zeros((runs, samples))
        for late in range(step, self.horizon):
            action = generator.integers(0, self.actions, here.shape)
            total += self.reward[late, here, action]
            here = self.following[late, here, action]
        return total.mean(axis=-1)

    def _atoms(self):
        """Distribution of what random actions return, for each step and state, or nothing."""
        later = [(np.zeros(1), np.ones(1))] * self.states
        found = []
        for step in reversed(range(self.horizon)):
            here = []
            for state in range(self.states):
                parts = [later[self.following[step, state, a]] for a in range(self.actions)]
                value = np.concatenate(
                    [self.reward[step, state, a] + p[0] for a, p in enumerate(parts)]
                )
                chance = np.concatenate([p[1] for p in parts]) / self.actions
                value, index = np.unique(np.round(value, 9), return_inverse=True)
                if len(value) > self.most_atoms:
                    return None
                chance = np.bincount(index.reshape(-1), chance)
                here.append((value, chance / chance.sum()))
            later = here
            found.append(here)
        return found[::-1]


def _model(process: FiniteProcess) -> tuple[np.ndarray, np.ndarray]:
    """Transitions, of rows that add up to one in double precision, and rewards."""
    transition = np.asarray(process.transition, np.float64)
    return transition / transition.sum(-1, keepdims=True), np.asarray(process.reward, np.float64)


def _initial(process: FiniteProcess) -> np.ndarray:
    initial = np.asarray(process.initial, np.float64)
    return initial / initial.sum()


def _backwards(transition: np.ndarray, reward: np.ndarray, over) -> np.ndarray:
    """Action values where `over` (max, mean or min) says what an action is worth afterwards."""
    value, following = np.empty_like(reward), np.zeros(reward.shape[1])
    for step in reversed(range(len(reward))):
        value[step] = reward[step] + transition[step] @ following
        following = over(value[step], axis=-1)
    return value


def _back_up(transition: np.ndarray, reward: np.ndarray, value: np.ndarray, times: int):
    """`times` optimal backups of action values."""
    for _ in range(times):
        later = np.concatenate([value[1:].max(axis=-1), np.zeros((1, value.shape[1]))])
        value = reward + np.einsum("hsat,ht->hsa", transition, later)
    return value


def _optimal(process: FiniteProcess) -> np.ndarray:
    return _backwards(*_model(process), np.max)


def _largest(value: np.ndarray, slack: float) -> np.ndarray:
    """Which actions are among the best."""
    return value >= value.max(axis=-1, keepdims=True) - slack


def _slack(process: FiniteProcess) -> float:
    return TOLERANCE * max(float(np.abs(_optimal(process)).max()), 1e-30)


def _reached(process: FiniteProcess, chosen: np.ndarray) -> np.ndarray:
    """States `[step, state]` to which some of the `chosen` actions lead."""
    transition, _ = _model(process)
    reached = np.zeros(chosen.shape[:2], bool)
    reached[0] = _initial(process) > 0.0
    for step in range(len(chosen) - 1):
        taken = (reached[step, :, None] & chosen[step])[..., None]
        reached[step + 1] = (taken & (transition[step] > 0.0)).any(axis=(0, 1))
    return reached


def _require(process: FiniteProcess, k: int) -> None:
    if process.reward.ndim != 3:
        raise SpecificationError("the effective horizon is that of one process, not of several")
    if k < 1:
        raise SpecificationError(f"k = {k} must be at least one")


def _require_deterministic(process: FiniteProcess) -> None:
    _require(process, 1)
    sure = np.asarray(process.transition).max(axis=-1) > 1.0 - 1e-5
    if process.noisy or not sure.all() or float(np.asarray(process.initial).max()) < 1.0 - 1e-5:
        raise SpecificationError(
            "GORP and its effective horizon are for deterministic processes: transitions, rewards "
            "and the first state must not be random; use stochastic_effective_horizon"
        )
