"""A family looked at before anyone trains on it: what it consists of, what it pays, whether its physics holds.

Episodes are played with random actions, and with saturated ones: each at one end of its bounds, changed now and then.
Half of the episodes of either are on training tasks, half on tasks out of distribution, where there are some.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.devices import torch_threads
from metarl.envs import make_worlds
from metarl.envs.draw import make_painter
from metarl.envs.family import Family, MujocoFamily, random_actions
from metarl.envs.worlds import Worlds
from metarl.evaluation.film import Clip
from metarl.seeding import Streams

ROUND = 250
"""Episodes that are played side by side at most."""
RESTING = 64
"""Episodes of the robot at rest at most."""
CHANGE = 0.1
"""Chance of a saturated action to change its end in a step."""
ACTIONS = ("random", "saturated")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Numbers of many steps."""

    mean: float
    low: float
    high: float


@dataclass(kw_only=True)
class _Sum:
    """Numbers that are being added up, a column each."""

    total: Tensor
    low: Tensor
    high: Tensor
    count: int = 0

    @classmethod
    def of(cls, size: int) -> _Sum:
        blank = torch.zeros(size, dtype=torch.float64)
        return cls(total=blank, low=blank + math.inf, high=blank - math.inf)

    def add(self, rows: Float[Tensor, "B N"]) -> None:
        if len(rows):
            rows = rows.double()
            self.total += rows.sum(0)
            self.low, self.high = torch.minimum(self.low, rows.amin(0)), torch.maximum(self.high, rows.amax(0))
            self.count += len(rows)

    def spreads(self) -> list[Spread]:
        columns = zip((self.total / max(1, self.count)).tolist(), self.low.tolist(), self.high.tolist(), strict=True)
        return [Spread(mean=mean, low=low, high=high) for mean, low, high in columns]


@dataclass(frozen=True, kw_only=True)
class Played:
    """What episodes of one kind of action came to."""

    episodes: int
    failures: int
    """Simulations that became invalid."""
    ended: int
    """Episodes that ended before their horizon."""
    rewards: Mapping[str, Spread]
    """Per step."""
    observation: list[Spread]
    largest_speed: float | None
    """Of qvel, m/s or rad/s; None where there is none."""
    fastest: str
    """Joint that had it."""
    steps: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was found of a family."""

    family: Family
    played: Mapping[str, Played]
    """By kind of action: `rest` (none of it for choices), and those of ACTIONS."""
    advice: str
    """What helps where simulations failed, as it was tried; empty where none did."""

    @property
    def failures(self) -> int:
        """Simulations that became invalid."""
        return sum(played.failures for played in self.played.values())

    @property
    def episodes(self) -> int:
        """Episodes that were played."""
        return sum(played.episodes for played in self.played.values())

    @property
    def problems(self) -> list[str]:
        """What nobody can train with, in words."""
        found = []
        if self.failures:
            advice = self.advice or "Mend what it computes, or narrow its tasks."
            found.append(f"{self.failures:,} of {self.episodes:,} simulations failed. {advice}")
        elif self.family.horizon > 1 and all(p.steps == p.episodes for p in self.played.values()):
            found.append(
                f"Each of {self.episodes:,} episodes ended in its first step. Mend its ends, or where it starts."
            )
        rewards = [(name, spread) for played in self.played.values() for name, spread in played.rewards.items()]
        for name in dict.fromkeys(name for name, spread in rewards if not math.isfinite(spread.mean)):
            found.append(f"The reward {name} is not finite, or too large to be added up. Mend it, or its weight.")
        return found

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        family = self.family
        mujoco_family = family if isinstance(family, MujocoFamily) else None
        return {
            "family": family.full_name,
            "horizon": family.horizon,
            "step_seconds": family.step_seconds,
            "observation": [
                {**dataclasses.asdict(row), **dataclasses.asdict(spread)}
                for row, spread in zip(family.observables, self.played["random"].observation, strict=True)
            ],
            "actions": actions_of(family),
            "action_unit": family.action_unit,
            "tasks": family.space.describe(),
            "model": None if mujoco_family is None else model_of(mujoco_family),
            "played": {
                name: {key: value for key, value in dataclasses.asdict(p).items() if key != "observation"}
                for name, p in self.played.items()
            },
            "failures": self.failures,
            "problems": self.problems,
            "advice": self.advice,
        }


def actions_of(family: Family) -> list[dict[str, Any]]:
    """Return name and bounds of every action."""
    names = [f"action {i}" for i in range(family.action_size)]
    if isinstance(family, MujocoFamily) and family.model.nu == family.action_size:
        names = [family.model.actuator(i).name or name for i, name in enumerate(names)]
    bounds = zip(names, family.action_low, family.action_high, strict=True)
    return [{"name": name, "low": low, "high": high} for name, low, high in bounds]


def model_of(family: MujocoFamily) -> dict[str, Any]:
    """Return what a model consists of; mass in kg, times in s."""
    model = family.model
    moving = model.body_weldid != 0
    return {
        "bodies": int(model.nbody),
        "degrees_of_freedom": int(model.nv),
        "actuators": int(model.nu),
        "mass": float(model.body_mass[moving].sum()),
        "time_step": float(model.opt.timestep),
        "integrator": mujoco.mjtIntegrator(model.opt.integrator).name.removeprefix("mjINT_").lower(),
        "frame_skip": family.frame_skip,
    }


def check(family: Family, episodes: int = 1000, *, seed: int = 0, threads: int = 0) -> Check:
    """Play episodes of a family, and say what was found.

    Args:
        family: any family; a file's that is not trusted is not to come here.
        episodes: with random and saturated actions, half of them each; some at rest are added.
        seed: of tasks, starts and actions.
        threads: of the engine; 0 for all cores.

    Returns:
        The figures. Where simulations failed they are played again with smaller time steps, to say which one helps.
    """
    played = {} if family.discrete else {"rest": _play(family, "rest", min(RESTING, episodes), seed, threads)}
    for kind, count in zip(ACTIONS, (episodes - episodes // 2, episodes // 2), strict=True):
        if count:
            played[kind] = _play(family, kind, count, seed, threads)
    found = Check(family=family, played=played, advice="")
    if found.failures and isinstance(family, MujocoFamily):
        return dataclasses.replace(found, advice=_advice(family, found, seed, threads))
    return found


@torch.no_grad()
def _play(family: Family, kind: str, episodes: int, seed: int, threads: int) -> Played:
    """Play episodes with one kind of actions."""
    streams = Streams(seed)
    generator = streams[f"check {kind}"]
    names: list[str] = []
    sums: dict[str, _Sum] = {"observation": _Sum.of(family.observation_size)}
    failures = ended = steps = 0
    seconds, top, fastest = 0.0, -1.0, ""
    splits = ("train", "ood") if family.space.has_ood else ("train",)
    left, number = episodes, 0
    worlds: Worlds | None = None
    while left > 0:
        size = min(left, ROUND, max(1, episodes // 2))
        if worlds is None or worlds.num_worlds != size:
            worlds = make_worlds(family, size, threads=threads)
        before = worlds.failures
        worlds.set_tasks(family.space.sample(size, splits[number % len(splits)], generator))
        with torch_threads(1):
            observation = worlds.reset(generator)
            active, action = torch.ones(size, dtype=torch.bool), _first(family, kind, size, generator)
            for _ in range(family.horizon):
                sums["observation"].add(observation[active])
                action = _next(family, kind, action, generator)
                began = time.perf_counter()
                step = worlds.step(action)
                seconds += time.perf_counter() - began
                steps += int(active.sum())
                names = names or list(step.terms)
                terms = sums.setdefault("rewards", _Sum.of(len(names)))
                terms.add(torch.stack(tuple(step.terms.values()), dim=1)[active])
                observation = step.observation
                active &= ~(step.terminated | step.truncated)
                if "qvel" in worlds.state and isinstance(family, MujocoFamily):
                    top, fastest = _faster(family, worlds.state["qvel"][active], top, fastest)
                ended += int((step.terminated).sum())
                if not bool(active.any()):
                    break
        failures += worlds.failures - before
        left, number = left - size, number + 1
    return Played(
        episodes=episodes,
        failures=failures,
        ended=ended,
        rewards=dict(zip(names, sums["rewards"].spreads(), strict=True)),
        observation=sums["observation"].spreads(),
        largest_speed=top if fastest else None,
        fastest=fastest,
        steps=steps,
        seconds=seconds,
    )


def _faster(family: MujocoFamily, speeds: Float[Tensor, "B V"], top: float, fastest: str) -> tuple[float, str]:
    """Return the largest speed so far, and the joint that had it."""
    if not len(speeds) or not family.model.nv:
        return top, fastest
    most, where = speeds.abs().amax(0).max(0)
    if float(most) <= top:
        return top, fastest
    joint = int(family.model.dof_jntid[int(where)])
    return float(most), family.model.joint(joint).name or f"joint {joint}"


def _first(family: Family, kind: str, worlds: int, generator: torch.Generator) -> Tensor:
    if kind == "rest":
        return torch.zeros(worlds, family.action_size, dtype=torch.float64)
    actions = random_actions(family, worlds, generator)
    return actions if family.discrete or kind == "random" else actions.sign()


def _next(family: Family, kind: str, action: Tensor, generator: torch.Generator) -> Tensor:
    if kind == "rest":
        return action
    drawn = random_actions(family, len(action), generator)
    if kind == "random":
        return drawn
    change = torch.rand(len(action), 1 if family.discrete else family.action_size, generator=generator) < CHANGE
    return torch.where(change, drawn if family.discrete else drawn.sign(), action)


def _advice(family: MujocoFamily, found: Check, seed: int, threads: int) -> str:
    """Return what makes the episodes that failed hold, of what has been tried."""
    tried = []
    for kind, smaller in (("implicitfast", 1), ("", 2), ("implicitfast", 2), ("", 4), ("implicitfast", 4), ("", 10)):
        other = _with_physics(family, kind, smaller)
        integrator = f"integrator: {kind} and " if kind else ""
        words = f"{integrator}time_step: {other.model.opt.timestep:g}"
        again = [_play(other, name, p.episodes, seed, threads) for name, p in found.played.items() if p.failures]
        left = sum(p.failures for p in again)
        if not left:
            return f"With {words} (frame_skip: {other.frame_skip}) none did: write that."
        tried.append(f"{words}: {left:,}")
    return f"Smaller steps do not help ({'; '.join(tried)}): look at masses, gains, armatures and the start."


def _with_physics(family: MujocoFamily, integrator: str, smaller: int) -> MujocoFamily:
    """Return the same family with an integrator, and time steps that are so many times smaller."""
    model = copy.copy(family.model)
    if integrator:
        model.opt.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    model.opt.timestep /= smaller
    other = copy.copy(family)
    for name, value in (("frame_skip", family.frame_skip * smaller), ("model", model)):
        object.__setattr__(other, name, value)
    return other


def pictures(family: Family, *, tasks: int = 3, times: int = 4, seed: int = 0, size: tuple[int, int]) -> list[Clip]:
    """Return pictures of some tasks at some moments of an episode with saturated actions, row by row.

    Args:
        family: any family that can be drawn.
        tasks: rows.
        times: columns: the start, then evenly up to the end of the longest episode.
        seed: of tasks, starts and actions.
        size: width and height of a picture, pixels.

    Raises:
        UserError: the family cannot be drawn, or there is no off-screen OpenGL here.
    """
    worlds = make_worlds(family, tasks, pictures=True)
    painter = make_painter(worlds, *size)
    generator = Streams(seed)["check pictures"]
    drawn = family.space.sample(tasks, "train", generator)
    captions = family.space.in_words(drawn)
    worlds.set_tasks(drawn)
    worlds.reset(generator)
    moments = [round(i * family.horizon / max(1, times - 1)) for i in range(times)]
    active, action = torch.ones(tasks, dtype=torch.bool), _first(family, "random", tasks, generator)
    frames: list[list[Any]] = [[] for _ in range(tasks)]
    ends = [0] * tasks
    for t in range(family.horizon + 1):
        for i in range(tasks if t in moments else 0):
            frames[i] += [painter(i)] * moments.count(t)
        if t == family.horizon:
            break
        if bool(active.any()):
            action = _next(family, "saturated", action, generator) if t % 5 == 0 else action
            step = worlds.step(action)
            ends = [t + 1 if going else end for going, end in zip(active.tolist(), ends, strict=True)]
            active &= ~(step.terminated | step.truncated)
    painter.close()
    seconds = [moment * family.step_seconds for moment in moments]
    return [
        Clip(caption=_caption(captions[i], seconds[k], ends[i] * family.step_seconds), frames=(frame,), returns=(0.0,))
        for i in range(tasks)
        for k, frame in enumerate(frames[i])
    ]


def _caption(task: str, seconds: float, end: float) -> str:
    # The time first: of many parameters a picture has no room for the last ones.
    over = f" (over at {end:.2f} s)" if seconds > end else ""
    return f"{seconds:.2f} s{over}: {task}"
