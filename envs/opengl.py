"""MuJoCo's import, which looks for the OpenGL that $MUJOCO_GL names, and fails where there is none."""

from __future__ import annotations

import os
from importlib import import_module

from metarl.errors import UserError


def import_mujoco() -> None:
    """Import MuJoCo.

    Raises:
        UserError: $MUJOCO_GL names what is not here.
    """
    wanted = os.environ.get("MUJOCO_GL")
    try:
        import_module("mujoco")
    # PyOpenGL fails with AttributeError where it lacks a library, MuJoCo with RuntimeError, ctypes with OSError.
    except (AttributeError, RuntimeError, OSError) as error:
        if wanted is None:
            raise
        raise UserError(
            f"got MUJOCO_GL={wanted}, with which MuJoCo cannot be imported ({error}). Unset it, then what is "
            "installed is taken; or install what it names (Debian, Ubuntu: egl is apt-get install libegl1 libgl1, "
            "osmesa is apt-get install libosmesa6)"
        ) from error


import_mujoco()
