import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Discrete
from headwater.environments.adapters.gymnasium_spaces import (
    ActionTranslator,
    batch_flattener,
    flattener,
    translate_spaces,
)

BOUNDED = spaces.Box(-1.0, 1.0, (2,))


def test_nested_observations_become_one_vector():
    space = spaces.Dict(
        {
            "a": spaces.Discrete(3),
            "b": spaces.Tuple((spaces.Box(0.0, 2.0, (2, 2)), spaces.MultiBinary(2))),
        }
    )
    ours = translate_spaces(space, spaces.Discrete(4), 5, "nested")
    assert ours.observation_size == 3 + 4 + 2 and ours.action == Discrete(4) and ours.horizon == 5
    box = np.array([[0.0, 1.0], [2.0, 0.5]], np.float32)
    shown = {"a": 1, "b": (box, np.array([1, 0], np.int8))}
    flat = flattener(space)(shown)
    np.testing.assert_array_equal(flat, [0, 1, 0, 0, 1, 2, 0.5, 1, 0])
    batch = gymnasium.vector.utils.concatenate(
        space, [shown, shown], gymnasium.vector.utils.create_empty_array(space, 2)
    )
    both = batch_flattener(space, 2)(batch)
    np.testing.assert_array_equal(both, np.stack([flat, flat]))
    assert both.dtype == np.float32


def test_actions_are_mapped_onto_their_bounds():
    space = spaces.Box(np.array([[0.0], [-4.0]], np.float32), np.array([[1.0], [0.1]], np.float32))
    translate = ActionTranslator(space, "matrix")
    given = translate(np.array([[-1.0, 1.0], [0.0, 0.0], [5.0, -5.0]], np.float32))
    assert given.shape == (3, 2, 1)
    np.testing.assert_allclose(given[..., 0], [[0.0, 0.1], [0.5, -1.95], [1.0, -4.0]], rtol=1e-6)
    assert all(space.contains(action) for action in given)


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (spaces.Box(0, 255, (96, 96, 3), np.uint8), BOUNDED, "27648 components .*images"),
        (spaces.Sequence(spaces.Discrete(2)), BOUNDED, "Sequence cannot be flattened"),
        (BOUNDED, spaces.MultiDiscrete([2, 3]), "actions of type MultiDiscrete"),
        (BOUNDED, spaces.MultiBinary(3), "actions of type MultiBinary"),
        (BOUNDED, spaces.Box(-np.inf, np.inf, (2,)), "actions have infinite bounds"),
        (BOUNDED, spaces.Box(0, 3, (2,), np.int64), "actions are a Box of int64"),
    ],
)
def test_spaces_that_do_not_fit_are_explained(observation, action, message):
    with pytest.raises(SpecificationError, match=f"thing: .*{message}"):
        translate_spaces(observation, action, None, "thing")
