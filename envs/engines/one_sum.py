"""Sums by several threads in one order, without the sorting by which Warp brings it about.

Warp's deterministic mode writes down what every thread adds, sorts that and adds it up. In a loop of small kernels this
takes most of the time. Here are, for the kernels that robots spend their time in, others in which one thread adds up
what belongs together; and some kernels do not need the mode, since the order of their sums cannot be seen: there are no
more than two terms, or they are whole numbers. All other kernels of `mujoco_warp` run in Warp's mode.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, no_type_check

import mujoco
import numpy as np

from metarl.envs.engines.compiling import replaced

wp: Any = importlib.import_module("warp")
constraint: Any = importlib.import_module("mujoco_warp._src.constraint")
forward: Any = importlib.import_module("mujoco_warp._src.forward")
passive: Any = importlib.import_module("mujoco_warp._src.passive")
smooth: Any = importlib.import_module("mujoco_warp._src.smooth")
solver: Any = importlib.import_module("mujoco_warp._src.solver")
support: Any = importlib.import_module("mujoco_warp._src.support")

FEW = 2
"""So many terms have one sum, from zero on, in whatever order they are added."""
TENDONS = (
    (smooth, "_joint_tendon"),
    (smooth, "_tendon_armature"),
    (smooth, "_tendon_bias_coef"),
    (smooth, "_tendon_bias_qfrc"),
    (smooth, "_cfrc_ext_tendon_constraint"),
    (smooth, "_cfrc_ext_tendon_actuator"),
    (smooth, "_cfrc_ext_spatial_tendon"),
    (passive, "_spring_damper_tendon_passive"),
    (forward, "_tendon_actuator_force"),
)
"""Kernels that add up over joints, tendons and actuators, and have few terms where tendons are simple."""


def simple_tendons(model: mujoco.MjModel) -> bool:
    """Return whether tendons have two joints at most, and each of its own, and nothing acts on them beside."""
    tendons, joints = np.repeat(np.arange(model.ntendon), model.tendon_num), model.wrap_objid
    return bool(
        (model.wrap_type == mujoco.mjtWrap.mjWRAP_JOINT).all()
        and len(np.unique(joints)) == len(joints)
        and np.bincount(tendons, minlength=1).max() <= FEW
        and np.bincount(
            model.actuator_trnid[model.actuator_trntype == mujoco.mjtTrn.mjTRN_TENDON, 0], minlength=1
        ).max()
        <= FEW
        and not model.tendon_frictionloss.any()
        and not (model.eq_type == mujoco.mjtEq.mjEQ_TENDON).any()
    )


@contextmanager
def sums_in_order(m: Any, *, simple: bool) -> Iterator[None]:
    """Have `mujoco_warp` launch, for a while, these kernels in place of those in Warp's deterministic mode.

    Args:
        m: `mujoco_warp.Model`, whose option `deterministic` has `ATOMICS`.
        simple: from `simple_tendons`.
    """
    blocks = -(-m.nv_pad // m.block_dim.contact_jac_tiled)
    in_order: dict[Any, dict[str, Callable[..., Any]]] = {
        smooth: {"_transmission": _plain(smooth._transmission)},
        constraint: {},
        passive: {"_gravity_force": lambda _: gravity_force(int(m.nbody))},
        forward: {"_qfrc_actuator": lambda *_: actuator_force(int(m.nactuator), int(m.nv))},
        solver: {
            "_solve_init_jaref_kernel": _unsplit(solver._solve_init_jaref_kernel),
            "_linesearch_jv_fused_kernel": _unsplit(solver._linesearch_jv_fused_kernel),
            "_update_constraint_efc": _plain(solver._update_constraint_efc),
            "_update_constraint": _changes_sorted(solver._update_constraint),
            "_update_gradient_grad": lambda stable_fast, _: gradient(bool(stable_fast), int(m.nv)),
        },
    }
    if blocks <= FEW:
        in_order[constraint]["_efc_contact_jac_dense"] = _plain(constraint._efc_contact_jac_dense)
    if simple:
        for owner, name in TENDONS:
            in_order[owner][name] = _plain(getattr(owner, name))
    with ExitStack() as stack:
        for owner, kernels in in_order.items():
            stack.enter_context(replaced(owner, **kernels))
        yield


def _plain(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Return what makes a kernel as it is without Warp's mode."""
    return lambda *arguments: factory(*arguments[:-1], False)


def _unsplit(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Return what makes a kernel plain where one thread has a whole row of the Jacobian."""

    def make(is_sparse: bool, nv: int, dofs_per_thread: int, compact: bool, deterministic: bool) -> Any:
        split = not is_sparse and dofs_per_thread < nv
        return factory(is_sparse, nv, dofs_per_thread, compact, deterministic and split)

    return make


def _changes_sorted(update: Callable[..., None]) -> Callable[..., None]:
    """Return an update of the constraints' states that lists the rows whose states have changed in their order."""

    def updated(m: Any, d: Any, ctx: Any, track_changes: bool = False, stable_fast: bool = False) -> None:
        update(m, d, ctx, track_changes, stable_fast)
        if track_changes:
            wp.launch(_sorted, dim=d.nworld, inputs=[ctx.quad_changed_count], outputs=[ctx.quad_changed_ids])

    return updated


@wp.kernel(enable_backward=False)
@no_type_check
def _sorted(count: wp.array(dtype=wp.int32), numbers: wp.array2d(dtype=wp.int32)):
    world = wp.tid()
    for i in range(1, count[world]):
        number = numbers[world, i]
        place = wp.int32(i)
        while place > 0:
            before = numbers[world, place - 1]
            if before < number:
                break
            numbers[world, place] = before
            place -= 1
        numbers[world, place] = number


@functools.cache
def gradient(stable_fast: bool, nv: int) -> Any:
    """Return the kernel `_update_gradient_grad` with one thread of a world for the squared length of its gradient."""

    @wp.kernel(module="unique", enable_backward=False)
    @no_type_check
    def gradient_in_order(
        smooth: wp.array2d(dtype=float),
        constrained: wp.array2d(dtype=float),
        moved: wp.array2d(dtype=float),
        changed: wp.array(dtype=wp.int32),
        done: wp.array(dtype=bool),
        found: wp.array2d(dtype=float),
        square: wp.array(dtype=float),
    ):
        world, dof = wp.tid()
        if done[world]:
            return
        if wp.static(stable_fast) and changed[world] == 0:
            return
        found[world, dof] = moved[world, dof] - smooth[world, dof] - constrained[world, dof]
        if dof == 0:
            total = wp.float32(0.0)
            for i in range(wp.static(nv)):
                part = moved[world, i] - smooth[world, i] - constrained[world, i]
                total += part * part
            square[world] += total

    return gradient_in_order


@functools.cache
def actuator_force(actuators: int, nv: int) -> Any:
    """Return the kernel `_qfrc_actuator` with one thread for what a degree of freedom gets from all actuators."""

    @wp.kernel(module="unique", enable_backward=False)
    @no_type_check
    def actuator_force_in_order(
        length: wp.array2d(dtype=wp.int32),
        address: wp.array2d(dtype=wp.int32),
        column: wp.array2d(dtype=wp.int32),
        moment: wp.array2d(dtype=float),
        force: wp.array2d(dtype=float),
        found: wp.array2d(dtype=float),
    ):
        world, first = wp.tid()
        for dof in range(first, wp.static(nv), wp.static(actuators)):
            total = wp.float32(0.0)
            for actuator in range(wp.static(actuators)):
                start = address[world, actuator]
                for i in range(start, start + length[world, actuator]):
                    if column[world, i] == dof:
                        total += moment[world, i] * force[world, actuator]
            found[world, dof] += total

    return actuator_force_in_order


@functools.cache
def gravity_force(bodies: int) -> Any:
    """Return the kernel `_gravity_force` with one thread for what holds up a degree of freedom in all bodies."""

    @wp.kernel(module="unique", enable_backward=False)
    @no_type_check
    def gravity_force_in_order(
        gravity: wp.array(dtype=wp.vec3),
        parent: wp.array(dtype=wp.int32),
        root: wp.array(dtype=wp.int32),
        mass: wp.array2d(dtype=float),
        held: wp.array2d(dtype=float),
        dof_body: wp.array(dtype=wp.int32),
        ancestor: wp.array2d(dtype=wp.int32),
        place: wp.array2d(dtype=wp.vec3),
        centre: wp.array2d(dtype=wp.vec3),
        cdof: wp.array2d(dtype=wp.spatial_vector),
        found: wp.array2d(dtype=float),
    ):
        world, first, dof = wp.tid()
        if first > 0:
            return
        total = wp.float32(0.0)
        for body in range(1, wp.static(bodies)):
            share = held[world % held.shape[0], body]
            if share != 0.0:
                force = -gravity[world % gravity.shape[0]] * mass[world % mass.shape[0], body] * share
                jac, _ = support.jac_dof(
                    parent, root, dof_body, ancestor, centre, cdof, place[world, body], body, dof, world
                )
                total += wp.dot(jac, force)
        found[world, dof] += total

    return gravity_force_in_order
