"""Loading what a run trained: the learner of one of its checkpoints, with the data."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metarl.arguments import checked
from metarl.config import from_plain, to_plain
from metarl.devices import resolve_device
from metarl.errors import UserError
from metarl.fewshot.episodes import Source
from metarl.fewshot.learners import config_class
from metarl.fewshot.parts.learner import FewShotLearner
from metarl.fewshot.run import FewShotRun, fitted, make_learner, on_device, open_data, trainable, with_backbone
from metarl.run.driver import TrainResult
from metarl.run.folder import RunFolder
from metarl.run.settings import Device
from metarl.seeding import Streams


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run with its learner."""

    folder: Path
    """The run folder."""
    run: FewShotRun
    """Its settings."""
    learner: FewShotLearner = field(repr=False)
    """As the checkpoint has it."""
    source: Source = field(repr=False)
    """The data."""
    checkpoint: str
    """Which checkpoint it is."""
    iteration: int
    """Iterations that it was trained for."""
    result: TrainResult | None = None
    """How training ended, where it was not just loaded."""


@checked
def load(
    folder: Path | str,
    which: str | None = None,
    *,
    source: Source | None = None,
    like: FewShotRun | None = None,
    backbone: Any = None,
    data_root: Path | str | None = None,
    device: Device = "cpu",
    trust: bool = False,
) -> Trained:
    """Return what a run trained.

    Args:
        folder: the run folder.
        which: the checkpoint: `best`, `last` or `previous`; if not given, the best one where there is one, else the
            last.
        source: the data, where they are open already.
        like: the run that they are of, which must have the same.
        backbone: the module, or the callable, that training was given in Python, or an address where that of the run
            is not found; weights are those of the checkpoint.
        data_root: where they lie now, if elsewhere than in training.
        device: where the learner is to live.
        trust: execute the file of its backbone though you did not make the run on this machine.

    Raises:
        UserError: there is no such run or checkpoint, it is of another kind, or the data or the backbone are others.
    """
    folder = Path(folder)
    run, plain = RunFolder(folder).settings(FewShotRun)
    run = replace(run, data_root=Path(data_root) if data_root else run.data_root, device=device)
    run = with_backbone(run, backbone, folder, trust=trust)
    if like is not None and _asked(like) != _asked(run):
        raise UserError(
            f"Got {folder} trained on {_described(run)}, and a run trained on {_described(like)}. "
            "Compare runs of one data set."
        )
    source = open_data(run) if source is None else source
    run = fitted(run, source)
    learner = make_learner(run, from_plain(config_class(run.learner), plain), source, Streams(run.seed))
    if which is None:
        which = "best" if os.path.lexists(RunFolder(folder).checkpoint("best")) else "last"
    iteration = RunFolder(folder).restore(run, which, trainable(learner)).iteration
    source = on_device(source, resolve_device(device))
    return Trained(folder=folder, run=run, learner=learner, source=source, checkpoint=which, iteration=iteration)


def _asked(run: FewShotRun) -> dict[str, Any]:
    return {"data": run.data, "size": run.size, **to_plain(run.data_options)}


def _described(run: FewShotRun) -> str:
    options = {**({"size": run.size} if run.size else {}), **run.data_options}
    return run.data + "".join(f" at --{key.replace('_', '-')} {value}" for key, value in options.items())
