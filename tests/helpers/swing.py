"""A pendulum in torch whose parameters are known: quick to simulate, and each of them is told by other things."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs import make_worlds
from metarl.envs.family import Family, Observable, State, Terms, TorchFamily, random_actions
from metarl.identification.log import Log
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import ParameterSpace
from metarl.types import Tasks


def factor(name: str, low: float = 0.5, high: float = 2.0) -> Parameter:
    return Parameter(name=name, unit="", description=name, scale="log-uniform", low=low, high=high)


STIFFNESS, DAMPING, GAIN = factor("stiffness"), factor("damping"), factor("gain")
COLOUR = Parameter(name="colour", unit="", description="nothing depends on it", scale="uniform", low=0.0, high=1.0)
TARGET = Parameter(name="target", unit="rad", description="rewarded angle", scale="uniform", low=-1.0, high=1.0)
WIRED = Parameter(name="wired", unit="", description="sign", scale="choice", choices=(-1.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class Swing(TorchFamily):
    parameters: tuple[Parameter, ...] = (STIFFNESS, DAMPING, GAIN)
    name: str = "swing"
    variant: str = "test"
    summary: str = "swing"
    source: str = "here"
    horizon: int = 60
    step_seconds: float = 0.05
    action_low: tuple[float, ...] = (-1.0,)
    action_high: tuple[float, ...] = (1.0,)
    action_unit: str = "N m"
    observables: tuple[Observable, ...] = (Observable("angle", "-", "rad"), Observable("speed", "-", "rad/s"))

    @property
    def space(self) -> ParameterSpace:  # pyright: ignore[reportIncompatibleVariableOverride]
        return ParameterSpace(self.full_name, self.parameters)

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        return {"pose": torch.randn(len(tasks), 2, generator=generator, dtype=torch.float64)}

    def advance(self, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> dict[str, Tensor]:
        angle, speed = state["pose"].unbind(1)

        def task(name: str) -> Tensor:
            return tasks[name] if name in tasks.values else torch.ones_like(angle)

        push = task("wired") * 6.0 * task("gain") / task("mass") * action[:, 0]
        for _ in range(5):
            pull = -8.0 * task("stiffness") * angle.sin() - 1.5 * task("damping") * speed
            speed = speed + 0.01 * (pull + push)
            angle = angle + 0.01 * speed
        return {"pose": torch.stack((angle, speed), dim=1)}

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        return state["pose"].clone()

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        target = tasks["target"] if "target" in tasks.values else torch.zeros_like(action[:, 0])
        return {"near": -(state["pose"][:, 0] - target).abs()}


@dataclass(frozen=True, kw_only=True)
class Blind(Swing):
    """Its speed is not seen."""

    name: str = "blind"
    observables: tuple[Observable, ...] = (Observable("angle", "-", "rad"),)

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        return state["pose"][:, :1].clone()


def logged(
    family: Family,
    truth: dict[str, float],
    seed: int = 0,
    *,
    noise: float = 0.0,
    episodes: int = 3,
    rewards: bool = False,
    states: str = "",
) -> Log:
    """Return a log of random actions, with normal noise on observations in rad and rad/s.

    Args:
        family: what is driven.
        truth: its task.
        seed: of starts, actions and noise.
        noise: standard deviation.
        episodes: E.
        rewards: whether the log has them.
        states: which states the log has: `start`, `state`, or none.
    """
    generator = torch.Generator().manual_seed(seed)
    values = {name: torch.full((episodes,), value, dtype=torch.float64) for name, value in truth.items()}
    tasks = Tasks(family.full_name, values)
    worlds = make_worlds(family, episodes, unit_actions=False, dtype=torch.float64)
    worlds.set_tasks(tasks)
    seen, actions, paid, poses = [worlds.reset(generator)], [], [], [worlds.physics.state["pose"].clone()]
    for _ in range(family.horizon):
        actions.append(random_actions(family, episodes, generator))
        step = worlds.step(actions[-1])
        seen.append(step.observation)
        paid.append(step.reward)
        poses.append(worlds.physics.state["pose"].clone())
    shown = torch.stack(seen, 1)
    shown = shown + noise * torch.randn(shown.shape, generator=generator, dtype=torch.float64)
    return Log(
        family=family.full_name.partition("+")[0],
        step_seconds=family.step_seconds,
        lengths=np.full(episodes, family.horizon),
        observations=shown[:, :-1].flatten(0, 1).numpy(),
        actions=torch.stack(actions, 1).flatten(0, 1).numpy(),
        final_observations=shown[:, -1].numpy(),
        rewards=torch.stack(paid, 1).flatten().numpy() if rewards else None,
        starts={"pose": poses[0].numpy()} if states == "start" else {},
        states={"pose": torch.stack(poses[:-1], 1).flatten(0, 1).numpy()} if states == "state" else {},
        tasks={name: value.numpy() for name, value in values.items()},
    )
