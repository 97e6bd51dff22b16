"""The GPU engine: MuJoCo worlds on `mujoco_warp` (the extra `gpu`), which also runs, slowly, on Warp's CPU device.

Every world has its own values of the model fields that its family's `apply` names, and of all that MuJoCo derives from
them. Physics is computed in float32; the state that families see is a float64 copy on the same device, of the moment
that `MujocoFamily` says. Nothing comes to the host in a step: on CUDA the physics steps of a control step are one graph
of kernels, and worlds that have become invalid are told by a mask.

What differs from the CPU engine, beside rounding and what warp_model.py says of the model:

* All worlds step together. Those whose episodes have ended move on unseen, until they are reset.
* A geom that touches several triangles of a height field at a fold has contacts that all but repeat one another. Both
  engines drop such repetitions, and where the line is drawn rounding decides.
* The tangents of a contact's friction pyramid may point elsewhere where a capsule stands steeply on a plane, as an
  ant's legs do. A pyramid is not round, so such contacts slide a little differently.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.devices import numbered
from metarl.envs.engines.buffers import Room, room_for
from metarl.envs.engines.compiling import for_any_number_of_worlds, load_all, needed
from metarl.envs.engines.loading import load
from metarl.envs.engines.losses import Losses
from metarl.envs.engines.warp_model import gpu_model, without_margins
from metarl.envs.family import LARGEST_VALID, MujocoFamily
from metarl.envs.physics import CPU
from metarl.errors import UserError
from metarl.graphs import nothing_collected
from metarl.launches import Launches, apart, launches_on
from metarl.types import Tasks

DERIVED = (
    "body_subtreemass",
    "body_invweight0",
    "dof_invweight0",
    "tendon_length0",
    "tendon_invweight0",
    "actuator_acc0",
    "geom_aabb",
    "geom_rbound",
    "eq_data",
)
"""Model fields that mujoco_warp's `set_const` derives from others, but for those of cameras and lights."""
CARRIED = ("qpos", "qvel", "act", "qacc_warmstart", "time")
"""What a world carries from one physics step to the next, beside its control."""


class WarpPhysics:
    """Physics of a `MujocoFamily` on mujoco_warp (see `metarl.envs.physics.Physics`).

    Args:
        family: the family.
        num_worlds: B.
        device: a CUDA device, or the CPU.
        contacts: room for contacts, per world on average; None: as buffers.py says.
        constraints: room for constraint rows of every world; None: as buffers.py says.
        kept: the room that an earlier start came to (`Room.plain`): there is no less.
        look: whether to look after every step if the room sufficed, and else to take the step again with more; None:
            on Warp's CPU device only, since it makes the host wait.

    Attributes:
        lockstep: all worlds step together, and, unless it looks, no step waits for the device.

    Raises:
        UserError: mujoco_warp is not installed, or cannot run the family's model.
    """

    lockstep = True

    def __init__(
        self,
        family: MujocoFamily,
        num_worlds: int,
        device: torch.device = CPU,
        *,
        contacts: int | None = None,
        constraints: int | None = None,
        kept: Mapping[str, int] | None = None,
        look: bool | None = None,
    ) -> None:
        self._wp, self._mjw = load()
        self.family, self.num_worlds, self.device = family, num_worlds, numbered(device)
        self.state: dict[str, Tensor] = {}
        self._known_stream: Any = None
        self._in_order: Callable[[], AbstractContextManager[None]] = nullcontext
        # Where a family's tasks change the model, any tasks tell which fields they are.
        anything = family.space.sample(1, "train", torch.Generator().manual_seed(0))
        varied = tuple(family.apply(anything))
        self._varies = bool(varied)
        self._host = without_margins(gpu_model(family), varied)
        self._look = self.device.type == "cpu" if look is None else look
        self.launches: Launches | None = None if self._look else launches_on(self.device)
        self._room, self._bound = room_for(family, self._host, varied, kept)
        if contacts is not None or constraints is not None:
            most = self._room.contacts if contacts is None else contacts
            rows = self._room.constraints if constraints is None else constraints
            self._room = Room(contacts=most, constraints=rows, convex=min(self._room.convex, most))
        with self._on_device():
            self._model = self._put_model(varied)
        self._allocate()

    def _on_device(self):
        """Run Warp's kernels on the device and, on CUDA, on torch's stream."""
        if self.device.type == "cpu":
            return self._wp.ScopedDevice("cpu")
        return self._wp.ScopedStream(self._wp.stream_from_torch(torch.cuda.current_stream(self.device)))

    def _put_model(self, names: tuple[str, ...]):
        """Return the model on the device, with fields of their own for every world.

        Args:
            names: the fields, as `MujocoFamily.apply` names them.
        """
        name = self.family.full_name
        plain = [field for field in names if not field.startswith("opt.")]
        derived = [field for field in DERIVED if names and np.size(getattr(self._host, field))]
        try:
            sizes = dict.fromkeys((*plain, *derived), self.num_worlds)
            model = self._mjw.put_model(self._host, batch_sizes=sizes)
        except (NotImplementedError, ValueError) as error:
            raise UserError(f"{name} does not run on the GPU engine: {error} Take engine cpu") from error
        # What overflows is told by `_widen`, once and not from inside of a kernel.
        model.opt.warn_overflow = 0
        if torch.are_deterministic_algorithms_enabled():
            # Not at the top: it imports Warp, which may not be installed.
            from metarl.envs.engines.one_order import one_order

            self._in_order = one_order(self._host, model)
        for field in set(names) - set(plain):
            option = getattr(model.opt, field.removeprefix("opt."), None)
            if not isinstance(option, self._wp.array):
                raise UserError(f"{name} does not run on the GPU engine: it gives every world its own {field}")
            value: Any = option
            rows = np.repeat(value.numpy(), self.num_worlds, axis=0)
            setattr(model.opt, field.removeprefix("opt."), self._wp.array(rows, dtype=value.dtype))
        return model

    def _allocate(self) -> None:
        """Make the worlds, with room for the contacts and constraints."""
        wp, mjw, model = self._wp, self._mjw, self._model
        before = getattr(self, "_data", None)
        with self._on_device():
            data = mjw.make_data(
                self._host,
                nworld=self.num_worlds,
                nconmax=self._room.contacts,
                nccdmax=self._room.convex,
                njmax=self._room.constraints,
            )
            if before is not None:
                for name in (*CARRIED, "ctrl", "xfrc_applied", "geom_xpos", "geom_xmat"):
                    wp.copy(getattr(data, name), getattr(before, name))
        self._data = data
        if self.launches is not None:
            # What was captured works on the fields of before.
            self.launches.clear()
        missing = [name for name in self.family.fields if not isinstance(getattr(data, name, None), wp.array)]
        if missing:
            raise UserError(
                f"{self.family.full_name} does not run on the GPU engine: it reads {', '.join(missing)}, which "
                "mujoco_warp does not compute. Take engine cpu"
            )
        self._views = {
            name: wp.to_torch(getattr(data, name)) for name in dict.fromkeys(("qpos", "qvel", *self.family.fields))
        }
        for name, view in self._views.items():
            self.state.setdefault(name, view.to(torch.float64))
        self._control, self._forces = wp.to_torch(data.ctrl), wp.to_torch(data.xfrc_applied)
        self._losses = Losses(wp, mjw, data)
        self._begun = torch.zeros(self.num_worlds, dtype=torch.bool, device=self.device)
        begun = wp.from_torch(self._begun)

        def begin() -> None:
            mjw.reset_data(model, data, reset=begun)

        def forward() -> None:
            with for_any_number_of_worlds(mjw), self._in_order():
                mjw.forward(model, data)

        def step() -> None:
            with for_any_number_of_worlds(mjw), self._in_order():
                mjw.step(model, data)

        def steps() -> None:
            for _ in range(self.family.frame_skip):
                step()

        with self._on_device():
            launches = [begin, forward, step, *([self._derive] if self._varies else [])]
            load_all(wp, needed(wp, launches), self.device, self.family.full_name)
        self._begin = self._graph(begin)
        self._forward = self._graph(forward)
        self._steps = self._graph(steps, data)

    def _graph(self, run: Callable[[], None], data: object = None) -> Callable[[], None]:
        """Return what runs `run`: on CUDA, captured as one graph.

        Args:
            run: launches kernels.
            data: what running it once, so that all kernels are compiled, must not change.
        """
        wp = self._wp
        if self.device.type == "cpu":

            def launch() -> None:
                with self._on_device():
                    run()

            return launch
        kept = {} if data is None else {name: wp.clone(getattr(data, name)) for name in CARRIED}
        with self._on_device():
            run()
            for name, value in kept.items():
                wp.copy(getattr(data, name), value)
        # Torch's own stream may be CUDA's default one, which cannot be captured.
        stream = wp.Stream(wp.device_from_torch(self.device))
        torch.cuda.synchronize(self.device)
        with nothing_collected(), wp.ScopedStream(stream), wp.ScopedCapture(stream=stream) as capture:
            run()

        def replay() -> None:
            with torch.cuda.device(self.device):
                wp.capture_launch(capture.graph, stream=self._stream())

        return replay

    def _stream(self):
        """Return torch's current stream as Warp's: looked up at every launch, and made once."""
        current = torch.cuda.current_stream(self.device)
        if self._known_stream is None or self._known_stream.cuda_stream != current.cuda_stream:
            self._known_stream = self._wp.stream_from_torch(current)
        return self._known_stream

    def get_state(self) -> dict[str, Any]:
        """Refuse: the engine keeps more from step to step than can be read out of it."""
        raise UserError(f"{self.family.full_name}: worlds on the GPU engine cannot be copied: take engine='cpu'")

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Refuse as `get_state` does."""
        self.get_state()

    def __reduce__(self) -> tuple[Any, ...]:
        """Refuse to be copied or pickled."""
        return type(self), (), self.get_state()

    def apply(self, tasks: Tasks, worlds: Tensor | None) -> None:
        """Write the per-world model fields of the tasks and derive on the device what depends on them.

        Args:
            tasks: one a world, on the host.
            worlds: whose fields to write.
        """
        fields = self.family.apply(tasks)
        if not fields:
            return
        rows = slice(None) if worlds is None else worlds.cpu()
        for name, values in fields.items():
            holder = self._model.opt if name.startswith("opt.") else self._model
            view = self._wp.to_torch(getattr(holder, name.removeprefix("opt.")))
            chosen = values[rows].reshape(-1, *view.shape[1:]).to(view)
            view[slice(None) if worlds is None else worlds.to(self.device)] = chosen
        with self._on_device():
            self._derive()

    def _derive(self) -> None:
        """Compute what depends on the model's fields of every world."""
        with self._in_order():
            # The state it derives them in is overwritten by the next forward or step.
            self._mjw.set_const(self._model, self._data, restore=False)
            self._place_static_geoms()

    def _place_static_geoms(self) -> None:
        """Compute where the geoms are that cannot move: mujoco_warp does it once, for the same place in all worlds."""
        model, moves = self._model, self._model.body_weldid
        model.body_weldid = self._wp.ones_like(moves)
        try:
            self._mjw.kinematics(model, self._data)
        finally:
            model.body_weldid = moves

    def write(self, state: Mapping[str, Tensor], worlds: Tensor | None) -> None:
        """Reset the worlds, write qpos and qvel, and compute the derived fields."""
        self._widen("whose episodes ended there as failures (`Worlds.outgrown` would have said so before the reset)")
        rows = slice(None) if worlds is None else worlds.to(self.device)
        again = True
        while again:
            self._begun.zero_()
            self._begun[rows] = True
            self._begin()
            for name, value in state.items():
                self._views[name][rows] = value.to(self._views[name])
            self._forward()
            again = self._widen("at the start of episodes, which is computed again")
        # Derived fields of the other worlds stay those of their last step.
        for name, view in self._views.items():
            self.state[name][rows] = view[rows].to(torch.float64)

    def advance(self, action: Float[Tensor, "B A"], worlds: Tensor | None) -> Bool[Tensor, " B"]:
        """Take `frame_skip` physics steps in all worlds; return those that are invalid, or outgrew their buffers."""
        self._control.copy_(action)
        if self._look:
            self._steps_looked_at()
        else:
            # Warp's graphs have loops in them, which a graph of torch cannot hold.
            apart(self._steps)
        for name, view in self._views.items():
            self.state[name].copy_(view)
        largest = (torch.linalg.vector_norm(self.state[name], torch.inf, dim=1) for name in ("qpos", "qvel"))
        # A NaN is not below anything.
        valid = torch.maximum(*largest) < LARGEST_VALID
        return self._losses.worlds() | ~valid

    def push(self, forces: Float[Tensor, "B N 6"]) -> None:
        """Let forces act on the bodies in the next steps, until there are others or a reset."""
        self._forces.copy_(forces)

    def _steps_looked_at(self) -> None:
        """Take the physics steps, and again with more room as long as there was too little."""
        before = {name: self._wp.clone(getattr(self._data, name)) for name in CARRIED}
        self._steps()
        while self._widen("where the step is taken again"):
            for name, value in before.items():
                self._wp.copy(getattr(self._data, name), value)
            self._steps()

    # -- room ---------------------------------------------------------------------------------------------------------

    @property
    def room(self) -> dict[str, int]:
        """What there is room for in the buffers."""
        return self._room.plain()

    def widen(self) -> bool:
        """Tell whether the buffers have been too small since the worlds' last resets; then there is more room now."""
        return self._widen("whose episodes are played again")

    def _widen(self, consequence: str) -> bool:
        """Make more room, with a warning, where there was too little; tell whether there was.

        Args:
            consequence: what becomes of the worlds, for the warning.
        """
        fields, count = self._losses.found(self._room)
        if not fields:
            return False
        before, self._room = self._room, self._room.widened(fields, self._bound)
        warnings.warn(
            f"{self.family.full_name}: room for {before} a world was too little in {count} of {self.num_worlds} "
            f"worlds, {consequence}. Now there is room for {self._room}",
            RuntimeWarning,
            stacklevel=3,
        )
        self._allocate()
        return True
