"""Objects of eight kinds, as compounds of primitives whose sizes and places are per-world model fields.

Every object has the same five parts: two boxes as branches, one box as bar, an upright cylinder as disc and an
ellipsoid as egg. A kind uses some of them; a part it does not use becomes a sphere-like speck of 1 mm in the middle of
one that it does use, massless, where nothing can reach it. Parts touch but never overlap. The types of the parts are
shared by all worlds, so that every engine can give each world its own shape.

With the length l, the width w and the branch b (fractions of l in a task), and the height h, seen from above:

| number | kind | parts, full extents along x, y, z |
|---|---|---|
| 0 | bar | l, w, h |
| 1 | L | the bar, and at its +x end a branch of w, 2 b, h towards +y |
| 2 | T | the bar, and at its +x end a branch of w, b, h to either side |
| 3 | plate | l, w + 2 b, h / 2 |
| 4 | block | l / 2, l / 2, h |
| 5 | cylinder | l / 2 across, h high |
| 6 | cross | the bar, and in its middle a branch of w, b, h to either side |
| 7 | ellipsoid | 2 l / 3, w + b, 0.8 (w + b) |

The origin is the centre of mass. Density is uniform: mass and inertia follow from the geometry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.envs.family import on
from metarl.errors import UserError
from metarl.space.parameter_space import Parameter
from metarl.types import Tasks

KINDS = ("bar", "L", "T", "plate", "block", "cylinder", "cross", "ellipsoid")
"""The number of a kind is its place here."""
PARTS = ("bar", "left branch", "right branch", "disc", "egg")
"""Names of the geoms, in the order of the model."""
SPECK = 0.001
"""Half extent of a part that the kind does not use, m."""
THINNEST = 0.004
"""Least half extent of a part, m: a speck lies well inside of it."""

VOLUME = torch.tensor([8.0, 8.0, 8.0, 2.0 * math.pi, 4.0 * math.pi / 3.0], dtype=torch.float64)
"""Volume of a part over the product of its half extents."""
SPREAD = torch.tensor([[1 / 3, 1 / 3, 1 / 3]] * 3 + [[1 / 4, 1 / 4, 1 / 3], [1 / 5, 1 / 5, 1 / 5]], dtype=torch.float64)
"""Mean square of a part's points along x, y, z over the squares of its half extents."""


def _rotation() -> Float[Tensor, "3 3 16"]:
    """Return every entry of a rotation matrix as its coefficients of the products of w, x, y, z."""
    w, x, y, z = torch.eye(4, dtype=torch.float64)

    def times(a: Tensor, b: Tensor) -> Tensor:
        return torch.outer(a, b).flatten()

    ww, xx, yy, zz = (times(a, a) for a in (w, x, y, z))
    wx, wy, wz, xy, xz, yz = (2.0 * times(*pair) for pair in ((w, x), (w, y), (w, z), (x, y), (x, z), (y, z)))
    rows = (
        (ww + xx - yy - zz, xy - wz, xz + wy),
        (xy + wz, ww - xx + yy - zz, yz - wx),
        (xz - wy, yz + wx, ww - xx - yy + zz),
    )
    return torch.stack([torch.stack(row) for row in rows])


ROTATION = _rotation()
UP = ROTATION[2].T
"""The z components of a body's x, y and z axis."""


def _layouts() -> tuple[Float[Tensor, "8 5 6 4"], Float[Tensor, "8 5"], Float[Tensor, "8 3 4"]]:
    """Return the kinds' geometry, every size as its coefficients of (l, w, b, h).

    Returns:
        The parts' half extents and centres.
        Which parts are used, 1 or 0.
        Half extents of a box about the centre of mass that holds the object.
    """
    length, width, branch, height = torch.eye(4, dtype=torch.float64)
    zero = torch.zeros(4, dtype=torch.float64)
    x, y, z = length / 2, width / 2, height / 2
    bar = (x, y, z, zero, zero, zero)

    def arm(reach: Tensor, along: Tensor, side: float) -> tuple[Tensor, ...]:
        """Return a branch that sticks out by `reach`, `along` the bar from its middle, towards y * side."""
        return (y, reach / 2, z, along, side * (y + reach / 2), zero)

    end = x - y
    kinds: dict[str, dict[str, tuple[Tensor, ...]]] = {
        "bar": {"bar": bar},
        "L": {"bar": bar, "left branch": arm(2 * branch, end, 1.0)},
        "T": {"bar": bar, "left branch": arm(branch, end, 1.0), "right branch": arm(branch, end, -1.0)},
        "plate": {"bar": (x, y + branch, z / 2, zero, zero, zero)},
        "block": {"bar": (x / 2, x / 2, z, zero, zero, zero)},
        "cylinder": {"disc": (x / 2, x / 2, z, zero, zero, zero)},
        "cross": {"bar": bar, "left branch": arm(branch, zero, 1.0), "right branch": arm(branch, zero, -1.0)},
        "ellipsoid": {"egg": (2 * x / 3, y + branch / 2, 0.8 * (y + branch / 2), zero, zero, zero)},
    }
    # Branches at the end draw the centre of mass of an L or a T towards them, by less than their reach.
    branched = {"L": (x + branch, y + 2 * branch, z), "T": (x + branch, y + branch, z), "cross": (x, y + branch, z)}
    layouts, used, boxes = [], [], []
    for kind in KINDS:
        parts = kinds[kind]
        layouts.append(torch.stack([torch.stack(parts.get(part, (zero,) * 6)) for part in PARTS]))
        used.append([float(part in parts) for part in PARTS])
        boxes.append(torch.stack(branched.get(kind, next(iter(parts.values()))[:3])))
    return torch.stack(layouts), torch.tensor(used, dtype=torch.float64), torch.stack(boxes)


LAYOUTS, USED, BOXES = _layouts()


@dataclass(frozen=True)
class Compound:
    """B objects.

    Attributes:
        half: half extents of the parts, m; an unused part is a speck.
        centre: of the parts, from the centre of mass, m.
        mass: kg.
        inertia: about the principal axes, kg m².
        turn: of the principal axes about z, rad.
        rest: height of the centre of mass when the object lies on the table, m.
    """

    half: Float[Tensor, "B 5 3"]
    centre: Float[Tensor, "B 5 3"]
    mass: Float[Tensor, " B"]
    inertia: Float[Tensor, "B 3"]
    turn: Float[Tensor, " B"]
    rest: Float[Tensor, " B"]

    @property
    def geom_size(self) -> Float[Tensor, "B 5 3"]:
        """The half extents as MuJoCo's geom_size: a cylinder's are its radius and half height."""
        size = self.half.clone()
        size[:, 3, 1], size[:, 3, 2] = self.half[:, 3, 2], 0.0
        return size

    @property
    def quaternion(self) -> Float[Tensor, "B 4"]:
        """The principal axes' orientation, w, x, y, z."""
        zero = torch.zeros_like(self.turn)
        return torch.stack([(self.turn / 2).cos(), zero, zero, (self.turn / 2).sin()], dim=1)


def compound(
    kind: Float[Tensor, " B"] | Int[Tensor, " B"],
    length: Float[Tensor, " B"],
    width: Float[Tensor, " B"],
    branch: Float[Tensor, " B"],
    height: Float[Tensor, " B"],
    mass: Float[Tensor, " B"],
) -> Compound:
    """Return the objects of these shapes.

    Args:
        kind: number of the kind.
        length: l, m.
        width: w, as a fraction of l.
        branch: b, as a fraction of l.
        height: h, m.
        mass: kg.

    Raises:
        UserError: there is no such object, or its parts would be too thin or overlap.
    """
    dims = torch.stack([length, width * length, branch * length, height], dim=1)
    number = _numbers(kind)
    half, centre = _arranged(number, dims)
    used = USED[number]
    _check(dims, half, used, mass)
    share = _shares(half)
    second = torch.einsum("bp,bpi->bi", share, SPREAD * half.square() + centre.square())
    across = torch.einsum("bp,bp,bp->b", share, centre[..., 0], centre[..., 1])
    x, y, z = (mass[:, None] * (second.sum(1, keepdim=True) - second)).unbind(1)
    turn = 0.5 * torch.atan2(-2.0 * mass * across, x - y)
    radius = torch.hypot((x - y) / 2, mass * across)
    inertia = torch.stack([(x + y) / 2 + radius, (x + y) / 2 - radius, z], dim=1)
    rest = half[..., 2].amax(1)
    half = torch.where(used[..., None] > 0.0, half, SPECK)
    return Compound(half, centre, mass, inertia, turn, rest)


def clearance(tasks: Tasks, place: Float[Tensor, "B 3"], quaternion: Float[Tensor, "B 4"]) -> Float[Tensor, " B"]:
    """Return the height of the lowest point of a box about each object, m: the object is at least that high.

    It is exact where the object lies flat, and for a bar, a plate and a block at any orientation.

    Args:
        tasks: with the parameters of `shape_parameters`.
        place: of the centre of mass, m.
        quaternion: the objects' orientation.
    """
    length = tasks["length"]
    dims = torch.stack([length, tasks["width"] * length, tasks["branch"] * length, tasks["height"]], dim=1)
    extent = (on(length, BOXES)[tasks["kind"].long()] @ dims[:, :, None]).squeeze(2)
    up = entries(quaternion, on(quaternion, UP))
    return place[:, 2] - (extent * up.abs()).sum(1)


def entries(quaternion: Float[Tensor, "B 4"], which: Float[Tensor, "16 N"]) -> Float[Tensor, "B N"]:
    """Return entries of the rotation matrices of unit quaternions, `which` being columns of `ROTATION`."""
    return (quaternion[:, :, None] * quaternion[:, None, :]).flatten(1) @ which


def _arranged(number: Int[Tensor, " B"], dims: Float[Tensor, "B 4"]) -> tuple[Tensor, Tensor]:
    """Return half extents (0 of an unused part) and centres of the parts about their common centre of mass, m."""
    half, centre = torch.einsum("bpij,bj->bpi", LAYOUTS[number], dims).split(3, dim=2)
    # An unused part lies in the origin of the layout, which is the middle of the bar, the disc or the egg.
    return half, centre - torch.einsum("bp,bpi->bi", _shares(half), centre)[:, None]


def _shares(half: Float[Tensor, "B 5 3"]) -> Float[Tensor, "B 5"]:
    """Return the parts' shares of the volume."""
    volume = VOLUME * half.prod(2)
    return volume / volume.sum(1, keepdim=True)


def _numbers(kind: Tensor) -> Int[Tensor, " B"]:
    number = kind.nan_to_num(-1.0).long()
    if bool(((number == kind) & (number >= 0) & (number < len(KINDS))).all()):
        return number
    known = ", ".join(f"{i} {name}" for i, name in enumerate(KINDS))
    raise UserError(f"got the kinds {sorted(set(kind.tolist()))} of objects: there are {known}")


def _check(dims: Tensor, half: Tensor, used: Tensor, mass: Tensor) -> None:
    """Refuse objects that cannot be."""
    thin = ((half < THINNEST) & (used[..., None] > 0.0)).any(2).any(1)
    bad = thin | (dims <= 0.0).any(1) | (dims[:, 1] >= dims[:, 0]) | (mass <= 0.0)
    bad |= ~(dims.isfinite().all(1) & mass.isfinite())
    if not bool(bad.any()):
        return
    world = int(bad.nonzero()[0, 0])
    length, width, branch, height = dims[world].tolist()
    raise UserError(
        f"got an object {length:g} m long, {width:g} m wide, {height:g} m high with branches of {branch:g} m and "
        f"{mass[world].item():g} kg: all must be positive, the width below the length, and no part thinner than "
        f"{2 * THINNEST:g} m"
    )


def shape_parameters(
    *,
    friction: tuple[float, float],
    length: tuple[float, float] = (0.07, 0.14),
    longer: tuple[float, float] = (0.14, 0.17),
    height: tuple[float, float] = (0.03, 0.06),
    mass: tuple[float, float] = (0.1, 0.5),
    kinds: tuple[str, ...] = KINDS[:6],
    unseen: tuple[str, ...] = KINDS[6:],
) -> tuple[Parameter, ...]:
    """Return the parameters of an object, by default one that the gripper can handle.

    Out of distribution are other kinds and greater lengths.

    Every kind's size along x is a fixed multiple of its length, so that two objects of one kind whose lengths lie in
    different splits are different shapes.

    Args:
        friction: range of the sliding friction of the object with everything.
        length: training range, m.
        longer: range of lengths out of distribution, m.
        height: range, m.
        mass: range, kg.
        kinds: for training and test.
        unseen: kinds out of distribution.
    """
    numbers, others = ([float(KINDS.index(name)) for name in names] for names in (kinds, unseen))
    names = ", ".join(f"{i} {name}" for i, name in enumerate(KINDS))
    return (
        Parameter(
            name="kind",
            unit="",
            description=names,
            scale="choice",
            choices=tuple(numbers),
            choice_names=(*kinds, *unseen),
            ood=tuple(others),
        ),
        Parameter(
            name="length",
            unit="m",
            description="size of the object along its x axis (half of it: block, cylinder)",
            scale="uniform",
            low=length[0],
            high=length[1],
            ood=longer,
        ),
        Parameter(
            name="width", unit="", description="of the bar, over the length", scale="uniform", low=0.2, high=0.35
        ),
        Parameter(
            name="branch", unit="", description="of a branch, over the length", scale="uniform", low=0.12, high=0.2
        ),
        Parameter(name="height", unit="m", description="of the object", scale="uniform", low=height[0], high=height[1]),
        Parameter(name="mass", unit="kg", description="of the object", scale="uniform", low=mass[0], high=mass[1]),
        Parameter(
            name="friction",
            unit="",
            description="sliding friction of the object with the table and the gripper",
            scale="uniform",
            low=friction[0],
            high=friction[1],
        ),
    )
