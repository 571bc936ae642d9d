"""What a fingerprint of code is of, and what it is not of."""

import collections
import functools
import importlib.util
import itertools
import sys
import textwrap
import threading
from typing import Any

import pytest

from headwater.evidence.fingerprints.code import Code
from headwater.evidence.fingerprints.fingerprint import fingerprint, reached_by
from headwater.evidence.registry import claim_named

# A package `deck` of a few files -----------------------------------------------------------------

FILES = {
    "__init__.py": "",
    "ops/__init__.py": "",
    "ops/mean.py": '''
        """Means."""
        import numpy as np

        SHARE = 0.5
        """How much."""
        UNUSED = 1

        def mean(x, weight=1.0):
            """The mean."""
            return weight * clipped(np.mean(x), SHARE)

        def clipped(x, most):
            # Not too large.
            return min(x, most)

        def unused(x):
            return UNUSED + x
    ''',
    "ops/other.py": """
        def mean(x, weight=1.0):
            return 0.0
    """,
    "methods/__init__.py": "",
    "methods/base.py": '''
        class AbstractLearner:
            rate: float = 0.1

            def update(self, x):
                """One step."""
                raise NotImplementedError
    ''',
    "methods/learner.py": '''
        from functools import partial

        from deck.methods.base import AbstractLearner
        from deck.ops import mean as means

        TABLE = {}
        TABLE["a"] = 1

        class Learner(AbstractLearner):
            """Learns."""

            steps: int = 3
            size: int = 4

            def update(self, x):
                from deck.ops.mean import mean
                return partial(mean, weight=self.rate)(x)

            def spread(self, x):
                return means.clipped(x, TABLE["a"])
    ''',
    "claims/__init__.py": "",
    "claims/one.py": '''
        """Claims."""
        import deck.ops.other as others
        from deck.methods.learner import Learner

        def run(seed: int, *, size: int) -> float:
            """Runs."""
            x = [draw(seed + i) for i in range(size)]
            return Learner().update(x)

        def draw(seed: int) -> float:
            mean = seed * 2.0
            return mean

        def _second(seed, size):
            return others.mean([seed])

        CLAIMS = (
            ("A holds.", run, "arXiv 1"),
            ("B holds.", _second, "arXiv 2"),
        )
    ''',
}


def _write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
    return folder


_number = itertools.count()


@pytest.fixture
def taken(tmp_path):
    """Takes the fingerprint of a function of these files, each time in another folder."""

    def take(files, module="deck.claims.one", name="run", folder="deck", **given):
        code = Code(_write(tmp_path / str(next(_number)) / folder, files), **given)
        start = code.definitions(module, name)
        assert start, f"{module} has no {name}"
        return code.fingerprint(start)

    return take


def _changed(*replacements):
    """The files with texts replaced, each `(file, old, new)`."""
    files = dict(FILES)
    for file, old, new in replacements:
        assert old in files[file], f"{old!r} is not in {file}"
        files[file] = files[file].replace(old, new)
    return files


def _moved(file, to, *replacements):
    files = _changed(*replacements)
    return {to if name == file else name: text for name, text in files.items()}


_CLIPPED = """
        def clipped(x, most):
            # Not too large.
            return min(x, most)
"""

SAME = {
    "docstring of a function": _changed(("ops/mean.py", "The mean.", "Another text.")),
    "docstring taken away": _changed(("claims/one.py", '            """Runs."""\n', "")),
    "docstring of a class": _changed(("methods/learner.py", "Learns.", "Learns quickly.")),
    "docstring of a file": _changed(("ops/mean.py", "Means.", "Of numbers.")),
    "text under a constant": _changed(("ops/mean.py", "How much.", "A share.")),
    "comment": _changed(("ops/mean.py", "# Not too large.", "# At most `most`.")),
    "formatting": _changed(
        ("ops/mean.py", "weight * clipped(np.mean(x), SHARE)",
         "(weight\n                * clipped( np.mean( x ), SHARE, ))"),
        ("ops/mean.py", "0.5", "5e-1"),
    ),
    "annotations": _changed(
        ("claims/one.py", "seed: int, *, size: int) -> float", "seed: 'Missing', *, size)"),
        ("methods/learner.py", "steps: int = 3", "steps: float = 3"),
        ("ops/mean.py", "SHARE = 0.5", "SHARE: float = 0.5"),
    ),
    "order of imports": _changed(
        ("claims/one.py", "        import deck.ops.other as others\n", ""),
        ("claims/one.py", "import Learner\n",
         "import Learner\n        import deck.ops.other as others\n"),
    ),
    "order of definitions": _changed(
        ("ops/mean.py", _CLIPPED, ""),
        ("ops/mean.py", "        SHARE = 0.5\n", _CLIPPED + "\n        SHARE = 0.5\n"),
    ),
    "another form of an import": _changed(
        ("ops/mean.py", "import numpy as np", "import numpy"),
        ("ops/mean.py", "np.mean", "numpy.mean"),
        ("methods/learner.py", "from deck.ops import mean as means", "import deck"),
        ("methods/learner.py", "means.clipped", "deck.ops.mean.clipped"),
    ),
    "import under another name": _changed(
        ("methods/learner.py", "from deck.ops.mean import mean\n",
         "from deck.ops.mean import mean as average\n"),
        ("methods/learner.py", "partial(mean,", "partial(average,"),
    ),
    "import to the top": _changed(
        ("methods/learner.py", "                from deck.ops.mean import mean\n", ""),
        ("methods/learner.py", "from deck.ops import mean as means",
         "from deck.ops import mean as means\n        from deck.ops.mean import mean"),
    ),
    "re-exported": _changed(
        ("methods/learner.py", "from deck.ops.mean import mean\n", "from deck.hub import mean\n"),
    ) | {"hub.py": "from deck.ops.mean import mean\n"},
    "module renamed": _moved(
        "ops/mean.py", "ops/averages.py",
        ("methods/learner.py",
         "from deck.ops import mean as means", "from deck.ops import averages"),
        ("methods/learner.py", "means.clipped", "averages.clipped"),
        ("methods/learner.py", "deck.ops.mean", "deck.ops.averages"),
    ),
    "file to another folder": _moved(
        "methods/learner.py", "families/online/learner.py",
        ("claims/one.py", "deck.methods.learner", "deck.families.online.learner"),
    ),
    "claims to another folder": _moved("claims/one.py", "claims/one/__init__.py"),
    "definition to another module": _changed(
        ("ops/mean.py", _CLIPPED, ""),
        ("ops/mean.py", "import numpy as np",
         "import numpy as np\n        from deck.ops.clip import clipped"),
        ("methods/learner.py", "from deck.ops import mean as means", "from deck.ops import clip"),
        ("methods/learner.py", "means.clipped", "clip.clipped"),
    ) | {"ops/clip.py": _CLIPPED},
    "unreached constant": _changed(("ops/mean.py", "UNUSED = 1", "UNUSED = 2")),
    "unreached function": _changed(("ops/mean.py", "UNUSED + x", "UNUSED - x")),
    "a function of a local name": _changed(("ops/other.py", "return 0.0", "return 1.0")),
    "decorator of another function": _changed(
        ("claims/one.py", "def _second", "@others.cache(1)\n        def _second")
    ),
    "statement, paper and other claims": _changed(
        ("claims/one.py", "A holds.", "A holds often."),
        ("claims/one.py", "arXiv 1", "arXiv 3"),
        ("claims/one.py", "others.mean([seed])", "others.mean([size])"),
    ),
    "entry in the catalogue": _changed(
        ("methods/learner.py", "steps: int = 3",
         "info: ClassVar[Info] = Info('kostrikov2022iql')\n            steps: int = 3")
    ),
    "order of methods in a class": _changed(
        ("methods/learner.py", '''
            def spread(self, x):
                return means.clipped(x, TABLE["a"])
''', ""),
        ("methods/learner.py", "            def update(self, x):",
         '''            def spread(self, x):
                return means.clipped(x, TABLE["a"])

            def update(self, x):'''),
    ),
    "only for types": _changed(
        ("claims/one.py", "import deck.ops.other as others\n",
         "import deck.ops.other as others\n        from typing import TYPE_CHECKING\n"
         "        if TYPE_CHECKING:\n            from deck.ops.mean import unused\n"),
    ),
}  # fmt: skip

OTHER = {
    "constant two calls away": _changed(("ops/mean.py", "SHARE = 0.5", "SHARE = 0.6")),
    "type of a constant": _changed(("methods/learner.py", "steps: int = 3", "steps: int = 3.0")),
    "operator": _changed(("ops/mean.py", "weight * clipped", "weight + clipped")),
    "default": _changed(("ops/mean.py", "weight=1.0", "weight=2.0")),
    "callee two calls away": _changed(("ops/mean.py", "min(x, most)", "max(x, most)")),
    "function of the claim": _changed(("claims/one.py", "seed + i", "seed - i")),
    "helper in a comprehension": _changed(("claims/one.py", "seed * 2.0", "seed * 3.0")),
    "base class": _changed(("methods/base.py", "rate: float = 0.1", "rate: float = 0.2")),
    "field": _changed(("methods/learner.py", "steps: int = 3", "steps: int = 4")),
    "order of fields": _changed(
        ("methods/learner.py", "            size: int = 4\n", ""),
        ("methods/learner.py",
         "            steps: int", "            size: int = 4\n            steps: int"),
    ),
    "field of the class alone": _changed(
        ("methods/learner.py", "steps: int = 3", "steps: ClassVar[int] = 3")
    ),
    "method that is not called": _changed(("methods/learner.py", 'x, TABLE["a"]', 'TABLE["a"], x')),
    "table that is filled at the top": _changed(
        ("methods/learner.py", 'TABLE["a"] = 1', 'TABLE["a"] = 2')
    ),
    "table that a call fills": _changed(
        ("methods/learner.py", "TABLE = {}", "TABLE = {}\n        TABLE.update(b=1)")
    ),
    "table that a loop fills": _changed(
        ("methods/learner.py", "TABLE = {}",
         "TABLE = {}\n        for key in 'ab':\n            TABLE[key] = 1")
    ),
    "call for the whole file": _changed(
        ("ops/mean.py", "import numpy as np", "import numpy as np\n        np.seterr(all='raise')")
    ),
    "function that a decorator extends": _changed(
        ("ops/mean.py", "def unused", "@clipped.register(int)\n        def unused")
    ),
    "decorator": _changed(
        ("claims/one.py", "        def draw", "        @staticmethod\n        def draw")
    ),
    "another module of one name": _changed(
        ("methods/learner.py", "from deck.ops.mean import mean", "from deck.ops.other import mean")
    ),
    "another library under one name": _changed(
        ("ops/mean.py", "import numpy as np", "import jax.numpy as np")
    ),
    "name of a definition": _changed(
        ("ops/mean.py", "clipped", "cut"), ("methods/learner.py", "clipped", "cut")
    ),
    "text that is executed": _changed(("claims/one.py", "return mean", "return f'{mean}'")),
}  # fmt: skip


_PLAIN = {
    **FILES,
    "methods/base.py": "import equinox as eqx\n"
    + textwrap.dedent(FILES["methods/base.py"]).replace(
        "class AbstractLearner:", "class AbstractLearner(eqx.Module):"
    ),
}


def _beside(method):
    """The files in which the learner has another method, before `update`."""
    files = dict(_PLAIN)
    before = "            def update(self, x):\n                from"
    assert before in files["methods/learner.py"]
    files["methods/learner.py"] = files["methods/learner.py"].replace(
        before, f"            {method}\n\n{before}"
    )
    return files


def test_methods_that_nothing_names_leave_it(taken):
    """As capabilities that are added to a class which everything uses."""
    plain = taken(_PLAIN)
    assert taken(_beside("def merged(self, x): return means.clipped(x, 3)")) == plain
    changed = dict(_PLAIN)
    changed["methods/learner.py"] = FILES["methods/learner.py"].replace('x, TABLE["a"]', "x, 2")
    assert taken(changed) == plain


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("def rate(self): return 2.0", "an attribute that is mentioned"),
        ("def draw(self): return 2.0", "a name that is mentioned"),
        ("def __call__(self): return 2.0", "called without a name"),
        ("@others.registered\n            def merged(self): return 2.0", "entered in a table"),
    ],
)
def test_methods_that_may_be_called_change_it(taken, method, why):
    files = _beside(method)
    assert taken(files) != taken(_PLAIN), why


def test_methods_that_a_base_may_call_change_it(taken):
    foreign = {name: text.replace("eqx.Module", "eqx.Somebodys") for name, text in _PLAIN.items()}
    more = {
        name: text.replace("eqx.Module", "eqx.Somebodys")
        for name, text in _beside("def merged(self, x): return 2.0").items()
    }
    assert taken(more) != taken(foreign)


def test_members_of_an_enumeration_count_where_they_are_named(taken):
    def of(more="", value=1, base="Enum", name="FIRST"):
        kinds = f"class Kind({base}):\n    FIRST = {value}\n    LAST = 9\n{more}"
        kinds = f"import enum\nfrom enum import Enum, IntEnum, auto\n\n{kinds}"
        run = f"from deck.kinds import Kind\n\ndef run():\n    return Kind.{name}\n"
        return taken({"kinds.py": kinds, "run.py": run}, "deck.run")

    assert of("    MIDDLE = 2\n") == of()
    assert of("    MIDDLE = 2\n", base="enum.Enum") == of(base="enum.Enum")
    assert of(value=2) != of() != of(name="LAST")
    assert of(value=2, name="LAST") == of(name="LAST")
    # A value may depend on those before it, and another base on all of them.
    assert of("    MIDDLE = auto()\n") != of()
    assert of("    MIDDLE = 2\n", base="IntEnum") != of(base="IntEnum")


@pytest.mark.parametrize("change", SAME)
def test_what_is_not_executed_leaves_it(taken, change):
    assert SAME[change] != FILES
    assert taken(SAME[change]) == taken(FILES)


@pytest.mark.parametrize("change", OTHER)
def test_what_is_executed_changes_it(taken, change):
    assert taken(OTHER[change]) != taken(FILES)


def test_the_folder_and_name_of_the_package_leave_it(taken):
    renamed = {name: text.replace("deck.", "pack.") for name, text in FILES.items()}
    assert taken(renamed, "pack.claims.one", folder="pack") == taken(FILES)


def test_two_functions_of_one_name_are_not_exchanged(taken):
    files = {
        "a.py": "def f(x):\n    return x + 1\n",
        "b.py": "def f(x):\n    return x + 2\n",
        "run.py": "from deck.a import f as g\nfrom deck.b import f as h\n\n"
        "def run():\n    return first(), second()\n\n"
        "def first():\n    return g(1)\n\ndef second():\n    return h(1)\n",
    }
    swapped = {**files, "run.py": files["run.py"].replace("deck.a", "deck.c")}
    swapped["run.py"] = swapped["run.py"].replace("deck.b", "deck.a").replace("deck.c", "deck.b")
    assert taken(files, "deck.run") != taken(swapped, "deck.run")


def test_names_are_those_of_their_scope(taken):
    """A local name hides one of the file, and only where it is local."""

    def depends(body):
        both = [
            taken({"a.py": f"def f(x):\n    return x + {n}\n\n{textwrap.dedent(body)}"}, "deck.a")
            for n in (1, 2)
        ]
        return both[0] != both[1]

    assert depends("def run(y):\n    return f(y)")
    assert not depends("def run(f):\n    return f(1)")
    assert not depends("def run(y):\n    f = y\n    return f")
    assert not depends("def run(y):\n    for f in y: pass\n    return f")
    assert not depends("def run(y):\n    with y as f: return f")
    assert not depends("def run(y):\n    try: y()\n    except OSError as f: return f")
    assert not depends("def run(y):\n    match y:\n        case [f, *_]: return f")
    assert not depends("def run(y):\n    def f(): return 1\n    return f()")
    assert not depends("def run(y):\n    return [f for f in y], lambda f: f")
    assert not depends("def run(y):\n    f = 1\n    return lambda: f")
    assert not depends("def run(y):\n    return y.f, dict(f=y)")
    assert depends("def run(y):\n    return [f for f in f(y)]")
    assert depends("def run(y):\n    z = [f for f in y]\n    return f(z)")
    assert depends("def run(y):\n    g = lambda f: f\n    return f(g)")
    assert depends("def run(y):\n    def g():\n        f = 1\n        return f\n    return f(g)")
    assert depends("def run(y):\n    global f\n    f = f(y)")
    assert depends("class run:\n    f: int = 1\n    def g(self):\n        return f(self)")
    assert depends("class run:\n    f: int = f(1)")
    assert depends("@f\ndef run(y): pass")
    assert depends("def run(y, *, z=f): pass")
    assert depends("run = [f]")
    assert not depends("def run(y: f) -> f:\n    z: f = y\n    return z")


def test_imports_that_depend_on_something(taken):
    def of(name):
        file = """
            try:
                from deck.fast import f
            except ImportError:
                from deck.slow import f

            def run():
                return f()
        """
        files = {"a.py": file, "fast.py": "def f(): return 1\n", "slow.py": "def f(): return 1.0\n"}
        return taken({**files, name: files[name].replace("1", "2")}, "deck.a")

    assert len({of("fast.py"), of("slow.py"), of("a.py")}) == 3


def test_what_a_text_names(taken):
    """As a catalogue, which builds a method by its name."""

    def of(rate, named):
        files = {
            "a.py": "def run(build):\n    return build('Sum')\n",
            "b.py": f"class Sum:\n    rate = {rate}\n",
        }
        return taken(files, "deck.a", named=named)

    assert of(1, {}) == of(2, {})
    assert of(1, {"Sum": ("deck.b", "Sum")}) != of(2, {"Sum": ("deck.b", "Sum")})


def test_a_package_that_finds_its_names_itself(taken):
    def of(number):
        files = {
            "__init__.py": "def __getattr__(name):\n    return find(name)\n",
            "a.py": "import deck as d\n\ndef run():\n    return d.f()\n",
            "b.py": f"def f():\n    return {number}\n",
        }
        return taken(files, "deck.a")

    assert of(1) != of(2)


def test_modules_that_import_each_other(taken):
    files = {
        "a.py": "from deck.b import g, missing\n\ndef run(): return g(missing)\n",
        "b.py": "from deck.a import run, missing\n\ndef g(x): return run()\n",
    }
    other = {**files, "b.py": files["b.py"].replace("run()", "run(), x")}
    assert taken(files, "deck.a") == taken(files, "deck.a") != taken(other, "deck.a")


# Functions that exist ----------------------------------------------------------------------------

OWN = """
    import functools
    import deck_beside
    from headwater.evaluation.statistics import interval

    def run(seed, size, more=0):
        return interval([helper(seed)], "mean")

    def helper(x):
        return deck_beside.shift(x)

    def made(step, kind="a"):
        def experiment(seed, size):
            return helper(seed) + step
        return experiment

    def kept(function):
        @functools.wraps(function)
        def inner(*given, **named):
            return function(*given, **named)
        return inner

    @kept
    def wrapped(seed, size):
        return helper(seed)

    class Callable:
        def __init__(self, step):
            self.step = step
        def __call__(self, seed, size):
            return helper(seed) + self.step

    by_lambda = lambda seed, size: helper(seed)
    of_lambda = [lambda seed, size, k=k: helper(k) for k in (1, 2)]
    partly = functools.partial(run, more=1)
    partly_two = functools.partial(run, more=2)
    one, two = made(1), made(2)
    first, second = Callable(1), Callable(2)
"""
BESIDE = "def shift(x):\n    return x + 1\n"


def _own(folder, monkeypatch, old="", new=""):
    """A file of claims outside the package, with one beside it, as a module."""
    files = {"own.py": OWN.replace(old, new), "deck_beside.py": BESIDE.replace(old, new)}
    _write(folder, files)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "deck_beside", raising=False)
    name = f"own_{folder.name}"
    specification = importlib.util.spec_from_file_location(name, folder / "own.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, name, module)
    specification.loader.exec_module(module)
    return module


EXPERIMENTS = ("run", "wrapped", "by_lambda", "partly", "one", "first")


def test_experiments_of_an_own_file(tmp_path, monkeypatch):
    before = _own(tmp_path / "a", monkeypatch)
    copy = _own(tmp_path / "b", monkeypatch)
    other = _own(tmp_path / "c", monkeypatch, "x + 1", "x + 2")
    for name in EXPERIMENTS:
        of = [fingerprint(getattr(m, name), (), {}) for m in (before, copy, other)]
        assert of[0] == of[1] != of[2], name
    # The library is reached from there, too.
    reached = reached_by(before.run, (), {})
    assert {d.file.path.name for d in reached} >= {"own.py", "deck_beside.py", "statistics.py"}


def test_values_that_a_function_holds(tmp_path, monkeypatch):
    own = _own(tmp_path, monkeypatch)
    for a, b in (
        (own.partly, own.partly_two),
        (own.partly, own.run),
        (own.one, own.two),
        (own.first, own.second),
        (own.of_lambda[0], own.of_lambda[1]),
        (functools.partial(own.run, more=own.helper), functools.partial(own.run, more=own.run)),
    ):
        assert fingerprint(a, (), {}) != fingerprint(b, (), {})
    assert fingerprint(own.made(1), (), {}) == fingerprint(own.one, (), {})


def test_settings_count_by_value_and_not_by_order(tmp_path, monkeypatch):
    run = _own(tmp_path, monkeypatch).run
    scales = {"smoke": {"size": 4, "rates": (1, 2)}, "small": {"size": 8}}
    turned = {"small": {"size": 8}, "smoke": {"rates": (1, 2), "size": 4}}
    larger = {**scales, "small": {"size": 9}}
    assert fingerprint(run, (), scales) == fingerprint(run, (), turned)
    assert fingerprint(run, (), scales) != fingerprint(run, (), larger)
    assert fingerprint(run, (), scales) != fingerprint(run, ("IQL",), scales)


def test_values_that_hold_themselves():
    knot = []
    knot.append(knot)
    assert fingerprint(len, (), knot) == fingerprint(len, (), ["<itself>"])


# Against what is executed ------------------------------------------------------------------------


def _lines_of(definition):
    tree: Any = definition.tree
    first = min(n.lineno for n in [tree, *getattr(tree, "decorator_list", ())])
    return set(range(first, tree.end_lineno + 1))


@pytest.mark.parametrize(
    "name", ("rewards-collapse-to-beta-laws", "effective-horizon-of-locks", "mvp-is-optimistic")
)
def test_all_that_an_experiment_executes_is_reached(name):
    claim = claim_named(name)
    reached = reached_by(claim.experiment, claim.methods, claim.scales)
    lines = collections.defaultdict(set)
    whole = [d for d in reached if not d.within]
    for definition in whole:
        lines[str(definition.file.path)] |= _lines_of(definition)
    for definition in whole:
        for method in itertools.chain.from_iterable(definition.members.values()):
            lines[str(method.file.path)] -= _lines_of(method)
    for method in reached - set(whole):
        lines[str(method.file.path)] |= _lines_of(method)
    executed = set()

    def note(frame, event, _):
        if event == "call":
            executed.add(frame.f_code)

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        claim.experiment(seed=0, **claim.scales["smoke"])
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    ours = [c for c in executed if "/headwater/" in c.co_filename and c.co_name != "<module>"]
    assert any(c.co_name == claim.experiment.__name__ for c in ours)
    missed = [c for c in ours if c.co_firstlineno not in lines[c.co_filename]]
    assert not missed
