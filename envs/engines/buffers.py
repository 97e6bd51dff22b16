"""Room for contacts and constraint rows in the buffers of the GPU engine.

mujoco_warp's buffers are allocated once: what finds no room in them is dropped. So there is room for all that can
happen, where that is affordable: every pair of geoms that can touch does so with as many contacts as mujoco_warp finds
for its kind, while all joints and tendons are at their limits (`bound`). No buffer can overflow then. Where a model has
too many pairs, or kinds without a bound, the CPU engine plays and shows what is needed (`measure_buffers`), and there
is room for a multiple of that. What proves too small in spite of it is widened (`Room.widened`; gpu.py says when);
of the four stages of a Runge-Kutta step mujoco_warp tells of the last.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

import mujoco
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.envs.driving import Drive
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.family import MujocoFamily, random_actions
from metarl.envs.modifiers.switching import SwitchSpace
from metarl.types import Tasks

HEADROOM = 2.0
"""There is room for so many times what was seen, where that is measured."""
LEAST = 8
"""Constraint rows that every world has room for."""
MOST_BYTES = 1 << 20
"""Device memory that the buffers of a world may take, so that 16,384 worlds stay below a fifth of 80 GB."""
CONTACT_BYTES, ROW_BYTES, CONVEX_BYTES = 240, 96, 8192
"""What mujoco_warp 4.0.0 allocates for a contact, for a row beside its Jacobian, and for a pair in EPA's hands."""

_PLANE, _HFIELD, _SPHERE, _CAPSULE, _ELLIPSOID, _CYLINDER, _BOX, _MESH = (
    int(getattr(mujoco.mjtGeom, f"mjGEOM_{name}"))
    for name in ("PLANE", "HFIELD", "SPHERE", "CAPSULE", "ELLIPSOID", "CYLINDER", "BOX", "MESH")
)

PRIMITIVE = {
    (_PLANE, _SPHERE): 1,
    (_PLANE, _CAPSULE): 2,
    (_PLANE, _ELLIPSOID): 1,
    (_PLANE, _CYLINDER): 4,
    (_PLANE, _BOX): 8,
    (_PLANE, _MESH): 4,
    (_SPHERE, _SPHERE): 1,
    (_SPHERE, _CAPSULE): 1,
    (_SPHERE, _CYLINDER): 1,
    (_SPHERE, _BOX): 1,
    (_CAPSULE, _CAPSULE): 2,
    (_CAPSULE, _BOX): 2,
}
"""Most contacts of a pair of geoms of two types that mujoco_warp computes in closed form (collision_primitive.py)."""
CONVEX = 4
"""Most contacts of any other pair, which GJK and EPA compute (collision_convex.py), as those on height fields."""
BOXES = 8
"""Most contacts of two boxes in closed form, which a model may ask for (`nativeccd="disable"`)."""
EQUALITY_ROWS = {
    mujoco.mjtEq.mjEQ_CONNECT: 3,
    mujoco.mjtEq.mjEQ_WELD: 6,
    mujoco.mjtEq.mjEQ_JOINT: 1,
    mujoco.mjtEq.mjEQ_TENDON: 1,
}


@dataclass(frozen=True, kw_only=True)
class Room:
    """For how much there is room in the buffers."""

    contacts: int
    """Contacts of a world, and pairs that come close, on average: all worlds share this room."""
    constraints: int
    """Constraint rows of every world."""
    convex: int
    """Pairs of a world that EPA has in hand, of any one kind, on average: all worlds share this room."""

    def at_least(self, kept: Mapping[str, int]) -> Room:
        """Return the larger of this and of what an earlier start came to, field by field.

        Args:
            kept: of `plain`; empty where nothing was kept.
        """
        return Room(**{name: max(value, kept.get(name, 0)) for name, value in asdict(self).items()})

    def widened(self, fields: Iterable[str], bound: Room | None) -> Room:
        """Return more room: all that can be needed, or twice as much where that is not known, or was not enough.

        Args:
            fields: which of the three were too small.
            bound: of the model.
        """
        larger: dict[str, int] = {}
        for name in fields:
            here, most = getattr(self, name), 0 if bound is None else getattr(bound, name)
            larger[name] = most if most > here else 2 * max(1, here)
        room = replace(self, **larger)
        # EPA works on pairs that came close.
        return replace(room, contacts=max(room.contacts, room.convex))

    def plain(self) -> dict[str, int]:
        """Return it as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        pairs = f" ({self.convex} pairs in EPA's hands)" if self.convex else ""
        return f"{self.contacts} contacts{pairs} and {self.constraints} constraint rows"


def room_for(
    family: MujocoFamily, model: mujoco.MjModel, varied: Iterable[str] = (), kept: Mapping[str, int] | None = None
) -> tuple[Room, Room | None]:
    """Return the room to begin with, and the bound of what can be needed where there is one.

    Args:
        family: the family.
        model: its model as the GPU engine runs it.
        varied: the fields of which every world has its own values.
        kept: what an earlier start came to: then nothing is measured.
    """
    most = bound(model, varied)
    if most is not None and _bytes(most, model) <= MOST_BYTES:
        return most.at_least(kept or {}), most
    if kept:
        return Room(contacts=0, constraints=0, convex=0).at_least(kept), most
    seen = measure_buffers(family, model)
    room = Room(
        contacts=_with_headroom(seen.contacts),
        constraints=max(LEAST, _with_headroom(seen.constraints)),
        convex=_with_headroom(seen.convex) if seen.convex else 0,
    )
    return room if most is None else _smaller(room, most), most


def _with_headroom(seen: int) -> int:
    return 8 * math.ceil(HEADROOM * max(seen, 1) / 8.0)


def _smaller(one: Room, other: Room) -> Room:
    return Room(**{name: min(value, getattr(other, name)) for name, value in asdict(one).items()})


def _bytes(room: Room, model: mujoco.MjModel) -> int:
    """Return about how much device memory the buffers of a world take, bytes."""
    columns = 4 * math.ceil(model.nv / 4)
    rows = room.constraints * (ROW_BYTES + 4 * columns)
    return room.contacts * CONTACT_BYTES + rows + room.convex * CONVEX_BYTES


# -- bound ------------------------------------------------------------------------------------------------------------


def pairs(model: mujoco.MjModel) -> Int[np.ndarray, "N 2"]:
    """Return the N pairs of geoms that are tested for contacts, as MuJoCo filters them."""
    first, second = np.triu_indices(model.ngeom, k=1)
    bodies = model.geom_bodyid[first], model.geom_bodyid[second]
    one, two = (model.body_weldid[body] for body in bodies)
    above_one, above_two = (model.body_weldid[model.body_parentid[weld]] for weld in (one, two))
    types, affinities = model.geom_contype, model.geom_conaffinity
    wanted = ((types[first] & affinities[second]) | (types[second] & affinities[first])) != 0
    wanted &= (one != two) & ((model.body_dofnum[one] > 0) | (model.body_dofnum[two] > 0))
    if not model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_FILTERPARENT:
        wanted &= ~((one != 0) & (two != 0) & ((one == above_two) | (two == above_one)))
    wanted &= ~np.isin((bodies[0] << 16) + bodies[1], model.exclude_signature)
    for named in zip(model.pair_geom1, model.pair_geom2, strict=True):
        wanted |= (first == min(named)) & (second == max(named))
    return np.stack((first[wanted], second[wanted]), axis=1)


def bound(model: mujoco.MjModel, varied: Iterable[str] = ()) -> Room | None:
    """Return room for all that can happen at once; None where no bound is known.

    Args:
        model: as the GPU engine runs it.
        varied: the fields of which every world has its own values.
    """
    varied = set(varied)
    no_contacts = mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
    known = set(model.eq_type.tolist()) <= {int(kind) for kind in EQUALITY_ROWS}
    # Distance sensors make contacts of their own.
    sensors = {mujoco.mjtSensor.mjSENS_GEOMDIST, mujoco.mjtSensor.mjSENS_GEOMNORMAL, mujoco.mjtSensor.mjSENS_GEOMFROMTO}
    if model.nflex or not known or sensors & set(model.sensor_type.tolist()):
        return None
    rows = sum(EQUALITY_ROWS[mujoco.mjtEq(kind)] for kind in model.eq_type.tolist())
    rows += int(model.jnt_limited.sum()) + int(model.tendon_limited.sum())
    for field in ("dof_frictionloss", "tendon_frictionloss"):
        losses = getattr(model, field)
        rows += len(losses) if field in varied else int((losses > 0.0).sum())
    contacts, kinds = 0, Counter[tuple[int, int]]()
    for one, two in () if model.opt.disableflags & no_contacts else pairs(model).tolist():
        kind = _kind(model, one, two)
        most = _most_contacts(model, kind)
        if most is None:
            return None
        contacts += most
        rows += most * _rows_of_contact(model, one, two)
        if kind not in PRIMITIVE:
            kinds[kind] += 1
    return Room(contacts=max(1, contacts), constraints=max(LEAST, rows), convex=max(kinds.values(), default=0))


def _kind(model: mujoco.MjModel, one: int, two: int) -> tuple[int, int]:
    lower, upper = sorted((int(model.geom_type[one]), int(model.geom_type[two])))
    return lower, upper


def _most_contacts(model: mujoco.MjModel, kind: tuple[int, int]) -> int | None:
    """Return the most contacts of a pair of such geoms, None where that is not known."""
    if kind[1] > _MESH:
        return None
    if kind == (_BOX, _BOX) and model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_NATIVECCD:
        return BOXES
    return PRIMITIVE.get(kind, CONVEX)


def _rows_of_contact(model: mujoco.MjModel, one: int, two: int) -> int:
    """Return the constraint rows of a contact of two geoms."""
    named = ((model.pair_geom1 == one) & (model.pair_geom2 == two)) | (
        (model.pair_geom1 == two) & (model.pair_geom2 == one)
    )
    own = [int(model.geom_condim[one]), int(model.geom_condim[two]), *model.pair_dim[named].tolist()]
    size = max(own)
    return size if size == 1 or model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC else 2 * (size - 1)


# -- measurement ------------------------------------------------------------------------------------------------------


def measure_buffers(
    family: MujocoFamily, model: mujoco.MjModel | None = None, steps: int = 120, every: int = 3
) -> Room:
    """Play on the CPU engine, and return the most that any world needed.

    The worlds have tasks of all splits, and those at the ends of every range; they act as in `trying_actions`.

    Args:
        family: the family.
        model: its model as the GPU engine runs it; the family's if None.
        steps: control steps of a world.
        every: how many of them lie between two looks.
    """
    model = family.model if model is None else model
    generator = torch.Generator().manual_seed(0)
    tasks = extreme_tasks(family, generator)
    worlds = len(tasks)
    physics = MujocoPhysics(family, worlds, threads=1)
    physics.apply(tasks, None)
    drive = Drive(family, worlds, physics)
    drive.start(family.reset_state(generator, tasks), None, tasks)
    low, high = (torch.tensor(limit, dtype=torch.float64) for limit in (family.action_low, family.action_high))
    tested = pairs(model)
    seen = {"contacts": 0, "constraints": 0, "convex": 0}
    action = torch.zeros(worlds, family.action_size, dtype=torch.float64)
    own, data = physics.snapshot(0)
    for step in range(steps):
        if step % every == 0:
            for world in range(worlds):
                physics.snapshot(world, own, data)
                close = close_pairs(own, data, tested)
                kinds = Counter(_kind(model, one, two) for one, two in close.tolist())
                found = {
                    "contacts": max(data.ncon, len(close)),
                    "constraints": data.nefc,
                    "convex": max((count for kind, count in kinds.items() if kind not in PRIMITIVE), default=0),
                }
                seen = {name: max(value, int(found[name])) for name, value in seen.items()}
        action = trying_actions(family, worlds, step, action, generator)
        drive.advance(action if family.discrete else low + (action + 1.0) * 0.5 * (high - low), None, tasks)
    return Room(**seen)


def extreme_tasks(family: MujocoFamily, generator: torch.Generator, each: int = 8, drawn: int = 256) -> Tasks:
    """Return tasks of all splits: some of each, and those with the smallest and largest value of every parameter.

    Args:
        family: the family.
        generator: draws them.
        each: how many there are of every split beside the extreme ones, which at most double that.
        drawn: among how many the extreme ones are looked for.
    """
    # Of a trial whose task switches, either part.
    space = family.space.base if isinstance(family.space, SwitchSpace) else family.space
    parts: list[Tasks] = []
    for split in ("train", "test", *(("ood",) if space.has_ood else ())):
        tasks = space.sample(drawn, split, generator)
        columns = torch.cat([value.reshape(drawn, -1).double() for value in tasks.values.values()], dim=1)
        ends = torch.cat((columns.argmin(0), columns.argmax(0))).unique()
        parts.append(tasks.select(torch.cat((ends[:each], torch.arange(each)))))
    values = {name: torch.cat([part[name] for part in parts]) for name in parts[0].values}
    return Tasks(parts[0].family, values)


def trying_actions(
    family: MujocoFamily, worlds: int, step: int, before: Float[Tensor, "B A"], generator: torch.Generator
) -> Float[Tensor, "B A"]:
    """Return actions in -1..1 that bring robots to their limits, another kind for every sixth world.

    They are uniform; normal with the deviations 0.5, 1 and 2, cut off at the bounds, as agents act that begin; and at
    the bounds, drawn anew in every step, or held for 20.

    Args:
        family: whose actions.
        worlds: B.
        step: number of the step.
        before: the actions of the step before.
        generator: draws them.
    """
    uniform = random_actions(family, worlds, generator)
    if family.discrete:
        return uniform
    kind = torch.arange(worlds) % 6
    normal = torch.randn(worlds, family.action_size, generator=generator, dtype=torch.float64)
    deviation = torch.tensor([0.0, 0.5, 1.0, 2.0, 0.0, 0.0], dtype=torch.float64)[kind][:, None]
    action = torch.where(deviation > 0.0, (deviation * normal).clamp(-1.0, 1.0), uniform)
    action = torch.where((kind >= 4)[:, None], normal.sign(), action)
    return torch.where((kind == 5)[:, None], before, action) if step % 20 else action


def close_pairs(model: mujoco.MjModel, data: mujoco.MjData, tested: Int[np.ndarray, "N 2"]) -> Int[np.ndarray, "M 2"]:
    """Return those of the pairs whose bounding spheres meet: at least those that mujoco_warp looks at closely.

    Args:
        model: of the world.
        data: of the world.
        tested: pairs of geoms.
    """
    one, two = tested.T
    # The ground comes first.
    ground = np.isin(model.geom_type, (_PLANE, _HFIELD))
    one, two = np.where(ground[two], two, one), np.where(ground[two], one, two)
    reach = model.geom_rbound[one] + model.geom_rbound[two]
    reach += np.maximum(model.geom_margin[one], model.geom_margin[two]) * 2.0
    apart = data.geom_xpos[two] - data.geom_xpos[one]
    distance = np.linalg.norm(apart, axis=1)
    # Planes and height fields have no bounding sphere of use: the height above counts.
    normal = data.geom_xmat[one].reshape(-1, 3, 3)[:, :, 2]
    height = np.einsum("ij,ij->i", apart, normal)
    flat = model.geom_type[one] == _PLANE
    return tested[np.where(ground[one], ~flat | (height <= reach), distance <= reach)]
