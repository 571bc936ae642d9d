"""The file that CONTRIBUTING.md shows to newcomers is a method like any other, and learns."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import headwater.methods.control.imitation as imitation
from headwater.core import listing
from headwater.core.catalogue import all_methods, family
from headwater.core.records import Transitions
from headwater.core.spaces import Box, Spaces
from headwater.testing import check_method

from . import test_rules

ROOT = Path(__file__).parents[2]
SKELETON = ROOT / "docs" / "skeleton_method.py"
NAME = "LinearCloning"


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    """The catalogue as a newcomer makes it: the skeleton copied into a folder, and nothing else."""
    folder = tmp_path_factory.mktemp("methods") / "control" / "imitation"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    shutil.copy(SKELETON, folder / "linear_cloning.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "_ROOT", folder.parents[1])
        path = [*imitation.__path__, str(folder)]
        patch.setattr(imitation, "__path__", path)
        listing.method_modules.cache_clear()
        yield all_methods()
    listing.method_modules.cache_clear()


def test_it_is_discovered_by_its_folder(methods):
    assert list(methods) == [NAME]
    assert family(NAME) == "control/imitation"


def test_it_keeps_the_contract(methods):
    report = check_method(methods[NAME])
    assert {outcome.kind for outcome in report.outcomes} == {"continuous", "all data"}


RULES = [
    rule
    for name, rule in vars(test_rules).items()
    if name.startswith("test_") and "name" in rule.__code__.co_varnames[: rule.__code__.co_argcount]
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_it_keeps_the_rules_of_the_catalogue(methods, rule):
    rule(NAME)


def test_there_are_rules():
    assert len(RULES) == 7


def test_it_finds_a_linear_policy(methods, key):
    """What a test of your own method should have: a problem whose answer is known."""
    box = Box((-1.0, -1.0), (1.0, 1.0))
    method = methods[NAME](learning_rate=0.02, weight_penalty=0.0)
    observation = jax.random.normal(key, (64, 2))
    noise = 0.05 * jax.random.normal(jax.random.key(1), (64, 1))
    action = observation @ jnp.asarray([[0.3], [-0.2]]) + 0.1 + noise
    zeros = jnp.zeros(64)
    data = Transitions(observation, action, zeros, observation, zeros > 0, zeros > 0)
    state = method.init(Spaces(box, Box((-2.0,), (2.0,))), key=key)

    @jax.jit
    def learn(state):
        step = lambda state, key: method.update(state, data, key=key)
        return jax.lax.scan(step, state, jax.random.split(key, 1000))

    state, metrics = learn(state)
    columns = np.hstack([observation, np.ones((64, 1))])
    fit, *_ = np.linalg.lstsq(columns, np.asarray(action)[:, 0], rcond=None)
    np.testing.assert_allclose(state.policy.weight[0], fit[:2], atol=1e-3)
    np.testing.assert_allclose(state.policy.bias[0], fit[2], atol=1e-3)
    residual = np.std(np.asarray(action)[:, 0] - columns @ fit)
    np.testing.assert_allclose(np.exp(state.policy.log_std[0]), residual, rtol=0.01)
    assert metrics["policy_loss"][-1] < metrics["policy_loss"][0]


def test_contributing_shows_it_as_it_is():
    shown = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = [block.split("\n```", 1)[0] for block in shown.split("```python\n")[1:]]
    assert SKELETON.read_text(encoding="utf-8").rstrip("\n") in blocks, (
        "CONTRIBUTING.md shows another text than docs/skeleton_method.py"
    )
