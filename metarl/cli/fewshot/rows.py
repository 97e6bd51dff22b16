"""Rows of a result: a learner on the episodes of a manifest, at the end of `train` and in every `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from metarl.fewshot.loading import Trained
    from metarl.fewshot.manifest import Manifest
    from metarl.fewshot.summary import Row
    from metarl.files import Folder

EPISODES = 600
"""Test episodes, where no number is given."""
Policy = Literal["support", "transductive"] | None
"""Batch norm of a test; None is that of the training."""


def row_of(
    name: str,
    runs: Sequence[Trained],
    manifest: Manifest,
    policy: Policy = None,
    steps: int = 0,
) -> Row:
    """Test all training seeds of a learner.

    Args:
        name: of the learner.
        runs: its training seeds.
        manifest: the episodes.
        policy: batch norm.
        steps: inner steps of the curve; 0: no curve.
    """
    from metarl.fewshot.measure import measure
    from metarl.fewshot.summary import Row

    setting = runs[0].learner.setting
    return Row(
        learner=name,
        batch_norm=(policy or setting.batch_norm) if setting.backbone.norms else "none",
        own=policy is None,
        measured=tuple(
            measure(
                run.learner, run.source, manifest, batch_norm=policy, steps=steps, title=f"Testing {run.folder.name}"
            )
            for run in runs
        ),
        seeds=tuple(run.run.seed for run in runs),
        runs=tuple(str(run.folder) for run in runs),
        iterations=tuple(run.iteration for run in runs),
        checkpoints=tuple(run.checkpoint for run in runs),
    )


def write_manifest(manifest: Manifest, folder: Folder) -> str:
    """Write a manifest beside the results and return its path."""
    from metarl.fewshot import manifest as manifests
    from metarl.fewshot.summary import label

    return str(manifests.write_in(manifest, folder, f"episodes-{label(manifest).replace(' ', '-')}.manifest"))
