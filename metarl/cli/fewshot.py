"""`metarl fewshot`: supervised few-shot learning: train, evaluate, audit, list, show."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metarl.cli.options import BAD_INPUT, INTERRUPTED, Which, joined, parse
from metarl.errors import UserError, nearest
from metarl.run.settings import Device

if TYPE_CHECKING:
    from metarl.fewshot.episodes import Source
    from metarl.fewshot.evaluate import Row
    from metarl.fewshot.manifest import Manifest
    from metarl.fewshot.run import FewShotRun, Trained

EPISODES = 600
"""Test episodes, where no number is given."""
STEPS = 10
"""Inner steps of a curve, where no number is given and the learner takes no more by itself."""
LEAKS = 1
"""Exit code of an audit that found some."""

USAGE = """\
usage: metarl fewshot COMMAND [OPTIONS]

Train learners that learn new classes from a few items, and measure how well they do.

commands:
  train        train a learner on a data set, or go on with a run; ends with a test on held-out classes
  evaluate     test trained learners on the same episodes: accuracy, curves over inner steps, calibration
  audit        look for leaks between the splits of a data set, and in its episodes
  list         learners and data sets that exist; the options of a learner
  show         a contact sheet of a data set's images

examples:
  metarl fewshot train proto --data glyphs --way 5 --shot 1
  metarl fewshot evaluate runs/glyphs-proto-5way-1shot-seed0 --shot 1 5 --baseline
  metarl fewshot audit glyphs
"""


def fewshot_command(arguments: list[str]) -> int:
    """Run `metarl fewshot`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else BAD_INPUT
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        raise UserError(f"Unknown command 'fewshot {command}'.{nearest(command, COMMANDS)}")
    return COMMANDS[command](rest)


# -- train ------------------------------------------------------------------------------------------------------------

TRAIN = """\
Train a few-shot learner on a data set, and test it on held-out classes.

usage: metarl fewshot train LEARNER [OPTIONS]
       metarl fewshot train --resume RUN [--iterations N] [--checkpoint WHICH]

The run folder holds config.yaml, checkpoints, progress.csv and TensorBoard events. A run that was stopped or killed
goes on, bit for bit, with --resume. At every checkpoint the learner is tested on the same episodes of the validation
classes, where the data have such; the test at the end is of the best checkpoint then, else of the last one.

examples:
  metarl fewshot train proto --data glyphs --way 5 --shot 1
  metarl fewshot train maml --data omniglot --data-root data/omniglot --way 5 --shot 1 --inner-rate 0.4
  metarl fewshot train --resume runs/glyphs-proto-5way-1shot-seed0 --iterations 4000"""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What is trained on, and where the run is kept."""

    data: str = "glyphs"
    """Data, as NAME or NAME@VARIANT (see `metarl fewshot list`); several with + between them are a collection."""
    data_root: Path | None = None
    """Folder of the data, or the folder that holds it; the environment variable METARL_DATA if not given."""
    size: int = 0
    """Height and width that images are brought to; 0: the data's own."""
    way: int = 5
    """Classes of an episode."""
    shot: int = 1
    """Support items of each class; of the whole episode in regression."""
    query: int = 5
    """Query items of each class; of the whole episode in regression."""
    backbone: Literal["auto", "mlp", "conv4", "resnet12"] = "auto"
    """Network from items to features; auto is conv4 for images, else mlp."""
    width: int = 64
    """Channels of conv4; of the first block of resnet12."""
    hidden: tuple[int, ...] = (40, 40)
    """Units of the layers of mlp."""
    channels_last: bool = True
    """Memory layout of the convolutions, which is the faster one on CPUs."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: convolutions multiply in it, which is faster where a processor has it; the rest stays in float32."""
    batch_norm: Literal["support", "transductive", "running"] = "support"
    """What batch norm takes its statistics over: the support set alone; support and queries each over themselves, so
    that the queries of a test are seen together; or all of training."""
    validation: int = 200
    """Validation episodes at every checkpoint; 0: none."""
    test_episodes: int = EPISODES
    """Test episodes at the end; 0: no test."""
    seed: int = 0
    """Where all randomness comes from."""
    out: Path | None = None
    """Run folder, which must not exist yet; runs/DATA-LEARNER-Nway-Kshot-seedSEED if not given."""
    device: Device = "cpu"
    """Where the networks and the data live; auto is cuda where there is one."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    checkpoint_every: int = 200
    """Iterations from one checkpoint to the next."""
    log_every: int = 10
    """Iterations of a logged row, which has their means."""
    json: bool = False
    """Show progress as JSON lines, for scripts."""


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """Go on with a run. All other settings are those it was started with."""

    resume: Path
    """Run folder."""
    iterations: int | None = None
    """Iterations in the end; as many as it was last asked for if not given."""
    checkpoint: Which = "last"
    """Which checkpoint to go on from."""
    data_root: Path | None = None
    """Folder of the data, if elsewhere than before."""
    test_episodes: int = EPISODES
    """Test episodes at the end; 0: no test."""
    json: bool = False
    """Show progress as JSON lines, for scripts."""


def train_command(arguments: list[str]) -> int:
    """Run `metarl fewshot train`."""
    if any(argument.partition("=")[0] == "--resume" for argument in arguments):
        return _resume(parse(ResumeOptions, arguments, "metarl fewshot train", TRAIN))

    from metarl.fewshot.learners import LEARNERS, config_class

    if not arguments or arguments[0] in ("-h", "--help"):
        names = "\n".join(f"  {name:<10} {LEARNERS[name][2]}" for name in LEARNERS)
        print(f"{TRAIN}\n\nlearners (metarl fewshot train LEARNER --help lists the options):\n{names}")
        return 0 if arguments else BAD_INPUT
    name = arguments[0]
    if name.startswith("-"):
        raise UserError(f"Got '{name}' where a learner is needed first.{nearest(name, LEARNERS)}")
    combined = joined(run=TrainOptions, learner=config_class(name))
    description = f"{name}: {LEARNERS[name][2]}.\n\n{TRAIN}"
    options: Any = parse(combined, arguments[1:], f"metarl fewshot train {name}", description)
    return _train(name, options.run, options.learner)


def _train(name: str, options: TrainOptions, config: Any) -> int:
    from metarl.devices import resolve_device
    from metarl.fewshot.run import FewShotRun, open_data

    # Before the data are read, which may take a while.
    resolve_device(options.device)
    fields = {field.name for field in dataclasses.fields(FewShotRun)}
    given: dict[str, Any] = {key: value for key, value in vars(options).items() if key in fields}
    run = FewShotRun(learner=name, **given)
    source = open_data(run)
    size = f"{options.shot}shot" if source.outputs else f"{options.way}way-{options.shot}shot"
    data = re.sub(r"[^\w.+@-]+", "-", options.data).strip("-")
    folder = options.out or Path("runs") / f"{data}-{name}-{size}-seed{options.seed}"
    return _run(folder, run, source, config, config.iterations, None, options.test_episodes, json_lines=options.json)


def _resume(options: ResumeOptions) -> int:
    from metarl.fewshot.run import open_data, stored

    run, config, iterations = stored(options.resume, options.data_root)
    iterations = iterations if options.iterations is None else options.iterations
    test_episodes, json_lines = options.test_episodes, options.json
    source = open_data(run)
    return _run(
        options.resume, run, source, config, iterations, options.checkpoint, test_episodes, json_lines=json_lines
    )


def _run(
    folder: Path,
    run: FewShotRun,
    source: Source,
    config: Any,
    iterations: int,
    checkpoint: Which | None,
    test_episodes: int,
    *,
    json_lines: bool,
) -> int:
    """Train in a run folder, from a checkpoint where one is named, and test what was trained."""
    from metarl.devices import resolve_device
    from metarl.fewshot.run import train
    from metarl.ranks import join

    if test_episodes:
        try:
            source.episodes("test", [0], run.shape, 0)
        except UserError as error:
            raise UserError(f"{error} Or leave out the test at the end, by --test-episodes 0.") from error
    with join(resolve_device(run.device)) as ranks:
        trained = train(
            folder,
            run,
            source,
            config,
            iterations=iterations,
            resume=checkpoint is not None,
            checkpoint=checkpoint or "last",
            json=json_lines,
            ranks=ranks,
        )
    result = trained.result
    assert result is not None
    if result.interrupted or not ranks.first:
        if json_lines and ranks.first:
            print(json.dumps({"run": str(folder), **dataclasses.asdict(result)}))
        return INTERRUPTED if result.interrupted else 0
    found = _final_test(trained, test_episodes) if test_episodes else None
    if json_lines:
        print(json.dumps({"run": str(folder), **dataclasses.asdict(result), "test": found}))
    else:
        print(
            f"{'' if found is None else _in_words(found, trained)}"
            f"Run folder   {folder}\n"
            f"Evaluate     metarl fewshot evaluate {folder}{'' if source.outputs else ' --baseline --both'}\n"
            f"TensorBoard  tensorboard --logdir {folder}"
        )
    return 0


def _final_test(trained: Trained, episodes: int) -> dict[str, Any]:
    """Test at the run's way and shot, write the result into the run folder, and return it as plain data."""
    from metarl.devices import resolve_threads, torch_threads
    from metarl.fewshot import manifest as manifests
    from metarl.fewshot.evaluate import Test, summarise, write

    folder = trained.folder / "evaluation" / "test"
    manifest = manifests.make(trained.source, "test", episodes, trained.run.shape, 0)
    with torch_threads(resolve_threads(trained.run.threads)):
        rows = (_row(trained.run.learner, [trained], manifest, None, steps=0),)
    test = Test(manifest=manifest, file=_write_manifest(manifest, folder), rows=rows)
    summary = summarise([test], trained.source, 0)
    write([test], summary, folder)
    return {"measure": summary["measure"], **summary["tests"][0]}


def _in_words(found: dict[str, Any], trained: Trained) -> str:
    from metarl.fewshot.evaluate import figure

    row, classes = found["rows"][0], "tasks" if trained.source.outputs else "classes"
    value = figure(row, found["measure"]).replace("\\", "")
    return (
        f"Test         {found['measure']} {value}, 95% interval, {found['episodes']} episodes, held-out {classes}\n"
        f"             {found['label']}, batch norm {row['batch_norm']}, checkpoint {trained.checkpoint} "
        f"(iteration {trained.iteration})\n"
    )


# -- evaluate ---------------------------------------------------------------------------------------------------------

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
    checkpoint: Which | None = None
    """Which checkpoint of the runs; if not given the best one where there is one, else the last."""
    seed: int = 0
    """Of the episodes and of the bootstrap: the same seed gives the same episodes."""
    data_root: Path | None = None
    """Folder of the data, if elsewhere than in training."""
    out: Path | None = None
    """Folder for the results; RUN/evaluation/SPLIT of the first run if not given."""
    device: Device = "cpu"
    """Where networks and data live."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    json: bool = False
    """Print fewshot.json in place of the tables."""


def evaluate_command(arguments: list[str]) -> int:
    """Run `metarl fewshot evaluate`."""
    options = parse(EvaluateOptions, arguments, "metarl fewshot evaluate", EVALUATE)
    if not options.runs:
        raise UserError("Got no run to evaluate. Give a folder of `metarl fewshot train`.")
    if options.episodes < 2:
        raise UserError(f"Got --episodes {options.episodes}. An interval takes at least 2.")
    if options.steps is not None and options.steps < 0:
        raise UserError(f"Got --steps {options.steps}. It must be at least 0.")

    from metarl.devices import resolve_threads, torch_threads
    from metarl.fewshot.evaluate import PixelNeighbour, Row, Test, measure, summarise, table, table_of_steps, write

    groups = _load(options)
    first = groups[0][1][0]
    folder = options.out or options.runs[0] / "evaluation" / options.split
    # Better refused now than when everything has been computed.
    folder.mkdir(parents=True, exist_ok=True)
    tests = []
    with torch_threads(resolve_threads(options.threads)):
        for manifest in _manifests(options, first):
            rows = [
                _row(name, runs, manifest, policy, _steps(options, runs[0]))
                for name, runs in groups
                for policy in _policies(runs[0], both=options.both)
            ]
            if options.baseline:
                found = measure(PixelNeighbour(), first.source, manifest, title="Testing pixel-nn")
                # Its scores are distances: their softmax says nothing.
                found = dataclasses.replace(found, bins=None)
                rows.append(Row(learner="pixel-nn", batch_norm="-", own=True, measured=(found,)))
            tests.append(Test(manifest=manifest, file=_write_manifest(manifest, folder), rows=tuple(rows)))
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
        + f"Numbers      {folder / 'fewshot.csv'}\n"
        f"Summary      {folder / 'fewshot.json'}\n"
        f"TensorBoard  tensorboard --logdir {options.out or options.runs[0]}"
    )
    return 0


def _load(options: EvaluateOptions) -> list[tuple[str, list[Trained]]]:
    """Return trained runs by learner and settings: those of a group differ in their seeds only.

    Raises:
        UserError: a run is given twice, they are of several data sets, or one cannot be loaded.
    """
    from metarl.config import to_plain
    from metarl.fewshot.run import load
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
            data_root=options.data_root,
            device=options.device,
        )
        settings = lasting_settings(run.run) | _flat(to_plain(run.learner.config))
        for key in ("learner", "seed", "iterations"):
            settings.pop(key, None)
        loaded.append((run.run.learner, settings, run))
    return by_settings(loaded)


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Return nested settings with the names of the options."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value) if isinstance(value, dict) else {key: value}
    return flat


def _manifests(options: EvaluateOptions, first: Trained) -> list[Manifest]:
    """Return the episodes of all tests."""
    from metarl.fewshot import manifest as manifests
    from metarl.fewshot.episodes import EpisodeShape, MetaDatasetShape

    deciding = {"--meta-dataset": options.meta_dataset, "--manifest": options.manifest is not None}
    fixed = [name for name, given in deciding.items() if given]
    if len(fixed) > 1 or (fixed and (options.way or options.shot or options.query is not None)):
        raise UserError(f"Got {' and '.join(fixed)}, which decides on ways, shots and queries. Leave the others out.")
    if options.way and min(options.way) < 2:
        raise UserError(f"Got --way {min(options.way)}. Give at least 2: among fewer classes there is nothing to tell.")
    if options.manifest is not None:
        return [manifests.read(options.manifest, first.source)]
    run = first.run
    shapes: list[EpisodeShape | MetaDatasetShape] = [MetaDatasetShape()]
    if not options.meta_dataset:
        query = run.query if options.query is None else options.query
        sizes = product(dict.fromkeys(options.way or (run.way,)), dict.fromkeys(options.shot or (run.shot,)))
        shapes = [EpisodeShape(way=way, shot=shot, query=query) for way, shot in sizes]
    return [manifests.make(first.source, options.split, options.episodes, shape, options.seed) for shape in shapes]


def _policies(trained: Trained, *, both: bool) -> list[Literal["support", "transductive"] | None]:
    """Return the batch-norm policies of a test; None is that of the training."""
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


def _row(
    name: str,
    runs: Sequence[Trained],
    manifest: Manifest,
    policy: Literal["support", "transductive"] | None,
    steps: int,
) -> Row:
    """Test all training seeds of a learner."""
    from metarl.fewshot.evaluate import Row, measure

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


def _write_manifest(manifest: Manifest, folder: Path) -> str:
    """Write a manifest beside the results and return its path."""
    from metarl.fewshot import manifest as manifests
    from metarl.fewshot.evaluate import label

    path = folder / f"episodes-{label(manifest).replace(' ', '-')}.manifest"
    manifests.write(manifest, path)
    return str(path)


# -- audit ------------------------------------------------------------------------------------------------------------

AUDIT = """\
Look for leaks in a data set: classes, files or equal items in two splits, items both in support and query, wrong or
unpermuted labels. Exit code 1 if there are any.

examples:
  metarl fewshot audit glyphs
  metarl fewshot audit folder --data-root my-images --json"""


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """What is looked at."""

    data: tyro.conf.Positional[str]
    """Data, as NAME or NAME@VARIANT."""
    data_root: Path | None = None
    """Folder of the data, or the folder that holds it; the environment variable METARL_DATA if not given."""
    size: int = 0
    """Height and width that images are brought to; 0: the data's own."""
    episodes: int = 100
    """Episodes of every split that are looked at."""
    seed: int = 0
    """Of the episodes."""
    json: bool = False
    """Print JSON in place of a table."""


def audit_command(arguments: list[str]) -> int:
    """Run `metarl fewshot audit`."""
    options = parse(AuditOptions, arguments, "metarl fewshot audit", AUDIT)

    from metarl.fewshot.audit import audit
    from metarl.fewshot.data import load

    report = audit(
        load(options.data, options.data_root, size=options.size), episodes=options.episodes, seed=options.seed
    )
    if options.json:
        print(json.dumps(report.describe()))
        return 0 if report.ok else LEAKS
    console = Console()
    sizes = ", ".join(
        f"{name} {size['classes']:,} classes {size['items']:,} items" for name, size in report.splits.items()
    )
    console.print(f"{report.data}: {sizes}", highlight=False, markup=False)
    table = _table("check", "found", "")
    for finding in report.findings:
        verdict = "ok" if not finding.count else "[bold red]leak[/]" if finding.leak else "to know"
        table.add_row(escape(finding.check), f"{finding.count:,}", verdict)
    console.print(table, highlight=False)
    for finding in report.findings:
        for example in finding.examples:
            console.print(f"  {finding.check}: {example}", highlight=False, markup=False)
    console.print("No leaks." if report.ok else "There are leaks.", style="bold")
    return 0 if report.ok else LEAKS


# -- list -------------------------------------------------------------------------------------------------------------

LIST = """\
List learners and data sets; or the options of a learner, or the variants of a data set.

examples:
  metarl fewshot list
  metarl fewshot list maml
  metarl fewshot list omniglot
  metarl fewshot list --json"""


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """What is listed."""

    name: tyro.conf.Positional[str | None] = None
    """A learner or a data set, to be shown in detail."""
    json: bool = False
    """Print JSON in place of tables."""


def list_command(arguments: list[str]) -> int:
    """Run `metarl fewshot list`."""
    options = parse(ListOptions, arguments, "metarl fewshot list", LIST)

    from metarl.fewshot.data import DATA
    from metarl.fewshot.learners import LEARNERS

    if options.name is not None and options.name not in (*LEARNERS, *DATA):
        raise UserError(f"Unknown learner or data set '{options.name}'.{nearest(options.name, [*LEARNERS, *DATA])}")
    names = (*LEARNERS, *DATA) if options.name is None else (options.name,)
    learners = [_describe_learner(name) for name in names if name in LEARNERS]
    data = [_describe_data(name) for name in names if name in DATA]
    if options.json:
        print(json.dumps({"learners": learners, "data": data} if options.name is None else (learners or data)[0]))
        return 0
    console = Console()
    if options.name is None:
        for title, found in (("learner", learners), ("data", data)):
            table = _table(title, "what it is")
            for entry in found:
                table.add_row(f"[bold]{entry['name']}[/]", escape(entry["summary"]))
            console.print(table, highlight=False)
            console.print()
        console.print("More: metarl fewshot list NAME, metarl fewshot train LEARNER --help", style="dim")
        return 0
    found = (learners or data)[0]
    console.print(f"[bold]{found['name']}[/]: {escape(found['summary'])}", highlight=False)
    headers, rows = ("option", "default"), found.get("options", {}).items()
    if data:
        headers, rows = ("variant", "what it is"), found["variants"].items()
    table = _table(*headers)
    for key, value in rows:
        table.add_row(key if data else f"--{key.replace('_', '-')}", escape(str(value)))
    console.print(table, highlight=False)
    return 0


def _describe_learner(name: str) -> dict[str, Any]:
    from metarl.config import to_plain
    from metarl.fewshot.learners import LEARNERS, config_class

    return {"name": name, "summary": LEARNERS[name][2], "options": _flat(to_plain(config_class(name)()))}


def _describe_data(name: str) -> dict[str, Any]:
    from metarl.fewshot.data import DATA, variants

    return {"name": name, "summary": DATA[name][1], "variants": variants(name)}


# -- show -------------------------------------------------------------------------------------------------------------

SHOW = """\
Draw a contact sheet of a data set's images, a class a row.

examples:
  metarl fewshot show glyphs --out sheet.png
  metarl fewshot show omniglot --split train --classes 30 --out sheet.png"""


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """What is shown."""

    data: tyro.conf.Positional[str]
    """Data, as NAME or NAME@VARIANT."""
    out: Path
    """File for the picture, which ends in .png and must not exist yet."""
    split: Literal["test", "validation", "train"] = "test"
    """Which classes."""
    classes: int = 20
    """How many of them, at the most."""
    items: int = 20
    """How many items of each, at the most."""
    data_root: Path | None = None
    """Folder of the data, or the folder that holds it; the environment variable METARL_DATA if not given."""
    size: int = 0
    """Height and width that images are brought to; 0: the data's own."""


def show_command(arguments: list[str]) -> int:
    """Run `metarl fewshot show`."""
    options = parse(ShowOptions, arguments, "metarl fewshot show", SHOW)
    if options.out.suffix.lower() != ".png":
        raise UserError(f"Got --out {options.out}. Give a name that ends in .png.")
    if options.out.exists():
        raise UserError(f"{options.out} exists already. Choose another name.")

    from metarl.fewshot.classes import ClassData
    from metarl.fewshot.data import load
    from metarl.fewshot.sheet import sheet
    from metarl.files import write_atomically

    source = load(options.data, options.data_root, size=options.size)
    if not isinstance(source, ClassData):
        raise UserError(f"{source.name} has no images of its own. Show a data set of images.")
    content = sheet(source, options.split, options.classes, options.items)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out, content)
    print(options.out)
    return 0


def _table(*headers: str) -> Table:
    """Return an empty table without lines."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train_command,
    "evaluate": evaluate_command,
    "audit": audit_command,
    "list": list_command,
    "show": show_command,
}
