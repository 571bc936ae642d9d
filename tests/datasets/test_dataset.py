import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.core.errors import DataError
from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete
from headwater.datasets.dataset import Dataset
from headwater.datasets.references import published_references


def discounted_sums(rewards, last, discount):
    """Discounted sums of rewards to the end of each episode, one step after the other."""
    sums, following = np.zeros(len(rewards)), 0.0
    for i in reversed(range(len(rewards))):
        following = sums[i] = rewards[i] + discount * (0.0 if last[i] else following)
    return sums


def chain(lengths, terminal, *, following=True, **options):
    """Episodes of a counter: observation = 10·episode + step, reward = step + 1."""
    observations = np.concatenate([10.0 * e + np.arange(n) for e, n in enumerate(lengths)])
    rewards = np.concatenate([np.arange(n) + 1.0 for n in lengths])
    last = np.zeros(observations.size, bool)
    last[np.cumsum(lengths) - 1] = True
    ends = np.repeat(terminal, lengths)
    return Dataset.from_arrays(
        observations,
        np.linspace(-1, 1, observations.size)[:, None],
        rewards,
        last & ends,
        last & ~ends,
        observations + 1 if following else None,
        **options,
    )


def test_columns_have_the_promised_types_and_shapes():
    data = chain([3, 2], [True, False])
    assert data.observations.dtype == data.rewards.dtype == data.actions.dtype == np.float32
    assert data.observations.shape == (5, 1) and data.actions.shape == (5, 1)
    assert data.episode_starts.dtype == np.int64
    assert data.episode_starts.tolist() == [0, 3, 5]
    assert data.terminals.tolist() == [False, False, True, False, False]
    assert data.truncations.tolist() == [False, False, False, False, True]
    assert (data.size, len(data), data.episodes) == (5, 5, 2)
    assert data.episode_of_row.tolist() == [0, 0, 0, 1, 1]


def test_returns_and_statistics_by_hand():
    data = chain([3, 2], [True, False])
    assert data.episode_returns().tolist() == [6.0, 3.0]
    assert data.episode_returns(0.5).tolist() == [1 + 1 + 0.75, 1 + 1]
    assert data.episode_lengths().tolist() == [3, 2]
    statistics = data.spaces.statistics
    assert statistics is not None
    values = np.array([0, 1, 2, 10, 11.0])
    np.testing.assert_allclose(statistics.observation_mean, [values.mean()], rtol=1e-6)
    np.testing.assert_allclose(statistics.observation_std, [values.std()], rtol=1e-6)
    assert (float(statistics.return_low), float(statistics.return_high)) == (3.0, 6.0)


def test_transitions_stay_on_the_host_and_know_what_follows():
    batch = chain([3, 2], [True, False]).transitions(0.5)
    assert isinstance(batch, Transitions)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(batch))
    np.testing.assert_allclose(batch.next_action[:, 0], [-0.5, 0, 0, 1, 1], atol=1e-6)
    np.testing.assert_allclose(batch.return_to_go, [2.75, 3.5, 3, 2, 2])
    assert batch.return_to_go.dtype == np.float32


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=20),
    discount=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    seed=st.integers(0, 1000),
)
def test_returns_to_go_agree_with_the_equation(lengths, discount, seed):
    data = chain(lengths, [True] * len(lengths))
    rewards = np.random.default_rng(seed).normal(size=data.size).astype(np.float32)
    data = Dataset.from_arrays(
        data.observations, data.actions, rewards, data.terminals, data.truncations
    )
    padded = np.zeros(256, np.float32)
    padded[: data.size] = rewards
    last = np.ones(256, bool)
    last[: data.size] = data.terminals
    expected = discounted_sums(padded, last, discount)
    np.testing.assert_allclose(
        data.returns_to_go(discount), expected[: data.size], rtol=1e-4, atol=1e-5
    )


def test_one_long_episode_agrees_too():
    data = chain([300], [False])
    expected = discounted_sums(data.rewards, data.truncations, 0.9)
    np.testing.assert_allclose(data.returns_to_go(0.9), expected, rtol=1e-5)


def test_without_next_observations_the_last_step_of_a_truncated_episode_is_dropped():
    data = chain([3, 3, 2], [True, False, False], following=False)
    assert data.observations[:, 0].tolist() == [0, 1, 2, 10, 11, 20]
    assert data.next_observations[:, 0].tolist() == [1, 2, 2, 11, 12, 21]
    assert data.terminals.tolist() == [False, False, True, False, False, False]
    assert data.truncations.tolist() == [False, False, False, False, True, True]
    assert data.episode_starts.tolist() == [0, 3, 5, 6]
    assert data.metadata["dropped_rows"] == 2


def test_episodes_of_one_truncated_step_vanish_without_next_observations():
    data = chain([1, 3, 1, 1, 2], [False, True, False, True, False], following=False)
    assert data.observations[:, 0].tolist() == [10, 11, 12, 30, 40]
    assert data.episode_lengths().tolist() == [3, 1, 1]
    with pytest.raises(DataError, match="nothing is left: every episode has one row"):
        chain([1, 1], [False, False], following=False)


def test_data_that_just_stops_is_truncated():
    none = np.zeros(3, bool)
    data = Dataset.from_arrays(np.eye(3), np.zeros((3, 1)), [1, 2, 3], none, none, np.eye(3))
    assert data.truncations.tolist() == [False, False, True]
    assert not none.any()


def test_a_horizon_places_the_missing_truncations():
    terminals = np.array([0, 0, 1, 0, 0, 0, 0, 0], bool)
    data = Dataset.from_arrays(
        np.arange(8), np.zeros(8, int), np.ones(8), terminals, next_observations=np.arange(8),
        horizon=3,
    )  # fmt: skip
    assert data.terminals.tolist() == terminals.tolist()
    assert data.truncations.tolist() == [False] * 5 + [True, False, True]
    assert data.spaces.horizon == 3


def test_what_follows_a_terminal_row_may_be_missing():
    data = Dataset.from_arrays(
        [[1.0], [2.0]], [[0.0], [0.0]], [0, 0], [False, True], None, [[2.0], [np.nan]]
    )
    assert data.next_observations[:, 0].tolist() == [2.0, 2.0]


def test_actions_are_held_canonical_and_given_back_in_their_units():
    raw = np.array([[-2.0, 0.0], [3.0, 10.0], [0.5, 5.0]], np.float32)
    data = Dataset.from_arrays(
        np.eye(3), raw, np.ones(3), [0, 0, 1], action_low=[-2, 0], action_high=[3, 10]
    )
    np.testing.assert_array_equal(data.actions, [[-1, -1], [1, 1], [0, 0]])
    np.testing.assert_array_equal(data.raw_actions(), raw)
    assert data.spaces.action == Box((-2.0, 0.0), (3.0, 10.0))


def test_integers_are_discrete_unless_bounded():
    def build(actions, **options):
        return Dataset.from_arrays(np.eye(3), actions, np.ones(3), [0, 0, 1], **options)

    data = build(np.array([0, 4, 2]))
    assert data.spaces.action == Discrete(5) and data.actions.dtype == np.int32
    assert build(np.array([[0], [4], [2]]), action_count=9).spaces.action == Discrete(9)
    assert build(np.array([0.0, 1.0, 0.0]), discrete=True).spaces.action == Discrete(2)
    bounded = build(np.array([0, 4, 2]), action_low=0, action_high=4)
    assert bounded.actions[:, 0].tolist() == [-1, 1, 0]


def test_selecting_and_concatenating_episodes():
    data = chain([3, 2, 1], [True, False, True])
    chosen = data.select_episodes([2, 0, 2])
    assert chosen.observations[:, 0].tolist() == [20, 0, 1, 2, 20]
    assert chosen.episode_starts.tolist() == [0, 1, 4, 5]
    assert float(chosen.spaces.statistics.return_low) == 1.0
    both = Dataset.concatenate([data, chosen])
    assert both.episode_lengths().tolist() == [3, 2, 1, 1, 3, 1]
    assert both.observations[:, 0].tolist() == [0, 1, 2, 10, 11, 20, 20, 0, 1, 2, 20]
    with pytest.raises(DataError, match="there is no episode 3: this dataset has episodes 0 to 2"):
        data.select_episodes([0, 3])
    other = Dataset.from_arrays(np.zeros((2, 2)), np.zeros((2, 1)), [0, 0], [0, 1])
    with pytest.raises(DataError, match="observations have 1 components on one side and 2 on the"):
        Dataset.concatenate([data, other])


def test_fingerprint_depends_on_the_content_alone():
    data = chain([3, 2], [True, False], metadata={"name": "one"})
    assert data.fingerprint() == chain([3, 2], [True, False]).fingerprint()
    assert data.fingerprint() != chain([3, 2], [True, True]).fingerprint()
    assert data.fingerprint() != chain([2, 3], [True, False]).fingerprint()
    wider = chain([3, 2], [True, False], action_low=-2, action_high=2)
    assert data.fingerprint() != wider.fingerprint()


def test_scores_come_from_stored_then_published_references():
    own = chain([2], [True], metadata={"reference_returns": [-10, 30], "environment": "Hopper-v5"})
    np.testing.assert_allclose(own.normalised([-10, 30, 10]), [0, 100, 50])
    published = chain([2], [True], metadata={"environment": "HalfCheetah-v5"})
    np.testing.assert_allclose(published.normalised([-280.178953, 12135.0]), [0, 100])
    assert published.references().indicative
    with pytest.raises(DataError, match="no reference returns are known for this dataset"):
        chain([2], [True]).normalised([1.0])
    with pytest.raises(DataError, match="must be two different finite returns"):
        chain([2], [True], metadata={"reference_returns": [3, 3]}).normalised([1.0])


@pytest.mark.parametrize(
    ("name", "expert", "indicative"),
    [
        ("hopper-medium-v2", 3234.3, False),
        ("Walker2d-v5", 4592.3, True),
        ("Ant-v4", 3879.7, True),
        ("mujoco/halfcheetah/expert-v0", 12135.0, True),
        ("D4RL/pen/human-v2", 3076.8331, False),
        ("antmaze-large-play-v0", 1.0, False),
        ("maze2d-umaze-v1", 161.86, False),
    ],
)
def test_published_references(name, expert, indicative):
    found = published_references(name)
    assert found is not None
    assert (found.expert, found.indicative) == (expert, indicative)


@pytest.mark.parametrize("name", ["Pendulum-v1", "Anteater-v0", "maze2d-umaze-dense-v1", ""])
def test_no_references_are_made_up(name):
    assert published_references(name) is None


GOOD = {
    "observations": np.zeros((4, 2)),
    "actions": np.zeros((4, 1)),
    "rewards": np.zeros(4),
    "terminals": np.array([0, 0, 0, 1]),
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rewards": np.zeros(3)},
            "rewards has 3 rows but observations has 4: all columns must have the same length",
        ),
        ({"actions": np.zeros((5, 1))}, "actions has 5 rows but observations has 4"),
        (
            {"observations": np.array([[0, 0], [0, np.nan], [np.inf, 0], [0, 0]])},
            "observations holds nan at row 1, component 1 (and 1 more such values): every number "
            "must be finite",
        ),
        ({"rewards": np.array([0, 0, -np.inf, 0])}, "rewards holds -inf at row 2"),
        ({"observations": np.full((4, 2), 1e300)}, "observations holds inf at row 0, component 0"),
        (
            {"actions": np.array([[0], [0], [1.5], [2.0]])},
            "actions holds 1.5 at row 2, component 0, outside the bounds -1 to 1 (so do 2 of 4 "
            "rows): if actions are in other units, declare their bounds with action_low and "
            "action_high (here they span 0 to 2)",
        ),
        (
            {"actions": np.full((4, 1), 3.0), "action_low": -2, "action_high": 2},
            "outside the bounds -2 to 2 (so do 4 of 4 rows): correct the bounds or clip",
        ),
        ({"action_low": 1, "action_high": 1}, "action_low is 1 and action_high 1 for component 0"),
        ({"action_low": -np.inf}, "action_low is [-inf]: bounds of actions must be finite"),
        ({"action_low": [-1, -1]}, "action_low has 2 components but actions have 1"),
        (
            {"actions": np.array([0, 1, -1, 0]), "action_count": 2},
            "actions holds -1 at row 2, but discrete actions are numbered 0 to 1: renumber them",
        ),
        (
            {"actions": np.array([0, 3, 1, 0]), "action_count": 3},
            "actions holds 3 at row 1, but discrete actions are numbered 0 to 2",
        ),
        (
            {"actions": np.array([0, 0.5, 0, 0]), "discrete": True},
            "actions holds 0.5 at row 1: discrete actions are whole numbers",
        ),
        ({"terminals": np.array([0, 2, 0, 1])}, "terminals holds 2 at row 1: a flag is 0 or 1"),
        ({"rewards": np.zeros((4, 2))}, "rewards has shape (4, 2): one number per row is needed"),
        (
            {"next_observations": np.zeros((4, 3))},
            "next_observations has shape (4, 3) but observations has shape (4, 2)",
        ),
        (
            {"observations": np.array([None] * 4)},
            "observations has type object, which is not a num",
        ),
        ({"observations": [[1, 2], [3], [4], [5]]}, "observations is no rectangular array"),
        ({name: np.zeros((0, 1)) for name in GOOD}, "the data has no rows"),
        ({"observations": np.zeros((4, 0))}, "observations has rows without components"),
        ({"horizon": 0}, "horizon is 0: a time limit is at least one step"),
    ],
)
def test_bad_input_is_named(changes, message):
    with pytest.raises(DataError) as raised:
        Dataset.from_arrays(**{**GOOD, **changes})
    assert message in str(raised.value)


def test_rounding_at_the_bounds_is_forgiven():
    actions = np.array([[1.00005], [-1.00005], [0], [0]])
    data = Dataset.from_arrays(**{**GOOD, "actions": actions})
    assert data.actions[:2, 0].tolist() == [1.0, -1.0]
