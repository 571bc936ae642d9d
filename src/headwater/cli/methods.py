"""`headwater methods`."""

import dataclasses
import textwrap
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import print_json, print_table


def command(
    name: Annotated[str | None, tyro.conf.Positional, option("METHOD")] = None,
    /,
    json: Flag = False,
) -> None:
    """List the methods, or show one of them with its hyper-parameters.

    Args:
        name: A method; all of them if left out.
        json: Print as JSON.
    """
    from headwater.core.catalogue import all_methods, build_method, family, settings
    from headwater.core.fields import allowed_values
    from headwater.core.papers import all_papers

    papers = all_papers()
    if name is not None:
        method = build_method(name)
        cls = type(method)
        info = {
            "name": cls.__name__,
            "kind": family(cls.__name__),
            **cls.info._asdict(),
            "hyper_parameters": settings(method),
        }
        if json:
            print_json(info)
            return
        print(f"{cls.__name__} ({info['kind']}): {cls.info.summary}\n")
        print(f"{papers[cls.info.paper].citation}\n")
        print(textwrap.dedent("    " + (cls.__doc__ or "")).strip() + "\n")
        may_be = {f.name: allowed_values(cls, f) for f in dataclasses.fields(cls)}
        rows = [[k, _short(v), may_be[k]] for k, v in settings(method).items()]
        print_table("Set with --set NAME=VALUE", ["hyper-parameter", "default", "may be"], rows)
        return
    found = all_methods()
    if json:
        print_json(
            [{"name": n, "kind": family(n), **cls.info._asdict()} for n, cls in found.items()]
        )
        return
    order = sorted(found, key=lambda n: (family(n), n.lower()))
    print_table(
        "",
        ["method", "learns from", "year", "what it is"],
        [
            [n, family(n), str(papers[found[n].info.paper].year), found[n].info.summary]
            for n in order
        ],
    )
    print("headwater methods NAME shows one of them")


def _short(value) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
