"""Warp and mujoco_warp, which need not be installed."""

from __future__ import annotations

import importlib
from types import ModuleType

from metarl.errors import UserError
from metarl.system import lines_left_out


def load() -> tuple[ModuleType, ModuleType]:
    """Import and return warp and mujoco_warp.

    Raises:
        UserError: they are not installed.
    """
    try:
        warp = importlib.import_module("warp")
        # Else it tells of its devices, and of every kernel that it compiles.
        warp.config.log_level = warp.LOG_WARNING
        # Streams and devices of torch mean nothing to it before. Without a driver it runs on the CPU, as was asked for.
        with lines_left_out("Could not find or load the NVIDIA CUDA driver"):
            warp.init()
        return warp, importlib.import_module("mujoco_warp")
    except ImportError as error:
        raise UserError(
            f"the GPU engine needs mujoco_warp, {error}. Install the extra: pip install 'metarl-suite[gpu]', or take "
            "the CPU engine"
        ) from error
