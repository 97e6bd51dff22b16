"""Whether a log and a family fit one another: before anything is simulated, and after."""

from __future__ import annotations

from typing import Any

import numpy as np

from metarl.envs import get
from metarl.envs.family import Family, MujocoFamily, TorchFamily
from metarl.envs.modifiers.names import split_name
from metarl.envs.modifiers.switching import SwitchSpace
from metarl.errors import UserError
from metarl.identification.log import Log
from metarl.identification.narrowing import NARROWED
from metarl.identification.summary import explained

SAME_TIME = 0.01
"""Part by which the times between two steps may differ."""
OVER = 1e-6
"""Part of their range by which actions may be out of it, for rounding."""
FITS, REFUSED = 0.9, 0.5
"""Explained part of the changes (median over observations) below which a warning is due, or a refusal."""


def check_log(log: Log, family: Family) -> None:
    """Refuse a log that is of another kind of system than a family, before anything is simulated.

    Raises:
        UserError: says what differs.
    """
    name = family.full_name
    if isinstance(family.space, SwitchSpace):
        raise UserError(f"{name} changes its task within a trial, which no log tells here. Leave +switch out.")
    if not isinstance(family, MujocoFamily | TorchFamily):
        raise UserError(f"{name} cannot be put into a state. Give a family on MuJoCo, or in torch.")
    own = _whole(split_name(log.family)[0], split_name(name)[0])
    if own.removesuffix(NARROWED) != split_name(name)[0].removesuffix(NARROWED):
        raise UserError(
            f"{log.where} is of the family {log.family}, and --family is {name}. Give --family {own}, with modifiers "
            "for what is unknown, or correct the log's `family`."
        )
    for what, size, right in (
        ("observations", log.observations.shape[1], family.observation_size),
        ("actions", log.actions.shape[1], family.action_size),
    ):
        if size != right:
            raise UserError(
                f"{log.where} has {what} of {size} numbers, and {name} has {right}. Give those of the family."
            )
    if abs(log.step_seconds / family.step_seconds - 1.0) > SAME_TIME:
        raise UserError(
            f"{log.where} has a step of {log.step_seconds:g} s, and {name} of {family.step_seconds:g} s. Record at the "
            "family's rate, or change its time step."
        )
    low, high = np.array(family.action_low), np.array(family.action_high)
    slack = OVER * (high - low)
    wrong = np.argwhere((log.actions < low - slack) | (log.actions > high + slack))
    if len(wrong):
        row, column = wrong[0]
        raise UserError(
            f"{log.where}: action {column} of step {row} is {log.actions[row, column]:g}, and {name} takes "
            f"{low[column]:g} to {high[column]:g} {family.action_unit}. Log what the system was given, in that unit."
        )


def _whole(own: str, asked: str) -> str:
    """Return a family's name with its variant, which is the usual one where none is said."""
    if "@" in own:
        return own
    try:
        return get(own).full_name
    except UserError:
        return f"{own}@{asked.partition('@')[2]}"


def one_task(log: Log, task: int | None) -> Log:
    """Return the episodes of one task.

    Raises:
        UserError: the log has several, and none was chosen; or there is no such task.
    """
    if not log.tasks:
        if task is not None:
            raise UserError(f"Got --task {task} for {log.where}, whose tasks are not known. Leave it out.")
        return log
    table = np.concatenate([value.reshape(len(log), -1) for value in log.tasks.values()], axis=1)
    _, first, numbers = np.unique(table, axis=0, return_index=True, return_inverse=True)
    # In the order in which they come.
    order = np.argsort(np.argsort(first))[numbers.reshape(-1)]
    count = len(first)
    if task is None and count > 1:
        raise UserError(f"{log.where} has episodes of {count} tasks. Give --task 0 to {count - 1}.")
    if task is not None and not 0 <= task < count:
        raise UserError(f"Got --task {task} for {log.where}, which has {count} tasks. Give 0 to {count - 1}.")
    return log.of(np.flatnonzero(order == (task or 0)))


def check_fit(log: Log, family: Family, rows: list[dict[str, Any]], *, anyway: bool) -> str:
    """Return a warning where simulations fit a log badly, or nothing.

    Raises:
        UserError: they do not fit it at all, and the result is not wanted anyway.
    """
    part = explained(rows)
    if part >= FITS:
        return ""
    worst = min(rows, key=lambda row: row["explained"]) if rows else {"name": "nothing moves", "explained": 0.0}
    text = (
        f"{log.where}: {family.full_name} explains {max(part, 0.0):.0%} of the changes in it at its best parameters "
        f"(least: {worst['name']}, {max(worst['explained'], 0.0):.0%})"
    )
    if part < REFUSED and not anyway:
        raise UserError(
            f"{text}, so it is of another system: check the family, the time between two steps, the units and the "
            "order of observations and actions, or see the result with --anyway."
        )
    return f"{text}: something of the system is not in the family, and intervals may be too narrow."
