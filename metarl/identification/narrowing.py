"""Narrowed training ranges, as what `metarl train` takes: a family's name, or a robot's file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from metarl.envs.family import Family
from metarl.envs.modifiers.apply import Modified, effect_on, modify
from metarl.envs.modifiers.delay import Delay
from metarl.envs.modifiers.dynamics import Factor
from metarl.envs.modifiers.gains import Gains
from metarl.envs.modifiers.names import Modifier
from metarl.envs.modifiers.payload import Payload
from metarl.envs.modifiers.push import Push
from metarl.envs.modifiers.sensors import Bias
from metarl.envs.modifiers.slope import Slope
from metarl.envs.robots.file import LARGEST
from metarl.envs.robots.robot_family import RobotFamily
from metarl.files import read_regular
from metarl.identification.summary import Quantity
from metarl.plain import parse_yaml
from metarl.space.parameter_space import ParameterSpace

UNLIKELY = 0.01
"""Choices below are left out."""
DIGITS = 4
"""Of narrowed ranges."""

NARROWED = "-narrowed"
"""Behind the variant of a robot's file with new ranges."""

Ranges = dict[str, tuple[float, ...]]
"""(low, high), or the choices that are left, by parameter."""


def narrowed(space: ParameterSpace, rows: list[Quantity]) -> Ranges:
    """Return new training ranges of the parameters that a log tells; of a vector one that holds all its numbers."""
    ranges: Ranges = {}
    for parameter in space.parameters:
        mine = [row for row in rows if row.parameter == parameter.name]
        if parameter.is_choice:
            chances = list(mine[0].probabilities.values())
            left = [value for value, chance in zip(parameter.choices, chances, strict=True) if chance > UNLIKELY]
            if len(left) < len(chances):
                ranges[parameter.name] = tuple(left)
        elif parameter.scale in ("uniform", "log-uniform") and any(row.told != "no" for row in mine):
            low, high = outward(min(row.lower for row in mine), max(row.upper for row in mine))
            ranges[parameter.name] = (max(low, parameter.bounds[0]), min(high, parameter.bounds[1]))
    return ranges


def outward(low: float, high: float) -> tuple[float, float]:
    """Return ends with a few digits, no narrower than they were."""
    ends = []
    for value, up in ((low, False), (high, True)):
        step = 10.0 ** (torch.tensor(abs(value) or 1.0).log10().floor().item() + 1 - DIGITS)
        near = float(f"{value:.{DIGITS}g}")
        off = near < value if up else near > value
        ends.append(float(f"{near + step * (1 if up else -1):.{DIGITS}g}") if off else near)
    return ends[0], ends[1]


# -- as a name --------------------------------------------------------------------------------------------------------


def narrowed_name(family: Family, ranges: Ranges) -> str:
    """Return a family's name whose modifiers have the new ranges; what its name cannot tell stays as it was."""
    if not isinstance(family, Modified):
        return family.full_name
    return modify(family.base, *(_narrowed(modifier, family.base, ranges) for modifier in family.modifiers)).full_name


def modifiers_of(name: str) -> str:
    """Return what stands behind a family's own name, with its plus."""
    _, plus, rest = name.partition("+")
    return plus + rest


def _narrowed(modifier: Modifier, base: Family, ranges: Ranges) -> Modifier:
    """Return a modifier with a range that holds those of its parameters."""
    if isinstance(modifier, Factor):
        ends = ranges.get(f"{modifier.quantity}_factor", ())
        return replace(modifier, low=ends[0], high=ends[1]) if len(ends) == 2 and ends[0] < ends[1] else modifier
    if isinstance(modifier, Delay):
        mine = [ranges.get(p.name, p.choices) for p in effect_on(base, modifier).parameters if p.is_choice]
        low, high = (int(end(value for values in mine for value in values)) for end in (min, max))
        return replace(modifier, low=low, high=high) if high > 0 else modifier
    if not isinstance(modifier, Payload | Slope | Push | Gains | Bias):
        return modifier
    parameters = effect_on(base, modifier).parameters
    # Of some modifiers the range is that of all parameters, of others it is the first's.
    shared = parameters if isinstance(modifier, Gains | Bias) else parameters[:1]
    units = [parameter.bounds[1] / modifier.bounds[1] if isinstance(modifier, Bias) else 1.0 for parameter in shared]
    bounds = shared[0].bounds[0] / units[0], shared[0].bounds[1] / units[0]
    ends = [
        outward(*(end / unit for end in ranges[parameter.name])) if parameter.name in ranges else bounds
        for parameter, unit in zip(shared, units, strict=True)
    ]
    low, high = max(bounds[0], min(end[0] for end in ends)), min(bounds[1], max(end[1] for end in ends))
    return replace(modifier, low=low, high=high) if low < high and (low, high) != bounds else modifier


# -- as a robot's file ------------------------------------------------------------------------------------------------


def robot_of(family: Family) -> RobotFamily | None:
    """Return the robot file's family that a family is, or is made of."""
    base = family.base if isinstance(family, Modified) else family
    return base if isinstance(base, RobotFamily) else None


def narrowed_file(robot: RobotFamily, ranges: Ranges, folder: Path, head: str) -> str:
    """Return a robot's file with the new ranges, for a folder; the paths in it lead to where the files are.

    Args:
        robot: the family.
        ranges: of its tasks; others are left out.
        folder: where it will be.
        head: a line on top.
    """
    path = robot.robot.file.path
    plain = parse_yaml(read_regular(path, LARGEST).decode(), path)
    # Two files of one name would be one family.
    plain = {"name": robot.name, **plain, "variant": f"{robot.variant.removesuffix(NARROWED)}{NARROWED}"}

    def there(name: str) -> str:
        return os.path.relpath(path.parent / name, folder.resolve())

    for key in ("file", "meshes"):
        if plain["model"].get(key):
            plain["model"][key] = there(plain["model"][key])
    for piece in _own(plain):
        file, _, function = piece["function"].rpartition(":")
        piece["function"] = f"{there(file)}:{function}"
    for name, keys in plain["tasks"].items():
        left = ranges.get(name, ())
        # Of one choice there is nothing to draw.
        if "choices" in keys and len(left) > 1:
            keys["choices"] = list(left)
        elif "range" in keys and len(left) == 2 and left[0] < left[1]:
            keys["range"] = list(left)
    return f"# {head}\n" + yaml.safe_dump(
        plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110
    )


def _own(plain: Any) -> Iterator[dict[str, Any]]:
    """Yield the entries of a file that name a function."""
    if isinstance(plain, Mapping):
        if isinstance(plain.get("function"), str):
            yield plain  # pyright: ignore[reportReturnType]
        for value in plain.values():
            yield from _own(value)
    elif isinstance(plain, list):
        for value in plain:
            yield from _own(value)
