"""Every method's catalogue entry, documentation, class and file."""

import ast
import dataclasses
import inspect
import json
from pathlib import Path

import pytest

from headwater.core.catalogue import (
    all_methods,
    build_method,
    method_class,
    method_modules,
    settings,
)
from headwater.core.errors import SpecificationError
from headwater.core.papers import all_papers, paper

from .expected_failures import LONGER_FILES, LONGER_UPDATES, WELL_KNOWN

methods = pytest.mark.parametrize("name", list(all_methods()))


@methods
def test_settings_survive_json(name):
    method = method_class(name)()
    text = json.dumps(settings(method), allow_nan=False)
    rebuilt = build_method(name, json.loads(text))
    assert rebuilt == method
    for field in dataclasses.fields(method):
        assert type(getattr(rebuilt, field.name)) is type(getattr(method, field.name)), field.name


@methods
def test_unknown_settings_are_named(name):
    with pytest.raises(SpecificationError, match="unknown hyper-parameter 'no_such_setting'"):
        build_method(name, {"no_such_setting": 1})


@methods
def test_class_is_final_and_derives_from_abstract_classes_only(name):
    check_final(method_class(name))


@methods
def test_entry_is_complete(name):
    info = method_class(name).info
    assert info.paper in all_papers(), "the paper is not in papers.bib"
    assert len(info.summary) > 5
    assert not info.summary.endswith("."), "the summary is a phrase for a table"
    for parent in info.parents:
        assert parent in {*method_modules(), *WELL_KNOWN}, f"unknown parent {parent}"
        assert parent != name


@methods
def test_docstring_has_its_sections_and_every_setting(name):
    cls = method_class(name)
    text = cls.__doc__ or ""
    sections = ("**Arguments:**", "**Reference:**", "**Differences from the paper:**")
    places = [text.find(section) for section in sections]
    for section, place in zip(sections, places):
        assert place >= 0, f"no {section}"
    assert places == sorted(places), "sections are not in order"
    listed = text[places[0] : places[1]]
    for field in dataclasses.fields(cls):
        assert f"`{field.name}`" in listed, f"{field.name} is not documented"
    reference = text[places[1] : places[2]].removeprefix(sections[1])
    assert len(reference.strip()) > 10, "the reference does not say which paper it is"
    number = paper(cls.info.paper).arxiv
    assert number in reference, f"the reference does not give the paper's number, arXiv:{number}"


@methods
def test_every_setting_has_a_default_and_every_number_a_documented_type(name):
    for field in dataclasses.fields(method_class(name)):
        defaults = (field.default, field.default_factory)
        assert any(d is not dataclasses.MISSING for d in defaults), f"{field.name} has no default"


@methods
def test_file_and_update_are_short(name):
    cls = method_class(name)
    path = Path(inspect.getfile(cls))
    text = path.read_text(encoding="utf-8")
    check_lengths(name, text, name in LONGER_FILES, name in LONGER_UPDATES)


def test_long_files_and_updates_are_still_long():
    for name, (limit, table) in {
        **dict.fromkeys(LONGER_FILES, (200, LONGER_FILES)),
        **dict.fromkeys(LONGER_UPDATES, (50, LONGER_UPDATES)),
    }.items():
        text = Path(inspect.getfile(method_class(name))).read_text(encoding="utf-8")
        length = len(text.splitlines()) if limit == 200 else _update_length(name, text)
        assert length > limit, f"{name} needs no exception any more: {table[name]}"


def check_final(cls: type) -> None:
    """`cls` may derive from abstract classes alone."""
    for base in cls.__mro__[1:]:
        if base.__module__.startswith("headwater"):
            assert base.__name__.startswith("Abstract"), (
                f"{cls.__name__} derives from the concrete class {base.__name__}: hold it as a "
                "field instead"
            )


def check_lengths(name: str, text: str, long_file: bool = False, long_update: bool = False):
    """At most 200 lines for a method's file and 50 for its `update`."""
    if not long_file:
        assert len(text.splitlines()) <= 200, f"{name}: file of {len(text.splitlines())} lines"
    if not long_update:
        assert _update_length(name, text) <= 50, f"update of {_update_length(name, text)} lines"


def _update_length(name: str, text: str) -> int:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and node.name == name:
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == "update":
                    return (item.end_lineno or item.lineno) - item.lineno + 1
    raise LookupError(f"{name} has no update")
