"""The CPU engine: MuJoCo worlds on a C++ thread pool (`mujoco.batch`, experimental in MuJoCo 4.0, used only here).

Results are bit-identical to a plain `mj_step` loop over one model and data per world, at any thread count.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping

import mujoco
import numpy as np
import torch
from jaxtyping import Bool, Float
from mujoco.batch import Batch, SimulationError
from torch import Tensor

from metarl.envs.family import LARGEST_VALID, MujocoFamily, all_valid
from metarl.types import Tasks


class MujocoPhysics:
    """Physics of a `MujocoFamily` on the CPU.

    Args:
        family: the family.
        num_worlds: B.
        threads: worker threads, the calling one included; 0 takes every core.
    """

    device = torch.device("cpu")
    lockstep = False

    def __init__(self, family: MujocoFamily, num_worlds: int, threads: int = 0) -> None:
        self.family = family
        self.batch = Batch(family.model, num_worlds, threads)
        self.state = {name: self._live(name) for name in dict.fromkeys(("qpos", "qvel", *family.fields))}
        self._control = self._live("ctrl")

    def _live(self, name: str) -> Tensor:
        with warnings.catch_warnings():
            # Derived fields are read-only outputs of MuJoCo; nothing here writes to them.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(self.batch.bind(name))

    def apply(self, tasks: Tasks, worlds: Tensor | None) -> None:
        """Write the per-world model fields of the tasks and refresh what MuJoCo derives from them."""
        fields = self.family.apply(tasks)
        if not fields:
            return
        rows = slice(None) if worlds is None else worlds.numpy()
        for name, values in fields.items():
            self.batch.expand(name)[rows] = values.numpy()[rows]
        self.batch.set_const(None if worlds is None else worlds.numpy())

    def write(self, state: Mapping[str, Tensor], worlds: Tensor | None) -> None:
        """Reset the worlds, write qpos and qvel, and compute the derived fields."""
        ids = None if worlds is None else worlds.numpy()
        rows = slice(None) if worlds is None else worlds
        self.batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE)
        for name, value in state.items():
            self.state[name][rows] = value
        # A world that fails here keeps its state, so that its first step fails too and reports it.
        with contextlib.suppress(SimulationError):
            self.batch.forward(ids)

    def advance(self, action: Float[Tensor, "B A"], worlds: Tensor | None) -> Bool[Tensor, " B"] | None:
        """Take `frame_skip` physics steps; a world that becomes invalid is reported, the others run on."""
        self._control.copy_(action)
        broken: np.ndarray | None = None
        try:
            self.batch.step(None if worlds is None else worlds.numpy(), nstep=self.family.frame_skip)
        except SimulationError as error:
            broken = error.ids
        qpos, qvel = self.state["qpos"], self.state["qvel"]
        if broken is None and all_valid(qpos) and all_valid(qvel):
            return None
        failed = ~((qpos.abs() < LARGEST_VALID).all(1) & (qvel.abs() < LARGEST_VALID).all(1))
        if broken is not None:
            failed[torch.from_numpy(np.asarray(broken, dtype=np.int64))] = True
        return failed

    def snapshot(
        self, world: int, model: mujoco.MjModel | None = None, data: mujoco.MjData | None = None
    ) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """Return a world's own model and its data with all fields current, to draw it or to look into it.

        Args:
            world: index of the world.
            model: an earlier snapshot's model to write into.
            data: an earlier snapshot's data to write into.
        """
        model, data = self.batch.get_model(world, model), self.batch.get_data(world, data)
        mujoco.mj_forward(model, data)
        return model, data
