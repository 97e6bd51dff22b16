"""The CPU engine: MuJoCo worlds on a C++ thread pool (`mujoco.batch`, experimental in MuJoCo 4.0, used only here).

Results are bit-identical to a plain `mj_step` loop over one model and data per world, at any thread count.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
import torch
from jaxtyping import Bool, Float
from mujoco.batch import Batch, SimulationError
from torch import Tensor

from metarl.envs.family import LARGEST_VALID, MujocoFamily, all_valid
from metarl.launches import Launches
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
    launches: Launches | None = None

    def __init__(self, family: MujocoFamily, num_worlds: int, threads: int = 0) -> None:
        self.family = family
        self.batch = Batch(family.model, num_worlds, threads)
        self.state = {name: self._live(name) for name in dict.fromkeys(("qpos", "qvel", *family.fields))}
        self._control = self._live("ctrl")
        self._forces = self._live("xfrc_applied")
        # Model fields that the worlds have of their own, live.
        self._own: dict[str, np.ndarray] = {}

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
            self._own[name] = self.batch.expand(name)
            self._own[name][rows] = values.numpy()[rows]
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

    def push(self, forces: Float[Tensor, "B N 6"]) -> None:
        """Let forces act on the bodies in the next steps, until there are others or a reset."""
        self._forces.copy_(forces)

    def get_state(self) -> dict[str, Any]:
        """Return MuJoCo's whole state, the fields that the family reads, and the worlds' own model fields."""
        return {
            "state": self.batch.state.copy(),
            "fields": {name: value.clone() for name, value in self.state.items()},
            "model": {name: values.copy() for name, values in self._own.items()},
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state of `get_state`."""
        model = state["model"]
        if not (model.keys() == self._own.keys() and all(np.array_equal(model[n], self._own[n]) for n in model)):
            for name, values in model.items():
                self._own[name] = self.batch.expand(name)
                self._own[name][:] = values
            self.batch.set_const(None)
        self.batch.state[:] = state["state"]
        # Into the outputs too: they are what the next step's "before" is read from.
        for name, value in state["fields"].items():
            self.state[name].copy_(value)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle: a batch of its own in the same state."""
        return type(self), (self.family, self.batch.nsim, self.batch.nthread), self.get_state()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Go to the state of the one that was copied."""
        self.set_state(state)

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
