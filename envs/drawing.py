"""Pictures of one world: off-screen OpenGL for MuJoCo models, pillow for the point in the plane."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol

import mujoco
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from metarl.envs.cpu import MujocoPhysics
from metarl.envs.family import Family
from metarl.envs.point_nav import GOAL_TOLERANCE, PointNav
from metarl.envs.worlds import Physics, TorchPhysics
from metarl.errors import UserError

WINDOW = 1.6
"""Side of the square that point-nav shows, centred at the origin, m."""
OVERSAMPLING = 3
"""Pillow draws hard edges: lines are drawn so many times larger and scaled down."""
PAPER, GRID, TRAIL, POINT, GOAL = (
    (250, 250, 248),
    (226, 226, 222),
    (146, 176, 214),
    (31, 88, 158),
    (214, 96, 40),
)


class Painter(Protocol):
    """Draws worlds of one family; keeps what it needs from one picture to the next."""

    def frame(self, physics: Physics, world: int = 0) -> UInt8[np.ndarray, "H W 3"]:
        """Return a picture of one world as it is now, RGB."""
        ...

    def begin(self) -> None:
        """Forget earlier pictures: a new episode starts."""
        ...

    def close(self) -> None:
        """Free what the painter holds; it cannot draw afterwards."""
        ...


def make_painter(family: Family, width: int = 480, height: int = 360) -> Painter:
    """Return a painter for a family.

    Args:
        family: the family.
        width: of the pictures, pixels.
        height: of the pictures, pixels.

    Raises:
        UserError: a size below 1, no off-screen OpenGL here, or a family that nothing can draw.
    """
    if width < 1 or height < 1:
        raise UserError(f"got pictures of {width} x {height} pixels: at least 1 x 1 is needed")
    if hasattr(family, "model"):
        return MujocoPainter(family.model, width, height)
    if isinstance(family, PointNav):
        return PointPainter(width, height)
    raise UserError(f"{family.full_name} has no picture: only MuJoCo families and point-nav can be drawn")


class MujocoPainter:
    """Draws a MuJoCo world from the model's first camera, or from a free one around the model's centre.

    `mujoco.Renderer` is not used because the kind of its OpenGL is fixed when mujoco is first imported.

    Args:
        model: the family's model.
        width: pixels.
        height: pixels.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int) -> None:
        # The size of the off-screen buffer is a field of the model, and that one is shared.
        model = copy.copy(model)
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        self._context, self._gl = _open_context(model, width, height)
        self._scene = mujoco.MjvScene(model, maxgeom=10_000)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        if model.ncam:
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self._camera.fixedcamid = 0
        else:
            mujoco.mjv_defaultFreeCamera(model, self._camera)
        self._rectangle = mujoco.MjrRect(0, 0, width, height)

    def frame(self, physics: Physics, world: int = 0) -> UInt8[np.ndarray, "H W 3"]:
        """Return a picture of one world as it is now."""
        if not isinstance(physics, MujocoPhysics):
            raise TypeError(f"got {type(physics).__name__} where MujocoPhysics is needed")
        model, data = physics.batch.get_model(world), physics.batch.get_data(world)
        # The derived fields (where every body is) describe the state before the last substep.
        mujoco.mj_forward(model, data)
        self._context.make_current()
        mujoco.mjv_updateScene(model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene)
        picture = np.empty((self._rectangle.height, self._rectangle.width, 3), dtype=np.uint8)
        mujoco.mjr_render(self._rectangle, self._scene, self._gl)
        mujoco.mjr_readPixels(picture, None, self._rectangle, self._gl)
        # OpenGL counts rows from the bottom.
        return np.ascontiguousarray(picture[::-1])

    def begin(self) -> None:
        """Do nothing: every picture stands for itself."""

    def close(self) -> None:
        """Free the OpenGL context."""
        self._context.make_current()
        self._gl.free()
        self._context.free()


class PointPainter:
    """Draws point-nav: the point, the way it came, and the goal that it cannot see.

    Args:
        width: pixels.
        height: pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._trail: list[tuple[float, float]] = []

    def frame(self, physics: Physics, world: int = 0) -> UInt8[np.ndarray, "H W 3"]:
        """Return a picture of one world as it is now."""
        if not isinstance(physics, TorchPhysics):
            raise TypeError(f"got {type(physics).__name__} where TorchPhysics is needed")
        x, y = physics.state["position"][world].tolist()
        self._trail.append((x, y))
        goal = physics.tasks["goal"][world].tolist()

        width, height = (side * OVERSAMPLING for side in self._size)
        scale = min(width, height) / WINDOW
        picture = Image.new("RGB", (width, height), PAPER)
        draw = ImageDraw.Draw(picture)

        def place(point: tuple[float, float]) -> tuple[float, float]:
            return width / 2 + point[0] * scale, height / 2 - point[1] * scale

        def disc(point: tuple[float, float], radius: float, **how: Any) -> None:
            column, row = place(point)
            draw.ellipse((column - radius, row - radius, column + radius, row + radius), **how)

        unit = min(width, height) / 100
        for tenth in range(-20, 21):
            if tenth % 5 == 0:
                at = tenth / 10
                draw.line((place((at, -9.0)), place((at, 9.0))), fill=GRID, width=round(0.3 * unit) or 1)
                draw.line((place((-9.0, at)), place((9.0, at))), fill=GRID, width=round(0.3 * unit) or 1)
        disc((goal[0], goal[1]), 3.0 * unit, outline=GOAL, width=round(0.7 * unit) or 1)
        disc((goal[0], goal[1]), max(GOAL_TOLERANCE * scale, 0.7 * unit), fill=GOAL)
        if len(self._trail) > 1:
            draw.line([place(point) for point in self._trail], fill=TRAIL, width=round(unit) or 1, joint="curve")
        disc((x, y), 1.8 * unit, fill=POINT)
        return np.asarray(picture.resize(self._size, Image.Resampling.LANCZOS))

    def begin(self) -> None:
        """Forget the way that the point came."""
        self._trail = []

    def close(self) -> None:
        """Forget everything."""
        self.begin()


def _open_context(model: mujoco.MjModel, width: int, height: int) -> tuple[Any, mujoco.MjrContext]:
    """Open an off-screen OpenGL context of the kind that MUJOCO_GL names.

    Unset, it is EGL where there is no screen (it needs none), else whatever opens windows.

    Raises:
        UserError: if it cannot be opened; says how to get it.
    """
    screen = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) or sys.platform != "linux"
    kind = os.environ.get("MUJOCO_GL", "").lower().strip() or ("glfw" if screen else "egl")
    if kind not in _CONTEXTS:
        raise UserError(
            f"got MUJOCO_GL={kind}, which draws nothing off-screen: choose from {', '.join(_CONTEXTS)}, or unset it"
        )
    try:
        context = _CONTEXTS[kind]()(width, height)
        context.make_current()
        gl = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, gl)
    # Missing libraries show as any of these, depending on which call first meets the gap.
    except (ImportError, AttributeError, OSError, RuntimeError, mujoco.FatalError) as error:
        raise UserError(
            f"no off-screen OpenGL: MUJOCO_GL={kind} cannot be opened ({' '.join(str(error).split())}). "
            "Install one: `apt-get install libegl1 libgl1 libegl-mesa0` for MUJOCO_GL=egl, or `apt-get install "
            "libosmesa6` for MUJOCO_GL=osmesa (Debian and Ubuntu; no graphics card is needed)"
        ) from error
    return context, gl


def _egl() -> type:
    from mujoco.egl import GLContext

    return GLContext


def _osmesa() -> type:
    from mujoco.osmesa import GLContext

    return GLContext


def _glfw() -> type:
    from mujoco.glfw import GLContext

    return GLContext


_CONTEXTS: dict[str, Callable[[], type]] = {"egl": _egl, "osmesa": _osmesa, "glfw": _glfw}
"""Each is imported only when it is used: importing one loads its system library."""
