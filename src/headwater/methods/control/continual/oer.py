"""Offline experience replay: one task after the other, a few rows of each kept to be cloned."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import (
    choice,
    choice_or_positive,
    flag,
    integer,
    non_negative,
    share,
    sizes,
)
from headwater.core.method import AbstractContinual, AbstractMethod, AbstractPolicy, Info
from headwater.core.records import TaskLog, Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import DeterministicActor, choose_near
from headwater.networks.control.critics import critics, raised
from headwater.networks.mlp import MLP
from headwater.ops.control.bellman import backup
from headwater.ops.control.gradient_steps import descend
from headwater.ops.control.improvement import unit_scale
from headwater.parts.continual.kept_experience import KeptExperience, Selection, choose_rows
from headwater.parts.continual.replayed_tasks import (
    ReplayedTasks,
    begin_replayed,
    expected_next,
    go_on,
    learn_changes,
    spaces_with_task,
    with_task,
)
from headwater.parts.deterministic_actor_critic import (
    begin_deterministic,
    improve_actor_when_due,
    regress_critics,
    smoothed_next_action,
)
from headwater.parts.logged_values import InitialLevel, RewardScale, begin_values


class OER(
    AbstractMethod[Spaces, Transitions, ReplayedTasks],
    AbstractPolicy[ReplayedTasks],
    AbstractContinual[Spaces, ReplayedTasks],
):
    r"""OER: tasks one after the other, of each of which only a few logged rows are kept.

    In task $n$ a policy $\mu_n$ is learned as in TD3+BC, from its log alone, and the policy of all
    tasks clones it and the rows $B_j$ kept of earlier tasks (dual behaviour cloning):
    $E_{D_n}\,\mathrm{mean}_i(\pi_i(s, n) - \mu_{n,i}(s))^2
    + \frac{\lambda}{n-1}\sum_{j<n} E_{B_j}\,\mathrm{mean}_i(\pi_i(s, j) - a_i)^2$.
    Without it, π is itself the actor of TD3+BC, with the second term in its loss.

    What is kept of a task (model-based experience selection): from a logged beginning, $\mu_n$ and
    a model of the process say where the next step leads; the logged row that is nearest to it,
    of those that are not kept yet, is kept, and the rollout goes on from that row. The rows lie
    where the policy leads, which rows drawn at random do not.

    Which task is acted in has to be told: `for_task`, or `run.for_task`. The last one is usual.

    **Arguments:**

    - `num_tasks`: how many tasks there is room for.
    - `buffer_size`: rows kept of each task.
    - `selection`: how they are chosen: `model`, at `random`, or by the highest `reward`.
    - `rollout_steps`: after which a rollout that chooses rows is cut.
    - `dual_cloning`: learn $\mu_n$ apart from π.
    - `replay_weight`: λ.
    - `discount`: weight of the next step's value.
    - `alpha`: α of TD3+BC; larger trusts the critic more.
    - `target_policy_noise`, `target_noise_clip`: σ and c of the noise on the target's action.
    - `learning_rate`: of Adam, for every network.
    - `polyak_rate`: Polyak rate of the targets.
    - `exploration_noise`: deviation of the noise when acting to explore.
    - `policy_delay`: updates of the critics for each of the actor and the targets.
    - `normalise_observations`: standardise with the mean and deviation of the first task's log.
    - `reward_scale`: what rewards are multiplied by: one over their standard deviation in the log
      of the task, 1000 over the range of logged returns (`return_range`), or a number.
    - `initial_level`: whether values start at the level of the task's log or at 0.
    - `hidden_sizes`: hidden layers of every network.

    **Reference:** Gai, Wang, He (2023), arXiv:2305.13804.

    **Differences from the paper:** the task is an input of the networks and not one of several
    output layers; the model predicts one change and no distribution; distances are in deviations of
    each component, and no row is kept twice; values start at the level of the log (see
    `parts/logged_values.py`); every task begins with a fresh $\mu_n$, critics and model.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "gai2023oer",
        summary="one task after the other, cloning a few rows kept of each earlier one",
        parents=("TD3BC", "BC"),
    )

    num_tasks: int = integer(10)
    buffer_size: int = integer(1_000)
    selection: Selection = choice("model")
    rollout_steps: int = integer(200)
    dual_cloning: bool = flag(True)
    replay_weight: float = non_negative(1.0)
    discount: float = share(0.99)
    alpha: float = non_negative(2.5)
    target_policy_noise: float = non_negative(0.2)
    target_noise_clip: float = non_negative(0.5)
    learning_rate: float = non_negative(3e-4)
    polyak_rate: float = share(0.005)
    exploration_noise: float = non_negative(0.1)
    policy_delay: int = integer(2, static=False)
    normalise_observations: bool = flag(True)
    reward_scale: RewardScale | float = choice_or_positive("deviation")
    initial_level: InitialLevel = choice("logged")
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> ReplayedTasks:
        problem.require_continuous("OER")
        policy_key, actor_key, critic_key, model_key = jax.random.split(key, 4)
        wide = spaces_with_task(problem, self.num_tasks)
        policy = DeterministicActor(wide, self.hidden_sizes, key=policy_key)
        actor = DeterministicActor(wide, self.hidden_sizes, key=actor_key)
        twins = critics(wide, self.hidden_sizes, 2, key=critic_key)
        normaliser, level = begin_values(self, problem)
        size, actions = problem.observation_size, problem.action_size
        model = MLP(size + actions, size, self.hidden_sizes, key=model_key)
        kept = KeptExperience.empty(self.num_tasks, self.buffer_size, size, actions)
        learner = begin_deterministic(actor, raised(twins, level), normaliser)
        policy = policy if self.dual_cloning else actor
        return begin_replayed(policy, learner, model, kept)

    def update(self, state: ReplayedTasks, data: Transitions, *, key: PRNGKeyArray):
        own, adam = state.learner, optax.adam(self.learning_rate)
        noise_key, draw_key = jax.random.split(key)
        rows = own.normaliser.transitions(data)
        state, model_loss = learn_changes(state, rows, adam)
        rows = dataclasses.replace(
            rows,
            observation=with_task(rows.observation, state.task, self.num_tasks),
            next_observation=with_task(rows.next_observation, state.task, self.num_tasks),
        )
        known, past, done = state.kept.draw(state.task, len(data.reward), key=draw_key)
        past = with_task(own.normaliser(past), known, self.num_tasks)
        weight = jnp.where(state.task > 0, self.replay_weight, 0.0)

        def forgets(actor: DeterministicActor) -> Float[Array, ""]:
            return weight * jnp.mean((actor(past) - done) ** 2)

        def improve(actor: DeterministicActor) -> Float[Array, ""]:
            action = actor(rows.observation)
            gain = jnp.mean(unit_scale(first(rows.observation, action)))
            loss = jnp.mean((action - rows.action) ** 2) - self.alpha * gain
            return loss if self.dual_cloning else loss + forgets(actor)

        _, next_value = smoothed_next_action(self, own, rows, key=noise_key)
        target = backup(rows.reward, self.discount, rows.terminal, next_value)
        own, metrics = regress_critics(self, own, rows, target)
        first = jax.tree.map(lambda leaf: leaf[0], own.critics.stacked)
        due = (own.step + 1) % self.policy_delay == 0
        own, improved = improve_actor_when_due(self, own, improve, due=due)
        metrics = {**metrics, **improved, "model_loss": model_loss}
        state = dataclasses.replace(state, learner=own)
        if not self.dual_cloning:
            return dataclasses.replace(state, policy=own.actor), metrics

        def clone(actor: DeterministicActor) -> Float[Array, ""]:
            learned = own.actor(rows.observation)
            return jnp.mean((actor(rows.observation) - learned) ** 2) + forgets(actor)

        metrics["policy_loss"], gradients = jax.value_and_grad(clone)(state.policy)
        policy, moments = descend(adam, gradients, state.policy_optimiser, state.policy)
        return dataclasses.replace(state, policy=policy, policy_optimiser=moments), metrics

    def next_task(
        self, state: ReplayedTasks, log: TaskLog, problem: Spaces, *, key: PRNGKeyArray
    ) -> ReplayedTasks:
        choose_key, begin_key = jax.random.split(key)
        step = functools.partial(expected_next, state, tasks=self.num_tasks)
        steps, count = self.rollout_steps, self.buffer_size
        chosen = choose_rows(self.selection, step, log, count, rollout_steps=steps, key=choose_key)
        fresh = self.init(problem, key=begin_key)
        return go_on(state, fresh, log, chosen, keep_actor=not self.dual_cloning)

    def for_task(self, state: ReplayedTasks, task: Int[Array, ""]) -> ReplayedTasks:
        return dataclasses.replace(state, acting=jnp.asarray(task, jnp.int32))

    def act(self, state: ReplayedTasks, observation: Array, *, key: PRNGKeyArray, explore: bool):
        observation = state.learner.normaliser(observation)
        wide = with_task(observation, state.acting, self.num_tasks)
        noise = self.exploration_noise
        return choose_near(state.policy, wide, key=key, explore=explore, noise=noise), ()
