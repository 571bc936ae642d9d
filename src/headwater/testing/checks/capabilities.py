"""What the answers of a method must be: actions, distributions, values, predictions, labels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import (
    AbstractArchiving,
    AbstractArmPolicy,
    AbstractCertificate,
    AbstractContinual,
    AbstractDynamics,
    AbstractLabeller,
    AbstractLikelihood,
    AbstractModelBased,
    AbstractPolicy,
    AbstractProposer,
    AbstractTablePolicy,
)
from headwater.core.records import TaskLog
from headwater.testing.checks.case import Case, jit
from headwater.testing.checks.comparing import assert_close, numbers, same
from headwater.testing.kinds.kind import ROWS, TERMINAL


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
    offspring = jit(lambda s, key: method.offspring(s, ROWS, key=key))
    for state in (case.first, case.trained):
        points = np.asarray(offspring(state, case.key))
        assert points.shape == (ROWS, space.size) and points.dtype == np.float32, points
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


def check_continual(case: Case) -> None:
    """The next task begins with a state of the same tree, and `for_task` decides how it acts."""
    method, problem, data = case.method, case.kind.problem, case.batches[0]
    assert isinstance(method, AbstractContinual) and isinstance(method, AbstractPolicy)
    log, zero = TaskLog(data, jnp.asarray([0, TERMINAL.stop])), jnp.zeros((), jnp.int32)

    def ask(state, key):
        begun = method.next_task(state, log, problem, key=key)
        after = case.method.update(begun, data, key=key)[0]
        acts = [
            method.act(
                method.for_task(after, zero + i), data.observation[0], key=key, explore=False
            )
            for i in range(2)
        ]
        return begun, after, acts

    begun, after, acts = jit(ask)(case.trained, case.key)
    for state in (begun, after):
        assert jax.tree.structure(state) == jax.tree.structure(case.trained), "another tree"
        for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(case.trained), strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype), "another shape or type"
    assert all(np.isfinite(x).all() for x in numbers(after)), "the second task is not finite"
    assert not same(*acts), "it acts alike in all tasks"


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
    half = jax.tree.map(lambda x: x[: ROWS // 2], data)
    first = jax.tree.map(lambda x: x[: ROWS // 2], (label, confidence))
    assert_close(method.label(case.trained, half), first, "half of the rows")
