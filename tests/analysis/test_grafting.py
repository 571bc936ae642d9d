"""Which numbers a skill is in: planted, and beside numbers that changed more for nothing."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from headwater.analysis.grafting import skill_mask
from headwater.core.records import Completions
from headwater.networks.token_table import PrefixTable
from headwater.testing import check_analysis


def test_the_numbers_of_the_skill_are_found_and_not_the_largest_changes():
    before = PrefixTable(3, 2)
    # Texts begin with 0 or 1 and go on with 2: rows 0 and 1 of the table, column 2.
    tokens = jnp.asarray([[0, 2], [1, 2]])
    data = Completions(tokens, jnp.asarray([[False, True], [False, True]]))
    change = jnp.zeros_like(before.table).at[0, 2].set(3.0).at[1, 2].set(3.0)
    # What changed most is read by no text, or speaks against the skill.
    change = change.at[5, 1].set(9.0).at[0, 1].set(8.0)
    after = eqx.tree_at(lambda n: n.table, before, change)
    expected = np.zeros(before.table.shape, bool)
    expected[[0, 1], [2, 2]] = True
    share = 2 / before.table.size
    check_analysis(
        skill_mask,
        {"before": before, "after": after, "data": data, "share": share, "steps": 60},
        expected.astype(float),
        rows={"data": None},
    )
