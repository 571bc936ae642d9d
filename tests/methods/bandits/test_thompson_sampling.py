"""Thompson sampling: how often each arm is believed to be the best, by numerical integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from headwater.core.problems.arms import Arms
from headwater.methods.bandits.thompson_sampling import ThompsonSampling

from .rounds import rounds


@pytest.mark.parity
@pytest.mark.parametrize("beliefs", ["beta", "normal"])
def test_frequencies_are_the_probabilities_of_being_best(beliefs):
    problem = Arms(3, low=-1.0, high=1.0)
    data = rounds(problem, 12)
    method = ThompsonSampling(beliefs=beliefs, prior_pulls=2.0, num_samples=40_000)
    start = method.init(problem, key=jax.random.key(0))
    state = method.update(start, data, key=jax.random.key(0))[0]
    found = method.probabilities(
        state, jnp.zeros(0), jnp.zeros((3, 0)), key=jax.random.key(1), explore=True
    )
    laws = []
    for arm in range(3):
        scaled = (np.asarray(data.reward, np.float64)[np.asarray(data.arm) == arm] + 1.0) / 2.0
        count, total = len(scaled), scaled.sum()
        if beliefs == "beta":
            laws.append(stats.beta(2.0 + total, 2.0 + count - total))
        else:
            laws.append(stats.norm(total / (count + 2.0), 1.0 / np.sqrt(count + 2.0)))
    for arm, law in enumerate(laws):
        others = [other for i, other in enumerate(laws) if i != arm]
        low, high = law.ppf([1e-10, 1 - 1e-10])
        x = np.linspace(low, high, 20_001)
        best = integrate.simpson(law.pdf(x) * np.prod([o.cdf(x) for o in others], axis=0), x=x)
        # Five standard errors of a frequency over 40,000 samples.
        assert abs(float(found[arm]) - best) < 5.0 * np.sqrt(0.25 / 40_000), (arm, found, best)
