"""B worlds of a family stepped together: the one place where episodes begin and end.

An engine supplies the physics (`Physics`: write, advance); `Worlds` adds tasks, observation, reward, termination
and the time limit, so that these cannot differ between engines.

Tasks and starts are drawn on the host, from CPU generators: one seed gives the same ones on every engine. What a step
needs and returns is on the engine's device. An engine in lockstep (a GPU's) never makes the host wait for it: there
`step` takes no decision from a tensor, and what would be an error in it (a wrong action) is raised at the next reset.
What a step changes there stays in its place, so that a step can be launched as one (metarl/launches.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.actions import Actions
from metarl.envs.driving import Drive
from metarl.envs.family import Family, State
from metarl.envs.going_back import GoingBack
from metarl.envs.modifiers.switching import STEP, SwitchSpace
from metarl.envs.physics import Physics
from metarl.envs.returns import check_observation, check_step
from metarl.errors import UserError
from metarl.launches import Launch, Launches, copied, under_way
from metarl.ranks import ALONE, Ranks
from metarl.types import Step, Tasks


class Worlds(GoingBack):
    """B parallel worlds of one family (see `metarl.types.BatchEnv`).

    Args:
        family: the family.
        num_worlds: B.
        physics: the engine.
        unit_actions: actions come scaled, -1..1 meaning low..high (agents); else in physical units. A discrete
            family takes one-hot rows either way.
        dtype: of observations and rewards; physics and reward are computed in float64.
        ranks: which of them have a share of the worlds each, as these B.

    Attributes:
        actions: what is right of actions, and what they mean.
        device: where actions are taken and observations returned.
        tasks: one task per world, as `set_tasks` was given them, on the host; None before the first reset.
        starts: states that the episodes of the last reset began in, on the host, a row for each world that was reset.
        present: what the family and the physics are told: the same, but where tasks switch (see modifiers/switching.py)
            the part of every task that is in force.
    """

    def __init__(
        self,
        family: Family,
        num_worlds: int,
        physics: Physics,
        *,
        unit_actions: bool = True,
        dtype: torch.dtype = torch.float32,
        ranks: Ranks = ALONE,
    ) -> None:
        self.family = family
        self.ranks = ranks
        self.family_name = family.full_name
        self.num_worlds = num_worlds
        self.horizon = family.horizon
        self.observation_size = family.observation_size
        self.action_size = family.action_size
        self.physics = physics
        self.drive = Drive(family, num_worlds, physics)
        self.device = device = physics.device
        self.dtype = dtype
        self.tasks: Tasks | None = None
        self.starts: dict[str, Tensor] = {}
        self.present: Tasks | None = None
        # The two above, on the device.
        self._all_tasks: Tasks | None = None
        self._seen: Tasks | None = None
        self._switch = family.space if isinstance(family.space, SwitchSpace) else None
        self._trial_steps = torch.zeros(num_worlds, dtype=torch.long, device=device)
        self._later = torch.zeros(num_worlds, dtype=torch.bool, device=device)
        # Parameters of the tasks that whoever sets them does not know.
        self._hidden: dict[str, Tensor] = {}
        self._next_tasks: Tasks | None = None
        self._next_tasks_due = torch.zeros(num_worlds, dtype=torch.bool)
        self.actions = Actions(family, num_worlds, device, unit=unit_actions)
        self._elapsed = torch.zeros(num_worlds, dtype=torch.long, device=device)
        self._active = torch.zeros(num_worlds, dtype=torch.bool, device=device)
        self._all_active = False
        # Whether what the family's functions return has been looked at.
        self._start_is_right = self._step_is_right = False
        self._failures = torch.zeros(num_worlds, dtype=torch.long, device=device)
        self._wrong_action = torch.zeros(num_worlds, dtype=torch.bool, device=device)
        self._observation = torch.zeros(num_worlds, self.observation_size, dtype=dtype, device=device)
        # The actions of a launched step.
        self._given = torch.zeros(num_worlds, self.action_size, dtype=torch.float64, device=device)
        # What worlds that do not move are paid.
        self._nothing = torch.zeros((), dtype=torch.float64, device=device)

    @property
    def failures(self) -> int:
        """Simulations that became invalid since construction."""
        return int(self._failures.sum())

    @property
    def launches(self) -> Launches | None:
        """Where launches of steps are kept; None where a step cannot be captured."""
        # Whether tasks switch is looked for in every step.
        return None if self._switch is not None else self.physics.launches

    @property
    def state(self) -> State:
        """What the family is told of the worlds: the fields of the physics, and those that it carries."""
        return self.drive.state

    # -- tasks and steps ----------------------------------------------------------------------------------------------

    def set_tasks(self, tasks: Tasks) -> None:
        """Give world i the task i, from its next reset on.

        Raises:
            UserError: tasks of another family, or not one per world.
        """
        if self._hidden:
            tasks = replace(tasks, values={**tasks.values, **self._hidden})
        if tasks.family != self.family_name:
            raise UserError(f"got tasks of {tasks.family}, these worlds are {self.family_name}: sample from its space")
        if len(tasks) != self.num_worlds:
            raise UserError(f"got {len(tasks)} tasks for {self.num_worlds} worlds: give one per world (Tasks.repeat)")
        self._next_tasks = tasks
        self._next_tasks_due[:] = True

    def hide(self, family: str, parameters: Mapping[str, Tensor]) -> None:
        """Take tasks that lack some of the parameters from here on, and give all that are set these values of them.

        Args:
            family: full name of the family whose tasks have the others.
            parameters: name -> values of every world, [B, ...].
        """
        self.family_name, self._hidden = family, dict(parameters)

    def reset(self, generator: torch.Generator, worlds: Tensor | None = None) -> Float[Tensor, "B O"]:
        """Start a new episode in every world, or in those of `worlds` (indices in ascending order, [N]).

        Raises:
            UserError: no tasks yet; in lockstep, a step since the last reset was given a wrong action.
        """
        if self.physics.lockstep:
            try:
                self.actions.check_episode(self._wrong_action)
            finally:
                self._wrong_action.zero_()
        tasks, seen = self._start_tasks(None if worlds is None else worlds.cpu())
        if self._switch is not None:
            tasks, seen = self._switch_tasks(self._switch, worlds)
        begun = tasks if worlds is None else tasks.select(worlds.cpu())
        self.starts = self._starts(generator, begun)
        self.drive.start(self.starts, worlds, seen)
        rows = slice(None) if worlds is None else worlds.to(self.device)
        self._elapsed[rows] = 0
        self._active[rows] = True
        self._all_active = worlds is None or (not self.physics.lockstep and bool(self._active.all()))
        observation = self.family.observe(self.state, seen)
        if not self._start_is_right:
            check_observation(self.family, self.num_worlds, observation)
            self._start_is_right = True
        self._observation[rows] = observation[rows].to(self.dtype)
        return self._observation.clone()

    def _starts(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Tensor]:
        """Return states to begin with; they are drawn for the worlds of all ranks."""
        if self.ranks.size == 1:
            return self.family.reset_state(generator, tasks)
        # How much is drawn does not depend on the tasks: these stand for those of the other ranks.
        everyone = tasks.select(torch.arange(len(tasks)).repeat(self.ranks.size))
        return {name: self.ranks.own(value) for name, value in self.family.reset_state(generator, everyone).items()}

    def _start_tasks(self, worlds: Tensor | None) -> tuple[Tasks, Tasks]:
        """Give the worlds the tasks that are due to them; return everyone's present ones, on the host and as seen."""
        if self._next_tasks is None:
            if self.present is None or self._seen is None:
                raise UserError("these worlds have no tasks yet: call set_tasks before reset")
            return self.present, self._seen
        rows = torch.arange(self.num_worlds) if worlds is None else worlds
        rows = rows[self._next_tasks_due[rows]]
        if self.tasks is None or len(rows) == self.num_worlds:
            tasks = self._next_tasks
        else:
            old, new = self.tasks.values, self._next_tasks.values
            tasks = Tasks(self.family_name, {k: old[k].index_copy(0, rows, new[k][rows]) for k in old})
        there = rows.to(self.device)
        self._trial_steps[there], self._later[there] = 0, False
        present = tasks if self._switch is None else self._switch.present(tasks, self._later.cpu())
        if len(rows) > 0:
            self.physics.apply(present, None if len(rows) == self.num_worlds else rows)
        self.tasks, self.present = tasks, present
        self._all_tasks, self._seen = tasks.to(self.device), self._in_place(present)
        self._next_tasks_due[rows] = False
        if not bool(self._next_tasks_due.any()):
            self._next_tasks = None
        return present, self._seen

    def _in_place(self, tasks: Tasks) -> Tasks:
        """Return tasks on the device; those of before with new numbers where a captured step reads them."""
        if self.launches is None:
            return tasks.to(self.device)
        if self._seen is None:
            self._seen = Tasks(tasks.family, {k: v.to(self.device, copy=True) for k, v in tasks.values.items()})
        for name, value in tasks.values.items():
            self._seen[name].copy_(value)
        return self._seen

    def _switch_tasks(self, space: SwitchSpace, worlds: Tensor | None) -> tuple[Tasks, Tasks]:
        """Change the tasks of those of the worlds whose trials are at their switch; return everyone's present ones.

        The host waits for the device here, since a new task may be a new model.
        """
        assert self.tasks is not None
        assert self.present is not None
        assert self._all_tasks is not None
        assert self._seen is not None
        due = (self._trial_steps >= self._all_tasks[STEP]) & ~self._later
        if worlds is not None:
            rows = worlds.to(self.device)
            due = torch.zeros_like(due).index_copy(0, rows, due[rows])
        if self.physics.lockstep:
            due = due & self._active
        if bool(due.any()):
            self._later |= due
            self.present = space.present(self.tasks, self._later.cpu())
            self._seen = self.present.to(self.device)
            self.physics.apply(self.present, due.nonzero().squeeze(1).cpu())
        return self.present, self._seen

    def step(self, action: Float[Tensor, "B A"]) -> Step:
        """Advance every world whose episode has not ended.

        Raises:
            UserError: an action of the wrong shape or not finite, or no reset yet.
        """
        launches = self.launches
        if launches is None or under_way():
            return self._step(action)
        self.actions.check_shape(action)
        with torch.no_grad():
            self._given.copy_(action)
            launch = launches.get(("step", self.horizon), lambda: Launch(self._step_given, launches.backend))
            step = launch()
            return _copy(step) if launch.captured else step

    def _step_given(self) -> Step:
        """Take a step by the actions that were put in their place."""
        return self._step(self._given)

    def _step(self, action: Tensor) -> Step:
        physical = self._physical(action)
        tasks, state, lockstep = self._seen, self.state, self.physics.lockstep
        if tasks is None or not (lockstep or bool(self._active.any())):
            raise UserError("every episode here has ended (or none began): call reset before step")
        worlds = None if lockstep or self._all_active else self._active.nonzero().squeeze(1)
        if self._switch is not None:
            _, tasks = self._switch_tasks(self._switch, worlds)
        before = {name: state[name].clone() for name in self.family.remember}
        failed = self.drive.advance(physical, worlds, tasks)
        if lockstep and failed is not None:
            failed = failed | self._wrong_action
        state = self.state

        terms = self.family.reward_terms(before, state, physical, tasks)
        observation = self.family.observe(state, tasks)
        success = self.family.success(state, tasks)
        terminated = self.family.terminated(state, tasks)
        sooner = self.family.truncated(state, tasks)
        if not self._step_is_right:
            check_observation(self.family, self.num_worlds, observation)
            ends = {"success": success, "terminated": terminated, "truncated": sooner}
            check_step(self.family, self.num_worlds, terms, ends)
            self._step_is_right = True
        observation = observation.to(self.dtype)
        self._elapsed += self._active
        if self._switch is not None:
            self._trial_steps += self._active
        truncated = self._elapsed >= self.horizon
        if sooner is not None:
            truncated = truncated | sooner
        live = self._active
        if failed is not None:
            failed = failed & self._active
            self._failures += failed
            live, truncated = _without(live, failed), truncated | failed
        some_rest = worlds is not None or failed is not None
        if some_rest:
            terms = {name: torch.where(live, value, self._nothing) for name, value in terms.items()}
            observation = torch.where(live[:, None], observation, self._observation)
            success = None if success is None else success & live
        reward = torch.stack(tuple(terms.values())).sum(0)
        terminated = torch.zeros_like(live) if terminated is None else terminated & live
        truncated = _without(truncated & self._active, terminated)
        ended = terminated | truncated
        if lockstep or bool(ended.any()):
            torch.gt(self._active, ended, out=self._active)
            self._all_active = False
        self._observation.copy_(observation)
        # The caller may write into what it gets, and a family may observe a live field of the engine.
        seen = observation if some_rest else self._observation.clone()
        return Step(seen, reward.to(self.dtype), terminated, truncated, terms, success)

    def _physical(self, action: Tensor) -> Tensor:
        """Return what the physics is told, checked."""
        self.actions.check_shape(action)
        action = action.to(self.device)
        if not self.physics.lockstep:
            self.actions.check(action)
        action = action.to(torch.float64)
        if self.physics.lockstep:
            self._wrong_action |= _without(self._active, self.actions.right(action))
        return self.actions.in_bounds(action)


def _without(first: Bool[Tensor, " B"], second: Bool[Tensor, " B"]) -> Bool[Tensor, " B"]:
    """Return `first & ~second`, in a single operation."""
    return first > second


def _copy(step: Step) -> Step:
    """Return what a step returned, to be kept."""
    given = (step.observation, step.reward, step.terminated, step.truncated, *step.terms.values())
    parts = copied(given if step.success is None else (*given, step.success))
    observation, reward, terminated, truncated = parts[:4]
    terms = dict(zip(step.terms, parts[4:], strict=False))
    return Step(observation, reward, terminated, truncated, terms, None if step.success is None else parts[-1])
