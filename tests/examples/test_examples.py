"""The examples run as they are, only shorter."""

import importlib.util
import inspect
from pathlib import Path

import pytest

from headwater.evaluation.fitted_value import fit_value

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
SHORT = {"updates": 40, "fit_updates": 20, "steps": 200, "seeds": 2, "episodes": 50}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)

    # Values are fitted to a log for thousands of updates, which is what takes long.
    def quick(*arguments, **settings):
        return fit_value(*arguments, **settings | {"updates": 10})

    monkeypatch.setattr("headwater.evaluation.off_policy.fit_value", quick)
    parameters = inspect.signature(module.main).parameters
    module.main(**{name: value for name, value in SHORT.items() if name in parameters})
    assert capsys.readouterr().out.strip()
