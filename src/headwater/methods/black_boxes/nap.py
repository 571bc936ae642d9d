"""NAP: a transformer that says where to evaluate next, learned from earlier tasks."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative, positive, share
from headwater.core.method import AbstractMethod, AbstractProposer, AbstractWarmStart, Agent, Info
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries, TaskQueries
from headwater.networks.attention import NEVER
from headwater.networks.meta.acquisition_process import (
    AcquisitionProcess,
    expected_value,
    history_of,
)
from headwater.ops.control.gradient_steps import begin, descend
from headwater.parts.meta.present_task import PresentTask
from headwater.parts.meta.table_searches import Searches, Units, losses_of, searched, units_of


class NAPState(eqx.Module):
    """The network with the moments of Adam, and the task that is searched at present.

    **Arguments:** `step`: of Adam; `units`: of the values of earlier tasks.
    """

    network: AcquisitionProcess
    optimiser: optax.OptState
    step: Int[Array, ""]
    units: Units
    task: PresentTask


class NAP(
    AbstractMethod[SearchSpace, TaskQueries, NAPState],
    AbstractProposer[NAPState],
    AbstractWarmStart[SearchSpace, NAPState],
):
    r"""Learns from tables of earlier tasks to search in a later one: a neural acquisition process.

    A transformer reads the evaluations so far, in no order, and each candidate beside them. It
    says how probable each value of a candidate is, as a histogram $p_\theta$, and from this what
    to evaluate it is worth, $\alpha_\theta$. In the tables it is a policy that evaluates
    $x \sim \mathrm{softmax}(\alpha_\theta / \tau)$, and is rewarded after each step by
    $-\log_{10}$ of the simple regret. It climbs the clipped objective of PPO, and beside it, as
    such rewards are rare, the likelihood of the values of all points after some drawn at random:

    $$L_{\mathrm{PPO}} + c L_{\mathrm{value}} - \lambda\, E[\log p_\theta(y \mid x, H)].$$

    An update with tables (`hw.EarlierTasks`) is an iteration of that; evaluations of the task at
    hand (`Queries`) are remembered, and change nothing else. `hw.Campaign(space, begin=run)` goes
    on with what a run has learned, as does `warm_start`. Values of all tasks are in one unit, of
    which more is better; points of another space are taken over in the user's units.

    **Arguments:**

    - `budget`: evaluations of a search, T.
    - `learning_rate`, `decay_updates`: of Adam, and steps after which the rate has fallen to zero
      (default: the steps of the run).
    - `likelihood_weight`: λ; 0 is PPO alone.
    - `value_weight`, `clip_range`, `discount`, `gae_lambda`, `max_gradient_norm`: of PPO.
    - `temperature`: τ.
    - `smallest_regret`: as a share of the range of a task; what is less counts as this.
    - `episodes_per_update`: searches, each in a task that is drawn.
    - `contexts_per_episode`: lots of evaluations of each search, for the likelihood.
    - `num_minibatches`: parts of the searches of an update, each of which is learned from once.
    - `num_candidates`: rows of a table that a search looks at, drawn anew.
    - `width`, `num_layers`, `num_heads`: of the transformer.
    - `num_buckets`: parts of the histogram.

    **Reference:** Maraval, Zimmer, Grosnit and Bou Ammar (2023), arXiv:2305.15930; what the value
    and the acquisition read, and PPO's numbers, are those of the authors' code.

    **Differences from the paper:** tables are taken as they are, where the authors draw tasks from
    Gaussian processes fitted to them; values are standardised over all tasks; points are described
    by waves, too; candidates attend to what was evaluated and to a token of the budget, not to
    themselves; searches choose among all candidates, not the best five; regret is bounded below by
    0.01 of a range, not 1e-20. Sizes are those of small problems.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "maraval2023end", "learned from earlier tasks where to evaluate next", ("PPO",)
    )

    budget: int = integer(10)
    learning_rate: float = non_negative(1e-3)
    decay_updates: float | None = positive(None)
    likelihood_weight: float = non_negative(1.0)
    value_weight: float = non_negative(1.0)
    clip_range: float = positive(0.15)
    discount: float = share(0.98)
    gae_lambda: float = share(0.98)
    max_gradient_norm: float = positive(0.5)
    temperature: float = positive(0.1)
    smallest_regret: float = positive(0.01)
    episodes_per_update: int = integer(16)
    contexts_per_episode: int = integer(4)
    num_minibatches: int = integer(4)
    num_candidates: int = integer(64)
    width: int = integer(64)
    num_layers: int = integer(2)
    num_heads: int = integer(4)
    num_buckets: int = integer(50, low=2)

    def init(self, problem: SearchSpace, *, key: PRNGKeyArray) -> NAPState:
        problem.require_one_fidelity("NAP")
        for what, whole, parts in (
            ("width", self.width, self.num_heads),
            ("episodes_per_update", self.episodes_per_update, self.num_minibatches),
        ):
            if whole % parts:
                raise SpecificationError(f"{what} = {whole} cannot be divided into {parts}")
        network = AcquisitionProcess(
            problem.size, self.width, self.num_layers, self.num_heads, self.num_buckets, key=key
        )
        return NAPState(
            network,
            begin(self._optimiser(jnp.zeros((), jnp.int32)), network),
            jnp.zeros((), jnp.int32),
            Units(jnp.zeros(()), jnp.ones(())),
            PresentTask.of(problem),
        )

    def warm_start(self, learned: Agent, problem: SearchSpace, *, key: PRNGKeyArray):
        if not isinstance(learned.method, NAP) or learned.state.task.space.size != problem.size:
            return None
        names = ("width", "num_layers", "num_heads", "num_buckets")
        if any(getattr(learned.method, name) != getattr(self, name) for name in names):
            return None
        problem.require_one_fidelity("NAP")
        task = PresentTask.of(problem, learned.state.task.learned_in)
        return dataclasses.replace(learned.state, task=task)

    def update(self, state: NAPState, data: TaskQueries | Queries, *, key: PRNGKeyArray):
        if isinstance(data, Queries):
            return dataclasses.replace(state, task=state.task.with_queries(data)), {}
        search_key, loss_key = jax.random.split(key)
        state = dataclasses.replace(state, units=units_of(data))
        searches, regret = searched(self, state.network, state.units, data, key=search_key)
        parts, each = self.num_minibatches, self.episodes_per_update // self.num_minibatches
        rows = jax.tree.map(lambda x: x.reshape(parts, each, *x.shape[1:]), searches)
        keys = jax.random.split(loss_key, parts)
        learn = lambda state, given: self._step(state, given)  # What is swept has no hash.
        state, metrics = jax.lax.scan(learn, state, (rows, keys))
        metrics = jax.tree.map(jnp.mean, metrics)
        return state, {**metrics, "regret": jnp.mean(regret)}

    def _step(self, state: NAPState, rows: tuple[Searches, Array]):
        searches, key = rows

        def loss(network: AcquisitionProcess):
            found = losses_of(self, network, searches, key=key)
            total = found.policy + self.value_weight * found.value
            total = total + self.likelihood_weight * found.likelihood
            return total, {f"{name}_loss": value for name, value in found._asdict().items()}

        gradient, metrics = jax.grad(loss, has_aux=True)(state.network)
        rule, place = self._optimiser(state.step), (state.optimiser, state.network)
        network, moments = descend(rule, gradient, *place)
        return NAPState(network, moments, state.step + 1, state.units, state.task), metrics

    def _optimiser(self, step: Int[Array, ""]) -> optax.GradientTransformation:
        spent = 0.0 if self.decay_updates is None else step / self.decay_updates
        rate = self.learning_rate * jnp.maximum(0.0, 1.0 - spent)
        return optax.chain(optax.clip_by_global_norm(self.max_gradient_norm), optax.adam(rate))

    def propose(self, state: NAPState, *, key: PRNGKeyArray):
        points = state.task.candidates(key=key)
        worth = jnp.where(state.task.evaluated(points), NEVER, self._judged(state, points)[1])
        return points[jnp.argmax(worth)], jnp.asarray(0, jnp.int32)

    def expect(self, state: NAPState, point: Float[Array, " component"], fidelity) -> NAPState:
        value = self._expected(state, point[None])
        queries = Queries(point[None], value, jnp.zeros(1, jnp.int32), jnp.zeros(1))
        return dataclasses.replace(state, task=state.task.with_queries(queries))

    def recommend(self, state: NAPState, *, key: PRNGKeyArray) -> Float[Array, " component"]:
        points = state.task.candidates(key=key)
        first = points[jnp.argmax(self._expected(state, points))]
        return jnp.where(state.task.count > 0, state.task.best(), first)

    def _expected(self, state: NAPState, points: Float[Array, "point component"]):
        logits = self._judged(state, points)[0]
        return state.units.shift + state.units.scale * expected_value(logits)

    def _judged(self, state: NAPState, points: Float[Array, "point component"]):
        task = state.task
        value = (task.value - state.units.shift) / state.units.scale
        history = history_of(task.as_learned(task.point), value, task.known, self.budget)
        return state.network(history, task.as_learned(points))
