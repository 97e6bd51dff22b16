"""States from observations: what a system was in when it was seen.

An observation is a function of the state, which the family has: `observe`. It is inverted by damped Gauss-Newton steps
with finite differences, all rows at once, from the state of the family's own starts that looks most alike. Directions
of the state in which nothing is seen stay as they are there.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from torch import Tensor

from metarl.envs.driving import of_physics
from metarl.envs.family import Family, MujocoFamily
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from metarl.types import Tasks

Fields = dict[str, Tensor]
"""State fields by name, [N, ...] float64."""
STARTS = 256
"""Starts of the family that are compared with an observation."""
FAR = 1e6
"""Times that an observation may be as large as where episodes start: no system goes that far, but units can."""
STEPS = 30
"""Most Gauss-Newton steps."""
PAST = 3
"""Steps after which it is looked whether what was before is seen."""
NUDGE = 1e-5
"""Change of a state by which differences are taken, m, rad, m/s or rad/s."""
SEEN = 1e-6
"""Of the largest: singular values below are directions in which nothing is seen."""
BENT = 0.05
"""Part of a difference by which that to the other side may differ, where a sensor is not at its end."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """States that observations were made in."""

    states: Fields
    """[N, ...]."""
    right: Tensor
    """Which of them say all that other observations say, [N] bool; a sensor at its end says less."""
    hidden: Tensor
    """Directions of the state in which nothing is seen, orthonormal, [H, Z]."""
    slopes: Tensor
    """Change of every observation by a change of the state, [N, O, Z]."""


class Looking:
    """What is seen in states of a family, and how states are changed.

    Args:
        family: on MuJoCo, or in torch.
        worlds: of it, on any engine; their tasks and states are overwritten.
        tasks: one, whose model and sensors the states are looked at with.

    Attributes:
        fields: names of the state fields that are looked for.
        carried: fields that the family carries beside them, of some start.
    """

    def __init__(self, family: Family, worlds: Worlds, tasks: Tasks) -> None:
        self.family, self.worlds = family, worlds
        self.task = tasks.select([0])
        self.tasks = tasks.select([0] * worlds.num_worlds)
        worlds.physics.apply(self.tasks, None)
        self._seen = self.tasks.to(worlds.device)
        # What the family carries is no part of what is looked for.
        any_start = family.reset_state(torch.Generator().manual_seed(0), self.tasks)
        self.carried = {name: any_start[name] for name in family.carried}
        self.fields = tuple(of_physics(family, any_start))

    def starts(self, count: int, generator: torch.Generator) -> Fields:
        """Draw starts of the family."""
        starts = self.family.reset_state(generator, self.task.select([0] * count))
        return {name: value.double() for name, value in of_physics(self.family, starts).items()}

    def observe(self, states: Fields) -> Tensor:
        """Return what is seen in states, [N, O]."""
        size = self.worlds.num_worlds
        parts = []
        for first in range(0, len(next(iter(states.values()))), size):
            some = {name: value[first : first + size] for name, value in states.items()}
            count = len(next(iter(some.values())))
            full = {k: torch.cat((v, v[-1:].expand(size - count, *v.shape[1:]))) for k, v in some.items()}
            self.worlds.drive.start(full | self.carried, None, self._seen)
            seen = self.family.observe(self.worlds.state, self._seen)
            parts.append(seen[:count].double().cpu())
        return torch.cat(parts)

    def begin(self, states: Fields, lead: Tensor, tasks: Tasks) -> None:
        """Put all worlds into states, with what the family carries after actions.

        Args:
            states: [B, ...].
            lead: the actions before, [B, L, A].
            tasks: of the worlds, on their device.
        """
        drive = self.worlds.drive
        drive.start(states | self.carried, None, tasks)
        for step in range(lead.shape[1]):
            drive.advance(lead[:, step].to(self.worlds.device), None, tasks)
        if lead.shape[1]:
            # What the family carries stays.
            drive.physics.write(states, None)

    def past_is_seen(self, generator: torch.Generator) -> bool:
        """Tell whether an observation of one state differs with what was before, by the same actions, or by chance."""
        count = self.worlds.num_worlds
        half = torch.arange(count) % max(1, count // 2)
        tasks = self.family.space.sample(count, "train", generator).select(half)
        self.worlds.physics.apply(self.tasks, None)
        there = tasks.to(self.worlds.device)
        low, high = (
            torch.tensor(ends, dtype=torch.float64) for ends in (self.family.action_low, self.family.action_high)
        )
        action = 0.5 * (low + high).expand(count, -1).to(self.worlds.device)
        before = self.starts(count, generator)
        self.worlds.drive.start(before | self.carried, None, there)
        for _ in range(PAST if self.family.carried else 0):
            self.worlds.drive.advance(action, None, there)
        # The same state in the end.
        self.worlds.physics.write({name: value[half] for name, value in before.items()}, None)
        seen = self.family.observe(self.worlds.state, there)
        return bool((seen - seen[half.to(seen.device)]).abs().max() > SEEN)

    def reach(self, states: Fields) -> Tensor:
        """Return how far a state may be from what is estimated: much farther than sensors err, [Z]."""
        spread = {name: 1.0 + value.std(0) for name, value in states.items()}
        if isinstance(self.family, MujocoFamily):
            return torch.cat((torch.ones(self.family.model.nv, dtype=torch.float64), spread["qvel"]))
        return torch.cat([value.flatten() for value in spread.values()])

    def size(self, states: Fields) -> int:
        """Return Z, the directions in which a state can change."""
        if isinstance(self.family, MujocoFamily):
            return 2 * self.family.model.nv
        return sum(value[0].numel() for value in states.values())

    def moved(self, states: Fields, change: Tensor) -> Fields:
        """Return states that are changed.

        Args:
            states: [N, ...].
            change: along every direction, [N, Z]; of rotations in rad about the axes of the body.
        """
        if isinstance(self.family, MujocoFamily):
            model = self.family.model
            turn, rest = change.split(model.nv, dim=1)
            if model.nq == model.nv:
                return {"qpos": states["qpos"] + turn, "qvel": states["qvel"] + rest}
            places = states["qpos"].numpy().copy()
            for place, by in zip(places, turn.numpy(), strict=True):
                mujoco.mj_integratePos(model, place, by, 1.0)
            return {"qpos": torch.from_numpy(places), "qvel": states["qvel"] + rest}
        parts = change.split([value[0].numel() for value in states.values()], dim=1)
        pairs = zip(states.items(), parts, strict=True)
        return {name: value + part.reshape(value.shape) for (name, value), part in pairs}


def states_seen(looking: Looking, observations: np.ndarray, generator: torch.Generator) -> Found:
    """Return states in which observations were made.

    Args:
        looking: at the family.
        observations: [N, O].
        generator: draws the starts that are begun from.
    """
    wanted = torch.from_numpy(observations).clone()
    bank = looking.starts(STARTS, generator)
    shown = looking.observe(bank)
    far = wanted.abs().amax(0) > FAR * (1.0 + shown.abs().amax(0))
    if bool(far.any()):
        column = int(far.double().argmax())
        row = looking.family.observables[column]
        raise UserError(
            f"The log has observations of {float(wanted[:, column].abs().max()):.3g} for number {column}, "
            f"{row.meaning} ({row.unit or 'no unit'}), which is {float(shown[:, column].abs().max()):.3g} at most "
            f"where episodes of {looking.family.full_name} start. Check its unit."
        )
    # Of one observation there is no spread.
    spread = wanted.std(0) if len(wanted) > 1 else torch.zeros_like(wanted[0])
    scale = spread + shown.std(0) + 1e-6
    nearest = torch.cdist(wanted / scale, shown / scale).argmin(1)
    states = {name: value[nearest] for name, value in bank.items()}
    damping = torch.full((len(wanted),), 1e-6, dtype=torch.float64)
    miss = (looking.observe(states) - wanted) / scale
    for _ in range(STEPS):
        slopes = _slopes(looking, states, scale)
        tried = looking.moved(states, -_least(slopes, miss, damping))
        new = (looking.observe(tried) - wanted) / scale
        better = new.square().sum(1) < miss.square().sum(1)
        gain = (miss.norm(dim=1) - new.norm(dim=1)).where(better, torch.zeros(()).double())
        states = {n: torch.where(better.view(-1, *[1] * (v.dim() - 1)), tried[n], v) for n, v in states.items()}
        miss = torch.where(better[:, None], new, miss)
        damping = torch.where(better, damping / 10, damping * 10).clamp(1e-12, 1e6)
        if float(gain.max()) < 1e-9:
            break
    slopes = _slopes(looking, states, scale)
    values = torch.linalg.svdvals(slopes)
    ranks = (values > SEEN * values.amax(1, keepdim=True)).sum(1)
    rank = int(ranks.max())
    # Differences to both sides differ where a sensor is at its end.
    back = _slopes(looking, states, scale, -NUDGE)
    bent = (slopes - back).flatten(1).norm(dim=1) > BENT * slopes.flatten(1).norm(dim=1)
    right = (ranks == rank) & ~bent
    _, _, directions = torch.linalg.svd(slopes[int(right.double().argmax())])
    return Found(states=states, right=right, hidden=directions[rank:], slopes=slopes * scale[:, None])


def _slopes(looking: Looking, states: Fields, scale: Tensor, nudge: float = NUDGE) -> Tensor:
    """Return the change of every observation, in units of `scale`, by a change of the state, [N, O, Z]."""
    size = looking.size(states)
    count = len(next(iter(states.values())))
    repeated = {name: value.repeat_interleave(size + 1, 0) for name, value in states.items()}
    change = torch.cat((torch.zeros(1, size), torch.eye(size))).double().repeat(count, 1) * nudge
    seen = looking.observe(looking.moved(repeated, change)).unflatten(0, (count, size + 1)) / scale
    return ((seen[:, 1:] - seen[:, :1]) / nudge).transpose(1, 2)


def _least(slopes: Tensor, miss: Tensor, damping: Tensor) -> Tensor:
    """Return the damped least-squares change of the state that explains a miss, [N, Z]."""
    left, values, right = torch.linalg.svd(slopes, full_matrices=False)
    seen = values > SEEN * values[:, :1]
    factor = torch.where(seen, values / (values.square() + damping[:, None] * values[:, :1].square()), 0.0)
    return torch.einsum("nzi,ni,noi,no->nz", right.transpose(1, 2), factor, left, miss)
