"""Any family with modifiers: the same family but for its name, its task parameters and its model fields.

    with_dynamics(get("half-cheetah-vel"), Factor(quantity="mass"), Factor(quantity="gain", per="each"))
    with_switch(with_damage(get("ant-dir")), 50, 150)

or by name, `get("half-cheetah-vel+mass+gain=each")`, as names.py says.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import mujoco
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from metarl.envs.family import Command, Family, Marker, MujocoFamily, State, Terms, TorchFamily
from metarl.envs.horizon import with_horizon
from metarl.envs.modifiers.damage import Damage
from metarl.envs.modifiers.delay import Delayed
from metarl.envs.modifiers.dynamics import Factor
from metarl.envs.modifiers.effect import KEY, STEP, Effect, Scaled, first_keys
from metarl.envs.modifiers.names import MODIFIERS, Disturbing, Modifier, in_name, word_of
from metarl.envs.modifiers.switching import Switch
from metarl.errors import UserError
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import ParameterSpace
from metarl.types import Tasks


@dataclass(frozen=True, kw_only=True)
class Modified(Family):
    """A family that is another one, but for its name, its task parameters and what its modifiers do."""

    base: Family
    modifiers: tuple[Modifier, ...]
    """In the order of `MODIFIERS`."""
    horizon: int = 0
    """0 for the base's."""
    effects: tuple[Effect, ...] = field(init=False, repr=False, compare=False)
    """Of the modifiers, in their order."""
    space: ParameterSpace = field(init=False)

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
        named = [effect_on(self.base, modifier) for modifier in self.modifiers if not isinstance(modifier, Switch)]
        effects = (*self.unnamed_effects(), *named)
        object.__setattr__(self, "effects", effects)
        object.__setattr__(self, "space", _space(self, tuple(p for effect in effects for p in effect.parameters)))
        keys = (KEY, STEP) if any(effect.draws for effect in effects) else ()
        carried = (*self.base.carried, *keys, *(name for effect in effects for name in effect.carried))
        object.__setattr__(self, "carried", tuple(dict.fromkeys(carried)))

    def unnamed_effects(self) -> tuple[Effect, ...]:
        """Return effects that no modifier has, nearer to the actuators than all others. Default: none."""
        return ()

    @property
    def full_name(self) -> str:
        """The base's name with the modifiers."""
        return _full_name(self.base, self.modifiers)

    @property
    def choices(self) -> tuple[int, ...]:
        """The base's."""
        return self.base.choices

    @property
    def dynamics_vary(self) -> bool:
        """Whether the base's do, or a modifier has parameters: these change what is seen after an action, no reward."""
        return self.base.dynamics_vary or any(effect.parameters for effect in self.effects)

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Tensor]:
        """Return the base's, and what effects carry."""
        start = dict(self.base.reset_state(generator, tasks))
        if KEY in self.carried:
            start |= first_keys(generator, len(tasks))
        for effect in self.effects:
            start |= effect.start(len(tasks))
        return start

    def begin(self, state: State, tasks: Tasks) -> dict[str, Tensor]:
        """Return the base's; where messages come late, how late, and the first observation in the place of others."""
        begun = self.base.begin(state, tasks)
        if self._late is not None:
            begun = {**begun, **self._late.draw(state)}
            if self._late.recalls:
                begun |= self._late.begin(self._sensed({**state, **begun}, tasks))
        return begun

    def command(self, action: Float[Tensor, "B A"], state: State, tasks: Tasks) -> Command:
        """Return what the base makes of the action that effects pass on, the last one first."""
        if not self._commanding:
            return self.base.command(action, state, tasks)
        kept: dict[str, Tensor] = {}
        for effect in self._commanding:
            action, more = effect.command(action, state, tasks)
            kept |= more
        given = self.base.command(action, state, tasks)
        command, more = given if isinstance(given, tuple) else (given, {})
        return command, {**kept, **more}

    def disturb(self, state: State, tasks: Tasks) -> Float[Tensor, "B N 6"] | None:
        """Return the base's forces, and those of effects."""
        forces = self.base.disturb(state, tasks)
        for effect in self._disturbing:
            more = effect.disturb(state, tasks)
            forces = more if forces is None or more is None else forces + more
        return forces

    def carry(self, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> dict[str, Tensor]:
        """Return the base's, the step of now, and where messages come late, how late, and those that are kept."""
        carried = self.base.carry(state, action, tasks)
        if STEP not in self.carried:
            return carried
        carried = {**carried, STEP: state[STEP] + 1}
        if self._late is not None:
            now = {**state, **carried}
            carried |= self._late.draw(now)
            if self._late.recalls:
                self._late.keep(self._sensed(now, tasks), now)
        return carried

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return what effects pass on of the base's; of late observations the one that arrives."""
        if self._late is not None and self._late.recalls:
            return self._late.recall(state, tasks)
        return self._sensed(state, tasks)

    def _sensed(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return what effects pass on of an observation as it is made."""
        observation = self.base.observe(state, tasks)
        for effect in self._observing:
            observation = effect.observe(observation, state, tasks)
        return observation

    @cached_property
    def _commanding(self) -> list[Effect]:
        return [effect for effect in reversed(self.effects) if type(effect).command is not Effect.command]

    @cached_property
    def _disturbing(self) -> list[Effect]:
        return [effect for effect in self.effects if type(effect).disturb is not Effect.disturb]

    @cached_property
    def _observing(self) -> list[Effect]:
        return [effect for effect in self.effects if type(effect).observe is not Effect.observe]

    @cached_property
    def _late(self) -> Delayed | None:
        return next((effect for effect in self.effects if isinstance(effect, Delayed)), None)

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

    def model_spec(self) -> mujoco.MjSpec:
        """Return the base's."""
        return self.base.model_spec()

    @cached_property
    def model(self) -> mujoco.MjModel:
        """The base's, prepared for effects where they ask for it."""
        preparing = [effect for effect in self.effects if type(effect).prepare is not Effect.prepare]
        if not preparing:
            return self.base.model
        model = copy.copy(self.base.model)
        for effect in preparing:
            effect.prepare(model)
        return model

    def apply(self, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the base's model fields, as effects change them."""
        fields = self.base.apply(tasks)
        for effect in self.effects:
            fields = effect.apply(self.model, fields, tasks)
        return fields

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return the base's."""
        return self.base.markers(state, tasks)

    def crop(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Crop as the base does."""
        self.base.crop(model, data)


@dataclass(frozen=True, kw_only=True)
class ModifiedTorch(Modified, TorchFamily):
    """A modified family whose physics is written in torch: there is no model to change."""

    base: TorchFamily

    def advance(self, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> dict[str, Tensor]:
        """Return the base's."""
        return self.base.advance(state, action, tasks)

    def picture(self, state: State, tasks: Tasks, world: int, width: int, height: int) -> Image.Image:
        """Return the base's."""
        return self.base.picture(state, tasks, world, width, height)


def effect_on(base: Family, modifier: Factor | Damage | Disturbing) -> Effect:
    """Return what a modifier does to a family."""
    if isinstance(modifier, Disturbing):
        return modifier.effect(base)
    assert isinstance(base, MujocoFamily)
    return Scaled(modifier.scaling(base.model))


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


ANYWHERE = ("bias", "noise", "delay", "switch")
"""Modifiers that change no model: families in torch take them too."""

# --- in Python ---------------------------------------------------------------------------------------------------


def ordered(modifiers: Sequence[Modifier], base: Family) -> tuple[Modifier, ...]:
    """Return modifiers in the order of a family's name.

    Raises:
        UserError: one appears twice.
    """
    found = sorted(modifiers, key=lambda modifier: MODIFIERS.index(word_of(modifier)))
    words = [word_of(modifier) for modifier in found]
    if len(set(words)) < len(words):
        raise UserError(f"got the modifiers +{'+'.join(words)} for {base.full_name}: give each once")
    return tuple(found)


def modify(family: Family, *modifiers: Modifier) -> Family:
    """Return a family with modifiers, those that it has already included.

    Raises:
        UserError: a modifier appears twice, or the family does not allow it.
    """
    base, present = (family.base, family.modifiers) if isinstance(family, Modified) else (family, ())
    found = ordered((*present, *modifiers), base)
    words = [word_of(modifier) for modifier in found]
    if not words:
        return base
    if "switch" in words and base.no_switch:
        raise UserError(f"{base.full_name} cannot change its task in the middle of a trial: {base.no_switch}")
    if isinstance(base, MujocoFamily):
        short = tuple(_shortest(modifier, base) for modifier in found)
        return ModifiedMujoco(base=base, modifiers=short)
    if not isinstance(base, TorchFamily):
        raise UserError(f"{base.full_name} takes no modifiers: only families on a MuJoCo model or in torch do")
    changing = ", ".join(f"+{word}" for word in words if word not in ANYWHERE)
    if changing:
        fitting = ", ".join(f"+{word}" for word in ANYWHERE)
        raise UserError(f"{base.full_name} has no MuJoCo model, which {changing} would change: only {fitting} fit it")
    return ModifiedTorch(base=base, modifiers=tuple(_shortest(modifier, base) for modifier in found))


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
    if isinstance(modifier, Disturbing):
        return modifier.shortest(base)
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
