"""Pictures of one world, off-screen: MuJoCo's renderer for robots, the family's own drawing for the others."""

from __future__ import annotations

import os
from typing import Protocol, runtime_checkable

import mujoco
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.external.adapter import WorkerPhysics
from metarl.envs.external.child import off_screen
from metarl.envs.family import Marker, TorchFamily, View
from metarl.envs.worlds import Worlds
from metarl.errors import UserError

Picture = UInt8[np.ndarray, "H W 3"]
"""Height x width x red, green, blue."""

SMALLEST, LARGEST = 16, 4096
"""Width and height that a picture may have, pixels."""

NO_GL = (
    "no off-screen OpenGL for pictures of MuJoCo worlds ({reason}). Install libegl1 (Debian, Ubuntu: "
    "apt-get install libegl1 libgl1) and set MUJOCO_GL=egl, or libosmesa6 and MUJOCO_GL=osmesa (no GPU needed)"
)


@runtime_checkable
class Painter(Protocol):
    """Draws the worlds of one `Worlds` as they are now."""

    def __call__(self, world: int) -> Picture:
        """Return the picture of a world."""
        ...

    def close(self) -> None:
        """Free what the drawing took."""
        ...


def make_painter(worlds: Worlds, width: int = 480, height: int = 480) -> Painter:
    """Return what draws these worlds.

    Args:
        worlds: worlds on the CPU engine.
        width: of the pictures, pixels.
        height: of the pictures, pixels.

    Raises:
        UserError: the size is not allowed, there is no off-screen OpenGL here, or the family has no drawing.
    """
    if not (SMALLEST <= width <= LARGEST and SMALLEST <= height <= LARGEST):
        raise UserError(f"got pictures of {width} x {height} pixels: give {SMALLEST} to {LARGEST} for either")
    if isinstance(worlds.physics, MujocoPhysics):
        return MujocoPainter(worlds, width, height)
    if isinstance(worlds.physics, WorkerPhysics):
        return WorkerPainter(worlds.physics, width, height)
    if isinstance(worlds.family, TorchFamily):
        return TorchPainter(worlds, width, height)
    raise UserError(f"{worlds.family_name} cannot be drawn where it is: make its worlds on the CPU engine")


class WorkerPainter:
    """Shows what an environment in a worker process draws of itself, as large as fits, on white."""

    def __init__(self, physics: WorkerPhysics, width: int, height: int) -> None:
        self.physics = physics
        self.size = (width, height)

    def __call__(self, world: int) -> Picture:
        """Return the picture of a world."""
        frame = Image.fromarray(self.physics.draw(world))
        return np.asarray(ImageOps.pad(frame, self.size, color=(255, 255, 255)))

    def close(self) -> None:
        """Do nothing: the environment draws as long as it lives."""


class TorchPainter:
    """Draws with the family's own `picture`."""

    def __init__(self, worlds: Worlds, width: int, height: int) -> None:
        self.worlds = worlds
        self.width = width
        self.height = height

    def __call__(self, world: int) -> Picture:
        """Return the picture of a world."""
        tasks = self.worlds.present
        if tasks is None:
            raise UserError("these worlds have no tasks yet: reset before drawing")
        family = self.worlds.family
        assert isinstance(family, TorchFamily)
        return np.asarray(family.picture(self.worlds.state, tasks, world, self.width, self.height))

    def close(self) -> None:
        """Do nothing."""


class MujocoPainter:
    """Draws with MuJoCo's own renderer, from the family's camera, with the family's markers."""

    def __init__(self, worlds: Worlds, width: int, height: int) -> None:
        assert isinstance(worlds.physics, MujocoPhysics)
        self.worlds = worlds
        self.physics = worlds.physics
        self.model, self.data = self.physics.snapshot(0)
        self.physics.family.crop(self.model, self.data)
        self.model.vis.global_.offwidth, self.model.vis.global_.offheight = width, height
        self._camera = _camera(self.model, self.physics.family.camera)
        self._option = mujoco.MjvOption()
        self._scene = mujoco.MjvScene(self.model, maxgeom=1000)
        self._view = mujoco.MjrRect(0, 0, width, height)
        self._gl, self._context = _contexts(self.model, width, height)

    def __call__(self, world: int) -> Picture:
        """Return the picture of a world."""
        self.physics.snapshot(world, self.model, self.data)
        self.physics.family.crop(self.model, self.data)
        self._gl.make_current()
        for field in range(self.model.nhfield):
            mujoco.mjr_uploadHField(self.model, self._context, field)
        mujoco.mjv_updateScene(
            self.model, self.data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        if self.worlds.present is not None:
            for marker in self.physics.family.markers(self.worlds.state, self.worlds.present):
                _add(self._scene, marker, world)
        mujoco.mjr_render(self._view, self._scene, self._context)
        pixels = np.empty((self._view.height, self._view.width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._view, self._context)
        return np.flipud(pixels).copy()

    def close(self) -> None:
        """Free the OpenGL context."""
        self._gl.make_current()
        self._context.free()
        self._gl.free()


def _camera(model: mujoco.MjModel, wanted: str | View) -> mujoco.MjvCamera:
    """Return a camera of the model, or a free one."""
    camera = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, camera)
    if isinstance(wanted, View):
        if isinstance(wanted.centre, str):
            camera.type, camera.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, model.body(wanted.centre).id
        else:
            camera.lookat[:] = wanted.centre
        camera.distance, camera.azimuth, camera.elevation = wanted.distance, wanted.azimuth, wanted.elevation
    elif (number := mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, wanted)) >= 0:
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, number
    return camera


def _add(scene: mujoco.MjvScene, marker: Marker, world: int) -> None:
    """Add one world's marker to what is drawn."""
    geom = scene.geoms[scene.ngeom]
    start = marker.position[world].numpy()
    size, colour = np.full(3, marker.radius), np.array(marker.colour, dtype=np.float32)
    kind = mujoco.mjtGeom.mjGEOM_SPHERE if marker.tip is None else mujoco.mjtGeom.mjGEOM_ARROW
    mujoco.mjv_initGeom(geom, kind, size, start, np.eye(3).reshape(-1), colour)
    if marker.tip is not None:
        mujoco.mjv_connector(geom, kind, marker.radius, start, marker.tip[world].numpy())
    scene.ngeom += 1


@runtime_checkable
class _GLContext(Protocol):
    def make_current(self) -> None: ...

    def free(self) -> None: ...


def _contexts(model: mujoco.MjModel, width: int, height: int) -> tuple[_GLContext, mujoco.MjrContext]:
    """Return an off-screen OpenGL context and MuJoCo's in it: of $MUJOCO_GL, else of what is installed.

    MuJoCo itself would need $MUJOCO_GL at its import, and takes a window system's otherwise.
    """
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    installed = off_screen()
    if not wanted and not installed:
        raise UserError(NO_GL.format(reason="neither EGL nor OSMesa is installed"))
    backend = wanted or installed[0]
    try:
        if backend == "egl":
            from mujoco.egl import GLContext
        elif backend == "osmesa":
            from mujoco.osmesa import GLContext
        else:
            from mujoco.gl_context import GLContext
        gl = GLContext(width, height)
        gl.make_current()
        context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
    # The backends fail with ImportError, AttributeError, OSError, RuntimeError and classes of their own.
    except Exception as error:
        raise UserError(NO_GL.format(reason=" ".join(f"{backend}: {error}".split()))) from error
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    return gl, context
