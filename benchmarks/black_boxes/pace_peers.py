"""Searches of other libraries in an environment of their own: prints one line of JSON.

python pace_peers.py optuna-tpe|optuna-gp|botorch SEEDS
"""

import json
import sys
import warnings
from importlib.metadata import version

from work import FIRST, searched


def optuna(sampler):
    """By a sampler with as many random points at first."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    samplers = {"tpe": optuna.samplers.TPESampler, "gp": optuna.samplers.GPSampler}

    def begin(seed, bounds):
        study = optuna.create_study(
            direction="maximize", sampler=samplers[sampler](seed=seed, n_startup_trials=FIRST)
        )
        asked = []

        def ask():
            asked.append(study.ask())
            return [asked[-1].suggest_float(f"x{i}", *each) for i, each in enumerate(bounds)]

        return ask, lambda value: study.tell(asked[-1], value)

    return begin


def botorch():
    """Expected improvement (its logarithm, as BoTorch advises), with its defaults otherwise."""
    import torch
    from botorch.acquisition import LogExpectedImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Normalize, Standardize
    from botorch.optim import optimize_acqf
    from gpytorch.mlls import ExactMarginalLogLikelihood

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")

    def begin(seed, bounds):
        torch.manual_seed(seed)
        box = torch.tensor(bounds, dtype=torch.double).T
        size = len(bounds)
        points, values = torch.zeros((0, size), dtype=torch.double), []

        def ask():
            nonlocal points
            if len(values) < FIRST:
                point = box[0] + (box[1] - box[0]) * torch.rand(1, size, dtype=torch.double)
            else:
                told = torch.tensor(values, dtype=torch.double)[:, None]
                model = SingleTaskGP(
                    points,
                    told,
                    input_transform=Normalize(size, bounds=box),
                    outcome_transform=Standardize(1),
                )
                fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
                worth = LogExpectedImprovement(model, told.max())
                point, _ = optimize_acqf(worth, box, q=1, num_restarts=5, raw_samples=128)
            points = torch.cat([points, point])
            return point[0].tolist()

        return ask, values.append

    return begin


name, seeds = sys.argv[1], range(int(sys.argv[2]))
library, _, sampler = name.partition("-")
begin = botorch() if library == "botorch" else optuna(sampler)
print(json.dumps({"version": version(library), "found": searched(begin, seeds)}))
