"""The glossary has every hyper-parameter once, and nothing that no method has."""

import dataclasses
import re
from pathlib import Path

from headwater.core.catalogue import all_methods

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"
ROW = re.compile(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) ?\|([^|]*)\|$", re.MULTILINE)


def rows():
    return ROW.findall(GLOSSARY.read_text(encoding="utf-8"))


def test_every_hyper_parameter_has_one_row_and_every_row_a_method():
    named = [row[0] for row in rows()]
    used = {field.name for cls in all_methods().values() for field in dataclasses.fields(cls)}
    assert used - set(named) == set()
    assert set(named) - used == set()
    assert len(named) == len(set(named))


def test_rows_are_in_alphabetical_order_and_say_something():
    named = [row[0] for row in rows()]
    assert named == sorted(named)
    assert all(meaning.strip() for _, meaning, _, _ in rows())


def test_no_row_is_malformed():
    lines = GLOSSARY.read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("| `") for line in lines) == len(rows())
