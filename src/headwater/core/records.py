"""The records that flow from sources into methods."""

from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

if TYPE_CHECKING:
    Array = jax.Array
else:
    # Records are built on the host as well as on the device; code reads them as JAX arrays.
    Array = jax.Array | np.ndarray

Action = Float[Array, "*batch action"] | Int[Array, "*batch"]


class LoggedPairs(eqx.Module):
    """What was observed and done in every row of a log, in no order.

    **Arguments:** `observation`: `[row, observation]`; `action`: as of `Transitions`.
    """

    observation: Float[Array, "row observation"]
    action: Float[Array, "row action"] | Int[Array, " row"]


class Transitions(eqx.Module):
    """A batch of single steps.

    `terminal` says that the process ended (no future reward); `truncated` says only that the record
    stopped, so the next state still counts. `next_action` and `return_to_go` are known for logged
    experience alone and are `None` where they are not; `whole_log` is there for methods that ask
    for it.

    **Arguments:** `observation`, `next_observation`: `[*batch, observation]`; `action`: canonical
    (in [-1, 1]) `[*batch, action]`, or integers `[*batch]`; `reward`: `[*batch]`; `terminal`,
    `truncated`: `[*batch]`; `next_action`: the action logged in the next state, `return_to_go`: the
    discounted sum of the logged rewards from here to the end of the episode; `whole_log`: all rows
    of the log that these are of.
    """

    observation: Float[Array, "*batch observation"]
    action: Action
    reward: Float[Array, "*batch"]
    next_observation: Float[Array, "*batch observation"]
    terminal: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
    next_action: Action | None = None
    return_to_go: Float[Array, "*batch"] | None = None
    whole_log: LoggedPairs | None = None


class AuxiliaryTransitions(eqx.Module):
    """A batch of single steps that brought several rewards each.

    **Arguments:** `observation` to `truncated`: as of `Transitions`, `reward` the main one;
    `auxiliary`: the others, `[*batch, auxiliary]`, in the order of the method's
    `auxiliary_rewards`.
    """

    observation: Float[Array, "*batch observation"]
    action: Action
    reward: Float[Array, "*batch"]
    next_observation: Float[Array, "*batch observation"]
    terminal: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
    auxiliary: Float[Array, "*batch auxiliary"]


class TaskLog(eqx.Module):
    """The whole log of one task.

    **Arguments:** `rows`: `[row, …]`; `starts`: the first row of each episode.
    """

    rows: Transitions
    starts: Int[Array, " episode"]


class Demonstrations(eqx.Module):
    """Whole episodes of what is to be imitated, of which only what was seen is known.

    **Arguments:** `observation`: `[*batch, frame, observation]`, padded at the end with anything
    finite; `length`: frames of each.
    """

    observation: Float[Array, "*batch frame observation"]
    length: Int[Array, "*batch"]


class StagedTransitions(eqx.Module):
    """A batch of single steps for an agent that acts in stages, each of whole episodes.

    **Arguments:** `transitions`: the batch; `passed`: `[row]`, true in the first row of the first
    batch after a stage whose returns did not fall, and nowhere else.
    """

    transitions: Transitions
    passed: Bool[Array, " row"]


class ActionWindows(eqx.Module):
    """What was observed before and after actions of a log, each window within one episode.

    **Arguments:** `observations`: `[*batch, position, observation]`, from the oldest to the one in
    which the action was taken and on to those that followed it, for most methods one; an episode
    that is younger repeats its first, and one that ends before repeats its last; `action`: as of
    `Transitions`, of anything where it is not known.
    """

    observations: Float[Array, "*batch position observation"]
    action: Action


class ModelStep(NamedTuple):
    """What a model says of one step. **Arguments:** `terminal`: nothing follows."""

    next_observation: Float[Array, " observation"]
    reward: Float[Array, ""]
    terminal: Bool[Array, ""]


class ModelPrediction(NamedTuple):
    """What a learned model expects of one step, and how far it can be believed.

    **Arguments:** `next_observation`, `reward`: expected; `terminal`: nothing follows, more likely
    than not; `spread`: how random the step is, and `disagreement`: how much the members of an
    ensemble differ in what they expect of the next observation, both in units of what is predicted;
    `beyond`: they differ far more than on held-out rows of the log, so that the question lies
    beyond what was learned.
    """

    next_observation: Float[Array, " observation"]
    reward: Float[Array, ""]
    terminal: Bool[Array, ""]
    spread: Float[Array, ""]
    disagreement: Float[Array, ""]
    beyond: Bool[Array, ""]


class Segments(eqx.Module):
    """Pieces of episodes, all of the same number of steps.

    **Arguments:** `observation`: `[*batch, step, observation]`; `action`: canonical
    `[*batch, step, action]`, or integers `[*batch, step]`.
    """

    observation: Float[Array, "*batch step observation"]
    action: Float[Array, "*batch step action"] | Int[Array, "*batch step"]


class SegmentComparisons(eqx.Module):
    """Pairs of segments, and which of the two a judge prefers.

    **Arguments:** `first`, `second`: the segments of each pair; `preference`: 1 where the first is
    preferred, 0 where the second is, and a half where they are as good as each other.
    """

    first: Segments
    second: Segments
    preference: Float[Array, "*batch"]


class ComparisonsAndSegments(eqx.Module):
    """Compared segments of a log, and as many of its segments that nobody need have compared."""

    comparisons: SegmentComparisons
    logged: Segments


class Transition(eqx.Module):
    """One step of a stream, as it happens: the next one begins where this one led.

    **Arguments:** as of `Transitions`, without leading axes. After a step that is terminal or
    truncated the next one belongs to a new episode.
    """

    observation: Float[Array, " observation"]
    action: Float[Array, " action"] | Int[Array, ""]
    reward: Float[Array, ""]
    next_observation: Float[Array, " observation"]
    terminal: Bool[Array, ""]
    truncated: Bool[Array, ""]


class Episodes(eqx.Module):
    """Whole episodes of a finite process, which all have the same number of steps.

    **Arguments:** `state`: at every position, one more than there are steps; `action`; `reward`;
    `cost`: what a step used of each constrained resource, if there are any.
    """

    state: Int[Array, "*batch position"]
    action: Int[Array, "*batch step"]
    reward: Float[Array, "*batch step"]
    cost: Float[Array, "*batch step constraint"] | None = None


class EpisodeComparisons(eqx.Module):
    """Pairs of whole episodes of a finite process, and which of the two a judge prefers.

    Methods that learn from these do not look at the rewards in the episodes.

    **Arguments:** `first`, `second`: the episodes of each pair; `first_preferred`: the answer.
    """

    first: Episodes
    second: Episodes
    first_preferred: Bool[Array, "*batch"]


class Packing(eqx.Module):
    """Where texts lie when several of them are read side by side in one row.

    **Arguments:** `row`: of each text; `start`: its first place there; `length`: how many of its
    tokens are read, which are all up to the last of its response; `rows`, `width`: of what is read.
    """

    row: Int[Array, "*batch"]
    start: Int[Array, "*batch"]
    length: Int[Array, "*batch"]
    rows: int = eqx.field(static=True)
    width: int = eqx.field(static=True)


class Completions(eqx.Module):
    """Texts: prompts followed by responses, padded at the end with anything.

    **Arguments:** `tokens`: from position 0; `response`: true on the tokens that were chosen, the
    ending one included, false on prompt and padding; `reward`: of the whole response, if it is
    known; `log_probability`: of each token under the policy that chose it, when it chose it, zero
    where `response` is false, if it is known; `packing`: how to read them without their padding, if
    that is worth while; `token_reward`: of parts of the response, each at the part's last token, if
    they were judged one by one.
    """

    tokens: Int[Array, "*batch position"]
    response: Bool[Array, "*batch position"]
    reward: Float[Array, "*batch"] | None = None
    log_probability: Float[Array, "*batch position"] | None = None
    packing: Packing | None = None
    token_reward: Float[Array, "*batch position"] | None = None


class CompletionComparisons(eqx.Module):
    """Pairs of responses to the same prompts, of which a judge prefers `chosen`.

    **Arguments:** `chosen`, `rejected`; `open_ended`: whether many answers to the prompt are good,
    rather than one, if that is known.
    """

    chosen: Completions
    rejected: Completions
    open_ended: Bool[Array, "*batch"] | None = None


class LabelledCompletions(eqx.Module):
    """Responses that a judge called desirable or undesirable, one by one.

    **Arguments:** `completions`; `desirable`: the label of each; `mismatched`: how to read every
    prompt with the response of the row before it without padding, if that is worth while.
    """

    completions: Completions
    desirable: Bool[Array, "*batch"]
    mismatched: Packing | None = None


class ComparisonsAndCompletions(eqx.Module):
    """Stored comparisons, and fresh responses `[prompt, sample, position]` of the policy."""

    comparisons: CompletionComparisons
    completions: Completions


class Pulls(eqx.Module):
    """Rounds of a bandit: what was known, which arm was pulled, and what it earned.

    `propensity` is how probably the policy that pulled would have pulled this arm; that policy
    itself wrote it.

    **Arguments:** `context`: of the round `[*batch, context]`, and `features`: of every arm
    `[*batch, arm, feature]`, with no columns where there are none (in a log with one row where all
    rounds have the same); `arm`; `reward`; `propensity`:
    in (0, 1]; `rewards`: of every arm `[*batch, arm]`, where a source shows them; `regret`: how
    much the arm's mean reward fell short of the best one's, where that is known: not for learning.
    """

    context: Float[Array, "*batch context"]
    features: Float[Array, "*rounds arm feature"]
    arm: Int[Array, "*batch"]
    reward: Float[Array, "*batch"]
    propensity: Float[Array, "*batch"]
    rewards: Float[Array, "*batch arm"] | None = None
    regret: Float[Array, "*batch"] | None = None


class Queries(eqx.Module):
    """Evaluations of a black box: where, what came out, how exact it is and what it cost.

    **Arguments:** `point`: in the unit cube `[*batch, component]`; `value`: more is better;
    `fidelity`: 0 is the cheapest, the last one is the function whose maximum is sought; `cost`;
    `regret`: how much the mean value at this point falls short of the maximum, where that is known:
    not for learning.
    """

    point: Float[Array, "*batch component"]
    value: Float[Array, "*batch"]
    fidelity: Int[Array, "*batch"]
    cost: Float[Array, "*batch"]
    regret: Float[Array, "*batch"] | None = None


class TaskQueries(eqx.Module):
    """Evaluations of earlier tasks that share a search space: a table for each task.

    **Arguments:** `point`: in the unit cube; `value`: more is better, in one unit for all tasks;
    `known`: which rows of each table there are: the first.
    """

    point: Float[Array, "task row component"]
    value: Float[Array, "task row"]
    known: Bool[Array, "task row"]


class MeasuredQueries(eqx.Module):
    """Evaluations of a black box that says what each solution did, and not only its value.

    **Arguments:** `point`: the solution, in the unit cube `[*batch, component]`; `value`: more is
    better; not a number where the evaluation failed, so that nothing is learned from it;
    `measures`: what is measured of it, in its own units; `frame`: a picture of what it did, with no
    columns where there is none.
    """

    point: Float[Array, "*batch component"]
    value: Float[Array, "*batch"]
    measures: Float[Array, "*batch measure"]
    frame: Float[Array, "*batch pixel"]

    @property
    def known(self) -> Bool[Array, "*batch"]:
        """Which evaluations did not fail."""
        finite = jnp.isfinite(self.value) & jnp.all(jnp.isfinite(self.measures), axis=-1)
        return finite & jnp.all(jnp.isfinite(self.frame), axis=-1)
