"""Parameters: one thing that varies between tasks, with its range, scale, unit and distribution."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import MISSING, dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.arguments import check_fields
from metarl.errors import UserError, nearest
from metarl.space.quantiles import MARGIN, fractions, interpolate, polar, position, stick_breaking, warp

Scale = Literal["uniform", "log-uniform", "choice", "disc", "sphere", "normal", "simplex"]

LONGEST_VECTOR = 4
"""Values of more numbers are not written out for people."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One thing that varies between tasks: a number, or a vector."""

    name: str
    """Name, as in a task record."""
    unit: str
    """Physical unit; "" for none."""
    description: str
    """What it is, in a few words."""
    scale: Scale
    """Distribution in the training range; `disc` is a point uniform over an area, `sphere` a unit vector, `simplex`
    probabilities that sum to 1 (flat Dirichlet), `normal` has no ends."""
    low: float | None = None
    """Lower end of the training range (uniform, log-uniform); inner radius of a disc, 0 where not given."""
    high: float | None = None
    """Upper end of the training range (uniform, log-uniform)."""
    choices: tuple[float, ...] = ()
    """The values of a choice."""
    choice_names: tuple[str, ...] = ()
    """What people are shown for them, and then for those of `ood`; tasks are numbers all the same."""
    radius: float | None = None
    """Outer radius of a disc."""
    mean: float | None = None
    """Mean of a normal."""
    std: float | None = None
    """Standard deviation of a normal."""
    size: int = 1
    """Components of a uniform, log-uniform or normal vector (each distributed alike), or of a sphere's vector;
    probabilities of one distribution of a simplex."""
    rows: int = 1
    """Distributions in a simplex; its value is the flat vector of rows x size probabilities."""
    ood: tuple[tuple[float, float], ...] | tuple[float, ...] = ()
    """Out-of-distribution part: (low, high) intervals; for a disc the (inner, outer) radii of a ring; for a
    choice other choices. A single interval may stand without its outer brackets."""

    def __post_init__(self) -> None:
        check_fields(self, f"Parameter {self.name}")
        self._check_fields()
        if self.is_choice:
            values = self.choices + self.ood_choices
            if len(set(values)) != len(values):
                raise UserError(f"Parameter {self.name}: a choice appears twice in {values}. Name each once.")
            if self.choice_names and len(self.choice_names) != len(values):
                raise UserError(f"Parameter {self.name}: got the names {self.choice_names} for {values}. Name each.")
            return
        if self.scale == "sphere":
            if self.size < 2 or self.ood:
                raise UserError(f"Parameter {self.name}: a sphere takes size 2 or more and no ood range.")
            return
        if self.scale == "simplex":
            if self.size < 2 or self.rows < 1:
                raise UserError(f"Parameter {self.name}: a simplex takes size 2 or more and 1 row or more.")
            return
        if self.scale == "normal":
            if self.mean is None or self.std is None or not (math.isfinite(self.mean) and 0 < self.std < math.inf):
                raise UserError(f"Parameter {self.name}: got mean {self.mean}, std {self.std}; needs a std above 0.")
            if self.size < 1:
                raise UserError(f"Parameter {self.name}: got size {self.size}; needs 1 or more.")
            return
        low, high = self.bounds
        if not (math.isfinite(low) and math.isfinite(high) and low < high) or self.size < 1:
            raise UserError(f"Parameter {self.name}: got {low} to {high}, size {self.size}; needs low < high.")
        if (self.scale == "log-uniform" and low <= 0) or (self.scale == "disc" and low < 0):
            raise UserError(f"Parameter {self.name}: {self.scale} takes no range from {low}. Give a greater one.")
        for start, end in self.ood_intervals:
            if not (start < end and (end <= low or start >= high)) or (self.scale != "uniform" and start < 0):
                raise UserError(
                    f"Parameter {self.name}: ood interval {start} to {end} must not overlap the training "
                    f"range {low} to {high}. Move it outside."
                )

    def _check_fields(self) -> None:
        """Refuse fields that the scale does not use, and missing ones."""
        box = ({"low", "high"}, {"size", "ood"})
        needed, optional = {
            "uniform": box,
            "log-uniform": box,
            "choice": ({"choices"}, {"choice_names", "ood"}),
            "disc": ({"radius"}, {"low", "ood"}),
            "sphere": ({"size"}, set()),
            "normal": ({"mean", "std"}, {"size"}),
            "simplex": ({"size"}, {"rows"}),
        }.get(self.scale, (None, set()))
        if needed is None:
            allowed = nearest(self.scale, get_args(Scale))
            raise UserError(f"Parameter {self.name}: unknown scale '{self.scale}'.{allowed}")
        blank = {field.name: field.default for field in dataclasses.fields(self) if field.default is not MISSING}
        # None differs from 0.0, which is a mean like any other.
        given = {name for name, empty in blank.items() if getattr(self, name) != empty}
        if not needed <= given or not given <= needed | optional:
            raise UserError(
                f"Parameter {self.name}: got {sorted(given)} for the scale '{self.scale}', which needs "
                f"{sorted(needed)} and may have {sorted(optional)}."
            )

    @property
    def is_choice(self) -> bool:
        """Whether the values are a finite set."""
        return self.scale == "choice"

    @property
    def width(self) -> int:
        """Numbers in one value: 1 for a scalar."""
        return 2 if self.scale == "disc" else self.size * self.rows

    @property
    def bounds(self) -> tuple[float, float]:
        """Ends of the training range: of each component, or of a disc's radius. Only for scales that have ends."""
        if self.scale == "disc":
            assert self.radius is not None
            return self.low or 0.0, self.radius
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high

    @property
    def ood_intervals(self) -> tuple[tuple[float, float], ...]:
        """The out-of-distribution part: intervals of a component, or of a disc's radius; () for a choice."""
        if self.is_choice or not self.ood:
            return ()
        ends = tuple(end for end in self.ood if not isinstance(end, tuple))
        intervals = tuple(interval for interval in self.ood if isinstance(interval, tuple))
        if not ends:
            return intervals
        if len(ends) != 2 or intervals:
            raise UserError(f"Parameter {self.name}: got ood={self.ood}; give (low, high) or several of those.")
        return (ends,)

    @property
    def ood_choices(self) -> tuple[float, ...]:
        """The out-of-distribution values of a choice; () for the other scales."""
        return tuple(c for c in self.ood if not isinstance(c, tuple)) if self.is_choice else ()

    @property
    def feature_size(self) -> int:
        """Numbers in `features`."""
        return len(self.choices + self.ood_choices) if self.is_choice and len(self.choices) > 2 else self.width

    def sample(
        self, count: int, generator: torch.Generator, coordinate: Float[Tensor, " M"] | None = None
    ) -> Float[Tensor, "M ..."]:
        """Draw `count` values of the training range.

        Args:
            count: M.
            generator: where the randomness comes from.
            coordinate: split coordinate of every value in place of a drawn one (not for a choice).
        """
        if self.is_choice:
            return _pick(self.choices, count, generator)
        u = fractions((count, self.width), generator)
        if coordinate is not None:
            u[:, 0] = coordinate
        if self.scale == "simplex":
            return stick_breaking(u.unflatten(1, (self.rows, self.size))).flatten(1)
        if self.scale == "normal":
            assert self.mean is not None
            assert self.std is not None
            return self._shaped(self.mean + self.std * torch.special.ndtri(u))
        if self.scale == "sphere":
            # The angle in one plane of a Gaussian vector is uniform and independent of all the rest.
            normal = torch.randn(count, self.width, generator=generator, dtype=torch.float64)
            normal[:, :2] = polar(normal[:, :2].norm(dim=1), u[:, 0])
            return normal / normal.norm(dim=1, keepdim=True)
        if self.scale == "disc":
            return polar(interpolate(self.scale, *self.bounds, u[:, 1]), u[:, 0])
        return self._shaped(interpolate(self.scale, *self.bounds, u))

    def sample_ood(self, count: int, generator: torch.Generator) -> Float[Tensor, "M ..."]:
        """Draw `count` values of the out-of-distribution part, every component of a vector from it."""
        if self.is_choice:
            return _pick(self.ood_choices, count, generator)
        ends = torch.tensor(self.ood_intervals, dtype=torch.float64)
        warped = warp(self.scale, ends)
        shape = (count, 1 if self.scale == "disc" else self.width)
        weights = (warped[:, 1] - warped[:, 0]).expand(math.prod(shape), -1)
        interval = torch.multinomial(weights, 1, generator=generator).reshape(shape)
        u = fractions(shape, generator)
        drawn = interpolate(self.scale, ends[interval, 0], ends[interval, 1], u)
        if self.scale == "disc":
            return polar(drawn[:, 0], fractions((count,), generator))
        return self._shaped(drawn)

    def coordinate(self, values: Float[Tensor, "M ..."]) -> Float[Tensor, " M"]:
        """Return the split coordinate in [0, 1) of values in the training range."""
        if self.scale in ("disc", "sphere"):
            u = torch.atan2(values[:, 1], values[:, 0]) / (2 * math.pi) % 1.0
        elif self.scale == "simplex":
            # The first of n probabilities of a flat Dirichlet has the distribution 1 - (1 - p)^(n - 1).
            u = 1.0 - (1.0 - values[:, 0]) ** (self.size - 1)
        elif self.scale == "normal":
            u = torch.special.ndtr(self.features(values)[:, 0])
        else:
            u = position(self.scale, self.bounds, values.reshape(len(values), -1)[:, 0])
        return u.clamp(0.0, 1.0 - MARGIN)

    def in_range(self, values: Float[Tensor, "M ..."]) -> Bool[Tensor, "M W"]:
        """Tell for every component if it is in the training range.

        There are W components: one for a disc, a sphere or a scalar, one a row for a simplex.
        """
        if self.scale == "simplex":
            rows = values.reshape(len(values), self.rows, self.size)
            return ((rows.sum(2) - 1.0).abs() <= MARGIN) & (rows >= 0.0).all(2)
        measured = self._measured(values)
        if self.scale == "normal":
            return measured.isfinite()
        if self.is_choice:
            return _among(measured, self.choices)
        if self.scale == "sphere":
            return (measured - 1.0).abs() <= MARGIN
        low, high = self.bounds
        slack = MARGIN * high if self.scale == "disc" else 0.0
        return (measured >= low - slack) & (measured <= high + slack)

    def in_ood(self, values: Float[Tensor, "M ..."]) -> Bool[Tensor, "M W"]:
        """Tell for every component, as in `in_range`, if it is in the out-of-distribution part."""
        measured = self._measured(values)
        if self.is_choice:
            return _among(measured, self.ood_choices)
        inside = torch.zeros_like(self.in_range(values))
        for low, high in self.ood_intervals:
            slack = MARGIN * high if self.scale == "disc" else 0.0
            inside |= (measured >= low - slack) & (measured <= high + slack)
        # A common end of the two ranges belongs to the training range.
        return inside & ~self.in_range(values)

    def features(self, values: Float[Tensor, "M ..."]) -> Float[Tensor, "M F"]:
        """Return the values scaled so that the training range is [-1, 1]; more than two choices one-hot.

        A normal is scaled to mean 0 and standard deviation 1.
        """
        if self.scale == "sphere":
            return values
        if self.scale == "disc":
            return values / self.bounds[1]
        columns = values.reshape(len(values), -1)
        if self.scale == "simplex":
            return 2.0 * columns - 1.0
        if self.scale == "normal":
            assert self.mean is not None
            assert self.std is not None
            return (columns - self.mean) / self.std
        if not self.is_choice:
            return 2.0 * position(self.scale, self.bounds, columns) - 1.0
        if len(self.choices) > 2:
            return (columns == torch.tensor(self.choices + self.ood_choices, dtype=torch.float64)).double()
        low, high = min(self.choices), max(self.choices)
        return 2.0 * (columns - low) / (high - low) - 1.0 if high > low else torch.zeros_like(columns)

    def allowed(self) -> str:
        """Return the allowed values, as they stand in tasks, with their unit."""
        training, ood = self.ranges(named=False)
        return f"{training} (out of distribution: {ood})" if ood else training

    def ranges(self, *, named: bool = True) -> tuple[str, str]:
        """Return the values of training and those out of distribution ("": none) with their unit, to be read.

        Args:
            named: with the names of choices.
        """
        unit = f" {self.unit}" if self.unit else ""
        if self.scale == "sphere":
            return f"unit vector of {self.size} numbers", ""
        if self.scale == "simplex":
            return f"{self.rows} times {self.size} probabilities that sum to 1", ""
        if self.scale == "normal":
            return f"any number{unit}, mean {self.mean:g} and standard deviation {self.std:g}", ""
        if self.is_choice:
            known = len(self.choices)
            names = self.choice_names if named else ()
            training = f"one of {_listed(self.choices, unit, names[:known])}"
            return training, _listed(self.ood_choices, unit, names[known:]) if self.ood else ""
        low, high = self.bounds
        training = f"{low:g} to {high:g}{unit}" + (" from the origin" if self.scale == "disc" else "")
        ood = ", ".join(f"{a:g} to {b:g}" for a, b in self.ood_intervals)
        return training, ood and f"{ood}{unit}"

    def in_words(self, value: Float[Tensor, " *W"]) -> str:
        """Return one value to be read: `kind T`, `velocity 1.5 m/s`; of a long vector only how many numbers it has."""
        numbers = value.reshape(-1).tolist()
        text = ", ".join(f"{number:.3g}" for number in numbers)
        if self.choice_names:
            text = self.choice_names[(self.choices + self.ood_choices).index(numbers[0])]
        elif len(numbers) > LONGEST_VECTOR:
            text = f"({len(numbers)} numbers)"
        elif len(numbers) > 1:
            text = f"({text})"
        return f"{self.name} {text} {self.unit}".rstrip()

    def tidy(self, row: Float[Tensor, " *W"]) -> Float[Tensor, " *W"]:
        """Return a value as typed with a few decimals made exact: a unit vector, probabilities that sum to 1.

        An exact one stays bit for bit.
        """
        if self.scale not in ("sphere", "simplex"):
            return row
        parts = row.reshape(self.rows, -1)
        total = parts.norm(dim=1, keepdim=True) if self.scale == "sphere" else parts.sum(1, keepdim=True)
        off = (total - 1.0).abs()
        return torch.where((off > MARGIN) & (off < 1e-3), parts / total, parts).reshape(row.shape)

    def _measured(self, values: Float[Tensor, "M ..."]) -> Float[Tensor, "M W"]:
        """Return what the ranges are about: components, or the length of a disc's or a sphere's vector."""
        if self.scale in ("disc", "sphere"):
            return values.norm(dim=1, keepdim=True)
        return values.reshape(len(values), -1)

    def _shaped(self, columns: Float[Tensor, "M D"]) -> Float[Tensor, "M ..."]:
        """Return [M, 1] as [M] for a scalar."""
        return columns[:, 0] if self.width == 1 else columns


def _pick(choices: tuple[float, ...], count: int, generator: torch.Generator) -> Float[Tensor, " M"]:
    """Draw `count` of the choices."""
    index = torch.randint(len(choices), (count,), generator=generator)
    return torch.tensor(choices, dtype=torch.float64)[index]


def _among(columns: Float[Tensor, "M W"], choices: tuple[float, ...]) -> Bool[Tensor, "M W"]:
    """Tell for every number if it is one of the choices."""
    return torch.isin(columns, torch.tensor(choices, dtype=torch.float64))


def _listed(choices: tuple[float, ...], unit: str, names: tuple[str, ...]) -> str:
    """Return choices with their unit, and their names where there are any."""
    return ", ".join(f"{choice:g}" for choice in choices) + unit + (f" ({', '.join(names)})" if names else "")
