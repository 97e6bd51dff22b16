"""A family in another reality (reality.py): with another model, other actuators, sensors and messages; its worlds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.family import Family, MujocoFamily, State, TorchFamily
from metarl.envs.making import choose_engine, make_worlds
from metarl.envs.models import MOST_SUBSTEPS
from metarl.envs.modifiers.apply import ANYWHERE, ModifiedMujoco, ModifiedTorch, ordered
from metarl.envs.modifiers.effect import Effect
from metarl.envs.modifiers.gains import Strong
from metarl.envs.modifiers.names import word_of
from metarl.envs.modifiers.switching import SwitchSpace
from metarl.envs.reality import CONES, INTEGRATORS, SOLVERS, Reality, parsed
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from metarl.space.parameter_space import ParameterSpace
from metarl.types import Tasks

MOTORS = "+motors"
"""Carried field: where the lagging controls are."""
IN_TORCH = ("lag", "modifiers", "engine")
"""What families without a MuJoCo model take."""


class Physical(Effect):
    """Settings of the physics, for all worlds.

    Args:
        reality: what they are.
        time_step: of the physics, s.
    """

    def __init__(self, reality: Reality, time_step: float) -> None:
        self.reality, self.time_step = reality, time_step

    def prepare(self, model: mujoco.MjModel) -> None:
        """Write them into a model."""
        reality, option = self.reality, model.opt
        option.timestep = self.time_step
        if reality.integrator is not None:
            option.integrator = INTEGRATORS[reality.integrator]
        if reality.solver is not None:
            option.solver = SOLVERS[reality.solver]
        if reality.cone is not None:
            option.cone = CONES[reality.cone]
        if reality.iterations is not None:
            option.iterations = reality.iterations
        if reality.impratio is not None:
            option.impratio = reality.impratio
        for name in ("solref", "solimp"):
            values = getattr(reality, name)
            if values is not None:
                getattr(model, f"geom_{name}")[:] = values
                getattr(model, f"pair_{name}")[:] = values


class Lagging(Effect):
    """Actuators that follow their controls.

    Args:
        base: the family.
        lag: time constant, s.
    """

    carried = (MOTORS,)

    def __init__(self, base: Family, lag: float) -> None:
        self.share = 1.0 - math.exp(-base.step_seconds / lag)
        low, high = (torch.tensor(bound, dtype=torch.float64) for bound in (base.action_low, base.action_high))
        self.rest = torch.zeros_like(low).clamp(low, high)

    def start(self, worlds: int) -> dict[str, Tensor]:
        """Return controls at rest."""
        return {MOTORS: self.rest.expand(worlds, -1)}

    def command(
        self, action: Float[Tensor, "B A"], state: State, tasks: Tasks
    ) -> tuple[Float[Tensor, "B A"], dict[str, Tensor]]:
        """Return where they get to in this step, which is where they are from now on."""
        motors = torch.lerp(state[MOTORS], action, self.share)
        return motors, {MOTORS: motors}


@dataclass(frozen=True, kw_only=True)
class RealMujoco(ModifiedMujoco):
    """A family on a MuJoCo model in another reality."""

    reality: Reality

    def __post_init__(self) -> None:
        super().__post_init__()
        reality = self.reality
        step = (
            self.base.model.opt.timestep / (reality.substeps or 1) if reality.time_step is None else reality.time_step
        )
        skip = self.base.frame_skip * self.base.model.opt.timestep / step
        if skip > MOST_SUBSTEPS:
            key = "substeps" if reality.time_step is None else "time_step"
            raise UserError(
                f"{key}: got {step:g} s for a physics step, of which a control step of "
                f"{self.base.full_name} has more than {MOST_SUBSTEPS:,}. Take longer ones."
            )
        if abs(skip - round(skip)) > 1e-6 or round(skip) < 1:
            seconds = self.base.frame_skip * self.base.model.opt.timestep
            raise UserError(
                f"time_step: got {step:g} s, of which a control step of {self.base.full_name}, {seconds:g} s, is no "
                f"whole number. Give for instance {seconds / max(1, round(skip)):.10g}."
            )
        object.__setattr__(self, "frame_skip", round(skip))

    def unnamed_effects(self) -> tuple[Effect, ...]:
        """Return the physics and the actuators of the reality."""
        reality, base = self.reality, self.base
        step = base.model.opt.timestep / (reality.substeps or 1) if reality.time_step is None else reality.time_step
        effects: list[Effect] = [Physical(reality, step)]
        if reality.strength is not None or reality.saturation is not None:
            effects.append(Strong(base, reality.strength or 1.0, reality.saturation))
        if reality.lag is not None:
            effects.append(Lagging(base, reality.lag))
        return tuple(effects)


@dataclass(frozen=True, kw_only=True)
class RealTorch(ModifiedTorch):
    """A family in torch in another reality."""

    reality: Reality

    def unnamed_effects(self) -> tuple[Effect, ...]:
        """Return the actuators of the reality."""
        return () if self.reality.lag is None else (Lagging(self.base, self.reality.lag),)


def in_reality(family: Family, reality: Reality) -> Family:
    """Return a family in another reality, with the reality's own parameters after the family's.

    Raises:
        UserError: the family does not allow what the reality changes.
    """
    modifiers = ordered([parsed(text) for text in reality.modifiers], family)
    words = [word_of(modifier) for modifier in modifiers]
    if isinstance(family.space, SwitchSpace) and words:
        raise UserError(
            f"modifiers: got {words}, but tasks of {family.full_name} change within a trial: leave them out"
        )
    try:
        if isinstance(family, MujocoFamily):
            return RealMujoco(base=family, modifiers=modifiers, reality=reality)
        if not isinstance(family, TorchFamily):
            raise UserError(f"{family.full_name} runs in processes of its own: only families on MuJoCo or in torch can")
        changed = [key for key in reality.plain() if key not in IN_TORCH]
        wrong = [*changed, *(word for word in words if word not in ANYWHERE)]
        if wrong:
            raise UserError(f"{wrong[0]}: {family.full_name} has no MuJoCo model that it would change: leave it out")
        if reality.lag is not None and family.discrete:
            raise UserError(f"lag: actions of {family.full_name} are choices, which do not lag: leave it out")
        return RealTorch(base=family, modifiers=modifiers, reality=reality)
    except UserError as error:
        if "each name once" not in str(error):
            raise
        raise UserError(
            f"modifiers: {family.full_name} has parameters of the same name as those of {', '.join(words)}: leave out "
            "what the tasks have already"
        ) from error


def going_there(home: Family, reality: Reality, engine: str, device: torch.device) -> tuple[Family, str]:
    """Return a family in a reality, and the engine there.

    Args:
        home: the family.
        reality: where it is to be.
        engine: at home; the reality's own comes first.
        device: where the agent computes.

    Raises:
        UserError: the family does not allow what the reality changes, or it changes nothing here.
    """
    there = in_reality(home, reality)
    chosen = choose_engine(reality.engine or engine, home, device)
    if list(reality.plain()) == ["engine"] and chosen == choose_engine(engine, home, device):
        raise UserError(f"engine: got {chosen}, which steps the worlds at home too. Take another --engine at home.")
    return there, chosen


def worlds_there(
    home: Family,
    reality: Reality,
    tasks: Tasks,
    episodes: int,
    generator: torch.Generator,
    *,
    engine: str,
    device: torch.device,
    threads: int,
) -> Worlds:
    """Return worlds of a family in a reality, which take tasks of home.

    Args:
        home: the family.
        reality: where it is to be.
        tasks: M tasks of home, which the worlds will be given.
        episodes: K, worlds of each task.
        generator: draws what the reality adds to every task; a stream of its own.
        engine: at home; the reality's own comes first.
        device: where the agent computes.
        threads: of the CPU engine; 0 takes every core.

    Raises:
        UserError: the family does not allow what the reality changes, or it changes nothing here.
    """
    there, chosen = going_there(home, reality, engine, device)
    worlds = make_worlds(there, len(tasks) * episodes, engine=chosen, device=device, threads=threads)
    added = there.space.parameters[len(home.space.parameters) :]
    own: dict[str, Tensor] = {}
    if added:
        drawn = ParameterSpace(there.full_name, added).sample(len(tasks), "train", generator)
        own = dict(drawn.repeat(episodes).values)
    worlds.hide(home.full_name, own)
    return worlds
