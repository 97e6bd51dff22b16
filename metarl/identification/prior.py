"""What is known before a log is seen: the family's training range, as standard normal numbers.

Every parameter that is no choice is a function of D independent standard normal numbers x; a point of x that is drawn
is a task of the training range (of all of it: the strips that hold test tasks out are not left out). Choices, whose
values are few, are strata: a combination of them each, all equally likely.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UserError
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import ParameterSpace
from metarl.space.quantiles import interpolate, stick_breaking
from metarl.types import Tasks

MOST_STRATA = 64
"""Combinations of choices that are looked at."""
SMALLEST = 1e-12
"""Where the quantiles of a number end: no value is at an end of its range."""


class Prior:
    """The training range of a space of tasks.

    Args:
        space: the family's.

    Attributes:
        size: D.
        strata: values of the choices, by combination.

    Raises:
        UserError: there are too many combinations of choices.
    """

    def __init__(self, space: ParameterSpace) -> None:
        self.space = space
        self.numbers = [p for p in space.parameters if not p.is_choice]
        self.choices = [p for p in space.parameters if p.is_choice]
        self.widths = [width(p) for p in self.numbers]
        self.size = sum(self.widths)
        count = math.prod(len(p.choices) for p in self.choices)
        if count > MOST_STRATA:
            raise UserError(
                f"{space.family} has {count} combinations of choices, and at most {MOST_STRATA} are looked at. Take a "
                "family with fewer, such as one modifier less."
            )
        self.strata = list(itertools.product(*(p.choices for p in self.choices)))

    def tasks(self, x: Float[Tensor, "N D"], strata: Sequence[int]) -> Tasks:
        """Return the tasks of points.

        Args:
            x: the points.
            strata: which combination of choices each has.
        """
        parts = x.split(self.widths, dim=1) if self.numbers else ()
        values = {p.name: value_of(p, part) for p, part in zip(self.numbers, parts, strict=True)}
        for column, parameter in enumerate(self.choices):
            values[parameter.name] = torch.tensor([self.strata[s][column] for s in strata], dtype=torch.float64)
        return Tasks(self.space.family, {p.name: values[p.name] for p in self.space.parameters})


def width(parameter: Parameter) -> int:
    """Return how many normal numbers make a value."""
    return parameter.rows * (parameter.size - 1) if parameter.scale == "simplex" else parameter.width


def value_of(parameter: Parameter, x: Float[Tensor, "N W"]) -> Float[Tensor, "N ..."]:
    """Return the values that normal numbers make; the numbers of a vector are independent."""
    if parameter.scale == "sphere":
        return x / x.norm(dim=1, keepdim=True)
    if parameter.scale == "disc":
        # The squared length of two normal numbers is exponential, so this is uniform over the area.
        inside = -torch.expm1(-0.5 * x.square().sum(1))
        radius = interpolate("disc", *parameter.bounds, inside)
        return x * (radius / x.norm(dim=1))[:, None]
    if parameter.scale == "normal":
        assert parameter.mean is not None
        assert parameter.std is not None
        values = parameter.mean + parameter.std * x
    else:
        u = torch.special.ndtr(x).clamp(SMALLEST, 1.0 - SMALLEST)
        if parameter.scale == "simplex":
            u = torch.nn.functional.pad(u.unflatten(1, (parameter.rows, -1)), (0, 1), value=0.5)
            return stick_breaking(u).flatten(1)
        values = interpolate(parameter.scale, *parameter.bounds, u)
    return values.squeeze(1) if parameter.width == 1 else values
