"""`headwater campaign start`."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from headwater.cli.arguments import Flag, Settings, option
from headwater.cli.frame import print_json, read_settings
from headwater.core.errors import SpecificationError

_FORM = "NAME=LOW:HIGH, followed by :log where factors count and :whole for whole numbers only"


def command(
    file: Annotated[Path, tyro.conf.Positional, option("FILE")],
    /,
    quantity: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, option("NAME=LOW:HIGH[:log][:whole]", "-q")
    ] = (),
    points: Annotated[Path | None, option("TABLE")] = None,
    method: Annotated[str | None, option("METHOD")] = None,
    begin: Annotated[Path | None, option("RUN")] = None,
    set: Settings = (),
    cost: Annotated[tuple[float, ...], tyro.conf.UseAppendAction, option("X")] = (),
    minimise: Flag = False,
    most: Annotated[int, option("N")] = 200,
    seed: Annotated[int, option("N")] = 0,
    json: Flag = False,
) -> None:
    """Begin a campaign of experiments, or go on with the one in the file if it is the same.

    Example: `headwater campaign start campaign.json --quantity rate=1e-5:1e-1:log --quantity
    layers=1:8:whole`; then `headwater campaign ask campaign.json`, make that experiment, and
    `headwater campaign tell campaign.json 0 0.83`.

    Args:
        file: Where everything is kept, in JSON; it survives a kill at any instant.
        quantity: Something to choose, and what it lies between; may be repeated.
        points: A table (CSV or Parquet) of the only points that are possible, a column for each
            quantity, instead of bounds.
        method: How experiments are chosen: ExpectedImprovement unless told, or the run's method.
        begin: A run that learned from earlier tasks (of NAP, say), to go on with.
        set: A hyper-parameter of the method; may be repeated.
        cost: What an experiment costs at a fidelity, the cheapest first and last the experiment
            itself; may be repeated, for methods that choose among fidelities.
        minimise: Less is better.
        most: Experiments there may be, those of before included.
        seed: Of all randomness.
        json: Print as JSON.
    """
    from headwater.api.campaigns.campaign import Campaign

    campaign = Campaign(
        _space(quantity, points),
        file,
        method=_method(method, begin, read_settings(set)),
        begin=begin,
        costs=cost or (1.0,),
        minimise=minimise,
        most=most,
        seed=seed,
    )
    known = len(campaign.earlier) + len(campaign.trials)
    if json:
        print_json({"file": str(file), "experiments": known, "pending": len(campaign.pending)})
        return
    begun = f"goes on after {known} experiments" if known else "begins"
    print(f"{file} {begun}; the next one: headwater campaign ask {file}")


def _method(name: str | None, begin: Path | None, changes: dict[str, str]) -> Any:
    from headwater.core.catalogue import build_method

    if begin is not None and name is None:
        if changes:
            raise SpecificationError("the run says the method's settings: leave out --set")
        return None
    return build_method(name or "ExpectedImprovement", changes)


def _space(quantities: tuple[str, ...], points: Path | None) -> Any:
    if bool(quantities) is (points is not None):
        raise SpecificationError(
            f"give either --quantity, once for each ({_FORM}), or --points with a table"
        )
    if points is None:
        pairs = read_settings(quantities)
        if len(pairs) < len(quantities):
            raise SpecificationError("a quantity is named twice: name each once")
        return {name: _component(name, text) for name, text in pairs.items()}
    from headwater.api.campaigns.tables import read_points

    return read_points(points)


def _component(name: str, text: str) -> Any:
    from headwater.api.campaigns.quantities import Component

    low, *rest = (part.strip() for part in text.split(":"))
    try:
        ends = float(low), float(rest[0])
    except (ValueError, IndexError):
        raise SpecificationError(f"{name}: '{text}' is not of the form {_FORM}") from None
    flags = rest[1:]
    for flag in flags:
        if flag not in ("log", "whole"):
            raise SpecificationError(f"{name}: '{flag}' is neither log nor whole")
    return Component(*ends, logarithmic="log" in flags, whole="whole" in flags)
