"""Fingerprints: a hash of the first steps of every family, so that no task changes without anyone noticing.

Tasks of the train split, starts and actions of 4 worlds are drawn from fixed seeds. What is hashed, in float64: the
tasks; the first observations; then for 8 control steps the observation, every reward term, `terminated`, `truncated`
and `success`. `tests/fingerprints.json` pins the hash, and beside it what a reader can check: sizes, horizon, names of
the reward terms, parameter ranges.

Other processors round otherwise: the vector units that torch and the C library use differ in the last bits, and
contacts amplify that to 1e-14, at most about 1e-12, within 8 steps. So every number is rounded to a multiple of `GRID`.
A number may stand at the border between two multiples, so a second hash rounds on a grid shifted by a quarter of it,
whose borders are elsewhere. Two fingerprints are the same if either half agrees: a false alarm takes two such numbers,
one on each grid, which at 1e-12 has a chance of 1e-5 for a family. Changes below `GRID` are not noticed. Another
version of MuJoCo may compute other steps: the table names the one it was made with, and the tests ask for that one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mujoco
import torch
from torch import Tensor

from metarl.envs.family import Family, random_actions
from metarl.envs.making import make_worlds
from metarl.envs.registry import families, get
from metarl.errors import UserError
from metarl.files import write_atomically
from metarl.seeding import Streams

WORLDS, STEPS = 4, 8
GRID = 1e-6
"""What numbers are rounded to, in their own units."""
COMMAND = "metarl fingerprint --update"

Entry = dict[str, Any]
"""What is pinned of one family, as plain data."""


def fingerprint(family: Family) -> Entry:
    """Return what is pinned of one variant of a family."""
    values, terms = first_steps(family)
    return {
        "observations": family.observation_size,
        "actions": family.action_size,
        "horizon": family.horizon,
        "step_seconds": family.step_seconds,
        "terms": terms,
        "tasks": family.space.describe(),
        "first_steps": digest(values, family.full_name),
    }


def first_steps(family: Family) -> tuple[Tensor, list[str]]:
    """Return every number of the first steps in one row, and the names of the reward terms."""
    streams = Streams(0)
    worlds = make_worlds(family, WORLDS, threads=1, dtype=torch.float64)
    tasks = family.space.sample(WORLDS, "train", streams["tasks"])
    worlds.set_tasks(tasks)
    seen = [*tasks.values.values(), worlds.reset(streams["starts"])]
    terms: list[str] = []
    ended = torch.zeros(WORLDS, dtype=torch.bool)
    for _ in range(STEPS):
        step = worlds.step(random_actions(family, WORLDS, streams["actions"]))
        terms = list(step.terms)
        seen += [step.observation, *step.terms.values(), step.terminated, step.truncated]
        seen += [] if step.success is None else [step.success]
        ended |= step.terminated | step.truncated
        if bool(ended.all()):
            break
    return torch.cat([part.double().reshape(-1) for part in seen]), terms


def digest(values: Tensor, name: str) -> str:
    """Return the two hashes of a row of numbers, one for each grid.

    Raises:
        UserError: a number is not finite.
    """
    if not bool(values.isfinite().all()):
        raise UserError(f"got steps of {name} that are not finite: repair its physics, observation or reward")
    grids = [(values / GRID + shift).round().long() for shift in (0.0, 0.25)]
    return "-".join(hashlib.sha256(grid.numpy().astype("<i8").tobytes()).hexdigest()[:12] for grid in grids)


def fingerprints(names: Sequence[str] = ()) -> dict[str, Entry]:
    """Return entries by full name: of the families named (NAME: all its variants), or of all there are."""
    chosen: list[Family] = []
    for name in names or families():
        chosen += families().get(name) or [get(name)]
    return {family.full_name: fingerprint(family) for family in chosen}


def read(path: Path) -> dict[str, Entry]:
    """Return the entries of a table.

    Raises:
        UserError: it is no table, or was made with another version of MuJoCo.
    """
    try:
        table = json.loads(path.read_text())
        version, entries = table["mujoco"], table["families"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no table of fingerprints ({error}): remove it, then `{COMMAND} {path}`") from error
    if version != mujoco.__version__:
        raise UserError(
            f"{path} was made with MuJoCo {version}, this is {mujoco.__version__}, which may compute other steps: "
            f"install {version}, or remove the table and accept the steps of this version with `{COMMAND} {path}`"
        )
    return entries


def update(path: Path, found: Mapping[str, Entry]) -> None:
    """Write entries into a table, made where it is missing; those of families that are no more leave it."""
    known = [family.full_name for variants in families().values() for family in variants]
    entries = {**(read(path) if path.exists() else {}), **found}
    table = {"mujoco": mujoco.__version__, "families": {name: entries[name] for name in known if name in entries}}
    write_atomically(path, (json.dumps(table, indent=1) + "\n").encode())


def differences(pinned: Entry, found: Entry) -> list[str]:
    """Return what differs between a table's entry and the present one, in words."""
    told = []
    for key in dict.fromkeys((*pinned, *found)):
        before, now = pinned.get(key), found.get(key)
        if key == "first_steps" and set(str(before).split("-")) & set(str(now).split("-")):
            continue
        if before != now:
            told.append(f"{key} was {before}, is {now}")
    return told
