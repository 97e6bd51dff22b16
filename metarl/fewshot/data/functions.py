"""Families of functions of one variable: regression tasks, each with its own function.

sinusoid (Finn, Abbeel & Levine 2017): y = A sin(x - φ), A ~ U[.1, 5], φ ~ U[0, π], x ~ U[-5, 5]. The paper gives the
ranges and not the sign; the minus is that of its authors' code and of torchmeta. With a plus the same tasks come out
with y negated.

harmonic (Lacoste et al. 2018, as torchmeta has it): y = a1 sin(ω x + b1) + a2 sin(2 ω x + b2), a ~ N(0, 1),
b ~ U[0, 2π], ω ~ U[5, 7], and every task looks at another place: x ~ N(μ, 1), μ ~ U[-4, 4].

steps: y is constant between three edges, x ~ U[-5, 5]. There is no common definition; here the edges are U[-5, 5] and
the four levels U[-3, 3], all independent, so that the values spread about as far as a sinusoid's.

There is no noise. The splits have the same distribution: they are streams of their own, with no task in common (two
equal ones are possible only as two equal draws of 53 random bits for every parameter are).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UserError, nearest
from metarl.fewshot.data.scaling import Scaling
from metarl.fewshot.episodes import Episodes, EpisodeShape, Support, check_split, uniform

Values = Mapping[str, Float[Tensor, "M count"]]
"""Parameters of M tasks, by name."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Independent random numbers.

    Attributes:
        law: `uniform` from a to b, or `normal` with mean a and deviation b.
        a: see `law`.
        b: see `law`.
        count: how many.
    """

    law: Literal["uniform", "normal"] = "uniform"
    a: float
    b: float
    count: int = 1

    def of(self, unit: Float[Tensor, "M n"]) -> Float[Tensor, "M n"]:
        """Return the numbers that uniform ones in [0, 1) become."""
        if self.law == "uniform":
            return self.a + (self.b - self.a) * unit
        # At 0 it would be infinite; half a step of the random numbers is the least.
        return self.a + self.b * torch.special.ndtri(unit.clamp(min=2.0**-54))


@dataclass(frozen=True, kw_only=True)
class Family:
    """A distribution of functions.

    Attributes:
        formula: in words, for reports.
        parameters: of a task, by name.
        inputs: x; moved by the parameter `place` where there is one.
        function: from parameters [M, count] and x [M, S] to y [M, S].
        shown: least and greatest x of a plot.
    """

    formula: str
    parameters: Mapping[str, Draw]
    inputs: Draw
    function: Callable[[Values, Float[Tensor, "M S"]], Float[Tensor, "M S"]]
    shown: tuple[float, float] = (-5.0, 5.0)


def _sinusoid(values: Values, x: Float[Tensor, "M S"]) -> Float[Tensor, "M S"]:
    return values["amplitude"] * (x - values["phase"]).sin()


def _harmonic(values: Values, x: Float[Tensor, "M S"]) -> Float[Tensor, "M S"]:
    amplitudes, phases, angle = values["amplitude"], values["phase"], values["frequency"] * x
    return amplitudes[:, :1] * (angle + phases[:, :1]).sin() + amplitudes[:, 1:] * (2 * angle + phases[:, 1:]).sin()


def _steps(values: Values, x: Float[Tensor, "M S"]) -> Float[Tensor, "M S"]:
    passed = (x[:, :, None] >= values["edge"][:, None]).sum(-1)
    return values["level"].gather(1, passed)


FAMILIES = {
    "sinusoid": Family(
        formula="amplitude * sin(x - phase)",
        parameters={"amplitude": Draw(a=0.1, b=5.0), "phase": Draw(a=0.0, b=math.pi)},
        inputs=Draw(a=-5.0, b=5.0),
        function=_sinusoid,
    ),
    "harmonic": Family(
        formula="amplitude1 * sin(frequency * x + phase1) + amplitude2 * sin(2 * frequency * x + phase2)",
        parameters={
            "amplitude": Draw(law="normal", a=0.0, b=1.0, count=2),
            "phase": Draw(a=0.0, b=2 * math.pi, count=2),
            "frequency": Draw(a=5.0, b=7.0),
            "place": Draw(a=-4.0, b=4.0),
        },
        inputs=Draw(law="normal", a=0.0, b=1.0),
        function=_harmonic,
        shown=(-6.0, 6.0),
    ),
    "steps": Family(
        formula="the level behind the last edge that is not above x",
        parameters={"edge": Draw(a=-5.0, b=5.0, count=3), "level": Draw(a=-3.0, b=3.0, count=4)},
        inputs=Draw(a=-5.0, b=5.0),
        function=_steps,
    ),
}

VARIANTS = {name: family.formula for name, family in FAMILIES.items()}
DEFAULT_SIZE = 0
UNSCALED = Scaling()


@dataclass(frozen=True)
class FunctionData:
    """A family of functions: a `Source` of regression episodes.

    Attributes:
        name: one of FAMILIES.
        scaling: none: networks get the numbers as they are.
    """

    name: str
    item_shape: tuple[int, ...] = (1,)
    outputs: int = 1
    scaling: Scaling = UNSCALED

    def episodes(self, split: str, numbers: Sequence[int], shape: EpisodeShape, seed: int) -> Episodes:
        """Return episodes, whose ways are none and whose shots are of the whole episode (see `Source`)."""
        values = self.tasks(split, numbers, seed)
        family = FAMILIES[self.name]
        x = family.inputs.of(uniform(numbers, shape.shot + shape.query, seed, split, self.name, "x"))
        if "place" in values:
            x = x + values["place"]
        y = family.function(values, x)
        x, y = x.float()[..., None], y.float()[..., None]
        return Episodes(
            support=Support(x=x[:, : shape.shot], y=y[:, : shape.shot], way=0),
            query_x=x[:, shape.shot :],
            query_y=y[:, shape.shot :],
        )

    def tasks(self, split: str, numbers: Sequence[int], seed: int) -> dict[str, Float[Tensor, "M count"]]:
        """Return the parameters of tasks, float64; arguments and errors as in `episodes`."""
        check_split(split)
        return {
            name: draw.of(uniform(numbers, draw.count, seed, split, self.name, name))
            for name, draw in FAMILIES[self.name].parameters.items()
        }

    def grid(
        self, split: str, numbers: Sequence[int], seed: int, points: int = 201
    ) -> tuple[Float[Tensor, " G"], Float[Tensor, "M G"]]:
        """Return the true functions of tasks over evenly spaced x, for plots.

        Args:
            split: as in `episodes`.
            numbers: as in `episodes`.
            seed: as in `episodes`.
            points: G.
        """
        family = FAMILIES[self.name]
        x = torch.linspace(*family.shown, points, dtype=torch.float64)
        y = family.function(self.tasks(split, numbers, seed), x.expand(len(numbers), -1))
        return x.float(), y.float()

    def describe(self) -> Mapping[str, Any]:
        """Return formula, distributions and a hash of them."""
        family = FAMILIES[self.name]
        definition = {
            "formula": family.formula,
            "parameters": {name: asdict(draw) for name, draw in family.parameters.items()},
            "inputs": asdict(family.inputs),
        }
        return {
            "name": self.name,
            **definition,
            "item_shape": list(self.item_shape),
            "fingerprint": hashlib.sha256(json.dumps([self.name, definition]).encode()).hexdigest(),
        }


def load(variant: str, root: Path | None, size: int) -> FunctionData:
    """Return a family.

    Args:
        variant: its name.
        root: of no use: nothing is read.
        size: of no use: items are numbers.

    Raises:
        UserError: there is no such family.
    """
    if variant not in FAMILIES:
        raise UserError(f"Unknown family of functions '{variant}'.{nearest(variant, FAMILIES)}")
    return FunctionData(variant)
