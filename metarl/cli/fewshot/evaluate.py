"""`metarl fewshot evaluate`: test trained learners on the same episodes; tables, pictures and files of it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console

from metarl.cli.fewshot.by_option import by_option
from metarl.cli.fewshot.rows import EPISODES, Policy, row_of, write_manifest
from metarl.cli.options import parse
from metarl.config import MOST_STEPS, check_used
from metarl.errors import UserError
from metarl.run.settings import Checkpoint, Device

if TYPE_CHECKING:
    from metarl.fewshot.loading import Trained
    from metarl.fewshot.manifest import Manifest

STEPS = 10
"""Inner steps of a curve, where no number is given and the learner takes no more by itself."""

MOST_EPISODES = 10_000_000

EVALUATE = """\
Test trained learners on the same episodes of classes they were not trained on.

Runs of one learner that differ in nothing but their seed are its training seeds and make one row; the intervals are
then over episodes and seeds. All learners are compared with the first one, episode by episode. A learner that takes
inner steps (maml, reptile, imaml) gets a curve of its accuracy, or mean squared error, after 0, 1, ... of them.

Every result tells its batch norm: with --both, learners are also tested with the queries seen together
(transductive), or where they were trained so, without (support). The exact episodes are written as a manifest, whose
hash the results carry; --manifest tests on the episodes of one.

The result is written to RUN/evaluation/SPLIT of the first run, or to --out: fewshot.json, fewshot.csv (every episode),
steps-*.png, and TensorBoard events in a folder for each learner. It takes the place of an earlier result there.

examples:
  metarl fewshot evaluate runs/proto --baseline --both
  metarl fewshot evaluate runs/proto-seed0 runs/proto-seed1 runs/maml --out compare
  metarl fewshot evaluate runs/proto --way 5 20 --shot 1 5 --episodes 1000"""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What is tested, and on which episodes."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, of one learner or of several."""
    split: Literal["test", "validation", "train"] = "test"
    """Where the episodes are from."""
    episodes: int = EPISODES
    """How many."""
    way: tuple[int, ...] = ()
    """Classes of an episode, several numbers for several tests; those of the first run's training if not given."""
    shot: tuple[int, ...] = ()
    """Support items of each class, likewise."""
    query: int | None = None
    """Query items of each class, likewise."""
    meta_dataset: bool = False
    """Take episodes whose ways and shots vary, as Meta-Dataset draws them."""
    manifest: Path | None = None
    """Take the episodes of a file that an earlier test wrote."""
    both: bool = False
    """Test with two kinds of batch norm: that of the training, and transductive (or support)."""
    steps: int | None = None
    """Inner steps of the curve; if not given 10, or as many as a learner takes at test if these are more. 0: none."""
    baseline: bool = False
    """Show the pixel nearest neighbour too."""
    checkpoint: Checkpoint | None = None
    """Which checkpoint of the runs; if not given the best one where there is one, else the last."""
    seed: int = 0
    """Of the episodes and of the bootstrap: the same seed gives the same episodes."""
    data_root: Path | None = None
    """Folder of the data, if elsewhere than in training."""
    backbone: str | None = None
    """Address of the runs' own backbone, file.py:name, where that is not found."""
    trust: bool = False
    """Execute the file of a run's own backbone though you did not make the run on this machine: read it first."""
    out: Path | None = None
    """Folder for the results; RUN/evaluation/SPLIT of the first run if not given."""
    device: Device = "cpu"
    """Where networks and data live: cpu, cuda, a GPU by its number (cuda:1), or auto."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    json: bool = False
    """Print fewshot.json in place of the tables."""


def evaluate_command(arguments: list[str]) -> int:
    """Run `metarl fewshot evaluate`."""
    options = parse(EvaluateOptions, arguments, "metarl fewshot evaluate", EVALUATE)
    if not options.runs:
        raise UserError("Got no run to evaluate. Give a folder of `metarl fewshot train`.")
    if not 2 <= options.episodes <= MOST_EPISODES:
        got = f"Got --episodes {options.episodes}"
        raise UserError(f"{got}. An interval takes at least 2, and more than {MOST_EPISODES} would take years.")
    if not 0 <= (options.steps or 0) <= MOST_STEPS:
        raise UserError(f"Got --steps {options.steps}. It must be from 0 to {MOST_STEPS}.")

    from metarl.devices import resolve_threads, torch_threads
    from metarl.fewshot.measure import PixelNeighbour, measure
    from metarl.fewshot.report import table, table_of_steps, write
    from metarl.fewshot.summary import Row, Test, summarise
    from metarl.files import Folder
    from metarl.run.folder import RunFolder

    groups = _load(options)
    first = groups[0][1][0]
    tests = []
    with torch_threads(resolve_threads(options.threads)):
        manifests = _manifests(options, first)
        # Made now: better refused before everything has been computed.
        folder = (Folder(options.out) if options.out else RunFolder(options.runs[0]).results(options.split)).make()
        for manifest in manifests:
            rows = [
                row_of(name, runs, manifest, policy, _steps(options, runs[0]))
                for name, runs in groups
                for policy in _policies(runs[0], both=options.both)
            ]
            if options.baseline:
                found = measure(PixelNeighbour(), first.source, manifest, title="Testing pixel-nn")
                # Its scores are distances: their softmax says nothing.
                found = dataclasses.replace(found, bins=None)
                rows.append(Row(learner="pixel-nn", batch_norm="-", own=True, measured=(found,)))
            tests.append(Test(manifest=manifest, file=write_manifest(manifest, folder), rows=tuple(rows)))
    summary = summarise(tests, first.source, options.seed)
    pictures = write(tests, summary, folder)
    if options.json:
        print(json.dumps(summary))
        return 0
    console = Console()
    console.print(f"{summary['data']}: intervals are 95% bootstrap intervals", highlight=False, markup=False)
    for test in summary["tests"]:
        for part in (table(test, summary["measure"]), table_of_steps(test, summary["measure"])):
            if part is not None:
                console.print(part)
    print(
        "".join(f"Picture      {picture}\n" for picture in pictures)
        + "".join(f"Episodes     {test['manifest_file']} ({test['manifest'][:12]})\n" for test in summary["tests"])
        + f"Numbers      {folder.path / 'fewshot.csv'}\n"
        f"Summary      {folder.path / 'fewshot.json'}\n"
        f"TensorBoard  tensorboard --logdir {options.out or options.runs[0]}"
    )
    return 0


def _load(options: EvaluateOptions) -> list[tuple[str, list[Trained]]]:
    """Return trained runs by learner and settings: those of a group differ in their seeds only.

    Raises:
        UserError: a run is given twice, they are of several data sets, or one cannot be loaded.
    """
    from metarl.config import to_plain
    from metarl.fewshot.loading import load
    from metarl.run.settings import by_settings, lasting_settings

    if len({run.resolve() for run in options.runs}) < len(options.runs):
        raise UserError("Got a run twice, which would count as two training seeds. Give each run once.")
    loaded: list[tuple[str, dict[str, Any], Trained]] = []
    for folder in options.runs:
        first = loaded[0][2] if loaded else None
        run = load(
            folder,
            options.checkpoint,
            source=None if first is None else first.source,
            like=None if first is None else first.run,
            backbone=options.backbone,
            data_root=options.data_root,
            device=options.device,
            trust=options.trust,
        )
        settings = lasting_settings(run.run) | by_option(to_plain(run.learner.config))
        for key in ("learner", "seed", "iterations"):
            settings.pop(key, None)
        loaded.append((run.run.learner, settings, run))
    return by_settings(loaded)


def _manifests(options: EvaluateOptions, first: Trained) -> list[Manifest]:
    """Return the episodes of all tests."""
    from metarl.fewshot import manifest as manifests
    from metarl.fewshot.episodes import EpisodeShape, MetaDatasetShape
    from metarl.fewshot.room import check_tests

    deciding = {"--meta-dataset": options.meta_dataset, "--manifest": options.manifest is not None}
    fixed = [name for name, given in deciding.items() if given]
    if len(fixed) > 1 or (fixed and (options.way or options.shot or options.query is not None)):
        raise UserError(f"Got {' and '.join(fixed)}, which decides on ways, shots and queries. Leave the others out.")
    if options.way and min(options.way) < 2:
        raise UserError(f"Got --way {min(options.way)}. Give at least 2: among fewer classes there is nothing to tell.")
    if options.manifest is not None:
        check_used(options, dict.fromkeys(("split", "episodes"), "episodes that are drawn, no --manifest"))
        return [manifests.read(options.manifest, first.source)]
    run = first.run
    shapes: list[EpisodeShape | MetaDatasetShape] = [MetaDatasetShape()]
    if not options.meta_dataset:
        query = run.query if options.query is None else options.query
        sizes = product(dict.fromkeys(options.way or (run.way,)), dict.fromkeys(options.shot or (run.shot,)))
        shapes = [EpisodeShape(way=way, shot=shot, query=query) for way, shot in sizes]
    for shape in shapes:
        if isinstance(shape, EpisodeShape):
            check_tests(first.source, options.episodes, shape.way, shape.shot, shape.query)
    return [manifests.make(first.source, options.split, options.episodes, shape, options.seed) for shape in shapes]


def _policies(trained: Trained, *, both: bool) -> list[Policy]:
    """Return the batch-norm policies of a test."""
    own = trained.learner.setting.batch_norm
    if not both or not trained.learner.setting.backbone.norms:
        return [None]
    return [None, "support" if own == "transductive" else "transductive"]


def _steps(options: EvaluateOptions, trained: Trained) -> int:
    """Return the inner steps of the curve."""
    if options.steps is not None:
        return options.steps
    config = trained.learner.config
    return max(STEPS, getattr(config, "test_steps", 0), getattr(config, "inner_steps", 0))
