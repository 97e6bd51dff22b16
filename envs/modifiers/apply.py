"""Any family with modifiers: the same family but for its name, its task parameters and its model fields.

    with_dynamics(get("half-cheetah-vel"), Factor(quantity="mass"), Factor(quantity="gain", per="each"))
    with_switch(with_damage(get("ant-dir")), 50, 150)

or by name, `get("half-cheetah-vel+mass+gain=each")`, as names.py says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import mujoco
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from metarl.envs.family import Family, Marker, MujocoFamily, State, Terms, TorchFamily, with_horizon
from metarl.envs.modifiers.damage import Damage
from metarl.envs.modifiers.dynamics import Factor, Scaling, scaled
from metarl.envs.modifiers.names import MODIFIERS, Modifier, in_name, word_of
from metarl.envs.modifiers.switching import Switch
from metarl.errors import UserError
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import ParameterSpace
from metarl.types import Tasks


@dataclass(frozen=True, kw_only=True)
class Modified(Family):
    """A family that is another one, but for its name and its task parameters."""

    base: Family
    modifiers: tuple[Modifier, ...]
    """In the order of `MODIFIERS`."""
    horizon: int = 0
    """0 for the base's."""

    def __post_init__(self) -> None:
        if self.horizon:
            object.__setattr__(self, "base", with_horizon(self.base, self.horizon))
        own = {"space", "summary", "source"}
        for kind in (Family, MujocoFamily, TorchFamily):
            if isinstance(self.base, kind):
                for name in set(kind.__annotations__) - own:
                    object.__setattr__(self, name, getattr(self.base, name))
        added = "; ".join(modifier.summary for modifier in self.modifiers)
        object.__setattr__(self, "summary", f"{self.base.summary}; {added}")
        object.__setattr__(self, "source", f"{self.base.source}; modifiers defined here")

    @property
    def full_name(self) -> str:
        """The base's name with the modifiers."""
        return _full_name(self.base, self.modifiers)

    @property
    def choices(self) -> tuple[int, ...]:
        """The base's."""
        return self.base.choices

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the base's."""
        return self.base.reset_state(generator, tasks)

    def begin(self, state: State, tasks: Tasks) -> dict[str, Tensor]:
        """Return the base's."""
        return self.base.begin(state, tasks)

    def command(self, action: Float[Tensor, "B A"], state: State, tasks: Tasks) -> Float[Tensor, "B C"]:
        """Return the base's."""
        return self.base.command(action, state, tasks)

    def disturb(self, state: State, tasks: Tasks) -> Float[Tensor, "B N 6"] | None:
        """Return the base's."""
        return self.base.disturb(state, tasks)

    def carry(self, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> dict[str, Tensor]:
        """Return the base's."""
        return self.base.carry(state, action, tasks)

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return the base's."""
        return self.base.observe(state, tasks)

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return the base's."""
        return self.base.reward_terms(before, state, action, tasks)

    def terminated(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"] | None:
        """Return the base's."""
        return self.base.terminated(state, tasks)

    def truncated(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"] | None:
        """Return the base's."""
        return self.base.truncated(state, tasks)

    def success(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"] | None:
        """Return the base's."""
        return self.base.success(state, tasks)


@dataclass(frozen=True, kw_only=True)
class ModifiedMujoco(Modified, MujocoFamily):
    """A modified family on a MuJoCo model."""

    base: MujocoFamily
    scalings: tuple[Scaling, ...] = field(init=False)
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        scalings = tuple(m.scaling(self.base.model) for m in self.modifiers if not isinstance(m, Switch))
        object.__setattr__(self, "scalings", scalings)
        object.__setattr__(self, "space", _space(self, tuple(scaling.parameter for scaling in scalings)))

    def model_spec(self) -> mujoco.MjSpec:
        """Return the base's."""
        return self.base.model_spec()

    @cached_property
    def model(self) -> mujoco.MjModel:
        """The base's."""
        return self.base.model

    def apply(self, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the base's model fields, scaled."""
        return scaled(self.model, self.base.apply(tasks), self.scalings, tasks)

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return the base's."""
        return self.base.markers(state, tasks)

    def crop(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Crop as the base does."""
        self.base.crop(model, data)


@dataclass(frozen=True, kw_only=True)
class ModifiedTorch(Modified, TorchFamily):
    """A modified family whose physics is written in torch: its task may change, there is no model to scale."""

    base: TorchFamily
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "space", _space(self, ()))

    def advance(self, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> dict[str, Tensor]:
        """Return the base's."""
        return self.base.advance(state, action, tasks)

    def picture(self, state: State, tasks: Tasks, world: int, width: int, height: int) -> Image.Image:
        """Return the base's."""
        return self.base.picture(state, tasks, world, width, height)


def _space(family: Modified, added: tuple[Parameter, ...]) -> ParameterSpace:
    """Return the base's parameters and the added ones, twice where tasks switch.

    Fixed sets of tasks keep their sizes and seed: every task of them gets dynamics of its own.
    """
    space = family.base.space
    if added:
        name = _full_name(family.base, [m for m in family.modifiers if not isinstance(m, Switch)])
        space = replace(space, family=name, parameters=(*space.parameters, *added))
    for modifier in family.modifiers:
        if isinstance(modifier, Switch):
            space = modifier.space(space, family.full_name, family.horizon)
    return space


# --- in Python ---------------------------------------------------------------------------------------------------


def modify(family: Family, *modifiers: Modifier) -> Family:
    """Return a family with modifiers, those that it has already included.

    Raises:
        UserError: a modifier appears twice, or the family does not allow it.
    """
    base, present = (family.base, family.modifiers) if isinstance(family, Modified) else (family, ())
    ordered = sorted((*present, *modifiers), key=lambda modifier: MODIFIERS.index(word_of(modifier)))
    words = [word_of(modifier) for modifier in ordered]
    if not words:
        return base
    if len(set(words)) < len(words):
        raise UserError(f"got the modifiers +{'+'.join(words)} for {base.full_name}: give each once")
    if "switch" in words and base.no_switch:
        raise UserError(f"{base.full_name} cannot change its task in the middle of a trial: {base.no_switch}")
    if isinstance(base, MujocoFamily):
        short = tuple(_shortest(modifier, base) for modifier in ordered)
        return ModifiedMujoco(base=base, modifiers=short)
    if not isinstance(base, TorchFamily):
        raise UserError(f"{base.full_name} takes no modifiers: only families on a MuJoCo model or in torch do")
    if words != ["switch"]:
        scaling = ", ".join(f"+{word}" for word in words if word != "switch")
        raise UserError(f"{base.full_name} has no MuJoCo model, which {scaling} would change: only +switch fits it")
    return ModifiedTorch(base=base, modifiers=tuple(_shortest(modifier, base) for modifier in ordered))


def with_dynamics(family: Family, *factors: Factor) -> Family:
    """Return a family whose tasks also have unknown dynamics.

    Example:
        `with_dynamics(get("half-cheetah-vel"), Factor(quantity="mass"), Factor(quantity="gain", per="each"))`
    """
    return modify(family, *factors)


def with_damage(family: Family, damage: Damage | None = None) -> Family:
    """Return a family one of whose limbs may have failed."""
    return modify(family, damage or Damage())


def with_switch(family: Family, earliest: int | None = None, latest: int | None = None) -> Family:
    """Return a family whose tasks change once in a trial, between two steps of it."""
    return modify(family, Switch(earliest=earliest, latest=latest))


def _shortest(modifier: Modifier, base: Family) -> Modifier:
    """Return the same modifier without what it would have for this family anyway, so that it has one name."""
    if isinstance(modifier, Factor):
        assert isinstance(base, MujocoFamily)
        # Of a single one, such as gravity, "each" says no more than "all".
        per = modifier.per if modifier.scaling(base.model).parameter.size > 1 else "all"
        plain = Factor(quantity=modifier.quantity, per=per)
        return plain if plain.bounds == modifier.bounds else replace(modifier, per=per)
    if isinstance(modifier, Switch):
        return Switch() if Switch().steps(base.horizon) == modifier.steps(base.horizon) else modifier
    assert isinstance(base, MujocoFamily)
    return Damage() if Damage().failing(base.model) == modifier.failing(base.model) else modifier


def _full_name(base: Family, modifiers: Sequence[Modifier]) -> str:
    """Return a family's name with modifiers."""
    return base.full_name + "".join(f"+{in_name(modifier)}" for modifier in modifiers)
