"""The contract: a method is a learning rule, and a few things it may also be able to do."""

import abc
from typing import Any, Generic, NamedTuple, TypeVar

import equinox as eqx
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Shaped

from headwater.core.feed import Feed
from headwater.core.fields import check_fields
from headwater.core.finite import FiniteProcess
from headwater.core.records import Completions, ModelPrediction, ModelStep, TaskLog
from headwater.core.tokens import AbstractTokenNetwork

Problem = TypeVar("Problem")
"""What `init` needs: `Spaces`, `FiniteProblem`, and later arms, token specifications…"""
Data = TypeVar("Data")
"""What one `update` eats: `Transitions`, `Episodes`, …"""
State = TypeVar("State", bound=eqx.Module)
"""Everything that changes. Arrays only."""

Metrics = dict[str, Float[Array, ""]]
Observation = Float[Array, " observation"]
UnbatchedAction = Float[Array, " action"] | Int[Array, ""]


class Info(NamedTuple):
    """Catalogue entry of a method: read by docs, tests and the command line, never by the maths.

    **Arguments:** `paper`: its key in `papers.bib`, or a citation in words for a method of your
    own; `summary`: the method in one line; `parents`: names of the methods it grew from; `rewards`:
    whether it reads the rewards of its data, without which it otherwise does not begin.
    """

    paper: str
    summary: str
    parents: tuple[str, ...] = ()
    rewards: bool = True


class AbstractMethod(eqx.Module, Generic[Problem, Data, State]):
    """A learning rule: data in, new state out.

    It never steps an environment, reads a file, logs, or knows how many steps there will be. Its
    fields are its hyper-parameters with the paper's defaults; numbers may be swept with `vmap`,
    whatever sets a shape is static. Concrete classes are final. What a value may be is said at its
    field (see `headwater.core.fields`); any other raises `SpecificationError`. `feed` says where
    batches come from; with the kind of data it decides what a user has to give.
    """

    feed: eqx.AbstractClassVar[Feed]
    info: eqx.AbstractClassVar[Info]

    def __check_init__(self):
        check_fields(self)

    @abc.abstractmethod
    def init(self, problem: Problem, *, key: PRNGKeyArray) -> State:
        """The state before any data.

        **Arguments:** `problem`: what there is to learn about; `key`: randomness.

        **Returns:** a module holding arrays only.
        """

    @abc.abstractmethod
    def update(self, state: State, data: Data, *, key: PRNGKeyArray) -> tuple[State, Metrics]:
        """One step of learning.

        **Arguments:** `state`: from `init` or the last `update`; `data`: one batch; `key`.

        **Returns:** the new state, of the same tree, shapes and types, and scalars to log.
        """


class AbstractPolicy(eqx.Module, Generic[State]):
    """Capability: chooses actions."""

    @abc.abstractmethod
    def act(
        self, state: State, observation: Observation, *, key: PRNGKeyArray, explore: bool
    ) -> tuple[UnbatchedAction, PyTree[Shaped[Array, "..."]]]:
        """An action for one observation.

        **Arguments:** `state`; `observation`: unbatched; `key`; `explore`: act as in data
        collection if true, greedily and deterministically if false.

        **Returns:** the action (canonical, in [-1, 1], or an integer) and what the update wants
        remembered beside it (empty for most).
        """


class AbstractTablePolicy(eqx.Module, Generic[State]):
    """Capability: a policy of a finite process, known in all states and steps at once.

    With it regret is exact, and episodes are drawn without a call for every step.
    """

    @abc.abstractmethod
    def policy(
        self, state: State, *, explore: bool
    ) -> Float[Array, "*episodes horizon state action"]:
        """Probabilities of actions.

        **Arguments:** `explore`: if true, the policies of the next episodes, one for each; if
        false, the one policy to be judged by. Methods of several tasks have these for each task,
        along the first axis.
        """


class AbstractArmPolicy(eqx.Module, Generic[State]):
    """Capability: a policy over the arms of a bandit, which is always a distribution."""

    @abc.abstractmethod
    def probabilities(
        self,
        state: State,
        context: Float[Array, " context"],
        features: Float[Array, "arm feature"],
        *,
        key: PRNGKeyArray,
        explore: bool,
    ) -> Float[Array, " arm"]:
        """How probably each arm is pulled in one round.

        **Arguments:** `state`; `context`: of the round, `features`: of every arm, with no columns
        where there are none; `key`: for methods that draw what they believe; `explore`: as while
        learning if true, the arms that look best if false.
        """


class AbstractProposer(eqx.Module, Generic[State]):
    """Capability: proposes where a black box is evaluated next, and says where it is best."""

    @abc.abstractmethod
    def propose(
        self, state: State, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " component"], Int[Array, ""]]:
        """The next point, in the unit cube, and the fidelity to evaluate it at."""

    @abc.abstractmethod
    def expect(
        self, state: State, point: Float[Array, " component"], fidelity: Int[Array, ""]
    ) -> State:
        """The state as if an evaluation that is on its way had brought what is expected of it.

        Whoever asks for several points before the first is evaluated proposes from this.
        """

    @abc.abstractmethod
    def recommend(self, state: State, *, key: PRNGKeyArray) -> Float[Array, " component"]:
        """The point, in the unit cube, whose expected value is the highest."""


class AbstractArchiving(eqx.Module, Generic[State]):
    """Capability: keeps an archive of solutions that differ in what they do, and varies them."""

    @abc.abstractmethod
    def offspring(
        self, state: State, count: int, *, key: PRNGKeyArray
    ) -> Float[Array, "count component"]:
        """The solutions, in the unit cube, that one update wants evaluated, in this order."""

    @abc.abstractmethod
    def archive(self, state: State) -> Any:
        """The best solution found for each cell of measures: see `parts/quality_diversity`."""


class AbstractCertificate(eqx.Module, Generic[State]):
    """Capability: says how good its policy is, with a guarantee."""

    @abc.abstractmethod
    def suboptimality_bound(self, state: State) -> Float[Array, ""]:
        """How much the greedy policy falls short of the best one at most, in expected return.

        It holds with the probability that the method promises (`1 - failure_probability`).
        """


class AbstractLikelihood(eqx.Module, Generic[State]):
    """Capability: knows how probable its own actions are (needed by importance sampling)."""

    @abc.abstractmethod
    def log_probability(
        self, state: State, observation: Observation, action: UnbatchedAction
    ) -> Float[Array, ""]:
        """Log-density (or log-probability) of `action` under the exploring policy."""


class AbstractValue(eqx.Module, Generic[State]):
    """Capability: predicts discounted return."""

    @abc.abstractmethod
    def value(
        self, state: State, observation: Observation, action: UnbatchedAction
    ) -> Float[Array, ""]:
        """Predicted discounted return of `action` in `observation`, in units of the reward."""


class ActorCriticParts(NamedTuple):
    """What another method can take over from an actor-critic. `None`: it has no such part.

    Values count rewards as the normaliser scales them, and so does whoever goes on with both.

    **Arguments:** `actor`: from standardised observations to an action or a distribution over them;
    `normaliser`: standardises observations and scales rewards; `critics`, `target_critics`: an
    ensemble of the values of actions if the actor chooses all later ones, and what lags behind it;
    `log_temperature`: of the bonus for entropy; the rest: moments of Adam.
    """

    actor: Any
    normaliser: Any
    critics: Any = None
    target_critics: Any = None
    log_temperature: Float[Array, ""] | None = None
    actor_optimiser: Any = None
    critic_optimiser: Any = None
    temperature_optimiser: Any = None


class AbstractActorCritic(eqx.Module, Generic[State]):
    """Capability: has an actor, and usually critics, from which another method can start."""

    @abc.abstractmethod
    def parts(self, state: State) -> ActorCriticParts:
        """What a warm start takes over."""


class AbstractFeatures(eqx.Module, Generic[State]):
    """Capability: learns features of states and actions of finite processes."""

    @abc.abstractmethod
    def features(self, state: State) -> Float[Array, "horizon state action feature"]:
        """The features learned so far, with norms of at most one."""


class AbstractEncoding(eqx.Module, Generic[State]):
    """Capability: learns what of an observation is worth keeping, for others to begin with."""

    @abc.abstractmethod
    def encoding(self, state: State) -> Any:
        """From observations, as they are logged, to features: an `Encoding`."""


class AbstractUpdateRule(eqx.Module, Generic[State]):
    """Capability: has learned how agents are to learn in finite processes."""

    @abc.abstractmethod
    def apply_rule(
        self, state: State, process: FiniteProcess, lifetime: int, *, key: PRNGKeyArray
    ) -> Float[Array, "update horizon state action"]:
        """The policy of an agent after each of `lifetime` updates in one process."""


class AbstractLinear(eqx.Module, Generic[Problem, State]):
    """Capability: is linear in features that may be given to it."""

    @abc.abstractmethod
    def with_features(
        self, problem: Problem, features: Float[Array, "horizon state action feature"]
    ) -> State:
        """The state before any data, with features of one's own: for `Stage.begin`.

        **Arguments:** `problem`: the task; `features`: with norms of at most one.

        Raises `SpecificationError` if they do not fit the problem.
        """


class AbstractSeveralBatches(eqx.Module):
    """Capability: shares out the rows of one update among several gradient steps of its critics."""

    num_critic_updates: eqx.AbstractVar[int]
    """How many, each with a batch of its own."""


class AbstractReturnsToGo(eqx.Module):
    """Capability: reads `return_to_go` of logged transitions, discounted as it discounts."""

    discount: eqx.AbstractVar[float]


class AbstractWholeLog(eqx.Module):
    """Capability: looks through the whole log in each update: reads `whole_log` of transitions."""


class AbstractOwnJudge(eqx.Module):
    """Capability: judges what it does itself, and is not told the rewards of it.

    In its batches the rewards of acting are NaN, those of the log are not; what is above zero there
    is a success, of which there has to be one.
    """


class AbstractHistory(eqx.Module):
    """Capability: looks at earlier and later observations of the episode as well."""

    history: eqx.AbstractVar[int]
    """How many, before the one in which the action is taken."""
    future: eqx.AbstractVar[int]
    """How many after it."""


class AbstractStages(eqx.Module):
    """Capability: tells the stages that all demonstrations go through in the same order."""

    @property
    @abc.abstractmethod
    def fewest_frames(self) -> int:
        """Of a demonstration that has room for all stages."""


class AbstractSeveralRewards(eqx.Module):
    """Capability: reads several rewards of each step, of which one is the main one."""

    auxiliary_rewards: eqx.AbstractVar[tuple[str, ...]]
    """What the others are called: the columns of a log that hold them."""


class AbstractLabeller(eqx.Module, Generic[State, Data]):
    """Capability: learns from the rows of a log that have a label what the others lack."""

    @abc.abstractmethod
    def label(
        self, state: State, data: Data
    ) -> tuple[Shaped[Array, "..."], Float[Array, "*batch"]]:
        """The label of each row, and how sure it is; what `data` holds in its place is not read.

        **Returns:** labels, and confidences in [0, 1]: how probable it is, for what was learned,
        that the label is the true one, or for numbers that it is within a tolerance of it.
        """


class AbstractDynamics(eqx.Module, Generic[State]):
    """Capability: learns where an action leads from an observation, and what it brings."""

    @abc.abstractmethod
    def predict(
        self, state: State, observation: Observation, action: UnbatchedAction
    ) -> ModelPrediction:
        """What is expected of one step. **Arguments:** `action`: canonical."""

    @abc.abstractmethod
    def step(
        self, state: State, observation: Observation, action: UnbatchedAction, *, key: PRNGKeyArray
    ) -> ModelStep:
        """One step, drawn as the process might take it. **Arguments:** as of `predict`; `key`."""


class AbstractModelBased(eqx.Module, Generic[State]):
    """Capability: learns from short rollouts in a model that was learned from the log before."""

    dynamics: eqx.AbstractVar[AbstractMethod]
    """What learns the model: a method with the capability `AbstractDynamics`."""
    model_updates: eqx.AbstractVar[int]
    """In which it does."""
    rollout_steps: eqx.AbstractVar[int]
    """After which a rollout is cut."""
    rollouts: eqx.AbstractVar[int]
    """That begin for each update."""
    imagined_per_logged: eqx.AbstractVar[int]
    """Rows of rollouts in a batch for each logged one."""

    @abc.abstractmethod
    def with_model(self, state: State, model: Any) -> State:
        """`state` with what `dynamics` has learned: `model` is its state."""

    @abc.abstractmethod
    def imagine(
        self, state: State, observation: Observation, action: UnbatchedAction, *, key: PRNGKeyArray
    ) -> ModelStep:
        """One step of a rollout, with the reward that is to be learned from."""


class AbstractContinual(eqx.Module, Generic[Problem, State]):
    """Capability: learns one task after the other, and is to forget none."""

    num_tasks: eqx.AbstractVar[int]
    """How many it has room for."""

    @abc.abstractmethod
    def next_task(
        self, state: State, log: TaskLog, problem: Problem, *, key: PRNGKeyArray
    ) -> State:
        """The state with which the next task begins, of the same tree, shapes and types.

        **Arguments:** `log`: of the task that ends, of which nothing is seen later but what the
        state keeps; `problem`: the next task; `key`.
        """

    @abc.abstractmethod
    def for_task(self, state: State, task: Int[Array, ""]) -> State:
        """The state whose policy acts in one of the tasks, counted from 0. Learning does not go on
        from it."""


class AbstractRewardModel(eqx.Module, Generic[State]):
    """Capability: learns how good each step is, with which the rewards of a log are filled in."""

    @abc.abstractmethod
    def rewards(
        self,
        state: State,
        observation: Float[Array, "*batch observation"],
        action: Float[Array, "*batch action"] | Int[Array, "*batch"],
    ) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """The reward of each step, and how far those who predict it are apart (their deviation)."""


class AbstractLoss(eqx.Module, Generic[State, Data]):
    """Capability: has a loss for each row of data, minus the log-likelihood of the row's target."""

    @abc.abstractmethod
    def losses(self, state: State, data: Data) -> Float[Array, "*batch"]:
        """The loss of each row, which says nothing of other rows. `data` may be a single row."""

    @abc.abstractmethod
    def possible_targets(
        self, state: State, data: Data, *, key: PRNGKeyArray
    ) -> tuple[Data, Float[Array, "target *batch"]]:
        """The rows with every target that was learned to be possible, along a new first axis.

        **Arguments:** `key`: for targets that cannot be enumerated: one for each row is drawn.

        **Returns:** the rows, and how probable each target is.
        """


class AbstractTokenPolicy(eqx.Module, Generic[State]):
    """Capability: writes text."""

    @abc.abstractmethod
    def network(self, state: State) -> AbstractTokenNetwork:
        """The network that says how probable every next token is, as learned so far."""

    def exploring_network(self, state: State) -> AbstractTokenNetwork:
        """The network that has to write what is learned from: the same, for most methods."""
        return self.network(state)


class AbstractCompletionScorer(eqx.Module, Generic[State]):
    """Capability: rates whole responses."""

    @abc.abstractmethod
    def rate(self, state: State, data: Completions) -> Float[Array, "*batch"]:
        """The learned reward of each response."""

    @abc.abstractmethod
    def rating_network(self, state: State) -> AbstractTokenNetwork:
        """The network that the reward is read off, with what reads it (`WithReward`)."""


class Agent(eqx.Module):
    """A method bound to its current state: what a source may ask for actions, and nothing more."""

    method: AbstractMethod
    state: Any

    def act(
        self, observation: Observation, *, key: PRNGKeyArray, explore: bool
    ) -> tuple[UnbatchedAction, PyTree[Shaped[Array, "..."]]]:
        """See `AbstractPolicy.act`."""
        if not isinstance(self.method, AbstractPolicy):
            raise TypeError(f"{type(self.method).__name__} is not a policy: it cannot act")
        return self.method.act(self.state, observation, key=key, explore=explore)

    def imagine(
        self, observation: Observation, action: UnbatchedAction, *, key: PRNGKeyArray
    ) -> ModelStep:
        """See `AbstractModelBased.imagine`."""
        if not isinstance(self.method, AbstractModelBased):
            raise TypeError(f"{type(self.method).__name__} has no model: give the source one")
        return self.method.imagine(self.state, observation, action, key=key)

    def policy(self, *, explore: bool) -> Float[Array, "*episodes horizon state action"]:
        """See `AbstractTablePolicy.policy`."""
        if not isinstance(self.method, AbstractTablePolicy):
            raise TypeError(f"{type(self.method).__name__} has no policy for finite processes")
        return self.method.policy(self.state, explore=explore)

    def probabilities(
        self,
        context: Float[Array, " context"],
        features: Float[Array, "arm feature"],
        *,
        key: PRNGKeyArray,
        explore: bool,
    ) -> Float[Array, " arm"]:
        """See `AbstractArmPolicy.probabilities`."""
        if not isinstance(self.method, AbstractArmPolicy):
            raise TypeError(f"{type(self.method).__name__} has no distribution over arms")
        return self.method.probabilities(self.state, context, features, key=key, explore=explore)

    @property
    def proposer(self) -> AbstractProposer:
        """The method as one that proposes points of a black box."""
        if not isinstance(self.method, AbstractProposer):
            raise TypeError(f"{type(self.method).__name__} proposes no points")
        return self.method

    def archive(self) -> Any:
        """See `AbstractArchiving.archive`."""
        return self.archiving.archive(self.state)

    @property
    def archiving(self) -> AbstractArchiving:
        """The method as one that keeps an archive of solutions."""
        if not isinstance(self.method, AbstractArchiving):
            raise TypeError(f"{type(self.method).__name__} keeps no archive of solutions")
        return self.method

    def network(self, *, explore: bool = False) -> AbstractTokenNetwork:
        """See `AbstractTokenPolicy.network`, and `exploring_network` for `explore`."""
        if not isinstance(self.method, AbstractTokenPolicy):
            raise TypeError(f"{type(self.method).__name__} writes no text: it has no network")
        if explore:
            return self.method.exploring_network(self.state)
        return self.method.network(self.state)


class AbstractWarmStart(eqx.Module, Generic[Problem, State]):
    """Capability: starts from what another method has learned."""

    @abc.abstractmethod
    def warm_start(self, learned: "Agent", problem: Problem, *, key: PRNGKeyArray) -> State | None:
        """The state that begins where `learned` has come to.

        **Arguments:** `learned`: another method and its state; `problem`; `key`: for the parts that
        it has not.

        **Returns:** the state, or `None` where `learned` has nothing to start from.
        """
