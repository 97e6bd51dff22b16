"""Ground that robots walk over: one height field of many tiles, a task being a tile.

A tile is one kind of ground at one level of difficulty. Every tile is different, flat where an episode starts (in its
middle) and of height 0 along its border, so that the field has no gap and no cliff between tiles.

| kind | ground | largest rise or fall at difficulty 1 |
|---|---|---|
| 0 slopes | straight slopes between points 2 m apart, up to 27 degrees along an axis | 0.5 m |
| 1 waves | smooth hills, about 1.5 m apart | 0.3 m |
| 2 steps | level terraces, a step of 0.15 m from one to the next | 0.45 m |
| 3 rough | bumps, 0.4 m apart | 0.1 m |
| 4 blocks (out of distribution) | level squares of 0.8 m at heights of their own | 0.12 m |

All heights grow in proportion to the difficulty. Difficulty is continuous and the first parameter of its families, so
its position in its range divides train from test (see `metarl.space.parameter_space`). Every strip of it has tiles of
its own, two for a train strip and one for a test strip: no test task shares a tile with a train task.

The tiles are made by code from one fixed seed. A world's tile is moved under its origin (`geom_pos` of the height
field, which every engine can vary), so that positions stay small, and coordinates are those of the tile: the start is
at 0, 0 and the ground there at height 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import mujoco
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.envs.family import Marker, Observable, on
from metarl.errors import UserError
from metarl.space.parameter_space import CELLS, TRAIN_FRACTION, Parameter
from metarl.types import Tasks

SEED = 0
"""Seed of all tiles."""
TRAIN_LEVELS = 2
"""Tiles of a kind in a train strip of the difficulty; a test strip has one."""
LEVELS = CELLS * (TRAIN_LEVELS + 1)
"""Tiles of a kind."""
GRAIN = 2.0**-12
"""Heights are multiples of this, m: machines that round differently in the last bit make the same ground."""
BASE = 1.0
"""Thickness of the ground below its lowest point, m."""
GEOM = "floor"
"""Name of the ground among the model's geoms, as in Gymnasium's robots."""
CAMERA = "chase"
"""Name of the camera that follows the robot."""
GOAL_HEIGHT = 0.4
"""Height of a goal's mark above the ground in pictures, m."""


@dataclass(frozen=True)
class Kind:
    """A kind of ground: random heights at the points of a lattice, and what is between them."""

    name: str
    height: float
    """Largest rise or fall at difficulty 1, m."""
    period: float
    """Distance of neighbouring lattice points, m."""
    between: Literal["linear", "smooth", "level"]
    terraces: int = 0
    """Steps from height 0 to the largest rise; 0 for no steps."""


KINDS = (
    Kind("slopes", height=0.5, period=2.0, between="linear"),
    Kind("waves", height=0.3, period=1.5, between="smooth"),
    Kind("steps", height=0.45, period=2.0, between="smooth", terraces=3),
    Kind("rough", height=0.1, period=0.4, between="linear"),
    Kind("blocks", height=0.12, period=0.8, between="level"),
)
HELD_OUT = 1
"""The last kinds are out of distribution: this many."""
TILES = len(KINDS) * LEVELS
"""Tiles of all kinds."""

DIFFICULTY = Parameter(
    name="difficulty", unit="", description="heights in parts of the largest", scale="uniform", low=0.1, high=1.0
)
KIND = Parameter(
    name="kind",
    unit="",
    description=f"of ground: {', '.join(f'{number} {kind.name}' for number, kind in enumerate(KINDS))}",
    scale="choice",
    choices=tuple(float(number) for number in range(len(KINDS) - HELD_OUT)),
    choice_names=tuple(kind.name for kind in KINDS),
    ood=tuple(float(number) for number in range(len(KINDS) - HELD_OUT, len(KINDS))),
)


def _level_ends() -> Float[Tensor, " ends"]:
    """Return the difficulty at which every level but the last ends and the next begins."""
    low, high = DIFFICULTY.bounds
    parts = [*(TRAIN_FRACTION * part / TRAIN_LEVELS for part in range(1, TRAIN_LEVELS + 1)), 1.0]
    ends = [(cell + part) / CELLS for cell in range(CELLS) for part in parts][:-1]
    return low + (high - low) * torch.tensor(ends, dtype=torch.float64)


LEVEL_ENDS = _level_ends()
"""Every train and test strip of the difficulty has levels of its own."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The tiles of one family in one height field.

    Raises:
        UserError: sizes that do not fit each other.
    """

    length: float
    """Of a tile along x, m."""
    width: float
    """Of a tile along y, m."""
    spacing: tuple[float, float]
    """Distance of neighbouring samples along x and y, m."""
    across: bool = True
    """Whether the ground varies along y too; else only its border does (for robots that stay at y = 0)."""
    start: float
    """Radius of the flat start, m."""
    border: float
    """Width of the flat border, m."""
    blend: float = 0.5
    """Distance over which heights grow from 0 at the start and at the border, m."""

    def __post_init__(self) -> None:
        got = f"got a tile of {self.length} x {self.width} m, samples {self.spacing} m apart"
        for size, spacing in zip((self.length, self.width), self.spacing, strict=True):
            cells = size / spacing if spacing > 0.0 else 0.0
            if abs(cells - round(cells)) > 1e-9 or round(cells) < 2:
                raise UserError(f"{got}: give sizes that are 2 or more whole multiples of the spacing")
        room = min(self.length, self.width) if self.across else self.length
        if min(self.start, self.border, self.blend) <= 0.0:
            raise UserError(f"{got}: start {self.start}, border {self.border} and blend {self.blend} must be above 0 m")
        if self.start + 2.0 * self.blend + self.border > room / 2.0:
            raise UserError(
                f"{got}: start {self.start}, two blends of {self.blend} and border {self.border} m leave no room in "
                f"{room / 2.0} m from the middle to the border. Make them smaller, or the tile larger"
            )

    @property
    def cells(self) -> tuple[int, int]:
        """Cells of a tile along x and y; it has one more sample, which it shares with its neighbour."""
        return round(self.length / self.spacing[0]), round(self.width / self.spacing[1])

    @property
    def columns(self) -> int:
        """Tiles side by side along x, for a field about as long as wide."""
        return max(1, round(math.sqrt(TILES * self.width / self.length)))

    @property
    def rows(self) -> int:
        """Tiles side by side along y."""
        return math.ceil(TILES / self.columns)

    # --- the heights ---------------------------------------------------------------------------------------------

    @cached_property
    def tiles(self) -> Float[Tensor, "tiles Y X"]:
        """Height of every tile at its samples, borders included, m."""
        generator = torch.Generator().manual_seed(SEED)
        low, high = DIFFICULTY.bounds
        difficulty = low + (high - low) * (torch.arange(LEVELS, dtype=torch.float64)[:, None, None] + 0.5) / LEVELS
        window = self._window()
        kinds = []
        for kind in KINDS:
            shape = self._noise(kind, generator)
            if kind.terraces:
                shape = (shape * kind.terraces).round() / kind.terraces
            heights = kind.height * difficulty * shape * window
            kinds.append((heights / GRAIN).round() * GRAIN)
        return torch.cat(kinds)

    def field(self) -> Float[Tensor, "rows columns"]:
        """Return the height field of all tiles, m: rows along y, columns along x."""
        along, across = self.cells
        missing = self.rows * self.columns - TILES
        inner = torch.nn.functional.pad(self.tiles[:, :-1, :-1], (0, 0, 0, 0, 0, missing))
        field = inner.unflatten(0, (self.rows, self.columns)).transpose(1, 2)
        return torch.nn.functional.pad(field.reshape(self.rows * across, self.columns * along), (0, 1, 0, 1))

    def _noise(self, kind: Kind, generator: torch.Generator) -> Float[Tensor, "levels Y X"]:
        """Return a random surface between -1 and 1 for every level."""
        along = _between(self.cells[0] + 1, max(1, round(self.length / kind.period)), kind.between)
        if self.across:
            across = _between(self.cells[1] + 1, max(1, round(self.width / kind.period)), kind.between)
        else:
            across = torch.ones(self.cells[1] + 1, 1, dtype=torch.float64)
        lattice = torch.rand(LEVELS, across.shape[1], along.shape[1], generator=generator, dtype=torch.float64)
        return across @ (2.0 * lattice - 1.0) @ along.T

    def _window(self) -> Float[Tensor, "Y X"]:
        """Return what the heights are multiplied with: 0 at the start and at the border, 1 elsewhere."""
        x, y = (
            torch.linspace(-size / 2.0, size / 2.0, cells + 1, dtype=torch.float64)
            for size, cells in zip((self.length, self.width), self.cells, strict=True)
        )
        edge_x, edge_y = self.length / 2.0 - x.abs(), self.width / 2.0 - y.abs()
        if self.across:
            away = (x.square() + y[:, None].square()).sqrt() - self.start
            inside = torch.minimum(edge_x, edge_y[:, None]) - self.border
            return _smooth(away / self.blend) * _smooth(inside / self.blend)
        profile = _smooth((x.abs() - self.start) / self.blend) * _smooth((edge_x - self.border) / self.blend)
        return profile * (edge_y > 0.5 * self.spacing[1])[:, None]

    # --- which tile ----------------------------------------------------------------------------------------------

    def tile(self, tasks: Tasks) -> Int[Tensor, " B"]:
        """Return the number of every task's tile."""
        level = torch.bucketize(tasks["difficulty"], on(tasks["difficulty"], LEVEL_ENDS), right=True)
        return level.add_(tasks["kind"].long(), alpha=LEVELS)

    def offset(self, tile: Int[Tensor, " B"]) -> Float[Tensor, "B 3"]:
        """Return where the height field has to be so that the middle of the tile is at the origin, m."""
        x = (0.5 * (self.columns - 1) - tile % self.columns) * self.length
        y = (0.5 * (self.rows - 1) - tile // self.columns) * self.width
        return torch.stack([x, y, torch.full_like(x, self._lowest)], dim=1)

    def height(
        self, tile: Int[Tensor, " B"], x: Float[Tensor, "B P"], y: Float[Tensor, "#B #P"]
    ) -> Float[Tensor, "B P"]:
        """Return the height of the ground at points, m: that of MuJoCo's triangles.

        Args:
            tile: number of the tile.
            x: of the points from the middle of the tile, m; beyond the tile the border's height is returned.
            y: likewise.
        """
        (along, across), stride = self.cells, self.cells[0] + 1
        u = torch.add(0.5 * along, x, alpha=1.0 / self.spacing[0]).clamp_(0.0, along - 1e-9)
        v = torch.add(0.5 * across, y, alpha=1.0 / self.spacing[1]).clamp_(0.0, across - 1e-9)
        column, row = u.int(), v.int()
        u, v = u.sub_(column), v.sub_(row)
        sample = column.add_(row, alpha=stride).add_(tile[:, None], alpha=stride * (across + 1)).view(-1)
        flat = on(x, self._flat)
        # A failed simulation has points at NaN, whose height is NaN too.
        sample.clamp_(0, len(flat) - stride - 2)
        low, right, left, far = (flat.index_select(0, sample + step).view_as(u) for step in (0, 1, stride, stride + 1))
        # A cell is two triangles that meet in the diagonal from `low` to `far`.
        fold, right, left = far.sub_(right).sub_(left).add_(low), right.sub_(low), left.sub_(low)
        return low.addcmul_(u, right).addcmul_(v, left).addcmul_(torch.minimum(u, v), fold)

    @cached_property
    def _flat(self) -> Float[Tensor, " samples"]:
        return self.tiles.flatten()

    @cached_property
    def _lowest(self) -> float:
        return self.tiles.min().item()

    # --- in the model --------------------------------------------------------------------------------------------

    def add_to(self, spec: mujoco.MjSpec) -> None:
        """Put the height field in the place of the model's plane `floor`."""
        field, low, high = self.field(), self._lowest, self.tiles.max().item()
        rows, columns = field.shape
        spec.add_hfield(
            name="tiles",
            nrow=rows,
            ncol=columns,
            size=[(columns - 1) * self.spacing[0] / 2.0, (rows - 1) * self.spacing[1] / 2.0, high - low, BASE],
            userdata=field.float().flatten().numpy(),
        )
        spec.add_texture(
            name="ground",
            type=mujoco.mjtTexture.mjTEXTURE_2D,
            builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
            rgb1=[0.42, 0.50, 0.38],
            rgb2=[0.50, 0.58, 0.45],
            width=512,
            height=512,
        )
        material = spec.add_material(name="ground", texrepeat=[50.0, 50.0])
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "ground"
        geom = spec.geom(GEOM)
        geom.type, geom.hfieldname, geom.material = mujoco.mjtGeom.mjGEOM_HFIELD, "tiles", "ground"
        geom.pos, geom.rgba = [0.0, 0.0, low], [1.0, 1.0, 1.0, 1.0]

    def place(self, model: mujoco.MjModel, tasks: Tasks) -> dict[str, Float[Tensor, "B geoms 3"]]:
        """Return the model field that puts every task's tile under the origin of its world."""
        positions = torch.from_numpy(model.geom_pos.copy()).expand(len(tasks), -1, -1).clone()
        positions[:, model.geom(GEOM).id] = self.offset(self.tile(tasks))
        return {"geom_pos": positions}

    def crop(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Leave only the tile under the origin in a model that is to be drawn: the whole field takes too long."""
        geom = model.geom(GEOM).id
        x, y, low = model.geom_pos[geom]
        column, row = round(0.5 * (self.columns - 1) - x / self.length), round(0.5 * (self.rows - 1) - y / self.width)
        # The model before its first task is in the middle of the field, which may be where tiles meet.
        tile, width = self.tiles[min(row * self.columns + column, TILES - 1)], self.width
        if not self.across:
            # Without its border, which would hide the ground from a camera at the side.
            tile, width = tile[1:-1], width - 2.0 * self.spacing[1]
        model.hfield_nrow[0], model.hfield_ncol[0] = tile.shape
        model.hfield_data[: tile.numel()] = ((tile - low) / model.hfield_size[0, 2]).flatten().numpy()
        model.hfield_size[0, :2] = self.length / 2.0, width / 2.0
        model.geom_pos[geom, :2] = data.geom_xpos[geom, :2] = 0.0


def _between(samples: int, cells: int, how: Literal["linear", "smooth", "level"]) -> Float[Tensor, "samples points"]:
    """Return the matrix that interpolates evenly spaced samples from the cells + 1 points of a lattice."""
    place = torch.linspace(0.0, cells, samples, dtype=torch.float64)
    point = place.floor().clamp(max=cells - 1)
    part = place - point
    part = {"linear": part, "smooth": _smooth(part), "level": torch.zeros_like(part)}[how]
    matrix = torch.zeros(samples, cells + 1, dtype=torch.float64)
    matrix.scatter_(1, point.long()[:, None], 1.0 - part[:, None])
    return matrix.scatter_add_(1, point.long()[:, None] + 1, part[:, None])


def _smooth(part: Tensor) -> Tensor:
    """Return a smooth step from 0 at 0 to 1 at 1."""
    part = part.clamp(0.0, 1.0)
    return part.square() * (3.0 - 2.0 * part)


def scan_observables(points: Sequence[tuple[float, float]]) -> tuple[Observable, ...]:
    """Return the rows of a height scan at points (m ahead, m to the left) of the torso."""
    return tuple(
        Observable(f"ground {x:+.1f} m ahead and {y:+.1f} m to the left of the torso, above the torso", "-", "m")
        for x, y in points
    )


def goal_marker(ground: Ground, tasks: Tasks, goal: Float[Tensor, "B 2"]) -> Marker:
    """Return the mark of a goal, above the ground there."""
    height = GOAL_HEIGHT + ground.height(ground.tile(tasks), goal[:, :1], goal[:, 1:])
    return Marker(position=torch.cat([goal, height], dim=1), radius=0.15)


def add_camera(spec: mujoco.MjSpec, body: str, beside: float, above: float) -> None:
    """Add the camera `CAMERA`, which follows a body from a place beside and above it (m)."""
    spec.body(body).add_camera(
        name=CAMERA,
        mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM,
        pos=[0.0, -beside, above],
        xyaxes=[1.0, 0.0, 0.0, 0.0, above, beside],
    )
