import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.environments.control.point_maze import (
    PointMaze,
    PointMazeState,
    distance_to_goal,
    inside_wall,
    waypoint_action,
)
from headwater.environments.interaction import begin, episode_returns, interact, random_action


def _step(position, velocity, action, **options):
    state = PointMazeState(jnp.asarray(position), jnp.asarray(velocity), jnp.zeros((), jnp.int32))
    return PointMaze(**options).step(state, jnp.asarray(action), key=jax.random.key(0))


def test_free_motion_follows_the_equations():
    reached, step = _step([0.7, 0.0], [0.1, -0.2], [1.0, -0.5])
    velocity = np.array([0.1, -0.2]) + 0.1 * (
        1.2 * np.array([1.0, -0.5]) - 2 * np.array([0.1, -0.2])
    )
    np.testing.assert_allclose(reached.velocity, velocity, rtol=1e-6)
    np.testing.assert_allclose(reached.position, [0.7, 0.0] + 0.1 * velocity, rtol=1e-6)
    np.testing.assert_array_equal(step.observation, [*reached.position, *reached.velocity])


@pytest.mark.parametrize(
    ("position", "velocity", "stands", "stopped"),
    [
        ([-0.5, -0.16], [0.0, 0.6], [-0.5, -0.15], [False, True]),  # the lower face
        ([-0.5, 0.16], [0.0, -0.6], [-0.5, 0.15], [False, True]),  # the upper face
        ([0.41, 0.05], [-0.6, 0.0], [0.4, 0.05], [True, False]),  # the tip
        ([0.99, -0.5], [0.6, 0.0], [1.0, -0.5], [True, False]),  # the room
    ],
)
def test_walls_stop_what_runs_into_them(position, velocity, stands, stopped):
    reached, _ = _step(position, velocity, (np.sign(velocity)).astype(np.float32))
    np.testing.assert_allclose(reached.position, stands, atol=1e-6)
    np.testing.assert_array_equal(
        np.asarray(reached.velocity) == 0.0, np.array(stopped) | (np.array(velocity) == 0.0)
    )


def test_nobody_enters_the_wall_or_passes_it(key):
    task = PointMaze()
    start = begin(task, 50, key=key)
    # Straight for the goal through the wall, with a sideways wobble.
    act = lambda o, k: jnp.stack([jax.random.uniform(k, (), minval=-1.0, maxval=0.4), jnp.ones(())])
    _, rows = interact(task, start, act, steps=200, key=key)
    position = rows.next_observation[..., :2].reshape(-1, 2)
    assert not bool(jax.vmap(inside_wall)(position).any())
    left = position[:, 0] < 0.4
    assert bool((position[left][:, 1] <= -0.15).all())
    assert float(jnp.abs(position).max()) <= 1.0


def test_distance_is_the_length_of_the_shortest_way():
    # By hand: along the lower face to the tip, round it, then straight on.
    last = np.hypot(1.1, 0.45)
    for position, distance in [
        ([-0.7, 0.6], 0.0),
        ([0.4, 0.15], last),
        ([0.4, -0.15], 0.3 + last),
        ([-0.6, -0.15], 1.0 + 0.3 + last),
        ([0.9, 0.1], np.hypot(1.6, 0.5)),
        ([0.8, -0.15], np.hypot(0.4, 0.3) + last),
    ]:
        np.testing.assert_allclose(
            distance_to_goal(jnp.asarray(position)), distance, rtol=1e-5, atol=1e-6
        )


def test_distance_changes_no_faster_than_the_point_moves():
    axis = np.linspace(-1.0, 1.0, 81)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).astype(np.float32)
    distance = np.asarray(jax.vmap(jax.vmap(distance_to_goal))(jnp.asarray(grid)))
    free = ~np.asarray(jax.vmap(jax.vmap(inside_wall))(jnp.asarray(grid)))
    for axis_number in (0, 1):
        change = np.abs(np.diff(distance, axis=axis_number))
        both = free[1:] & free[:-1] if axis_number == 0 else free[:, 1:] & free[:, :-1]
        assert change[both].max() <= 0.025 + 1e-5


def test_the_goal_can_end_the_episode_and_distance_can_cost():
    near = ([-0.7, 0.45], [0.0, 0.6], [0.0, 1.0])
    _, step = _step(*near)
    assert step.reward == 1.0 and not step.terminal
    _, step = _step(*near, ends_at_goal=True)
    assert step.reward == 1.0 and step.terminal
    reached, step = _step([0.7, 0.0], [0.0, 0.0], [0.0, 1.0], dense=0.5)
    np.testing.assert_allclose(step.reward, -0.5 * distance_to_goal(reached.position), rtol=1e-6)


def test_the_references_are_earned(key):
    task = PointMaze()
    act = lambda observation, k: random_action(task.spaces, key=k)
    at_random = episode_returns(task, act, episodes=200, key=key)
    assert float(at_random.mean()) == task.reference_returns[0]
    expert = episode_returns(task, lambda o, k: waypoint_action(o), episodes=200, key=key)
    assert abs(float(expert.mean()) - task.reference_returns[1]) < 0.5
    ending = PointMaze(ends_at_goal=True)
    once = episode_returns(ending, lambda o, k: waypoint_action(o), episodes=50, key=key)
    np.testing.assert_array_equal(once, np.ones(50))
