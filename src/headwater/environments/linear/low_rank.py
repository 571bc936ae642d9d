"""Families of finite processes that share features, so that what one teaches helps the others.

In each, the next state depends on state and action through few features alone,
`P[t, h, s, a, s'] = feature[h, s, a] · measure[t, h, :, s']`: the features are common to all tasks,
the measures are each task's own. Entries of a feature are probabilities, and so are measures.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess


class LowRankTasks(eqx.Module):
    """Processes of one family, and what they have in common.

    **Arguments:** `process`: stacked along a leading task axis; `feature`: true features, with a
    leading task axis only where the tasks share none; `measure`: true measures.
    """

    process: FiniteProcess
    feature: Float[Array, "*task horizon state action feature"]
    measure: Float[Array, "task horizon feature state"]

    @property
    def tasks(self) -> int:
        """How many."""
        return self.measure.shape[0]

    def subset(self, tasks: Sequence[int]) -> "LowRankTasks":
        """The tasks of these numbers, still stacked."""
        at = self._known(tasks)
        feature = self.feature if self.feature.ndim == 4 else self.feature[at]
        return LowRankTasks(jax.tree.map(lambda x: x[at], self.process), feature, self.measure[at])

    def task(self, task: int) -> FiniteProcess:
        """The task of this number, alone."""
        at = self._known([task])[0]
        return jax.tree.map(lambda x: x[at], self.process)

    def mixture(self, weight: Sequence[float]) -> FiniteProcess:
        """A new task: measures and first states are mixed with these weights, the reward is that of
        the first task.

        Raises `SpecificationError` if the weights are no distribution over the tasks, or the tasks
        share no features.
        """
        probabilities = np.asarray(weight, np.float64)
        if (
            probabilities.shape != (self.tasks,)
            or probabilities.min() < 0.0
            or abs(probabilities.sum() - 1) > 1e-6
        ):
            raise SpecificationError(
                f"weight must be {self.tasks} numbers that are not negative and add up to one, "
                f"one for each task, not {list(weight)}"
            )
        if self.feature.ndim != 4:
            raise SpecificationError("tasks that share no features have no mixture of their rank")
        measure = np.einsum("t,thfs->hfs", probabilities, np.asarray(self.measure, np.float64))
        return FiniteProcess.from_arrays(
            np.asarray(self.feature, np.float64) @ measure[:, None],
            self.process.reward[0],
            probabilities @ np.asarray(self.process.initial, np.float64),
            noisy=self.process.noisy,
        )

    def _known(self, tasks: Sequence[int]) -> np.ndarray:
        for task in tasks:
            if task not in range(self.tasks):
                raise SpecificationError(
                    f"there is no task {task}: the tasks are 0 … {self.tasks - 1}"
                )
        return np.asarray(tasks)


def latent_lock(
    *,
    tasks: int,
    states: int = 20,
    actions: int = 4,
    horizon: int = 5,
    rank: int = 4,
    good: int | None = None,
    concentration: float = 0.5,
    blur: float = 0.02,
    shared: bool = True,
    key: PRNGKeyArray,
) -> LowRankTasks:
    """Locks that open with the same actions, but look different when they are turned.

    At every step some states are good, and each good state has one right action; all other pairs of
    state and action are of one of `rank - 1` wrong kinds. A right action leads to good states of
    the next step, a wrong one to the others, with a distribution for each kind and task. A right
    action at the last step earns one; episodes start in good states.

    **Arguments:** `rank`: kinds of pairs, the right one included: the number of features; `good`:
    good states of a step, three tenths of them if left out; `concentration`: of the Dirichlet
    distributions that measures are drawn from; `blur`: share of the uniform distribution in every
    measure; `shared`: if false, every task has kinds of its own (a negative control) and starts
    anywhere.

    Raises `SpecificationError` for sizes below one, a rank below two or larger than the number of
    states, or states of which none is good or all are.
    """
    good = max(1, round(0.3 * states)) if good is None else good
    _require_sizes(tasks=tasks, states=states, actions=actions, horizon=horizon)
    _require_rank(rank, states, lowest=2)
    if not 1 <= good < states:
        raise SpecificationError(
            f"good = {good} of {states} states: at least one must be good and one not"
        )
    random = _generator(key)
    size = (horizon, states, actions)
    kinds, good_states = [], []
    for _ in range(1 if shared else tasks):
        kind = random.integers(1, rank, size)
        is_good = np.zeros((horizon + 1, states), bool)
        for step in range(horizon + 1):
            is_good[step, random.choice(states, good, replace=False)] = True
        right = random.integers(0, actions, (horizon, states))
        kind[(*np.nonzero(is_good[:-1]), right[is_good[:-1]])] = 0
        kinds.append(kind)
        good_states.append(is_good)
    processes, measures = [], []
    for task in range(tasks):
        kind, is_good = kinds[0 if shared else task], good_states[0 if shared else task]
        measure = np.zeros((horizon, rank, states))
        for step in range(horizon):
            following = is_good[step + 1]
            measure[step, 0, following] = _dirichlet(random, concentration, good, ())
            rest = _dirichlet(random, concentration, states - good, (rank - 1,))
            measure[step, 1:, ~following] = rest.T
        measure = (1.0 - blur) * measure + blur / states
        reward = np.zeros(size)
        reward[-1] = kind[-1] == 0
        start = is_good[0] / good if shared else np.full(states, 1.0 / states)
        feature = np.eye(rank)[kind]
        processes.append(FiniteProcess.from_arrays(feature @ measure[:, None], reward, start))
        measures.append(measure)
    features = np.eye(rank)[kinds]
    return _gather(processes, features[0] if shared else features, measures)


def block_processes(
    *,
    tasks: int,
    states: int = 20,
    actions: int = 4,
    horizon: int = 5,
    blocks: int = 3,
    concentration: float = 0.5,
    key: PRNGKeyArray,
) -> LowRankTasks:
    """Block processes with a common decoder: states of a block differ in looks alone.

    Which block a state belongs to is common to all tasks; how blocks follow each other, and how
    often a block shows as each of its states, is drawn for each task. One action in one block at
    the last step earns one. The features say block and action: there are `blocks · actions`.

    **Arguments:** `concentration`: of the Dirichlet distribution of the next block.

    Raises `SpecificationError` for sizes below one, or more blocks than states.
    """
    _require_sizes(tasks=tasks, states=states, actions=actions, horizon=horizon)
    _require_rank(blocks, states, lowest=1, name="blocks")
    random = _generator(key)
    block = np.stack([_groups(random, states, blocks) for _ in range(horizon + 1)])
    pair = block[:-1, :, None] * actions + np.arange(actions)
    feature = np.eye(blocks * actions)[pair]
    goal = random.integers(blocks), random.integers(actions)
    processes, measures = [], []
    for _ in range(tasks):
        shows = _emissions(random, block, blocks)
        probabilities = _dirichlet(random, concentration, blocks, (horizon, blocks * actions))
        measure = probabilities @ shows[1:]
        reward = np.zeros((horizon, states, actions))
        reward[-1, block[-2] == goal[0], goal[1]] = 1.0
        start = shows[0].mean(0)
        processes.append(FiniteProcess.from_arrays(feature @ measure[:, None], reward, start))
        measures.append(measure)
    return _gather(processes, feature, measures)


def rich_combination_locks(
    *,
    tasks: int,
    states: int = 20,
    actions: int = 4,
    horizon: int = 5,
    slip: float = 0.0,
    distraction: float = 0.0,
    key: PRNGKeyArray,
) -> LowRankTasks:
    """Combination locks that are seen through rich observations, after Misra et al. (2020).

    There are two latent states in which the lock can still be opened, each with its right action at
    every step, and one in which it is stuck for good. After a right action the two are equally
    likely. A state is an observation of one latent state; how often it is shown is each task's own.
    The last right action earns one. Two features: right and wrong.

    **Arguments:** `slip`: probability that the lock sticks after a right action; `distraction`:
    reward of the first wrong action.

    Raises `SpecificationError` for sizes below one, fewer than three states, fewer than two actions
    or numbers outside of [0, 1].
    """
    _require_sizes(tasks=tasks, horizon=horizon)
    if states < 3 or actions < 2:
        raise SpecificationError(
            f"three latent states and a wrong action need at least three states and two actions, "
            f"not {states} and {actions}"
        )
    for name, value in (("slip", slip), ("distraction", distraction)):
        if not 0.0 <= value <= 1.0:
            raise SpecificationError(f"{name} = {value:g} must be between zero and one")
    random = _generator(key)
    latent = np.stack([_groups(random, states, 3) for _ in range(horizon + 1)])
    right = random.integers(0, actions, (horizon, 2))
    is_right = np.zeros((horizon, states, actions), bool)
    for which in range(2):
        step, state = np.nonzero(latent[:-1] == which)
        is_right[step, state, right[step, which]] = True
    feature = np.eye(2)[np.where(is_right, 0, 1)]
    moves = np.asarray([[(1.0 - slip) / 2.0, (1.0 - slip) / 2.0, slip], [0.0, 0.0, 1.0]])
    reward = np.where((latent[:-1] < 2)[..., None] & ~is_right, distraction, 0.0)
    reward[-1, is_right[-1]] = 1.0
    processes, measures = [], []
    for _ in range(tasks):
        shows = _emissions(random, latent, 3)
        measure = moves @ shows[1:]
        start = shows[0, :2].mean(0)
        processes.append(FiniteProcess.from_arrays(feature @ measure[:, None], reward, start))
        measures.append(measure)
    return _gather(processes, feature, measures)


def random_low_rank(
    *,
    tasks: int,
    states: int = 20,
    actions: int = 4,
    horizon: int = 5,
    rank: int = 4,
    concentration: float = 0.5,
    key: PRNGKeyArray,
) -> LowRankTasks:
    """Processes whose features and measures are drawn at random, from Dirichlet distributions.

    Features are mixtures here, not one of `rank` kinds. Rewards are linear in the features, with
    weights drawn for each task, and add up to at most one.

    **Arguments:** `concentration`: of features and measures.

    Raises `SpecificationError` for sizes below one or a rank larger than the number of states.
    """
    _require_sizes(tasks=tasks, states=states, actions=actions, horizon=horizon)
    _require_rank(rank, states, lowest=1)
    random = _generator(key)
    feature = _dirichlet(random, concentration, rank, (horizon, states, actions))
    processes, measures = [], []
    for _ in range(tasks):
        measure = _dirichlet(random, concentration, states, (horizon, rank))
        weight = random.uniform(size=(horizon, 1, rank, 1)) / horizon
        start = _dirichlet(random, 1.0, states, ())
        reward = (feature @ weight)[..., 0]
        processes.append(FiniteProcess.from_arrays(feature @ measure[:, None], reward, start))
        measures.append(measure)
    return _gather(processes, feature, measures)


def _gather(processes: list[FiniteProcess], feature: np.ndarray, measures: list) -> LowRankTasks:
    return LowRankTasks(
        jax.tree.map(lambda *x: jnp.stack(x), *processes),
        jnp.asarray(feature, jnp.float32),
        jnp.asarray(np.stack(measures), jnp.float32),
    )


def _generator(key: PRNGKeyArray) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def _dirichlet(random: np.random.Generator, concentration: float, size: int, lead) -> np.ndarray:
    if not concentration > 0.0:
        raise SpecificationError(f"concentration = {concentration:g} must be above zero")
    return random.dirichlet(np.full(size, concentration), lead)


def _groups(random: np.random.Generator, states: int, groups: int) -> np.ndarray:
    """Which group each state is in; no group is empty, and their sizes differ by one at most."""
    return random.permutation(np.arange(states) % groups)


def _emissions(random: np.random.Generator, group: np.ndarray, groups: int) -> np.ndarray:
    """For each step and group, how often it shows as each of its states."""
    shows = np.zeros((*group.shape[:1], groups, group.shape[-1]))
    for step in range(len(group)):
        for which in range(groups):
            of_it = group[step] == which
            shows[step, which, of_it] = random.dirichlet(np.ones(of_it.sum()))
    return shows


def _require_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise SpecificationError(f"{name} = {size} must be at least one")


def _require_rank(rank: int, states: int, *, lowest: int, name: str = "rank") -> None:
    if not lowest <= rank <= states:
        raise SpecificationError(
            f"{name} = {rank} does not fit {states} states: it must be from {lowest} to {states}"
        )
