"""Tasks whose reward was learned."""

from jaxtyping import PRNGKeyArray, PyTree

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractMethod, AbstractRewardModel, UnbatchedAction
from headwater.core.spaces import Spaces
from headwater.environments.environment import AbstractEnvironment, Step
from headwater.environments.reward_programs.rewarded import RewardedState


class RewardedByModel(AbstractEnvironment):
    """A task with the reward that a model gives what is observed and done, and not with its own.

    It is the reward that the model gives the same row of a log.

    **Arguments:** `task`: in pure JAX; `model`: a method that learns rewards; `learned`: its state.

    Raises `SpecificationError` if the method learns no rewards.
    """

    task: AbstractEnvironment
    model: AbstractMethod
    learned: PyTree

    # Written out, since the annotations of the base class are no arguments.
    def __init__(self, task: AbstractEnvironment, model: AbstractMethod, learned: PyTree):
        if not isinstance(model, AbstractRewardModel):
            raise SpecificationError(
                f"{type(model).__name__} learns no rewards: take PerceptualReward or "
                "PreferenceReward"
            )
        self.task, self.model, self.learned = task, model, learned

    @property
    def name(self) -> str:
        return f"{self.task.name} (learned reward)"

    @property
    def reference_returns(self) -> tuple[float, float] | None:
        return None

    @property
    def spaces(self) -> Spaces:
        return self.task.spaces

    def reset(self, *, key: PRNGKeyArray):
        inner, observation = self.task.reset(key=key)
        return RewardedState(inner, observation), observation

    def step(self, state: RewardedState, action: UnbatchedAction, *, key: PRNGKeyArray):
        assert isinstance(self.model, AbstractRewardModel)
        reward, _ = self.model.rewards(self.learned, state.observation, action)
        inner, seen = self.task.step(state.inner, action, key=key)
        reached = RewardedState(inner, seen.observation)
        return reached, Step(seen.observation, reward, seen.terminal, seen.truncated)
