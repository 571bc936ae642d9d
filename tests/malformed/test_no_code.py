"""Nothing that is read can run code or have a module imported: everything planted is refused.

A canary would be left behind by whatever ran: a file, or the name of an imported module.
"""

import json
import shutil
import sys

import h5py
import numpy as np
import pytest

from headwater.api.execute import resume
from headwater.api.run import open_run
from headwater.api.train import train
from headwater.core.errors import DataError, HeadwaterError, RunError, SpecificationError
from headwater.datasets.read import load
from headwater.environments.registry import make_recorded

from .damage import canary_pickle, object_array
from .seeds import columns, hdf5, minari, model, parquet, run

MODULE = "canary_module"


@pytest.fixture(autouse=True)
def canary(tmp_path, monkeypatch):
    """A folder to work in, from which a module could be imported that leaves a file behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "open('canary', 'w').close()\ndef main(*a, **k):\n    pass\n"
    (tmp_path / f"{MODULE}.py").write_text(text)
    before = set(sys.modules)
    yield
    assert not (tmp_path / "canary").exists(), "something was executed"
    assert MODULE not in set(sys.modules) - before, "something was imported"


def refused(path, sentence, kind=DataError, read=load):
    with pytest.raises(kind) as raised:
        read(path)
    assert sentence in str(raised.value) and str(raised.value).isprintable(), raised.value


class _Canary:
    def __reduce__(self):
        return (exec, ("open('canary', 'w').close()",))


def test_the_canary_would_sing(tmp_path):
    import importlib

    spec = importlib.util.find_spec(MODULE)
    assert spec is not None and spec.origin == str(tmp_path / f"{MODULE}.py")
    assert b"touch canary" in canary_pickle()


@pytest.mark.parametrize("name", ("log.pkl", "log.npz", "log.npy", "log.hdf5", "log.parquet"))
def test_pickles_in_place_of_a_file(name, tmp_path):
    (tmp_path / name).write_bytes(canary_pickle())
    refused(tmp_path / name, "pickles are never loaded because they can run code")


@pytest.mark.parametrize("column", ("observations", "rewards", "metadata", "horizon"))
def test_python_objects_among_arrays(column, tmp_path):
    given = {**columns(), column: object_array(_Canary())}
    np.savez(tmp_path / "log.npz", allow_pickle=True, **given)
    refused(tmp_path / "log.npz", f"array '{column}' holds Python objects (a pickle)")


def test_python_objects_in_a_column_directory(tmp_path):
    from .seeds import column_directory

    place = column_directory(tmp_path)
    np.save(place / "rewards.npy", object_array(_Canary()), allow_pickle=True)
    refused(place, "rewards.npy is missing, truncated or corrupt")


def _without_rewards(tmp_path):
    path, other = hdf5(tmp_path), tmp_path / "other.hdf5"
    shutil.copy(path, other)
    file = h5py.File(path, "a")
    del file["rewards"]
    return path, file


def test_links_to_other_hdf5_files(tmp_path):
    path, file = _without_rewards(tmp_path)
    with file:
        file["rewards"] = h5py.ExternalLink("other.hdf5", "rewards")
    refused(path, "'rewards' is a link to another file (other.hdf5), which is not followed")


def test_virtual_and_external_datasets(tmp_path):
    path, file = _without_rewards(tmp_path)
    with file:
        layout = h5py.VirtualLayout((40,), "f4")
        layout[:] = h5py.VirtualSource("other.hdf5", "rewards", shape=(40,))
        file.create_virtual_dataset("rewards", layout)
    refused(path, "'rewards' keeps its data in other files, which are not opened")
    with h5py.File(path, "a") as file:
        del file["rewards"]
        file.create_dataset("rewards", (40,), "f4", external=[("other.hdf5", 0, 160)])
    refused(path, "'rewards' keeps its data in other files, which are not opened")


def test_links_out_of_directories(tmp_path):
    from .seeds import column_directory

    place = column_directory(tmp_path)
    (place / "rewards.npy").rename(tmp_path / "elsewhere.npy")
    (place / "rewards.npy").symlink_to(tmp_path / "elsewhere.npy")
    refused(place, "is a link to another place, which is not followed")
    place = minari(tmp_path)
    (place / "data" / "main_data.hdf5").rename(tmp_path / "elsewhere.hdf5")
    (place / "data" / "main_data.hdf5").symlink_to(tmp_path / "elsewhere.hdf5")
    refused(place, "main_data.hdf5 is a link to another place, which is not followed")


YAML = "!!python/object/apply:os.system ['touch canary']\n"


def test_yaml_is_not_read_at_all(tmp_path):
    for name in ("log.yaml", "log.yml", "log.json", "log"):
        (tmp_path / name).write_text(YAML)
        named = name.endswith(("yaml", "yml"))
        reason = "this is a YAML file" if named else "its format is not recognised"
        refused(tmp_path / name, reason)
    path = parquet(tmp_path)
    (tmp_path / "log.columns.toml").write_text(YAML)
    refused(path, "log.columns.toml next to it cannot be read")


def test_extension_types_that_were_pickles(tmp_path):
    import pyarrow
    import pyarrow.parquet

    given = {name: pyarrow.array(list(values)) for name, values in columns().items()}
    table = pyarrow.table(given)
    planted = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": canary_pickle(),
    }
    place = table.schema.get_field_index("rewards")
    field = table.schema.field("rewards").with_metadata(planted)
    schema = table.schema.set(place, field).with_metadata({"headwater": canary_pickle()})
    pyarrow.parquet.write_table(table.cast(schema), tmp_path / "log.parquet")
    refused(tmp_path / "log.parquet", "the 'headwater' entry of the table's schema is no JSON")


def test_a_log_does_not_choose_which_module_is_imported(tmp_path):
    metadata = {"environment": f"{MODULE}:Task-v0"}
    given = {**columns(), "metadata": json.dumps(metadata)}
    np.savez(tmp_path / "log.npz", **given)
    # It is learned from; the environment that it names is left alone.
    how = {"updates": 1, "seeds": 1, "batch_size": 4, "progress": False}
    found = train("BC", tmp_path / "log.npz", **how)
    assert found.specification.task is None
    with pytest.raises(SpecificationError, match="a file does not get to say which module"):
        make_recorded(f"{MODULE}:Task-v0")
    with pytest.raises(SpecificationError, match="is no name of an environment"):
        make_recorded({"id": "Pendulum-v1"})


def test_minari_builds_no_environment_that_a_file_names(tmp_path):
    place = minari(tmp_path) / "data" / "metadata.json"
    document = json.loads(place.read_text())
    wrapper = {"name": "W", "entry_point": f"{MODULE}:main", "kwargs": {}}
    document["env_spec"] = json.dumps(
        {"id": "C-v0", "entry_point": f"{MODULE}:main", "additional_wrappers": [wrapper]}
    )
    del document["headwater"]
    place.write_text(json.dumps(document))
    assert load(place.parent.parent).metadata["environment"] == "C-v0"
    del document["observation_space"]
    place.write_text(json.dumps(document))
    refused(place.parent.parent, "does not describe the observation_space")


def test_a_run_does_not_choose_which_module_is_imported(tmp_path):
    place = run(tmp_path)
    document = json.loads((place / "run.json").read_text())

    def with_change(**change):
        (place / "run.json").write_text(json.dumps({**document, **change}))
        return place

    task = {**document["task"], "name": f"{MODULE}:Task-v0"}
    method = {**document["method"], "name": f"{MODULE}:main"}
    for path in (place / "checkpoints").iterdir():
        path.rename(path.with_name(path.name.replace("000000000004", "000000000002")))
    refused(
        with_change(task=task),
        "a file does not get to say which module is imported",
        SpecificationError,
        lambda path: resume(path, progress=False),
    )
    refused(with_change(method=method), "unknown method", RunError, open_run)
    refused(with_change(method="os.system"), "not the specification of a run", RunError, open_run)


def test_checkpoints_are_no_pickles(tmp_path):
    place = run(tmp_path)
    (file,) = (place / "checkpoints").iterdir()
    file.write_bytes(canary_pickle())
    refused(place, "not a readable checkpoint", RunError, open_run)


def test_models_bring_no_code(tmp_path):
    from headwater.texts.models import load_language_model

    place = model(tmp_path)
    document = json.loads((place / "config.json").read_text())
    document["auto_map"] = {"AutoModelForCausalLM": f"{MODULE}.Model"}
    shutil.copy(tmp_path / f"{MODULE}.py", place)
    (place / "config.json").write_text(json.dumps(document))
    load_language_model(place)  # A description of the architecture is all that is taken from it.
    document["model_type"] = MODULE
    (place / "config.json").write_text(json.dumps(document))
    refused(place, f"models of type '{MODULE}' cannot be read", DataError, load_language_model)
    document["model_type"] = "llama"
    (place / "config.json").write_text(json.dumps(document))
    (place / "model.safetensors").unlink()
    (place / "pytorch_model.bin").write_bytes(canary_pickle())
    refused(place, "weights in this form are a pickle", DataError, load_language_model)


@pytest.mark.parametrize(
    "template",
    (
        "{{ cycler.__init__.__globals__.os.system('touch canary') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% import 'os' as os %}{{ os.system('touch canary') }}",
        "{% include '/etc/hostname' %}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{{ 10 ** 1000 }}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ '%1000000000d' % 1 }}",
        "{% set n = namespace(x='aaaa') %}{% for a in range(40) %}{% set n.x = n.x ~ n.x %}"
        "{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ),
)
def test_chat_templates_reach_nothing_and_end(template, tmp_path):
    pytest.importorskip("jinja2")
    from headwater.texts.models import load_language_model

    place = model(tmp_path)
    (place / "chat_template.jinja").write_text(template)
    tokenizer = load_language_model(place).tokenizer
    with pytest.raises(HeadwaterError, match="the model's chat template refuses this conversation"):
        tokenizer.conversation([{"role": "user", "content": "Hi"}], answer_follows=True)
