"""Temporally aware learned policy gradient: rules found by evolution over whole lifetimes."""

from typing import ClassVar

from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative, positive, share
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractMethod, AbstractTablePolicy, AbstractUpdateRule, Info
from headwater.networks.meta.update_rule import UpdateRule
from headwater.parts.meta.agents import PredictingAgent, first_agent, follow_rule
from headwater.parts.meta.evolution import Evolving, begin_evolution, evolve, policies_of_lifetime


class TALPG(
    AbstractMethod[FiniteProblem, FiniteProcess, Evolving],
    AbstractTablePolicy[Evolving],
    AbstractUpdateRule[Evolving],
):
    r"""Learns an update rule that knows how long there is to learn, by evolution strategies.

    The rule is that of `LPG`, and also sees $t/T$ and $\log T$ of an agent at update $t$ of $T$.
    One update of it: in each task, rules $\theta + \sigma\epsilon$ and $\theta - \sigma\epsilon$
    are followed for a whole lifetime, with the same random numbers, and $\theta$ moves by Adam
    along $E[\epsilon\,\mathrm{sign}(J_+ - J_-)]/2\sigma$, where $J$ is the expected return at the
    end. What happens early and late in a lifetime is weighed alike, which gradients through a few
    updates cannot do.

    **Arguments:**

    - `lifetime_scale`: of $t/T$ and $\log T$ where the rule sees them; 0 hides them.
    - `shortest_lifetime`, `longest_lifetime`: of an agent, in updates; $\log T$ is uniform.
    - `episodes_per_update`: episodes that an agent plays for one update.
    - `num_predictions`: entries of the prediction, which has no meaning but what the rule gives it.
    - `recurrent_size`: units of the rule that remember the rest of an episode.
    - `prediction_weight`: of the divergence of the prediction from what the rule says.
    - `agent_learning_rate`, `prediction_learning_rate`: of the agent's policy and prediction.
    - `max_gradient_norm`: of the agent.
    - `perturbation_scale`: $\sigma$.
    - `learning_rate`: of Adam, for the rule.
    - `learning_rate_decay`: what it is multiplied by after each update.

    **Reference:** Jackson, Lu, Kirsch, Lange, Whiteson, Foerster (2024), arXiv:2402.05828.

    **Differences from the paper:** agents have tables over the steps and states of finite processes
    and learn from whole episodes, as there is no discount; their return is computed and not
    estimated; all lifetimes of one update have the same length.
    """

    feed: ClassVar[Feed] = Feed.TASKS
    info: ClassVar[Info] = Info(
        "jackson2024discovering",
        summary="evolves an update rule that knows how long there is to learn",
        parents=("LPG",),
    )

    lifetime_scale: float = non_negative(1.0)
    shortest_lifetime: int = integer(10, static=False)
    longest_lifetime: int = integer(250, static=False)
    episodes_per_update: int = integer(64)
    num_predictions: int = integer(8)
    recurrent_size: int = integer(256)
    prediction_weight: float = non_negative(0.5)
    agent_learning_rate: float = non_negative(40.0)
    prediction_learning_rate: float = non_negative(4.0)
    max_gradient_norm: float = positive(0.5)
    perturbation_scale: float = positive(0.1)
    learning_rate: float = non_negative(0.01)
    learning_rate_decay: float = share(0.999)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> Evolving:
        rule = UpdateRule(self.num_predictions, self.recurrent_size, key=key)
        return begin_evolution(self, problem, rule, "TALPG")

    def update(self, state: Evolving, data: FiniteProcess, *, key: PRNGKeyArray):
        agent = self._first_agent(data)
        return evolve(self, state, data, agent, self._step, lambda agent: agent.policy, key=key)

    def policy(self, state: Evolving, *, explore: bool) -> Array:
        return state.policies

    def apply_rule(
        self, state: Evolving, process: FiniteProcess, lifetime: int, *, key: PRNGKeyArray
    ) -> Float[Array, "update horizon state action"]:
        return policies_of_lifetime(
            self._step,
            state.rule,
            self._first_agent(process),
            process,
            lifetime,
            lambda agent: agent.policy,
            key=key,
        )

    def _step(self, rule, agent, process, passed, lifetime, key) -> PredictingAgent:
        return follow_rule(self, rule, agent, process, passed, lifetime, key=key)[0]

    def _first_agent(self, process: FiniteProcess) -> PredictingAgent:
        return first_agent(process.reward.shape[-3:], self.num_predictions)
