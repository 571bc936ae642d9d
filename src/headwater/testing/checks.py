"""What every method must do, whatever it learns.

Each check takes a `Case` and raises `AssertionError` for what is wrong; it returns nothing, or, in
words, why it says nothing about this method.

Compilation is nearly all of the cost, so everything that is compiled is compiled once per case and
shared. Methods go into compiled functions as trees: every number that is not static is traced.
"""

import dataclasses
import functools
import tempfile
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np

from headwater.core.errors import DataError, SpecificationError
from headwater.core.fields import choices_of
from headwater.core.method import (
    AbstractArchiving,
    AbstractArmPolicy,
    AbstractCertificate,
    AbstractDynamics,
    AbstractLabeller,
    AbstractLikelihood,
    AbstractMethod,
    AbstractModelBased,
    AbstractPolicy,
    AbstractProposer,
    AbstractRewardModel,
    AbstractTablePolicy,
    AbstractValue,
)
from headwater.core.records import (
    ComparisonsAndSegments,
    SegmentComparisons,
    Segments,
    Transition,
    Transitions,
)
from headwater.core.spaces import Spaces
from headwater.runs import checkpoint
from headwater.runs.checkpoint import Position
from headwater.testing import kinds
from headwater.testing.kinds import Kind

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""Tiny programs that run a few times: compiling them well would be most of the cost."""

TOGETHER = 3
"""Runs side by side in the one program that is both mapped and looped."""
UPDATES = 4
"""Length of the runs that are compared. Settings that act later are dead to these tests."""


class Case:
    """One method on one kind of data, with its compiled pieces."""

    def __init__(self, method: AbstractMethod, kind: Kind):
        self.method, self.kind = method, kind
        self.key = jax.random.key(1)
        self.traces = 0
        batch = jit(kind.batch)
        # One for each update. Made now, since traced functions look at them.
        self.batches: list[Any] = [batch(jax.random.fold_in(self.key, i)) for i in range(UPDATES)]
        self.init = jit(lambda method, key: method.init(kind.problem, key=key))
        self.update = jit(self._counted_update)
        self.probe = jit(self._probe)
        self._experiences = jit(jax.vmap(self._experience))

    @functools.cached_property
    def shapes(self) -> tuple[Any, Any, Any]:
        """Of the state before an update, and of state and metrics after it; traced once."""
        method = self.method
        before = eqx.filter_eval_shape(method.init, self.kind.problem, key=self.key)
        after, metrics = eqx.filter_eval_shape(method.update, before, self.batches[0], key=self.key)
        return before, after, metrics

    @functools.cached_property
    def first(self) -> Any:
        """The state before any data."""
        return self.init(self.method, self.key)

    @functools.cached_property
    def trained(self) -> Any:
        """The state after the batches, updated one by one."""
        return self.run(self.method, self.key)[0]

    def run(self, method: AbstractMethod, key, batches=None) -> tuple[Any, Any]:
        """State and last metrics after a Python loop over `batches`."""
        state, metrics = self.init(method, key), None
        for i, data in enumerate(self.batches if batches is None else batches):
            state, metrics = self.update(method, state, data, jax.random.fold_in(key, i))
        return state, metrics

    def experiences(self, methods: Sequence[AbstractMethod], keys: Sequence[Any]) -> list[Any]:
        """Whole runs side by side, in one program: for each the first state, the last one, all
        metrics and all answers, on the host.

        **Arguments:** `methods`, `keys`: `TOGETHER` of each; methods may differ in their numbers.
        """
        assert len(methods) == len(keys) == TOGETHER
        stacked = jax.tree.map(lambda *x: np.asarray(x, jnp.asarray(x[0]).dtype), *methods)
        together = jax.tree.map(np.asarray, self._experiences(stacked, jnp.stack(list(keys))))
        return [jax.tree.map(lambda x, i=i: x[i], together) for i in range(TOGETHER)]

    @functools.cached_property
    def alike(self) -> list[Any]:
        """The experiences of `TOGETHER` runs that are the same."""
        return self.experiences([self.method] * TOGETHER, [self.key] * TOGETHER)

    def changed(self, change, updates: int = 2) -> list[np.ndarray]:
        """State and metrics after `updates` on the first batch, edited by `change`."""
        data = change(self.batches[0])
        return numbers(self.run(self.method, self.key, [data] * updates))

    @staticmethod
    def method_update(method, state, data, key):
        """`update` as a function of everything."""
        return method.update(state, data, key=key)

    def _counted_update(self, method, state, data, key):
        self.traces += 1
        return method.update(state, data, key=key)

    def act(self, state, observation, key) -> tuple[Any, Any]:
        """The actions of a policy without and with exploration."""
        assert isinstance(self.method, AbstractPolicy)
        greedy, exploring = (
            self.method.act(state, observation, key=key, explore=explore)[0]
            for explore in (False, True)
        )
        return greedy, exploring

    def _probe(self, method, state, key):
        """Whatever the method's capabilities answer, for one observation."""
        answers: dict[str, Any] = {}
        if isinstance(method, AbstractTablePolicy):
            for explore in (False, True):
                answers[f"policy, explore={explore}"] = method.policy(state, explore=explore)
        if isinstance(method, AbstractCertificate):
            answers["suboptimality_bound"] = method.suboptimality_bound(state)
        data = self.batches[0]
        if isinstance(method, AbstractArmPolicy):
            for explore in (False, True):
                answers[f"probabilities, explore={explore}"] = method.probabilities(
                    state, data.context[0], data.features[0], key=key, explore=explore
                )
        if isinstance(method, AbstractArchiving):
            answers["offspring"] = method.offspring(state, kinds.ROWS, key=key)
            answers["archive"] = method.archive(state)
        if isinstance(method, AbstractProposer):
            answers["propose"] = method.propose(state, key=key)
            answers["recommend"] = method.recommend(state, key=key)
        observation, action = _one_step(data)
        if observation is None:
            return answers
        if isinstance(method, AbstractPolicy):
            for explore in (False, True):
                answers[f"act, explore={explore}"] = method.act(
                    state, observation, key=key, explore=explore
                )
        if isinstance(method, AbstractValue):
            answers["value"] = method.value(state, observation, action)
        if isinstance(method, AbstractLikelihood):
            answers["log_probability"] = method.log_probability(state, observation, action)
        question = (state, observation, action)
        if isinstance(method, AbstractDynamics):
            answers["predict"] = method.predict(*question)
            answers["step"] = method.step(*question, key=key)
        if isinstance(method, AbstractModelBased):
            answers["imagine"] = method.imagine(*question, key=key)
        if isinstance(method, AbstractRewardModel):
            answers["rewards"] = method.rewards(*question)
        return answers

    def _experience(self, method, key):
        """A whole run, compiled as one: first state, a scan over the batches, all answers."""
        first = method.init(self.kind.problem, key=key)
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *self.batches)

        def step(state, given):
            i, data = given
            return method.update(state, data, key=jax.random.fold_in(key, i))

        last, metrics = jax.lax.scan(step, first, (jnp.arange(UPDATES), stacked))
        return first, last, metrics, self._probe(method, last, jax.random.fold_in(key, UPDATES))


def _one_step(data: Any) -> tuple[Any, Any]:
    """Observation and action of the first row of data that have both; else `(None, None)`."""
    if isinstance(data, ComparisonsAndSegments):
        data = data.logged
    if isinstance(data, SegmentComparisons):
        data = data.first
    if not isinstance(data, Transition | Transitions | Segments):
        return None, None
    observation, action = data.observation, data.action
    while observation.ndim > 1:
        observation, action = observation[0], action[0]
    return observation, action


# Comparing --------------------------------------------------------------------------------------


def numbers(tree: Any) -> list[np.ndarray]:
    """The leaves of `tree` on the host."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def names(tree: Any) -> list[str]:
    """Where in `tree` each leaf is."""
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def same(a: Any, b: Any) -> bool:
    """Whether two trees hold the same bits (a NaN equals a NaN)."""
    left, right = numbers(a), numbers(b)
    return len(left) == len(right) and all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
        for x, y in zip(left, right)
    )


def assert_close(a: Any, b: Any, what: str) -> None:
    """Equality up to the order of summation."""
    for name, x, y in zip(names(a), numbers(a), numbers(b), strict=True):
        np.testing.assert_allclose(
            x, y, rtol=2e-3, atol=2e-5, equal_nan=True, err_msg=f"{what}: {name}"
        )


def swept(method: AbstractMethod) -> dict[str, float | int]:
    """The settings that are numbers and not static, by name."""
    found = {}
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        static = field.metadata.get("static", False)
        if isinstance(value, int | float) and not isinstance(value, bool) and not static:
            found[field.name] = value
    return found


def with_setting(method: AbstractMethod, name: str, value: Any) -> AbstractMethod:
    """`method` with one number replaced, by an array if need be."""
    return eqx.tree_at(lambda m: getattr(m, name), method, value)


# State ------------------------------------------------------------------------------------------


def check_state_holds_arrays_only(case: Case) -> None:
    """A Python number in the state would be a constant of the compiled program."""
    for tree in case.shapes[:2]:
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            where = jax.tree_util.keystr(path)
            assert isinstance(leaf, jax.ShapeDtypeStruct), f"state{where} is no array: {leaf!r}"
            assert leaf.dtype != np.float64, f"state{where} is float64"


def check_update_keeps_the_structure(case: Case) -> None:
    """Same tree, shapes and types before and after; metrics are floating-point scalars."""
    before, after, metrics = case.shapes
    assert jax.tree.structure(before) == jax.tree.structure(after), "update changes the tree"
    for name, old, new in zip(names(before), jax.tree.leaves(before), jax.tree.leaves(after)):
        assert (old.shape, old.dtype) == (new.shape, new.dtype), (
            f"state{name}: {old.dtype}{old.shape} becomes {new.dtype}{new.shape}"
        )
    assert metrics, "update logs nothing"
    for name, metric in metrics.items():
        assert metric.shape == () and jnp.issubdtype(metric.dtype, jnp.floating), (
            f"metric {name} is {metric.dtype}{metric.shape}, not a floating-point scalar"
        )


def check_second_call_does_not_retrace(case: Case) -> None:
    """One program serves every update."""
    state = case.init(case.method, case.key)
    for data in case.batches:
        state, _ = case.update(case.method, state, data, case.key)
    assert case.traces == 1, f"update was traced {case.traces} times for the same shapes"


def check_tracing_is_reproducible(case: Case) -> None:
    """Two traces give one program: no NumPy randomness, clock or counter inside."""
    arguments = (case.method, case.first, case.batches[0], case.key)
    again = jit(lambda *a: case.method_update(*a))
    # The first line of a program is its name.
    first, second = (
        program.lower(*arguments).as_text().split("\n", 1)[1] for program in (case.update, again)
    )
    assert first == second, "tracing update twice gives two programs"


# Equivalent ways to run -------------------------------------------------------------------------


def check_same_key_gives_the_same_result(case: Case) -> None:
    """To the bit, metrics included."""
    assert same(case.run(case.method, case.key), case.run(case.method, case.key))


def check_scan_equals_loop(case: Case) -> None:
    """A compiled run is the Python loop."""
    first, last, metrics, _ = case.alike[0]
    state, at_the_end = case.run(case.method, case.key)
    assert_close(first, case.first, "first state")
    assert_close(last, state, "state")
    assert_close(jax.tree.map(lambda x: x[-1], metrics), at_the_end, "metrics")


def check_vmap_equals_separate_runs(case: Case) -> None:
    """Over seeds and over every number at once."""
    scales = (1.0, 0.95, 0.9)
    methods = [
        jax.tree.map(lambda x, s=s: x * s if isinstance(x, float) else x, case.method)
        for s in scales
    ]
    keys = [jax.random.fold_in(case.key, i) for i in range(len(methods))]
    runs = case.experiences(methods, keys)
    for i, (method, key, (_, last, metrics, _)) in enumerate(zip(methods, keys, runs)):
        at_the_end = jax.tree.map(lambda x: x[-1], metrics)
        assert_close((last, at_the_end), case.run(method, key), f"run {i}")


def check_checkpoint_continues_exactly(case: Case) -> None:
    """Save, load, continue: the bits of an uninterrupted run."""
    state = case.init(case.method, case.key)
    state, _ = case.update(case.method, state, case.batches[0], case.key)
    with tempfile.TemporaryDirectory() as folder:
        flat = {"method": checkpoint.flatten(state)}
        path = checkpoint.save(Path(folder), Position(0, "s", 1), flat)
        read = checkpoint.read(path)["method"]
    loaded = checkpoint.restore(case.shapes[0], read, "the checkpoint")
    assert same(state, loaded), "what was loaded is not what was saved"
    uninterrupted = case.update(case.method, state, case.batches[1], case.key)
    assert same(uninterrupted, case.update(case.method, loaded, case.batches[1], case.key))


# Settings ---------------------------------------------------------------------------------------


def check_every_number_matters(cases: Sequence[Case]) -> None:
    """A setting that changes nothing, however far it is turned and on whatever data, is dead."""
    dead = set(swept(cases[0].method))
    for case in cases:
        for name in dead:
            value = getattr(case.method, name)
            tried = [value * c for c in (0.5, 2.0, 1e-6, 1e-3, 1e3)] + [0.0, 1.0, -1.0, 10.0, 1e-3]
            if isinstance(value, int):
                tried = [1, 2, 3, 5, value + 1]
            tried = [x for x in tried if x != value and np.isfinite(x)]
            if any(
                _changes(case, name, tried[i : i + TOGETHER])
                for i in range(0, len(tried), TOGETHER)
            ):
                dead = dead - {name}
    assert not dead, f"no change within {UPDATES} updates: {', '.join(sorted(dead))}"


def _changes(case: Case, name: str, values: Sequence[float | int]) -> bool:
    """Whether any of these values of a setting, `TOGETHER` at most, changes a run."""
    filled = [*values, *[values[-1]] * (TOGETHER - len(values))]
    methods = [with_setting(case.method, name, x) for x in filled]
    found = case.experiences(methods, [case.key] * TOGETHER)
    # Each beside its own: places of a batch may round differently.
    return not all(same(x, y) for x, y in zip(found, case.alike))


def check_floats_can_be_swept(case: Case) -> None:
    """A static float could be neither swept nor traced."""
    for field in dataclasses.fields(case.method):
        static = field.metadata.get("static", False)
        value = getattr(case.method, field.name)
        assert not (static and isinstance(value, float)), f"{field.name} is static"


def check_every_option_traces(case: Case) -> None:
    """Each other value of a flag or choice gives a method that can be initialised and updated."""
    cls = type(case.method)
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        value, hint = getattr(case.method, field.name), hints[field.name]
        options = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        for option in (not value,) if isinstance(value, bool) else options:
            if option == value:
                continue
            try:
                method = dataclasses.replace(case.method, **{field.name: option})
                state = eqx.filter_eval_shape(method.init, case.kind.problem, key=case.key)
                eqx.filter_eval_shape(method.update, state, case.batches[0], key=case.key)
            except SpecificationError as error:
                assert field.name in str(error) or cls.__name__ in str(error), error


def check_misspelt_choices_are_refused(case: Case) -> str | None:
    """Every option that is a word is misspelt: it must be refused, with the word that is nearest.

    Otherwise a typing error quietly runs another algorithm.
    """
    method, cls = case.method, type(case.method)
    words = {field.name: choices_of(cls, field.name) for field in dataclasses.fields(cls)}
    for name in words:
        value = getattr(method, name)
        if isinstance(value, str) and value not in words[name]:
            words[name] += (value,)
    checked = jaxtyping.config.jaxtyping_disable
    # As users have it: where annotations are checked, they refuse before Headwater looks.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        for name, known in words.items():
            for word in known:
                _check_refusal(method, name, word)
    finally:
        jaxtyping.config.update("jaxtyping_disable", checked)
    return None if any(words.values()) else "no option is a word"


def _check_refusal(method: AbstractMethod, name: str, word: str) -> None:
    wrong, where = misspelt(word), f"{type(method).__name__}.{name}"
    try:
        dataclasses.replace(method, **{name: wrong})
    except SpecificationError as error:
        message = str(error)
        assert where in message and word in message, (
            f"{name} = {wrong!r} is refused without naming {where} and {word!r}: {message}"
        )
    else:
        raise AssertionError(
            f"{name} = {wrong!r} is taken, though it only looks like {word!r}: give the field a "
            "Literal and `choice`"
        )


def misspelt(word: str) -> str:
    """`word` with its last two letters the other way round, or one more where they are alike."""
    turned = word[:-2] + word[:-3:-1]
    return word + word[-1] if turned == word else turned


# Data -------------------------------------------------------------------------------------------


def check_finite_on_hard_inputs(case: Case) -> None:
    """Degenerate but legal batches leave state and metrics finite."""
    for name, change in case.kind.hard.items():
        results = case.run(case.method, case.key, [change(b) for b in case.batches[:3]])
        for where, array in zip(names(results), numbers(results)):
            if np.issubdtype(array.dtype, np.floating):
                assert np.all(np.isfinite(array)), f"{name}: {where} is not finite"


def check_terminal_rows_ignore_the_next_observation(case: Case) -> None:
    """Nothing follows the end of a process: not even a NaN there may reach the learner."""
    reference = case.changed(lambda data: _marked(data, kinds.TERMINAL))
    for what, value in (("another one", 7.5), ("a NaN", jnp.nan)):
        edited = case.changed(lambda data, v=value: _next_observation(data, kinds.TERMINAL, v))
        assert same(edited, reference), f"{what} behind a terminal row changes the update"


def check_truncated_rows_bootstrap(case: Case) -> str | None:
    """Where the next observation counts at all, it counts behind a truncated row too."""
    reference = case.changed(lambda data: _marked(data, kinds.TRUNCATED))
    ordinary = slice(kinds.TRUNCATED.stop, None)
    unmarked = case.changed(lambda data: _marked(data, ordinary))
    if same(case.changed(lambda data: _next_observation(data, ordinary, 7.5)), unmarked):
        return "the update never looks at the next observation"
    edited = case.changed(lambda data: _next_observation(data, kinds.TRUNCATED, 7.5))
    assert not same(edited, reference), "a truncated row is treated as terminal"


def check_rewards_are_read_as_declared(case: Case) -> None:
    """`Info.rewards` says whether anything depends on the rewards of the data."""

    def other(data: Transition | Transitions) -> Transition | Transitions:
        def edited(x):
            return None if x is None else 2.0 * x + jnp.linspace(-1.0, 2.0, x.size).reshape(x.shape)

        edits = {"reward": edited(data.reward)}
        if isinstance(data, Transitions):
            edits["return_to_go"] = edited(data.return_to_go)
        return dataclasses.replace(data, **edits)

    unread = same(case.changed(other), case.changed(lambda data: data))
    assert unread is not case.method.info.rewards, "Info.rewards says otherwise"


def check_row_order_is_irrelevant(case: Case) -> str | None:
    """A batch is a set, unless each row has randomness of its own."""
    if not case.kind.flat:
        return "the rows of this kind of data are ordered"
    data, other = case.batches[0], jax.random.fold_in(case.key, 99)
    one = case.update(case.method, case.first, data, case.key)
    if not same(one, case.update(case.method, case.first, data, other)):
        return "the update draws random numbers for each row"
    order = np.random.default_rng(0).permutation(kinds.ROWS)
    permuted = jax.tree.map(lambda x: x[order], data)
    assert_close(case.update(case.method, case.first, permuted, case.key), one, "permuted")


def check_missing_columns_are_explained(case: Case) -> None:
    """Without statistics and logged-only columns a method works, or says in words what it needs."""
    problem = kinds.without_statistics(case.kind.problem)
    state = eqx.filter_eval_shape(case.method.init, problem, key=case.key)
    data = case.batches[0]
    if isinstance(data, Transitions):
        data = dataclasses.replace(data, next_action=None, return_to_go=None, whole_log=None)
    try:
        eqx.filter_eval_shape(case.method.update, state, data, key=case.key)
    except (SpecificationError, DataError) as error:
        missing = ("next_action", "return_to_go", "next action", "return", "whole_log")
        assert any(word in str(error) for word in missing), error


# Capabilities -----------------------------------------------------------------------------------


def check_actions_are_inside_the_space(case: Case) -> None:
    """For one observation and for many, near and far, trained and not, exploring and not."""
    spaces = case.kind.problem
    far = jnp.asarray([[0.0] * 3, [1.0] * 3, [-50.0] * 3, [1e4, -1e4, 1e4]])
    keys = jax.random.split(case.key, len(far))
    many, one = jit(jax.vmap(case.act, in_axes=(None, 0, 0))), jit(case.act)
    for state in (case.first, case.trained):
        crowd = jax.tree.map(np.asarray, many(state, far, keys))
        single = jax.tree.map(np.asarray, one(state, far[1], keys[1]))
        for explore, actions, alone in zip((False, True), crowd, single):
            if spaces.discrete:
                assert actions.shape == (len(far),) and actions.dtype == np.int32
                assert np.all((actions >= 0) & (actions < spaces.action_size)), actions
            else:
                assert actions.shape == (len(far), spaces.action_size)
                assert actions.dtype == np.float32
                assert np.all(np.abs(actions) <= 1.0), f"explore={explore}: {actions}"
            np.testing.assert_allclose(alone, actions[1], rtol=1e-4, atol=1e-5)


def check_greedy_actions_are_deterministic(case: Case) -> None:
    """`explore=False` does not look at the key; `explore=True` does."""
    observation = jnp.asarray([0.3, -0.2, 0.5])
    each = jit(jax.vmap(case.act, in_axes=(None, None, 0)))
    greedy, exploring = each(case.trained, observation, jax.random.split(case.key, 64))
    alike = [bool(np.all(np.asarray(x) == np.asarray(x)[:1])) for x in (greedy, exploring)]
    assert alike[0], "greedy actions depend on the key"
    assert not alike[1], "exploring actions do not depend on the key"


def check_log_probability(case: Case) -> None:
    """Finite, also for actions at the edge; over discrete actions the probabilities sum to one."""
    method, state = case.method, case.trained
    assert isinstance(method, AbstractLikelihood)
    spaces = case.kind.problem
    observations = jnp.asarray([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5], [30.0, -30.0, 30.0]])
    if spaces.discrete:
        actions = jnp.arange(spaces.action_size, dtype=jnp.int32)
    else:
        actions = jnp.asarray([[0.0, 0.0], [0.5, -0.9], [1.0, -1.0]])
    each = jax.vmap(lambda o: jax.vmap(lambda a: method.log_probability(state, o, a))(actions))
    found = np.asarray(jit(each)(observations))
    assert found.shape == (len(observations), len(actions))
    assert np.all(np.isfinite(found)), found
    if spaces.discrete:
        np.testing.assert_allclose(np.exp(found).sum(1), 1.0, rtol=1e-5)


def check_table_policy(case: Case) -> None:
    """Distributions over actions, before and after learning, one for each task where asked."""
    method, problem = case.method, case.kind.problem
    assert isinstance(method, AbstractTablePolicy)
    tasks = () if problem.tasks is None else (problem.tasks,)
    for explore in (False, True):
        policy = jit(lambda s, e=explore: method.policy(s, explore=e))
        for state in (case.first, case.trained):
            table = np.asarray(policy(state))
            assert table.shape[-3:] == problem.sizes, table.shape
            assert table.shape[: len(tasks)] == tasks, table.shape
            assert explore or table.shape == (*tasks, *problem.sizes), table.shape
            assert np.all(table >= 0.0)
            np.testing.assert_allclose(table.sum(-1), 1.0, rtol=1e-5)


def check_certificate(case: Case) -> None:
    """No gap is negative, and none is larger than all that can be earned."""
    method = case.method
    assert isinstance(method, AbstractCertificate)
    certify = jit(method.suboptimality_bound)
    for state in (case.first, case.trained):
        bound = float(certify(state))
        assert -1e-5 <= bound <= case.kind.problem.horizon + 1e-5, bound


def check_arm_policy(case: Case) -> None:
    """Distributions over arms, before and after learning, and in rounds unlike those learned."""
    method, data = case.method, case.batches[0]
    assert isinstance(method, AbstractArmPolicy)
    for explore in (False, True):

        def probabilities(state, context, features, explore=explore):
            return method.probabilities(state, context, features, key=case.key, explore=explore)

        found = jit(probabilities)
        for state in (case.first, case.trained):
            for scale in (1.0, 0.0, 100.0):
                each = np.asarray(found(state, scale * data.context[0], scale * data.features[0]))
                assert each.shape == (case.kind.problem.arms,) and np.all(each >= 0.0), each
                np.testing.assert_allclose(each.sum(), 1.0, rtol=1e-5)


def check_proposer(case: Case) -> None:
    """Points of the space, before and after learning, and a state of the same shapes meanwhile."""
    method, space = case.method, case.kind.problem
    assert isinstance(method, AbstractProposer)

    propose, expect = jit(lambda s, key: method.propose(s, key=key)), jit(method.expect)
    recommend = jit(lambda s, key: method.recommend(s, key=key))
    for state in (case.first, case.trained):
        point, fidelity = propose(state, case.key)
        after = expect(state, point, fidelity)
        other, other_fidelity = propose(after, jax.random.fold_in(case.key, 1))
        points = jnp.stack([point, other, recommend(after, case.key)])
        fidelities = jnp.stack([fidelity, other_fidelity])
        assert points.shape == (3, space.size) and points.dtype == np.float32, points
        assert np.all((points >= 0.0) & (points <= 1.0)), f"outside of the space: {points}"
        assert fidelities.dtype == np.int32, fidelities.dtype
        assert np.all((fidelities >= 0) & (fidelities < space.fidelities)), fidelities
        candidates = space.unit_candidates
        if candidates is not None:
            apart = np.abs(np.asarray(points)[:, None] - np.asarray(candidates)[None]).max(-1)
            assert np.all(apart.min(axis=1) < 1e-6), f"no candidates: {points}"
        old, new = (jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, after))
        assert old == new, "expect changes the shapes of the state"


def check_archiving(case: Case) -> None:
    """Solutions in the unit cube, before and after learning, and an archive of what was told."""
    method, space = case.method, case.kind.problem
    assert isinstance(method, AbstractArchiving)
    offspring = jit(lambda s, key: method.offspring(s, kinds.ROWS, key=key))
    for state in (case.first, case.trained):
        points = np.asarray(offspring(state, case.key))
        assert points.shape == (kinds.ROWS, space.size) and points.dtype == np.float32, points
        assert np.all((points >= 0.0) & (points <= 1.0)), f"outside of the space: {points}"
        other = offspring(state, jax.random.fold_in(case.key, 1))
        assert not same(points, other), "offspring do not depend on the key"
    assert not bool(jnp.any(method.archive(case.first).filled)), "an archive before any solution"
    found = method.archive(case.trained)
    told = np.concatenate([np.asarray(batch.point) for batch in case.batches])
    kept = np.asarray(found.solution)[np.asarray(found.filled)]
    assert len(kept), "nothing that was told is in the archive"
    for solution in kept:
        assert np.any(np.all(told == solution, axis=1)), f"{solution} was never told"


def check_value(case: Case) -> None:
    """A finite floating-point scalar."""
    value = case.probe(case.method, case.trained, case.key)["value"]
    assert value.shape == () and value.dtype == jnp.float32 and bool(jnp.isfinite(value)), value


def check_dynamics(case: Case) -> None:
    """Predictions and steps are finite and of the right shapes, far from all data as well."""
    method, problem = case.method, case.kind.problem
    assert isinstance(method, AbstractDynamics)
    row = jax.tree.map(lambda x: x[0], case.batches[0])

    def ask(state, observation):
        found = method.predict(state, observation, row.action)
        return found, method.step(state, observation, row.action, key=case.key)

    ask = jit(ask)
    for state in (case.first, case.trained):
        for observation in (row.observation, 1e4 * row.observation):
            predicted, step = ask(state, observation)
            for found in (predicted, step):
                assert found.next_observation.shape == (problem.observation_size,)
                for name, value in found._asdict().items():
                    assert np.all(np.isfinite(np.asarray(value))), f"{name} is not finite: {value}"
            assert predicted.spread >= 0 and predicted.disagreement >= 0, predicted
            assert step.terminal.dtype == predicted.beyond.dtype == bool, predicted


def check_model_based(case: Case) -> None:
    """What was learned of the process is taken over, and rollouts follow it."""
    method, problem = case.method, case.kind.problem
    assert isinstance(method, AbstractModelBased)
    dynamics = method.dynamics
    assert isinstance(dynamics, AbstractDynamics), f"{dynamics!r} learns no dynamics"
    row = jax.tree.map(lambda x: x[0], case.batches[0])

    def ask(state, key):
        model = dynamics.init(problem, key=key)
        state = method.with_model(state, model)
        return (
            method.imagine(state, row.observation, row.action, key=case.key),
            dynamics.step(model, row.observation, row.action, key=case.key),
        )

    imagined, step = jit(ask)(case.trained, jax.random.fold_in(case.key, 7))
    assert_close(imagined._replace(reward=step.reward), step, "rollouts do not follow the model")
    assert np.isfinite(np.asarray(imagined.reward)), "a reward of a rollout is not finite"


def check_labels(case: Case) -> None:
    """Labels are told from what is not labelled, row by row, with a confidence in [0, 1]."""
    method, data = case.method, case.batches[0]
    assert isinstance(method, AbstractLabeller)
    label, confidence = method.label(case.trained, data)
    assert label.shape == data.action.shape, f"labels have shape {label.shape}"
    assert confidence.shape == label.shape[:1], f"confidences have shape {confidence.shape}"
    assert bool(jnp.all((confidence >= 0) & (confidence <= 1))), "a confidence is no probability"
    without = dataclasses.replace(data, action=jnp.zeros_like(data.action))
    assert same(method.label(case.trained, without), (label, confidence)), "the label is read"
    half = jax.tree.map(lambda x: x[: kinds.ROWS // 2], data)
    first = jax.tree.map(lambda x: x[: kinds.ROWS // 2], (label, confidence))
    assert_close(method.label(case.trained, half), first, "half of the rows")


CHECKS = (
    check_state_holds_arrays_only,
    check_update_keeps_the_structure,
    check_second_call_does_not_retrace,
    check_tracing_is_reproducible,
    check_same_key_gives_the_same_result,
    check_scan_equals_loop,
    check_vmap_equals_separate_runs,
    check_checkpoint_continues_exactly,
    check_floats_can_be_swept,
    check_every_option_traces,
    check_misspelt_choices_are_refused,
    check_finite_on_hard_inputs,
    check_row_order_is_irrelevant,
)
"""For every method on every kind of data that it takes."""

TRANSITION_CHECKS = (
    check_terminal_rows_ignore_the_next_observation,
    check_truncated_rows_bootstrap,
    check_rewards_are_read_as_declared,
)
"""For methods that learn from single steps."""

POLICY_CHECKS = (check_actions_are_inside_the_space, check_greedy_actions_are_deterministic)


def checks_for(method: AbstractMethod, kind: Kind) -> list[Any]:
    """The checks that apply, by the kind of data and by capability."""
    found = list(CHECKS)
    if isinstance(kind.problem, Spaces):
        found.append(check_missing_columns_are_explained)
        batch = eqx.filter_eval_shape(kind.batch, jax.random.key(0))
        found.extend(TRANSITION_CHECKS if isinstance(batch, Transition | Transitions) else ())
    if isinstance(method, AbstractTablePolicy):
        found.append(check_table_policy)
    if isinstance(method, AbstractArmPolicy):
        found.append(check_arm_policy)
    if isinstance(method, AbstractArchiving):
        found.append(check_archiving)
    if isinstance(method, AbstractProposer):
        found.append(check_proposer)
    if isinstance(method, AbstractCertificate):
        found.append(check_certificate)
    if isinstance(method, AbstractPolicy):
        found.extend(POLICY_CHECKS)
    if isinstance(method, AbstractLikelihood):
        found.append(check_log_probability)
    if isinstance(method, AbstractValue):
        found.append(check_value)
    if isinstance(method, AbstractLabeller):
        found.append(check_labels)
    if isinstance(method, AbstractDynamics):
        found.append(check_dynamics)
    if isinstance(method, AbstractModelBased):
        found.append(check_model_based)
    return found


def _marked(data: Any, rows: slice) -> Any:
    """The data in which `rows` are what they are called: a single step is made what is asked for.

    **Arguments:** `rows`: `TERMINAL`, `TRUNCATED`, or others, which are neither.
    """
    if isinstance(data, Transitions):
        return data
    return dataclasses.replace(
        data,
        terminal=jnp.asarray(rows == kinds.TERMINAL),
        truncated=jnp.asarray(rows == kinds.TRUNCATED),
    )


def _next_observation(data: Any, rows: slice, value: float) -> Any:
    data = _marked(data, rows)
    at = rows if isinstance(data, Transitions) else slice(None)
    return dataclasses.replace(data, next_observation=data.next_observation.at[at].set(value))
