"""Methods broken on purpose: each mistake is caught by the check that is there to catch it."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.method import AbstractMethod, AbstractPolicy, Info
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.testing import check_method
from headwater.testing.checks import capabilities, every_method
from headwater.testing.checks.applicable import checks_for
from headwater.testing.checks.case import Case
from headwater.testing.exceptions import EXPECTED
from headwater.testing.kinds.declared import kinds_for

from .test_rules import check_final, check_lengths

_INFO = Info("of no paper", "tests the tests")


class LinearState(eqx.Module):
    """A linear value of the observation, and how often it was updated."""

    weight: Array
    step: Array


class Sound(AbstractMethod[Spaces, Transitions, LinearState], AbstractPolicy[LinearState]):
    """Linear TD(0) with a noisy linear policy: correct, so that every check passes."""

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = _INFO

    discount: float = 0.9
    learning_rate: float = 0.1
    noise: float = 0.3

    def init(self, problem: Spaces, *, key):
        problem.require_continuous("Sound")
        weight = 0.1 * jax.random.normal(key, (problem.observation_size,))
        return LinearState(weight, jnp.zeros((), jnp.int32))

    def update(self, state: LinearState, data: Transitions, *, key):
        return learn(self, state, data, data.terminal)

    def act(self, state: LinearState, observation, *, key, explore: bool):
        return choose(self, state, observation, key, explore), ()


def learn(method: Any, state: LinearState, data: Transitions, over) -> Any:
    """One step of TD(0); `over` says where nothing follows."""
    following = jnp.where(over, 0.0, data.next_observation @ state.weight)
    error = data.reward + method.discount * following - data.observation @ state.weight
    step = jnp.mean(error[:, None] * data.observation, axis=0)
    weight = state.weight + method.learning_rate * step
    return LinearState(weight, state.step + 1), {"error": jnp.mean(error**2)}


def choose(method: Any, state: LinearState, observation, key, explore: bool) -> Array:
    """Two components, squashed."""
    mean = jnp.broadcast_to(observation @ state.weight, (2,))
    noise = method.noise * jax.random.normal(key, (2,)) if explore else jnp.zeros(2)
    return jnp.clip(jnp.tanh(mean) + noise, -1.0, 1.0)


class _Planted(AbstractMethod[Spaces, Transitions, Any], AbstractPolicy[Any]):
    """What the broken ones share (in the library, this would itself be a mistake)."""

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = _INFO

    discount: float = 0.9
    learning_rate: float = 0.1
    noise: float = 0.3

    def init(self, problem: Spaces, *, key) -> Any:
        return Sound.init(self, problem, key=key)  # pyright: ignore[reportArgumentType]

    def update(self, state: Any, data: Transitions, *, key) -> Any:
        return learn(self, state, data, data.terminal)

    def act(self, state: Any, observation, *, key, explore: bool):
        return choose(self, state, observation, key, explore), ()


class MissesTermination(_Planted):
    def update(self, state, data, *, key):
        return learn(self, state, data, jnp.zeros_like(data.terminal))


class MultipliesByTheMask(_Planted):
    """The usual way to mask; a NaN behind a terminal row gets through."""

    def update(self, state, data, *, key):
        following = (1.0 - data.terminal) * (data.next_observation @ state.weight)
        error = data.reward + self.discount * following - data.observation @ state.weight
        step = jnp.mean(error[:, None] * data.observation, axis=0)
        weight = state.weight + self.learning_rate * step
        return LinearState(weight, state.step + 1), {"error": jnp.mean(error**2)}


class TreatsTruncationAsTermination(_Planted):
    def update(self, state, data, *, key):
        return learn(self, state, data, data.terminal | data.truncated)


class PythonNumberInState(_Planted):
    def init(self, problem, *, key):
        return LinearState(jnp.zeros(problem.observation_size), 0)  # pyright: ignore


class DriftsInType(_Planted):
    def update(self, state, data, *, key):
        state, metrics = learn(self, state, data, data.terminal)
        return LinearState(state.weight.astype(jnp.bfloat16), state.step), metrics


class CountsInPython(_Planted):
    """A static counter: every update is a program of its own."""

    def init(self, problem, *, key):
        return CountingState(jnp.zeros(problem.observation_size), 0)

    def update(self, state, data, *, key):
        plain = LinearState(state.weight, jnp.zeros((), jnp.int32))
        after, metrics = learn(self, plain, data, data.terminal)
        return CountingState(after.weight, state.step + 1), metrics


class CountingState(eqx.Module):
    """Like `LinearState`, but the step is part of the program."""

    weight: Array
    step: int = eqx.field(static=True)


class DrawsWithNumPy(_Planted):
    def update(self, state, data, *, key):
        state, metrics = learn(self, state, data, data.terminal)
        noise = jnp.asarray(np.random.default_rng().normal(size=3), jnp.float32)
        return LinearState(state.weight + 1e-3 * noise, state.step), metrics


class BranchesOnASetting(_Planted):
    def update(self, state, data, *, key):
        if self.discount > 0.5:
            return learn(self, state, data, data.terminal)
        return learn(self, state, data, jnp.ones_like(data.terminal))


class HasADeadSetting(_Planted):
    temperature: float = 0.5


class HasAStaticNumber(_Planted):
    temperature: float = eqx.field(static=True, default=0.5)


class ActsOutOfBounds(_Planted):
    def act(self, state, observation, *, key, explore):
        return jnp.broadcast_to(observation @ state.weight, (2,)), ()


class GreedyAtRandom(_Planted):
    def act(self, state, observation, *, key, explore):
        return choose(self, state, observation, key, True), ()


class NeverExplores(_Planted):
    def act(self, state, observation, *, key, explore):
        return choose(self, state, observation, key, False), ()


class LogsAVector(_Planted):
    def update(self, state, data, *, key):
        state, _ = learn(self, state, data, data.terminal)
        return state, {"reward": data.reward}


class DividesByTheSpread(_Planted):
    """Equal rewards have none."""

    def update(self, state, data, *, key):
        state, metrics = learn(self, state, data, data.terminal)
        return state, {"error": metrics["error"] / jnp.std(data.reward)}


class LooksAtTheFirstRow(_Planted):
    def update(self, state, data, *, key):
        state, metrics = learn(self, state, data, data.terminal)
        return LinearState(state.weight + 0.01 * data.observation[0], state.step), metrics


class MixesSeeds(_Planted):
    """Right for one seed; under `vmap` a callback would see them all. Here: an average in NumPy."""

    def update(self, state, data, *, key):
        state, metrics = learn(self, state, data, data.terminal)
        shape = jax.ShapeDtypeStruct((3,), jnp.float32)
        weight = jax.pure_callback(
            lambda w: np.broadcast_to(np.mean(w, axis=0, keepdims=w.ndim > 1), w.shape),
            shape,
            state.weight,
            vmap_method="expand_dims",
        )
        return LinearState(weight if weight.ndim else state.weight, state.step), metrics


PLANTED = [
    (
        MissesTermination,
        every_method.check_terminal_rows_ignore_the_next_observation,
        "another one",
    ),
    (MultipliesByTheMask, every_method.check_terminal_rows_ignore_the_next_observation, "a NaN"),
    (
        TreatsTruncationAsTermination,
        every_method.check_truncated_rows_bootstrap,
        "treated as terminal",
    ),
    (PythonNumberInState, every_method.check_state_holds_arrays_only, "is no array"),
    (DriftsInType, every_method.check_update_keeps_the_structure, "float32.* becomes bfloat16"),
    (DriftsInType, every_method.check_second_call_does_not_retrace, "traced 2 times"),
    (CountsInPython, every_method.check_update_keeps_the_structure, "changes the tree"),
    (CountsInPython, every_method.check_second_call_does_not_retrace, "traced 4 times"),
    (DrawsWithNumPy, every_method.check_tracing_is_reproducible, "two programs"),
    (DrawsWithNumPy, every_method.check_scan_equals_loop, "Not equal to tolerance"),
    (BranchesOnASetting, every_method.check_scan_equals_loop, "boolean conversion|traced"),
    (HasAStaticNumber, every_method.check_floats_can_be_swept, "temperature is static"),
    (ActsOutOfBounds, capabilities.check_actions_are_inside_the_space, "explore=False"),
    (GreedyAtRandom, capabilities.check_greedy_actions_are_deterministic, "depend on the key"),
    (
        NeverExplores,
        capabilities.check_greedy_actions_are_deterministic,
        "do not depend on the key",
    ),
    (LogsAVector, every_method.check_update_keeps_the_structure, "not a floating-point scalar"),
    (DividesByTheSpread, every_method.check_finite_on_hard_inputs, "no rewards"),
    (LooksAtTheFirstRow, every_method.check_row_order_is_irrelevant, "permuted"),
    (MixesSeeds, every_method.check_vmap_equals_separate_runs, "run 0"),
]


def _case(cls) -> Case:
    return Case(cls(), kinds_for(cls)[0])


@pytest.mark.parametrize("cls, check, message", PLANTED, ids=lambda x: getattr(x, "__name__", ""))
def test_planted_mistake_is_caught(cls, check, message):
    errors = (AssertionError, jax.errors.TracerBoolConversionError)
    with pytest.raises(errors, match=message):
        check(_case(cls))


def test_a_dead_setting_is_caught():
    with pytest.raises(AssertionError, match="no change within 4 updates: temperature"):
        every_method.check_every_number_matters([_case(HasADeadSetting)])


class TakesAnyWord(_Planted):
    rule: str = "square"


class RefusesWithoutTheName(_Planted):
    rule: str = "square"

    def __check_init__(self):
        if self.rule != "square":
            raise SpecificationError("TakesNoOther.rule is wrong")


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (TakesAnyWord, "rule = 'squaer' is taken, though it only looks like 'square'"),
        (
            RefusesWithoutTheName,
            "is refused without naming RefusesWithoutTheName.rule and 'square'",
        ),
    ],
)
def test_words_that_are_not_checked_are_caught(cls, said):
    with pytest.raises(AssertionError, match=said):
        every_method.check_misspelt_choices_are_refused(_case(cls))


def test_a_sound_method_passes_everything():
    report = check_method(Sound)
    assert [o.check for o in report.outcomes if o.note] == ["misspelt choices are refused"]
    expected = {check.__name__ for check in checks_for(Sound(), kinds_for(Sound)[0])}
    assert len(report.outcomes) == len(expected) + 1
    assert str(report).startswith(
        "Sound keeps the contract:\n  continuous: state holds arrays only"
    )
    check_final(Sound)


def test_all_faults_are_told_at_once_with_check_data_and_reason():
    with pytest.raises(AssertionError) as caught:
        check_method(LooksAtTheFirstRow(noise=0.2))
    (line,) = str(caught.value).splitlines()
    start = "LooksAtTheFirstRow on continuous fails the check 'row order is irrelevant': "
    assert line.startswith(start) and "permuted" in line
    with pytest.raises(AssertionError) as caught:
        check_method(CountsInPython)
    assert len(str(caught.value).splitlines()) > 2


def test_an_exception_that_is_no_longer_needed_is_told(monkeypatch):
    monkeypatch.setitem(EXPECTED, "Sound", {"check_scan_equals_loop": "no reason", "check_x": ""})
    with pytest.raises(AssertionError) as caught:
        check_method(Sound)
    passes, unknown = str(caught.value).splitlines()
    assert passes.startswith("Sound on continuous passes the check 'scan equals loop': remove what")
    assert unknown.endswith("Sound has no check_x")


def test_only_the_accepted_kind_is_tested():
    assert [kind.name for kind in kinds_for(Sound)] == ["continuous"]


def test_a_subclass_of_a_concrete_method_is_caught():
    # As if it stood in the library.
    concrete = type("Sound", (AbstractMethod,), {"__module__": "headwater.methods.sound"})
    derived = type("Derived", (concrete,), {"__module__": "headwater.methods.derived"})
    with pytest.raises(AssertionError, match="derives from the concrete class Sound"):
        check_final(derived)


def test_long_files_and_updates_are_caught():
    update = "class A:\n    def update(self):\n" + "        x = 1\n" * 50
    with pytest.raises(AssertionError, match="update of 51 lines"):
        check_lengths("A", update)
    check_lengths("A", "class A:\n    def update(self):\n" + "        x = 1\n" * 49)
    with pytest.raises(AssertionError, match="file of 201 lines"):
        check_lengths("A", "class A:\n    def update(self): ...\n" + "\n" * 199)
