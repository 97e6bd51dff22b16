"""Formats of a run: what its files held in earlier versions, and how they are brought up to the present one.

A run folder has a number of its own, which stands in config.yaml and in the header of every checkpoint (`format`). It
rises by one with every change of what these files hold, whatever the version of the package is; that is written beside
it for people to read. Files of an earlier format are converted while they are read, step by step, and written in the
present one when the run is resumed. Files of a later format are refused.

**One more change**: write a function that turns what the last format held into what the new one holds, and append it
to CONVERSIONS. A setting that did not exist gets the value with which a new version does what the old one did. Never
change or remove an entry: there are runs of every format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from metarl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What one file of a run holds, config.yaml or a checkpoint; a conversion changes the dicts in place."""

    run: dict[str, Any]
    """The run's settings by name; of a checkpoint those that a run keeps for life."""
    config: dict[str, Any]
    """Settings of the agent or learner, as plain data."""
    payload: dict[str, Any] | None = None
    """What a checkpoint holds: `agent` (its `state_dict`), `streams`, and the fields of `Standing`."""

    @property
    def trained(self) -> str:
        """Name of the agent or learner."""
        return str(self.run.get("agent", self.run.get("learner")))

    @property
    def few_shot(self) -> bool:
        """Whether it is a run of a few-shot learner."""
        return "learner" in self.run


Conversion = Callable[[Stored], None]


def _number(stored: Stored) -> None:
    """Convert 1 to 2: runs have a format number; before, every version refused the runs of all others."""


def _data_options(stored: Stored) -> None:
    """Convert 2 to 3: a data set has options of its own; before, there were none."""
    if stored.few_shot:
        stored.run["data_options"] = {}


def _sources(stored: Stored) -> None:
    """Convert 3 to 4: a run lists the files that it executes; before, its family had the path or module before it."""
    stored.run["sources"] = []
    source, _, name = str(stored.run.get("family", "")).rpartition(":")
    if source:
        file = source.endswith(".py")
        entry = {"role": "family", "module": "" if file else source, "path": "", "sha256": ""}
        stored.run["sources"].append({**entry, "given": source if file else ""})
        # Its folder is no part of what the run is.
        stored.run["family"] = f"{source.replace(chr(92), '/').rpartition('/')[2]}:{name}"


def _scale_of_observations(stored: Stored) -> None:
    """Convert 4 to 5: agents that take gradient steps scale observations; before, they saw them as they are."""
    if stored.trained in ("maml-trpo", "multitask", "oracle"):
        stored.config["scale_observations"] = False


def _freeze_backbone(stored: Stored) -> None:
    """Convert 5 to 6: weights of a backbone may stay as they are; before, all were trained."""
    if stored.few_shot:
        stored.run["freeze_backbone"] = False


def _layout(stored: Stored) -> None:
    """Convert 6 to 7: arrays have a layout; before, they were taken as they stood."""
    if stored.few_shot and "arrays" in [part.strip().partition("@")[0] for part in stored.run["data"].split("+")]:
        stored.run["data_options"] = {**stored.run["data_options"], "layout": "plain"}


def _encode_pictures(stored: Stored) -> None:
    """Convert 7 to 8: agents have an encoder of pictures; before, pixels were numbers as others."""
    if stored.trained in ("maml-trpo", "multitask", "oracle", "random", "rl2"):
        stored.config["encode_pictures"] = False


def _gpu_memory(stored: Stored) -> None:
    """Convert 8 to 9: agents have a budget of a GPU's memory; before, `chunk_steps` held there too."""
    if stored.trained in ("maml-trpo", "multitask", "oracle", "random"):
        stored.config["gpu_memory"] = 0


def _room(stored: Stored) -> None:
    """Convert 9 to 10: checkpoints have the room in the engine's buffers; before, every start measured it."""
    if stored.payload is not None:
        stored.payload["room"] = {}


def _deterministic(stored: Stored) -> None:
    """Convert 10 to 11: a run may be deterministic on a GPU; before, none was."""
    stored.run["deterministic"] = False


def _head(stored: Stored) -> None:
    """Convert 11 to 12: heads of rl2 may have layers and be shown observations; before, they were linear in memory."""
    if stored.trained == "rl2":
        stored.config.update(head=[], head_observations=False)


def _validation(stored: Stored) -> None:
    """Convert 12 to 13: agents may be validated, and their training may wait for that; before, none was."""
    if not stored.few_shot:
        stored.run.update(validation=0, patience=0)
    if stored.payload is not None:
        stored.payload.update(reference=[], waited=0)


def _center_rewards(stored: Stored) -> None:
    """Convert 13 to 14: rl2 may be shown rewards less their mean; before, it saw them in units of their size."""
    if stored.trained == "rl2":
        stored.config["center_rewards"] = False


def _rises(stored: Stored) -> None:
    """Convert 14 to 15: checkpoints tell whether the validation ever rose; what was not kept before counts as risen."""
    if stored.payload is not None:
        stored.payload["rises"] = int(bool(stored.payload.get("reference")))


def _minibatches_of(stored: Stored) -> None:
    """Convert 15 to 16: minibatches of PPO may be filled with steps of all trials; before, with whole trials."""
    if stored.trained in ("ppo", "rma", "teacher", "varibad"):
        stored.config["minibatches_of"] = "trials"


CONVERSIONS: tuple[Conversion, ...] = (
    _number,
    _data_options,
    _sources,
    _scale_of_observations,
    _freeze_backbone,
    _layout,
    _encode_pictures,
    _gpu_memory,
    _room,
    _deterministic,
    _head,
    _validation,
    _center_rewards,
    _rises,
    _minibatches_of,
)
"""The first one leads from format 1 to 2, and so on."""

FORMAT = 1 + len(CONVERSIONS)
"""The present one."""


def conversions_from(entries: Mapping[str, Any], where: object) -> tuple[Conversion, ...]:
    """Return what brings a file to the present format.

    Args:
        entries: of the file, with its `format`; format 1 had none.
        where: the file, for error texts.

    Raises:
        UserError: it is of a later format, or of none.
    """
    found = entries.get("format", 1)
    if type(found) is not int or found < 1:
        raise UserError(
            f"{where}: got the format {found!r}. Formats are numbers from 1 to {FORMAT}: correct the entry."
        )
    if found > FORMAT:
        raise UserError(
            f"{where} has the format {found} (metarl-suite {entries.get('version', '?')} wrote it), and this version "
            f"reads formats up to {FORMAT}. Install a newer metarl-suite."
        )
    return CONVERSIONS[found - 1 :]
