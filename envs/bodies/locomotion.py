"""What locomotion families share: observation tables, starts, contact forces, task parameters, unknown dynamics."""

from __future__ import annotations

from dataclasses import dataclass, field

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.family import Marker, MujocoFamily, Observable
from metarl.envs.modifiers.dynamics import Scaling, entry_factors, scaled
from metarl.space.parameter_space import FixedTasks, Parameter, ParameterSpace
from metarl.types import Tasks

ARROW_HEIGHT = 0.6
"""Of an arrow over a torso, m."""
SHORTEST_ARROW = 0.05
"""Length of the arrow of a wanted speed of 0, m."""


def planar_observables(joints: tuple[str, ...]) -> tuple[Observable, ...]:
    """Return the observation table of Gymnasium's planar robots: pose but for x, then all velocities.

    Args:
        joints: names of the robot's own joints, in the order of the model.
    """
    return (
        Observable("z of the torso", "rootz", "m"),
        Observable("pitch of the torso", "rooty", "rad"),
        *(Observable(f"angle of {joint}", joint, "rad") for joint in joints),
        Observable("x velocity of the torso", "rootx", "m/s"),
        Observable("z velocity of the torso", "rootz", "m/s"),
        Observable("pitch velocity of the torso", "rooty", "rad/s"),
        *(Observable(f"angular velocity of {joint}", joint, "rad/s") for joint in joints),
    )


def uniform_start(
    model: mujoco.MjModel, noise: float, generator: torch.Generator, worlds: int
) -> dict[str, Float[Tensor, "B D"]]:
    """Return the model's own pose at rest with uniform noise, as Gymnasium's v5 robots but the ant and cheetah do.

    Args:
        model: the robot.
        noise: half-width of the uniform noise on qpos and qvel.
        generator: where the randomness comes from.
        worlds: B.
    """
    size = model.nq + model.nv
    uniform = noise * (torch.rand(worlds, size, generator=generator, dtype=torch.float64) * 2.0 - 1.0)
    return {"qpos": torch.from_numpy(model.qpos0.copy()) + uniform[:, : model.nq], "qvel": uniform[:, model.nq :]}


def compute_contact_forces(spec: mujoco.MjSpec, body: str) -> None:
    """Make MuJoCo's step compute `cfrc_ext`, which it does only where a sensor needs it.

    The sensor is never read; of those that do it, it is the only kind that needs no site.

    Args:
        spec: the robot.
        body: name of any of its bodies.
    """
    spec.add_sensor(
        name="computes cfrc_ext",
        type=mujoco.mjtSensor.mjSENS_FRAMELINACC,
        objtype=mujoco.mjtObj.mjOBJ_XBODY,
        objname=body,
    )


def direction() -> Parameter:
    """Return the task parameter of running forward or backward along x."""
    return Parameter(
        name="direction",
        unit="",
        description="forward or backward",
        scale="choice",
        choices=(-1.0, 1.0),
        choice_names=("backward", "forward"),
    )


def heading() -> Parameter:
    """Return the task parameter of running anywhere in the plane: a unit vector, its angle uniform."""
    return Parameter(name="heading", unit="", description="x and y of the wanted direction", scale="sphere", size=2)


def speed(low: float, high: float, beyond: float) -> Parameter:
    """Return the task parameter of running at a given speed.

    Args:
        low: lower end of the training range, m/s.
        high: upper end of the training range, m/s.
        beyond: how far the out-of-distribution range goes on above it, m/s.
    """
    return Parameter(
        name="velocity",
        unit="m/s",
        description="wanted forward speed",
        scale="uniform",
        low=low,
        high=high,
        ood=((high, high + beyond),),
    )


@dataclass(frozen=True, kw_only=True)
class RandParams(MujocoFamily):
    """A robot with unknown dynamics: log-uniform factors, one for each entry of four fields of its model.

    Source: Rothfuss et al. 2018 (ProMP), used by Rakelly et al. 2019 (PEARL).
    """

    fixed: FixedTasks | None = None
    space: ParameterSpace = field(init=False)
    scalings: tuple[Scaling, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        largest = {"body_mass": 1.5**3, "body_inertia": 1.5**3, "geom_friction": 1.5**3, "dof_damping": 1.3**3}
        meaning = {
            "body_mass": "factors of the bodies' masses",
            "body_inertia": "factors of their principal moments of inertia, each by itself",
            "geom_friction": "factors of the sliding, torsional and rolling friction of the geoms",
            "dof_damping": "factors of the joints' damping",
        }
        scalings = tuple(
            entry_factors(self.model, name, 1.0 / most, most, meaning[name]) for name, most in largest.items()
        )
        object.__setattr__(self, "scalings", scalings)
        parameters = tuple(scaling.parameter for scaling in scalings)
        object.__setattr__(self, "space", ParameterSpace(self.full_name, parameters, fixed=self.fixed))

    def apply(self, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the scaled model fields."""
        return scaled(self.model, {}, self.scalings, tasks)


def arrow(root: Float[Tensor, "B 3"], along: Float[Tensor, "B 2"]) -> Marker:
    """Return a horizontal arrow over a robot that shows what is wanted of it.

    Args:
        root: position of its torso, m.
        along: x and y of the arrow, m.
    """
    over = root + torch.tensor([0.0, 0.0, ARROW_HEIGHT], dtype=torch.float64)
    return Marker(position=over, tip=over + torch.nn.functional.pad(along, (0, 1)), radius=0.03)


def arrow_along_x(root: Float[Tensor, "B 3"], length: Float[Tensor, " B"]) -> Marker:
    """Return such an arrow along x (backward where its length is negative), with a tip even where it is 0."""
    along = torch.where(length.abs() < SHORTEST_ARROW, SHORTEST_ARROW, length)
    return arrow(root, torch.stack((along, torch.zeros_like(along)), dim=1))
