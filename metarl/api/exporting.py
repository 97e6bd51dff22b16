"""Exporting trained agents from Python: what `metarl export` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metarl.api.runs import Run, load
from metarl.arguments import checked
from metarl.deployment.graph import available
from metarl.deployment.manifest import exported
from metarl.deployment.writing import check_place, write_policy
from metarl.errors import UserError, tell
from metarl.run.settings import Checkpoint

Onnx = Literal["auto", "yes", "no"]
INSTALL = "pip install 'metarl-suite[export]'"


@dataclass(frozen=True, kw_only=True)
class Export:
    """A policy in a folder, which runs without metarl: what `metarl.export` returns."""

    folder: Path
    """Where it is."""
    files: tuple[str, ...]
    """Names of its files."""


@checked
def export(
    run: Run | Path | str,
    out: Path | str,
    *,
    checkpoint: Checkpoint = "last",
    onnx: Onnx = "auto",
    trust: bool = False,
    source: Path | str | None = None,
) -> Export:
    """Write a trained agent as a folder that runs without metarl: weights, manifest, ONNX model, and a runtime.

    Args:
        run: a run, or its folder.
        out: the new folder. It is there as a whole or not at all.
        checkpoint: of a run that is given as a folder.
        onnx: whether there is to be a model.onnx; `auto`: where the onnx package is installed, and else a line says how
            to.
        trust: execute the files of the run's family though you did not make it on this machine.
        source: file or module that defines the family, where that is not found, or is to be another one.

    Raises:
        UserError: something that was given is wrong, the agent has learned nothing yet, or has a network that an
            exported policy cannot compute.
    """
    if onnx == "yes" and not available():
        raise UserError(f"Got --onnx yes, and the onnx package is not installed. Add it: {INSTALL}")
    out = Path(out)
    check_place(out)
    loaded = run if isinstance(run, Run) else load(run, checkpoint, trust=trust, source=source)
    if loaded.iteration == 0:
        raise UserError(f"{loaded.folder} was trained for 0 iterations, and has met nothing. Train it first.")
    training = {"seed": loaded.seed, "iterations": loaded.iteration, "checkpoint": loaded.checkpoint}
    with_onnx = onnx != "no" and available()
    files = write_policy(exported(loaded.agent, loaded.family, training), out, onnx=with_onnx)
    if onnx == "auto" and not with_onnx:
        tell(f"{out} has no model.onnx, since the onnx package is not installed: {INSTALL}, and export again")
    return Export(folder=out, files=tuple(files))
