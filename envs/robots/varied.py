"""The tasks of a robot file: what varies, over which range, and what that does to the robot.

A task parameter changes a quantity of the model (quantities.py), a part of the observation (an offset or a gain of a
sensor), or nothing by itself: it is then a command, which rewards and observations name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarl.envs.robots.form import (
    MISSING,
    Flag,
    Interval,
    Key,
    Kind,
    Listed,
    Number,
    Table,
    Text,
    Word,
    join,
    wrong,
)
from metarl.envs.robots.quantities import DOS, FREE_UNITS, QUANTITIES, units_of
from metarl.errors import UserError, nearest
from metarl.space.parameter import Parameter

NAMES = Listed(Text(), single=True)
AXES = {"x": 0, "y": 1, "z": 2}
ERRORS = ("add", "multiply", "noise")
"""What a task's number does to a part of the observation."""
TARGETS = (*QUANTITIES, "observation", "command")
"""Keys of which a task has one: what it changes."""


class Ranges(Kind):
    """One range, or several."""

    def read(self, value: Any, where: str) -> tuple[tuple[float, float], ...]:
        """Return them."""
        if isinstance(value, list) and value and isinstance(value[0], list):
            return Listed(Interval()).read(value, where)
        return (Interval().read(value, where),)

    def schema(self) -> dict[str, Any]:
        """Return the kind as JSON Schema."""
        return {"anyOf": [Interval().schema(), Listed(Interval()).schema()]}


class Ood(Kind):
    """Ranges out of distribution; or, of choices, other choices."""

    def read(self, value: Any, where: str) -> Any:
        """Return it as it is: it is read with what the task draws from."""
        return value

    def schema(self) -> dict[str, Any]:
        """Return the kind as JSON Schema."""
        return {"anyOf": [Ranges().schema(), Listed(Number()).schema()]}


DRAWN = {
    "range": Key(Interval(), "of training, [LOW, HIGH]", None),
    "choices": Key(Listed(Number(), least=2), "the values there are, in place of a range", None),
    "scale": Key(Word(("linear", "log")), "how the range is drawn from: evenly, or evenly on a log scale", "linear"),
    "ood": Key(Ood(), "range or ranges out of distribution, outside of the range; of choices, other ones", None),
    "unit": Key(Text(), "of the range; none where it multiplies", ""),
    "what": Key(Text(), "description, in a few words", ""),
}
"""Keys of every task: how its values are drawn."""


def table_of(target: str, name: str = "", do: str = "") -> Table:
    """Return what a task may say.

    Args:
        target: one of `TARGETS`.
        name: of a quantity of the model.
        do: what its number does; empty for a command.
    """
    unit = FREE_UNITS if target == "command" else units_of(target, name, do) if name else None
    keys = dict(DRAWN)
    if unit is not None:
        needed = unit != ("",) and target != "command"
        keys["unit"] = Key(Word(unit), DRAWN["unit"].what, MISSING if needed else "")
    if target == "command":
        return Table({"command": Key(Flag(), "true: it changes nothing by itself"), **keys}, "a command")
    keys["do"] = Key(Word((do,) if do else DOS), "what its number does to the model's own")
    if target == "observation":
        keys["do"] = Key(Word((do,) if do else ERRORS), "an offset of a sensor, a gain, noise (its deviation)")
        each = Key(Flag(), "a number of its own for each that is measured", False)
        return Table({"observation": Key(Text(), "name of the part"), "each": each, **keys}, "an error of a sensor")
    quantity = QUANTITIES[target][name]
    if target == "world":
        keys = {"world": Key(Word((name,)), quantity.what), **keys}
    else:
        each = Key(Flag(), "a number of its own for each of them; else one for all", False)
        keys = {
            target: Key(NAMES, "by name or pattern"),
            "field": Key(Word((name,)), quantity.what),
            "each": each,
            **keys,
        }
    if quantity.axes == 3 and do != "multiply":
        keys["axis"] = Key(Word(tuple(AXES)), "the one that is meant; all three, each its own, if not given", None)
    return Table(keys, quantity.what)


class TaskKind(Kind):
    """A task parameter."""

    def read(self, value: Any, where: str) -> dict[str, Any]:
        """Return its keys, with `target` and `field`."""
        if not isinstance(value, dict):
            raise wrong(where, value, "a mapping, KEY: VALUE lines,")
        targets = [name for name in TARGETS if name in value]
        if len(targets) != 1:
            unknown = [name for name in value if name not in (*DRAWN, "do", "field", "each", "axis", *TARGETS)]
            if unknown and not targets:
                raise UserError(f"{join(where, unknown[0])}: unknown key.{nearest(unknown[0], TARGETS)}")
            got = " and ".join(targets) or "none"
            raise UserError(f"{where}: got {got} of {', '.join(TARGETS)}. Give the one that the task changes.")
        target, name = targets[0], ""
        if target in QUANTITIES:
            key = "world" if target == "world" else "field"
            if key not in value:
                raise UserError(f"{join(where, key)}: missing. Choose from: {', '.join(QUANTITIES[target])}.")
            name = Word(tuple(QUANTITIES[target])).read(value[key], join(where, key))
        do = ""
        if target != "command":
            dos = QUANTITIES[target][name].dos if name else ERRORS
            if "do" not in value:
                raise UserError(f"{join(where, 'do')}: missing. Choose from: {', '.join(dos)}.")
            do = Word(dos).read(value["do"], join(where, "do"))
        if "unit" not in value and name and units_of(target, name, do) != ("",):
            units = " or ".join(units_of(target, name, do))
            raise UserError(f"{join(where, 'unit')}: missing. The {name} of a {target} is in {units}.")
        keys = table_of(target, name, do).read(value, where)
        if target == "command" and not keys["command"]:
            raise UserError(f"{join(where, 'command')}: got false. Give true, or name what the task changes.")
        if (keys["range"] is None) == (keys["choices"] is None):
            raise UserError(
                f"{where}: got {'neither' if keys['range'] is None else 'both'} of range and choices. Give one."
            )
        ood: tuple[Any, ...] = ()
        if keys["ood"] is not None:
            drawn: Kind = Ranges() if keys["choices"] is None else Listed(Number())
            ood = drawn.read(keys["ood"], join(where, "ood"))
        numbers = [
            *(keys["choices"] or keys["range"]),
            *(min(part) if isinstance(part, tuple) else part for part in ood),
        ]
        defaults = {"axis": None, "each": False, "do": ""}
        return {**defaults, **keys, "ood": ood, "least": min(numbers), "target": target, "quantity": name}

    def schema(self) -> dict[str, Any]:
        """Return the kind as JSON Schema: one form for every quantity and what is done to it."""
        tables = [table_of("command"), *(table_of("observation", do=do) for do in ERRORS)]
        for target, quantities in QUANTITIES.items():
            tables += [table_of(target, name, do) for name, q in quantities.items() for do in q.dos]
        one = [{"required": ["range"]}, {"required": ["choices"]}]
        return {"anyOf": [{**table.schema(), "oneOf": one} for table in tables]}


def parameter_of(name: str, keys: Mapping[str, Any], size: int) -> Parameter:
    """Return a task's parameter.

    Args:
        name: of the task.
        keys: of its entry.
        size: numbers that it has.

    Raises:
        UserError: its ranges overlap, or do not fit the scale.
    """
    where = f"tasks.{name}"
    what = keys["what"] or _described(keys)
    unit = keys["unit"]
    try:
        if keys["choices"] is not None:
            if keys["scale"] != "linear" or size > 1:
                raise UserError("choices are drawn evenly, one number for all. Leave scale, each and axes out.")
            return Parameter(
                name=name, unit=unit, description=what, scale="choice", choices=keys["choices"], ood=keys["ood"]
            )
        low, high = keys["range"]
        scale = "log-uniform" if keys["scale"] == "log" else "uniform"
        return Parameter(
            name=name, unit=unit, description=what, scale=scale, low=low, high=high, size=size, ood=keys["ood"]
        )
    except UserError as error:
        text = str(error).removeprefix(f"Parameter {name}: ")
        raise UserError(text if text.startswith("tasks.") else f"{where}: {text}") from error


def _described(keys: Mapping[str, Any]) -> str:
    if keys["target"] == "command":
        return "command"
    if keys["target"] == "observation":
        errors = {"add": "offset", "multiply": "gain", "noise": "standard deviation of the noise"}
        return f"{errors[keys['do']]} of {keys['observation']}"
    things = "" if keys["target"] == "world" else f" of {', '.join(keys[keys['target']])}"
    does = {"multiply": "factor on the", "add": "what is added to the", "set": "the"}[keys["do"]]
    return f"{does} {keys['quantity'].replace('_', ' ')}{things}"
