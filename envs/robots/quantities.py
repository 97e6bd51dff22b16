"""What of a model may differ from task to task: by kind of thing and name, with field, unit, and what may be done."""

from __future__ import annotations

from dataclasses import dataclass

DOS = ("add", "multiply", "set")
"""What a task's number does to the model's own."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A quantity of a body, geom, joint, actuator or site, or of the world."""

    field: str
    """In `mjModel`; `opt.NAME` for an option."""
    what: str
    """In a few words."""
    units: tuple[str, ...]
    """Of hinges (and all that is no joint), and of slides where that is another."""
    component: int | None = None
    """Which number of a row; None: the row is one number, or all of it."""
    axes: int = 1
    """Numbers of a row that are meant: 3 for a vector."""
    dos: tuple[str, ...] = DOS
    positive: bool = False
    """Whether the model's number cannot be less than 0."""


def _q(field: str, what: str, *units: str, **more: object) -> Quantity:
    return Quantity(field=field, what=what, units=units, **more)  # pyright: ignore[reportArgumentType]


QUANTITIES: dict[str, dict[str, Quantity]] = {
    "body": {
        "mass": _q(
            "body_mass", "mass; multiply and set scale the inertia with it, add is a point mass", "kg", positive=True
        ),
        "inertia": _q("body_inertia", "principal moments of inertia", "", dos=("multiply",), axes=3, positive=True),
        "center_of_mass": _q("body_ipos", "centre of mass in the body's frame", "m", axes=3),
        "position": _q("body_pos", "place in the frame of the body that carries it", "m", axes=3),
    },
    "geom": {
        "friction": _q("geom_friction", "sliding friction", "", component=0, positive=True),
        "torsional_friction": _q("geom_friction", "torsional friction", "m", component=1, positive=True),
        "rolling_friction": _q("geom_friction", "rolling friction", "m", component=2, positive=True),
        "position": _q("geom_pos", "place in the body's frame", "m", axes=3),
        "size": _q("geom_size", "half sizes, or radius and half length", "m", axes=3, dos=("multiply",), positive=True),
    },
    "joint": {
        "damping": _q("dof_damping", "damping", "N m s/rad", "N s/m", positive=True),
        "friction_loss": _q("dof_frictionloss", "dry friction", "N m", "N", positive=True),
        "armature": _q("dof_armature", "inertia of the rotor", "kg m²", "kg", positive=True),
        "stiffness": _q("jnt_stiffness", "stiffness of the spring", "N m/rad", "N/m", positive=True),
        "spring_rest": _q("qpos_spring", "position at which the spring is at rest", "rad", "m"),
    },
    "actuator": {
        "kp": _q("actuator_gainprm", "gain of a servo", "N m/rad", "N/m", component=0, positive=True),
        "kd": _q("actuator_biasprm", "damping of a servo", "N m s/rad", "N s/m", component=2, positive=True),
        "effort": _q(
            "actuator_forcerange", "largest force", "N m", "N", axes=2, positive=True, dos=("multiply", "set")
        ),
        "strength": _q(
            "actuator_gainprm", "every force of it: gains and largest force", "", dos=("multiply",), positive=True
        ),
        "offset": _q("actuator_biasprm", "error of a servo's zero", "rad", "m", component=0, dos=("add",)),
        "gear": _q("actuator_gear", "gear ratio", "", component=0, dos=("multiply",)),
    },
    "site": {"position": _q("site_pos", "place in the body's frame", "m", axes=3)},
    "world": {
        "gravity": _q("opt.gravity", "gravity", "m/s²", axes=3),
        "wind": _q("opt.wind", "velocity of the medium", "m/s", axes=3),
        "density": _q("opt.density", "density of the medium", "kg/m³", positive=True),
        "viscosity": _q("opt.viscosity", "viscosity of the medium", "Pa s", positive=True),
    },
}
"""Kind of thing -> name -> quantity."""

FREE_UNITS = ("m/s", "rad/s", "m", "rad", "N", "N m", "s", "kg", "")
"""Units that a command may have."""


def units_of(kind: str, name: str, do: str) -> tuple[str, ...]:
    """Return the units that a task's range may have: none where it multiplies."""
    return ("",) if do == "multiply" else QUANTITIES[kind][name].units
